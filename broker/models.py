"""The registry: which versions exist, in which state each is, and which worker has it loaded. Pure.

    storage snapshots ─┐                          ┌─▶ Load / Unload, at most one at a time a worker
    worker reports  ───┼─▶ Registry ──plan()──────┤
    acknowledgements ──┘                          └─▶ catalogue content

    START ─▶ LOADING ─▶ AVAILABLE ─▶ UNLOADING ─▶ END ─▶ START (seen again)

A failed load stays LOADING with an error and is tried again after the poll interval. A version whose load kills its
worker is in quarantine: tried again only in a worker that serves nothing, with back-off. A version leaves in three
steps: out of the catalogue; out of dispatch, once every frontend has acknowledged that (or a second has passed); out of
the workers, once its last request is answered.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from broker.policy import may_leave, wanted_versions
from common.backoff import delay_ns
from common.config import ModelConfig
from common.errors import Code, WireError
from common.messages import LoadedVersion, ModelStatus, Snapshot, VersionId, VersionStatus
from common.states import VersionState
from common.tensors import Signature

ACKNOWLEDGE_TIMEOUT_NS = 1_000_000_000
"""A frontend that does not acknowledge a catalogue for so long is not waited for; its late requests are Stale."""

LOAD_ERROR_TEXT = "Error occurred while loading version"

TRANSITIONS: dict[VersionState, frozenset[VersionState]] = {
    VersionState.START: frozenset({VersionState.LOADING, VersionState.AVAILABLE, VersionState.END}),
    VersionState.LOADING: frozenset({VersionState.AVAILABLE, VersionState.UNLOADING}),
    VersionState.AVAILABLE: frozenset({VersionState.UNLOADING}),
    VersionState.UNLOADING: frozenset({VersionState.END}),
    VersionState.END: frozenset({VersionState.START}),
}
"""START to AVAILABLE directly: a new broker finds a version loaded already."""


class LoadState(Enum):
    """Of a version in one worker."""

    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"
    UNLOADING = "unloading"


@dataclass(slots=True, eq=False)
class Version:
    """A version that storage or a worker has shown."""

    id: VersionId
    state: VersionState = VersionState.START
    path: str = ""
    wanted: bool = False
    reason: str = ""
    """Of the last failed load; empty after a successful one."""
    signature: Signature | None = None
    loads: dict[str, LoadState] = field(default_factory=dict)
    retry_at: int = 0
    load_deaths: int = 0
    """Workers that died while loading it, since it last could be loaded."""
    left_generation: int = 0
    """First catalogue without it; 0 before that one is made."""
    left_at: int = 0
    dispatchable: bool = True
    history: list[VersionState] = field(default_factory=list)

    def move(self, state: VersionState) -> None:
        """The one writer of `state`. Raises AssertionError, with the version's story, for what cannot happen."""
        story = " → ".join(one.name for one in [*self.history, self.state])
        assert state in TRANSITIONS[self.state], f"{self.id}: {story} → {state.name}"
        self.history = [*self.history[-7:], self.state]
        self.state = state

    @property
    def error(self) -> WireError | None:
        """As GetModelStatus shows it."""
        if not self.reason or self.state is VersionState.AVAILABLE:
            return None
        return WireError(Code.UNKNOWN, f"{LOAD_ERROR_TEXT}: {self.reason}")


@dataclass(slots=True, eq=False)
class Model:
    """A configured model."""

    config: ModelConfig
    versions: dict[int, Version] = field(default_factory=dict)
    listed: bool = False
    """Whether storage was listed at least once, with or without success."""
    listing_error: str = ""
    known: bool = False
    """Whether a listing has succeeded, so that it is known which versions are not wanted."""


@dataclass(frozen=True, slots=True)
class LoadCommand:
    """Have this worker load this version."""

    slot: str
    version: Version
    model: Model
    trial: bool


@dataclass(frozen=True, slots=True)
class UnloadCommand:
    """Have this worker forget this version."""

    slot: str
    version: Version


@dataclass(slots=True, eq=False)
class _Host:
    """A connected worker as the registry sees it."""

    device: str
    trial: bool
    loading_since: int = 0
    draining: bool = False
    """Loads nothing new, and is not waited for: it is about to be stopped."""


class Registry:
    """All models. Every method is an event; `plan` decides."""

    def __init__(self, models: tuple[ModelConfig, ...], retry_ns: int | None) -> None:
        self.models = {config.name: Model(config) for config in models}
        self._hosts: dict[str, _Host] = {}
        self._retry_ns = retry_ns
        """None: a failed load is not tried again (updates are switched off)."""

    # ---- events

    def snapshot(self, snapshot: Snapshot) -> None:
        """What storage holds of a model now."""
        model = self.models.get(snapshot.model)
        if model is None:
            return
        model.listed = True
        model.listing_error = snapshot.error
        if snapshot.error:
            return
        model.known = True
        wanted = wanted_versions(model.config.version_policy, snapshot.versions)
        for number, path in snapshot.versions.items():
            version = self._version(VersionId(model.config.name, number))
            version.path = path
        for number, version in model.versions.items():
            version.wanted = number in wanted

    def restore(self, served: tuple[LoadedVersion, ...]) -> None:
        """What the last broker served: still AVAILABLE, whoever has it loaded."""
        for record in served:
            if record.version.model in self.models:
                version = self._version(record.version)
                version.wanted = True
                version.signature = record.signature
                if version.state is VersionState.START:
                    version.move(VersionState.AVAILABLE)

    def worker_joined(
        self, slot: str, device: str, *, trial: bool, loaded: tuple[LoadedVersion, ...] = ()
    ) -> None:
        """A worker has said Hello; what it was loading is reported when that ends."""
        self._hosts[slot] = _Host(device, trial)
        for version in self._all():
            version.loads.pop(slot, None)
        for record in loaded:
            if record.version.model in self.models:
                self.loaded(slot, record)

    def worker_loading(self, slot: str, id_: VersionId, now: int) -> None:
        """A worker that has joined is in the middle of this load."""
        version = self._version(id_)
        version.loads[slot] = LoadState.LOADING
        self._hosts[slot].loading_since = now
        if version.state is VersionState.END:
            self._start_again(version)
        if version.state is VersionState.START:
            version.move(VersionState.LOADING)

    def drain(self, slot: str) -> None:
        """A worker is about to be stopped."""
        if slot in self._hosts:
            self._hosts[slot].draining = True

    def worker_lost(self, slot: str, now: int, *, deliberate: bool = False) -> list[Version]:
        """A worker has ended; the versions that it was loading, which are in quarantine from now on.

        `deliberate`: it was being stopped, which says nothing about what it was loading.
        """
        self._hosts.pop(slot, None)
        blamed = []
        for version in self._all():
            if version.loads.pop(slot, None) is LoadState.LOADING and not deliberate:
                version.load_deaths += 1
                version.retry_at = now + delay_ns(version.load_deaths)
                if version.state is VersionState.LOADING:
                    version.reason = (
                        f"the worker ended while loading it ({version.load_deaths} times in a row)"
                    )
                blamed.append(version)
        return blamed

    def loaded(self, slot: str, record: LoadedVersion) -> None:
        """A worker can run a version."""
        version = self._version(record.version)
        version.loads[slot] = LoadState.LOADED
        version.signature = record.signature
        version.reason = ""
        version.load_deaths = 0
        host = self._hosts[slot]
        host.loading_since = 0
        if host.trial:
            return
        if version.state is VersionState.END:
            # Found in a worker by a new broker that knew from storage only that it is not wanted.
            self._start_again(version)
        if version.state in (VersionState.START, VersionState.LOADING):
            version.move(VersionState.AVAILABLE)

    def load_failed(self, slot: str, id_: VersionId, reason: str, now: int) -> None:
        """A worker could not load a version, and lives."""
        version = self._version(id_)
        version.loads[slot] = LoadState.FAILED
        version.load_deaths = 0
        version.reason = reason
        version.retry_at = now + self._retry_ns if self._retry_ns is not None else 1 << 62
        self._hosts[slot].loading_since = 0

    def unloaded(self, slot: str, id_: VersionId) -> None:
        """A worker has forgotten a version."""
        self._version(id_).loads.pop(slot, None)

    def catalogue_made(self, generation: int, now: int) -> None:
        """The catalogue of this generation lacks every version that is UNLOADING."""
        for version in self._all():
            if version.state is VersionState.UNLOADING and not version.left_generation:
                version.left_generation = generation
                version.left_at = now

    # ---- decisions

    def plan(
        self, now: int, acknowledged: int, is_open: Callable[[VersionId], bool]
    ) -> list[LoadCommand | UnloadCommand]:
        """Move states as far as they can go, and say what the workers are to do.

        `acknowledged` is the oldest generation that a live frontend may still choose versions by.
        """
        for model in self.models.values():
            if model.known:
                self._retire(model, now, acknowledged, is_open)
        commands: list[LoadCommand | UnloadCommand] = []
        for slot, host in self._hosts.items():
            commands.extend(self._plan_unloads(slot, is_open))
            command = self._plan_load(slot, host, now, is_open)
            if command is not None:
                commands.append(command)
        return commands

    def _retire(
        self, model: Model, now: int, acknowledged: int, is_open: Callable[[VersionId], bool]
    ) -> None:
        """START again what came back, take out what is not wanted, and end what has gone."""
        versions = model.versions
        wanted = frozenset(number for number, one in versions.items() if one.wanted)
        loaded = frozenset(number for number in wanted if self._loaded_everywhere(versions[number]))
        failing = frozenset(number for number in wanted if versions[number].error is not None)
        free_to_leave = may_leave(wanted, loaded, failing)
        for version in versions.values():
            if version.state is VersionState.END and version.wanted:
                self._start_again(version)
            if version.wanted or version.state is VersionState.END:
                if version.state is not VersionState.UNLOADING:
                    continue
            elif version.state is VersionState.START:
                version.move(VersionState.END)
            elif version.state is VersionState.LOADING or (
                version.state is VersionState.AVAILABLE and free_to_leave
            ):
                version.move(VersionState.UNLOADING)
            if version.state is VersionState.UNLOADING:
                self._leave(version, now, acknowledged, is_open)

    def _leave(
        self, version: Version, now: int, acknowledged: int, is_open: Callable[[VersionId], bool]
    ) -> None:
        if version.left_generation and (
            acknowledged >= version.left_generation or now - version.left_at >= ACKNOWLEDGE_TIMEOUT_NS
        ):
            version.dispatchable = False
        busy = any(state is not LoadState.FAILED for state in version.loads.values())
        if not version.dispatchable and not busy and not is_open(version.id):
            version.move(VersionState.END)
            version.loads.clear()
            version.reason = ""

    @staticmethod
    def _start_again(version: Version) -> None:
        version.move(VersionState.START)
        version.dispatchable = True
        version.left_generation = 0
        version.retry_at = 0
        version.load_deaths = 0

    def _plan_unloads(self, slot: str, is_open: Callable[[VersionId], bool]) -> Iterator[UnloadCommand]:
        for version in self._all():
            gone = version.state is VersionState.UNLOADING and not version.dispatchable
            if gone and version.loads.get(slot) is LoadState.LOADED and not is_open(version.id):
                version.loads[slot] = LoadState.UNLOADING
                yield UnloadCommand(slot, version)

    def _plan_load(
        self, slot: str, host: _Host, now: int, is_open: Callable[[VersionId], bool]
    ) -> LoadCommand | None:
        """The next version that this worker should load; one at a time."""
        candidates = [version for version in self._all() if self._device(version) == host.device]
        if host.draining or any(one.loads.get(slot) is LoadState.LOADING for one in candidates):
            return None
        serves = any(one.loads.get(slot) is LoadState.LOADED for one in candidates)
        for version in sorted(candidates, key=lambda one: one.load_deaths):
            state = version.loads.get(slot)
            if state is not None and not (state is LoadState.FAILED and now >= version.retry_at):
                continue
            if not self._is_needed(version, is_open) or not version.path:
                continue
            quarantined = version.load_deaths > 0
            if quarantined and (now < version.retry_at or (serves and not host.trial)):
                continue
            if host.trial and not quarantined:
                continue
            if version.state is VersionState.START:
                version.move(VersionState.LOADING)
            version.loads[slot] = LoadState.LOADING
            host.loading_since = now
            return LoadCommand(slot, version, self.models[version.id.model], trial=quarantined)
        return None

    def _is_needed(self, version: Version, is_open: Callable[[VersionId], bool]) -> bool:
        """Wanted, or leaving with requests that are still to be answered (its worker may have died)."""
        if version.state in (VersionState.START, VersionState.LOADING):
            return version.wanted
        return version.state is VersionState.AVAILABLE or (
            version.state is VersionState.UNLOADING and is_open(version.id)
        )

    # ---- facts

    def find(self, id_: VersionId) -> Version | None:
        """The version of that name, if it was ever seen."""
        model = self.models.get(id_.model)
        return None if model is None else model.versions.get(id_.version)

    def accepts(self, id_: VersionId) -> bool:
        """Whether requests for the version may be queued."""
        version = self.find(id_)
        return (
            version is not None
            and version.dispatchable
            and version.state in (VersionState.AVAILABLE, VersionState.UNLOADING)
        )

    def statuses(self) -> tuple[ModelStatus, ...]:
        """The content of a catalogue."""
        return tuple(
            ModelStatus(
                name,
                tuple(
                    VersionStatus(
                        number,
                        int(version.state),
                        version.error,
                        version.signature,
                        version.state is VersionState.AVAILABLE,
                    )
                    for number, version in sorted(model.versions.items())
                ),
            )
            for name, model in self.models.items()
        )

    def served(self) -> tuple[LoadedVersion, ...]:
        """What a successor of this broker must take to be AVAILABLE."""
        return tuple(
            LoadedVersion(version.id, self.models[version.id.model].config.nireq, version.signature)
            for version in self._all()
            if version.state is VersionState.AVAILABLE and version.signature is not None
        )

    def is_ready(self) -> bool:
        """Whether something is served, and each served version, and a wanted one of each model, has a live worker."""
        available = [version for version in self._all() if version.state is VersionState.AVAILABLE]
        alive = all(self._serving_slots(version) for version in available)
        answered = all(
            any(one.state is VersionState.AVAILABLE for one in model.versions.values())
            for model in self.models.values()
            if any(one.wanted for one in model.versions.values())
        )
        return bool(available) and alive and answered

    def serves_all(self, slot: str) -> bool:
        """Whether a worker has loaded everything of its device that is AVAILABLE, and at least one version."""
        host = self._hosts.get(slot)
        if host is None:
            return False
        available = [
            version
            for version in self._all()
            if version.state is VersionState.AVAILABLE and self._device(version) == host.device
        ]
        return bool(available) and all(one.loads.get(slot) is LoadState.LOADED for one in available)

    def needs_trial(self, device: str, now: int) -> bool:
        """Whether a version in quarantine waits for a worker that serves nothing, and every worker serves something."""
        hosts = [slot for slot, host in self._hosts.items() if host.device == device and not host.trial]
        waiting = any(
            version.load_deaths
            and now >= version.retry_at
            and version.wanted
            and any(slot not in version.loads for slot in hosts)
            for version in self._all()
            if self._device(version) == device
        )
        return waiting and bool(hosts) and all(self._loaded_in(slot) for slot in hosts)

    def in_quarantine(self, device: str) -> bool:
        """Whether any wanted version of the device has killed its worker while loading."""
        return any(
            version.load_deaths and version.wanted
            for version in self._all()
            if self._device(version) == device
        )

    def overdue_loads(self, now: int, limit_ns: int) -> list[str]:
        """Workers that have been loading one version for `limit_ns`."""
        return [
            slot
            for slot, host in self._hosts.items()
            if host.loading_since and now - host.loading_since >= limit_ns
        ]

    def is_tried(self) -> bool:
        """Whether every model was listed, and each wanted version loaded or failed at least once."""
        return all(
            model.listed
            and all(
                one.state is VersionState.AVAILABLE or bool(one.reason)
                for one in model.versions.values()
                if one.wanted
            )
            for model in self.models.values()
        )

    def hopeless(self) -> str:
        """Why nothing can be served, when that is so: no model is servable or waiting to appear. Else empty."""
        reasons = []
        for name, model in self.models.items():
            failing = [one for one in model.versions.values() if one.wanted and one.reason]
            if model.listing_error:
                reasons.append(f"model {name}: {model.listing_error}")
            elif failing:
                reasons.extend(f"model {name} version {one.id.version}: {one.reason}" for one in failing)
            else:
                return ""
            if any(one.state is VersionState.AVAILABLE for one in model.versions.values()):
                return ""
        return "; ".join(reasons)

    def _serving_slots(self, version: Version) -> list[str]:
        return [
            slot
            for slot, state in version.loads.items()
            if state is LoadState.LOADED and slot in self._hosts and not self._hosts[slot].trial
        ]

    def _loaded_in(self, slot: str) -> bool:
        return any(version.loads.get(slot) is LoadState.LOADED for version in self._all())

    def _loaded_everywhere(self, version: Version) -> bool:
        """In at least one worker, and in every connected one of its pool that could load it."""
        hosts = [
            slot
            for slot, host in self._hosts.items()
            if host.device == self._device(version) and not host.trial and not host.draining
        ]
        settled = (LoadState.LOADED, LoadState.FAILED)
        return bool(self._serving_slots(version)) and all(
            version.loads.get(slot) in settled for slot in hosts
        )

    def _device(self, version: Version) -> str:
        return self.models[version.id.model].config.target_device

    def _all(self) -> Iterator[Version]:
        for model in self.models.values():
            yield from model.versions.values()

    def _version(self, id_: VersionId) -> Version:
        versions = self.models[id_.model].versions
        if id_.version not in versions:
            versions[id_.version] = Version(id_)
        return versions[id_.version]
