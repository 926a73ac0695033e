"""What is to be done about the versions of all models: which leave, which end, what each worker loads next. Pure.

One plan moves the states as far as they can go now and says what the workers are to do. A version leaves in three
steps: out of the catalogue; out of dispatch, once every frontend has acknowledged that (or a second has passed); out of
the workers, once its last request is answered.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.models import Host, LoadState, Model, Version, all_versions
from broker.policy import may_leave
from common.messages import VersionId
from common.states import VersionState

ACKNOWLEDGE_TIMEOUT_NS = 1_000_000_000
"""A frontend that does not acknowledge a catalogue for so long is not waited for; its late requests are Stale."""

NEVER = 1 << 62

MAX_ENDED = 256
"""Ended versions that a model goes on listing; beyond that the lowest are forgotten."""


@dataclass(frozen=True, slots=True)
class LoadCommand:
    """Have this worker load this version."""

    slot: str
    version: Version
    trial: bool


@dataclass(frozen=True, slots=True)
class UnloadCommand:
    """Have this worker forget this version."""

    slot: str
    version: Version


class Planner:
    """One plan. `acknowledged` is the oldest catalogue that a live frontend may still choose versions by."""

    def __init__(
        self,
        models: dict[str, Model],
        hosts: dict[str, Host],
        now: int,
        acknowledged: int,
        is_open: Callable[[VersionId], bool],
    ) -> None:
        self._models = models
        self._hosts = hosts
        self._now = now
        self._acknowledged = acknowledged
        self._is_open = is_open
        self.changed = False
        """Whether anything was moved, so that another plan may find more."""
        self.is_leaving = False
        """Whether something leaves, which others than the registry's events hold up."""
        self.wake = NEVER
        """When something that failed is to be tried again."""

    def run(self) -> list[LoadCommand | UnloadCommand]:
        """Move states, and say what the workers are to do."""
        for model in list(self._models.values()):
            self._retire(model)
            self._forget(model)
        commands: list[LoadCommand | UnloadCommand] = list(self._unloads())
        candidates: dict[str, list[Version]] = {}
        for version in all_versions(self._models):
            candidates.setdefault(version.device, []).append(version)
        for versions in candidates.values():
            versions.sort(key=_urgency)
        for slot, host in self._hosts.items():
            command = self._load(slot, host, candidates.get(host.device, []))
            if command is not None:
                commands.append(command)
        return commands

    # ---- leaving

    def _retire(self, model: Model) -> None:
        """START again what came back, take out what is not wanted, and end what has gone."""
        for version in list(model.versions.values()):
            if version.wanted:
                if version.state is VersionState.END:
                    version.start_again()
                    self.changed = True
                if version.state is VersionState.START and version.fetch_error:
                    self._move(version, VersionState.LOADING)
            elif not (model.known or model.removed):
                pass  # Whether it is wanted is not known yet.
            elif version.state is VersionState.START:
                self._move(version, VersionState.END)
            elif version.state is VersionState.LOADING or (
                version.state is VersionState.AVAILABLE and self._may_go(model, version)
            ):
                self._move(version, VersionState.UNLOADING)
            if version.state is VersionState.UNLOADING:
                self._leave(version)

    def _may_go(self, model: Model, version: Version) -> bool:
        """Make before break: whether a version that is served and not wanted any more may leave."""
        if model.removed:
            return True
        number = version.id.version
        rank = model.rank(version)
        others = [one for one in model.versions.values() if one.id.version == number and one is not version]
        if any(model.rank(one) > rank and self._is_made(one) for one in others):
            return True
        if any(one.wanted for one in others):
            return False
        wanted = list(model.wanted())
        made = frozenset(one.id.version for one in wanted if self._is_made(one))
        failing = frozenset(one.id.version for one in wanted if one.error is not None)
        return may_leave(frozenset(one.id.version for one in wanted), made, failing)

    def _is_made(self, version: Version) -> bool:
        """Available in at least one worker, and in every connected one of its pool that could load it."""
        if version.state is not VersionState.AVAILABLE:
            return False
        hosts = [
            slot
            for slot, host in self._hosts.items()
            if host.device == version.device and not host.trial and not host.draining
        ]
        settled = (LoadState.LOADED, LoadState.FAILED)
        return bool(serving_slots(version, self._hosts)) and all(
            version.loads.get(slot) in settled for slot in hosts
        )

    def _leave(self, version: Version) -> None:
        self.is_leaving = True
        if version.dispatchable and self._has_left(version.left_generation, version.left_at):
            version.dispatchable = False
            self.changed = True
        if not version.dispatchable and not version.is_in_workers and not self._is_open(version.id):
            version.end()
            self.changed = True

    def _has_left(self, generation: int, since: int) -> bool:
        """Whether no frontend chooses by a catalogue older than this one any more."""
        return generation > 0 and (
            self._acknowledged >= generation or self._now - since >= ACKNOWLEDGE_TIMEOUT_NS
        )

    def _forget(self, model: Model) -> None:
        """What has ended stays listed, unless there is a later revision of it, or too much else."""
        ended = [one for one in model.versions.values() if one.state is VersionState.END]
        if model.removed:
            if len(ended) == len(model.versions):
                self.is_leaving = True
                if self._has_left(model.left_generation, model.left_at):
                    del self._models[model.name]
                    self.changed = True
            return
        if not ended:
            return
        numbers = Counter(one.id.version for one in model.versions.values())
        for version in [one for one in ended if not model.is_current(one)]:
            if numbers[version.id.version] > 1:
                numbers[version.id.version] -= 1
                ended.remove(version)
                self._drop(model, version)
        gone = sorted((one for one in ended if one.id.version not in model.stored), key=lambda one: one.id)
        for version in gone[: max(0, len(ended) - MAX_ENDED)]:
            self._drop(model, version)

    def _drop(self, model: Model, version: Version) -> None:
        del model.versions[version.id.version, version.id.revision]
        self.changed = True

    # ---- workers

    def _unloads(self) -> Iterator[UnloadCommand]:
        for version in all_versions(self._models):
            if version.state is not VersionState.UNLOADING or version.dispatchable:
                continue
            for slot, state in version.loads.items():
                if state is LoadState.LOADED and slot in self._hosts and not self._is_open(version.id):
                    version.loads[slot] = LoadState.UNLOADING
                    self.changed = True
                    yield UnloadCommand(slot, version)

    def _load(self, slot: str, host: Host, candidates: list[Version]) -> LoadCommand | None:
        """The next version that this worker should load; one at a time."""
        if host.draining or any(one.loads.get(slot) is LoadState.LOADING for one in candidates):
            return None
        serves = any(one.loads.get(slot) is LoadState.LOADED for one in candidates)
        for version in candidates:
            state = version.loads.get(slot)
            if state not in (None, LoadState.FAILED) or not version.path or not self._is_needed(version):
                continue
            quarantined = version.load_deaths > 0
            if (quarantined or state is LoadState.FAILED) and self._now < version.retry_at:
                self.wake = min(self.wake, version.retry_at)
                continue
            if quarantined and serves and not host.trial:
                continue
            if host.trial and not quarantined:
                continue
            if version.state is VersionState.START:
                self._move(version, VersionState.LOADING)
            version.loads[slot] = LoadState.LOADING
            host.loading_since = self._now
            self.changed = True
            return LoadCommand(slot, version, quarantined)
        return None

    def _is_needed(self, version: Version) -> bool:
        """Wanted, or leaving with requests that are still to be answered (its worker may have died)."""
        if version.state in (VersionState.START, VersionState.LOADING):
            return version.wanted
        return version.state is VersionState.AVAILABLE or (
            version.state is VersionState.UNLOADING and self._is_open(version.id)
        )

    def _move(self, version: Version, state: VersionState) -> None:
        version.move(state)
        self.changed = True


def _urgency(version: Version) -> tuple[int, bool, int, bool]:
    """Lowest first. What kills its worker or fails waits for the rest: tried again and again, it must not starve it."""
    serves = version.state is VersionState.AVAILABLE
    return version.load_deaths, bool(version.reason), version.retry_at, not serves


def serving_slots(version: Version, hosts: dict[str, Host]) -> list[str]:
    """The workers that requests of a version may be given to."""
    return [
        slot
        for slot, state in version.loads.items()
        if state is LoadState.LOADED and slot in hosts and not hosts[slot].trial
    ]
