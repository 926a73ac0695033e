"""The registry: which models are configured, which versions exist, in which state, in which worker. Pure.

    configuration ─────┐                          ┌─▶ Load / Unload, at most one at a time a worker
    storage snapshots ─┼─▶ Registry ──plan()──────┤
    worker reports  ───┤                          └─▶ catalogue content (overview)
    acknowledgements ──┘

Every method is an event, and only notes; `plan` decides (planning.py), `view` says what it amounts to (overview.py).

A failed load stays LOADING with an error and is tried again after the poll interval. A version whose load kills its
worker is in quarantine: tried again only in a worker that serves nothing, with back-off.
"""

from collections.abc import Callable, Iterable

from broker.commands import ServedVersion, WantedModel
from broker.models import Changes, Host, LoadState, Model, Version, all_versions, needs_reload
from broker.overview import Overview
from broker.planning import NEVER, LoadCommand, Planner, UnloadCommand
from broker.policy import wanted_versions
from common.backoff import delay_ns
from common.config import ModelConfig
from common.messages import LoadedVersion, Snapshot, VersionId
from common.states import VersionState


class Registry:
    """All models."""

    def __init__(
        self, models: tuple[ModelConfig, ...], retry_ns: int | None, *, awaited: bool = True
    ) -> None:
        """`awaited`: the server is not ready before each of these models was tried."""
        self.models = {config.name: Model(config, awaited=awaited) for config in models}
        self.last_revision = 0
        self._hosts: dict[str, Host] = {}
        self._retry_ns = retry_ns
        """None: a failed load is not tried again (updates are switched off)."""
        self._view: Overview | None = None
        self._accepted: frozenset[VersionId] | None = None
        """What `accepts` says of the present state: it is asked for each request."""
        self._stirred = True
        """Whether anything has happened that no plan has seen."""
        self._is_leaving = False
        self._wake = NEVER

    @property
    def view(self) -> Overview:
        """What the present state amounts to; another object after every change."""
        if self._view is None:
            self._view = Overview(self.models, self._hosts)
        return self._view

    # ---- configuration

    def configure(self, models: Iterable[ModelConfig]) -> Changes:
        """Serve these models and no others from now on; what that changes."""
        new = {config.name: config for config in models}
        added, removed, reloaded, adjusted = [], [], [], []
        for name, config in new.items():
            model = self.models.get(name)
            if model is None or model.removed:
                added.append(name)
            elif needs_reload(model.config, config):
                reloaded.append(name)
            elif model.config != config:
                adjusted.append(name)
            if model is None:
                self.models[name] = Model(config, self._next_revision(), awaited=False)
            else:
                self._reconfigure(model, config)
        for name, model in self.models.items():
            if name not in new and not model.removed:
                removed.append(name)
                model.removed = True
                model.left_generation = 0
                self._choose(model)
        # Clients and operators see the models in the order of the configuration, those that leave last.
        leaving = [name for name in self.models if name not in new]
        self.models = {name: self.models[name] for name in [*new, *leaving]}
        self._touch()
        return Changes(tuple(added), tuple(removed), tuple(reloaded), tuple(adjusted))

    def _reconfigure(self, model: Model, config: ModelConfig) -> None:
        old, model.config, model.removed = model.config, config, False
        if needs_reload(old, config):
            model.revision = self._revision_for(model, config)
            model.own_revisions.clear()
        self._choose(model)

    def _revision_for(self, model: Model, config: ModelConfig) -> int:
        """A new one, unless what is served still is what is asked for again."""
        for version in model.versions.values():
            if version.state is VersionState.AVAILABLE and not needs_reload(version.config, config):
                return version.id.revision
        return self._next_revision()

    def _next_revision(self) -> int:
        self.last_revision += 1
        return self.last_revision

    # ---- storage

    def snapshot(self, snapshot: Snapshot) -> None:
        """What storage holds of a model now. One of another path than the model's is from before it was changed."""
        model = self.models.get(snapshot.model)
        if model is None or model.removed or snapshot.base_path != model.config.base_path:
            return
        self._touch()
        model.listed_path = snapshot.base_path
        model.listing_error = snapshot.error
        if snapshot.error:
            return
        model.known_path = snapshot.base_path
        model.stored, model.missing = dict(snapshot.versions), dict(snapshot.failures)
        self._choose(model)

    def _choose(self, model: Model) -> None:
        """Let the policy choose of what storage holds, by the present configuration."""
        numbers = model.stored.keys() | model.missing.keys() if model.known else frozenset()
        for number in sorted(numbers):
            self._note_stored(model, number)
        chosen = wanted_versions(model.config.version_policy, numbers)
        for version in model.versions.values():
            current = model.is_current(version)
            version.wanted = current and (version.id.version in chosen if model.known else version.wanted)
            if current:
                version.config = model.config

    def _note_stored(self, model: Model, number: int) -> None:
        version = self._current(model, number)
        path = model.stored.get(number, "")
        if path and version.path and path != version.path and version.state is not VersionState.END:
            if version.is_in_workers or version.state in (VersionState.AVAILABLE, VersionState.UNLOADING):
                # Other content under the same number: it is loaded beside what is there, which then leaves.
                model.own_revisions[number] = self._next_revision()
                version = self._current(model, number)
            version.retry_at = 0
        version.path = path or version.path
        version.fetch_error = model.missing.get(number, "")

    # ---- a successor of a dead broker

    def restore(
        self, models: Iterable[WantedModel], served: Iterable[ServedVersion], last_revision: int
    ) -> None:
        """What the last broker knew of models; what it served is still AVAILABLE, whoever has it loaded."""
        self.last_revision = max(self.last_revision, last_revision)
        for wanted in models:
            leaving = Model(wanted.config, removed=True, awaited=False)
            model = self.models.setdefault(wanted.config.name, leaving)
            model.revision = wanted.revision
            model.own_revisions = dict(wanted.own_revisions)
        for record in served:
            known = self.models.get(record.version.model)
            if known is None:
                continue
            version = Version(record.version, record.config, path=record.path, signature=record.signature)
            version.noted.update(record.notes)
            version.wanted = known.is_current(version)
            version.move(VersionState.AVAILABLE)
            if record.leaving:
                version.wanted = False
                version.move(VersionState.UNLOADING)
            known.versions[record.version.version, record.version.revision] = version
        self._touch()

    def remembered(self) -> tuple[WantedModel, ...]:
        """For a successor of this broker, beside what is served."""
        return tuple(
            WantedModel(model.config, model.revision, dict(model.own_revisions), model.removed)
            for model in self.models.values()
        )

    # ---- workers

    def worker_joined(
        self, slot: str, device: str, *, trial: bool, loaded: tuple[LoadedVersion, ...] = ()
    ) -> dict[VersionId, list[str]]:
        """A worker has said Hello; what it was loading is reported when that ends. Notes that are new, by version."""
        self._hosts[slot] = Host(device, trial)
        for version in all_versions(self.models):
            version.loads.pop(slot, None)
            version.notes.pop(slot, None)
        self._touch()
        return {record.version: self.loaded(slot, record) for record in loaded}

    def worker_loading(self, slot: str, id_: VersionId, now: int) -> None:
        """A worker that has joined is in the middle of this load."""
        version = self._found(slot, id_)
        version.loads[slot] = LoadState.LOADING
        self._hosts[slot].loading_since = now
        if version.state is VersionState.END:
            version.start_again()
        if version.state is VersionState.START:
            version.move(VersionState.LOADING)
        self._touch()

    def drain(self, slot: str) -> None:
        """A worker is about to be stopped."""
        if slot in self._hosts:
            self._hosts[slot].draining = True
            self._touch()

    def worker_lost(self, slot: str, now: int, *, deliberate: bool = False) -> list[Version]:
        """A worker has ended; the versions that it was loading, which are in quarantine from now on.

        `deliberate`: it was being stopped, which says nothing about what it was loading.
        """
        self._hosts.pop(slot, None)
        blamed = []
        for version in all_versions(self.models):
            version.notes.pop(slot, None)
            if version.loads.pop(slot, None) is LoadState.LOADING and not deliberate:
                version.load_deaths += 1
                version.retry_at = now + delay_ns(version.load_deaths)
                if version.state is VersionState.LOADING:
                    version.reason = (
                        f"the worker ended while loading it ({version.load_deaths} times in a row)"
                    )
                blamed.append(version)
        self._touch()
        return blamed

    def device_fails(self, device: str, reason: str) -> list[Version]:
        """No worker of a device comes up: the versions that waited for one and have no other reason yet."""
        waiting = [
            version
            for version in all_versions(self.models)
            if version.device == device
            and version.wanted
            and not version.trouble
            and version.state in (VersionState.START, VersionState.LOADING)
        ]
        for version in waiting:
            version.reason = reason
            if version.state is VersionState.START:
                version.move(VersionState.LOADING)
            self._touch()
        return waiting

    def loaded(self, slot: str, record: LoadedVersion) -> list[str]:
        """A worker can run a version; what is to be said of it for the first time."""
        version = self._found(slot, record.version)
        version.loads[slot] = LoadState.LOADED
        version.signature = record.signature
        version.reason = ""
        version.load_deaths = 0
        host = self._hosts[slot]
        host.loading_since = 0
        self._touch()
        if host.trial:
            return []
        version.notes[slot] = record.notes
        if version.state is VersionState.END:
            # Found in a worker by a new broker that knew from storage only that it is not wanted.
            version.start_again()
        if version.state in (VersionState.START, VersionState.LOADING):
            self._can_serve(version)
        news = [note for note in record.notes if note not in version.noted]
        version.noted.update(news)
        return news

    def _can_serve(self, version: Version) -> None:
        if not self.models[version.id.model].removed:
            version.move(VersionState.AVAILABLE)
            return
        # Of a model that is not configured any more: it must not be seen to serve again.
        if version.state is VersionState.START:
            version.move(VersionState.LOADING)
        version.move(VersionState.UNLOADING)

    def load_failed(self, slot: str, id_: VersionId, reason: str, now: int) -> None:
        """A worker could not load a version, and lives."""
        self._hosts[slot].loading_since = 0
        version = self.find(id_)
        if version is None:
            return
        version.loads[slot] = LoadState.FAILED
        version.load_deaths = 0
        version.reason = reason
        version.retry_at = now + self._retry_ns if self._retry_ns is not None else NEVER
        self._touch()

    def unloaded(self, slot: str, id_: VersionId) -> None:
        """A worker has forgotten a version."""
        version = self.find(id_)
        if version is not None:
            version.loads.pop(slot, None)
            version.notes.pop(slot, None)
            self._touch()

    # ---- decisions

    def catalogue_made(self, generation: int, now: int) -> None:
        """The catalogue of this generation, the last one that was made, lacks every version that is UNLOADING."""
        if not self.is_restless(now):
            return
        for model in self.models.values():
            for version in model.versions.values():
                if version.state is VersionState.UNLOADING and not version.left_generation:
                    version.left_generation, version.left_at = generation, now
                    self._stirred = True
            ended = all(one.state is VersionState.END for one in model.versions.values())
            if model.removed and ended and not model.left_generation:
                model.left_generation, model.left_at = generation, now
                self._stirred = True

    def plan(
        self, now: int, acknowledged: int, is_open: Callable[[VersionId], bool]
    ) -> list[LoadCommand | UnloadCommand]:
        """Move states as far as they can go, and say what the workers are to do.

        `acknowledged` is the oldest generation that a live frontend may still choose versions by.
        """
        if not self.is_restless(now):
            return []
        self._stirred = False
        planner = Planner(self.models, self._hosts, now, acknowledged, is_open)
        commands = planner.run()
        self._is_leaving, self._wake = planner.is_leaving, planner.wake
        if planner.changed:
            self._touch()
        for model in self.models.values():
            model.awaited = model.awaited and not model.is_tried()
        return commands

    def is_restless(self, now: int) -> bool:
        """Whether `plan` may have something to decide."""
        return self._stirred or self._is_leaving or now >= self._wake

    # ---- facts

    def find(self, id_: VersionId) -> Version | None:
        """The version of that name, if it was ever seen."""
        model = self.models.get(id_.model)
        return None if model is None else model.versions.get((id_.version, id_.revision))

    def accepts(self, id_: VersionId) -> bool:
        """Whether requests for the version may be queued."""
        accepted = self._accepted
        if accepted is None:
            open_ = (VersionState.AVAILABLE, VersionState.UNLOADING)
            accepted = self._accepted = frozenset(
                one.id for one in all_versions(self.models) if one.dispatchable and one.state in open_
            )
        return id_ in accepted

    def is_loading(self) -> bool:
        """Whether any worker loads a version now."""
        return any(host.loading_since for host in self._hosts.values())

    def overdue_loads(self, now: int, limit_ns: int) -> list[str]:
        """Workers that have been loading one version for `limit_ns`."""
        return [
            slot
            for slot, host in self._hosts.items()
            if host.loading_since and now - host.loading_since >= limit_ns
        ]

    # ---- bookkeeping

    def _touch(self) -> None:
        self._stirred = True
        self._view = self._accepted = None

    def _current(self, model: Model, number: int) -> Version:
        """The present revision of a version, which need not have been seen before."""
        revision = model.revision_of(number)
        found = model.versions.get((number, revision))
        if found is None:
            found = Version(VersionId(model.name, number, revision), model.config)
            model.versions[number, revision] = found
        return found

    def _found(self, slot: str, id_: VersionId) -> Version:
        """A version that a worker has: one that nobody here knows any more is to leave it."""
        model = self.models.get(id_.model)
        device = self._hosts[slot].device
        if model is None:
            stranger = ModelConfig(id_.model, "", target_device=device)
            model = self.models[id_.model] = Model(stranger, -1, removed=True, awaited=False)
        key = id_.version, id_.revision
        if key not in model.versions:
            config = model.config
            if id_.revision != model.revision_of(id_.version) or config.target_device != device:
                config = ModelConfig(id_.model, "", target_device=device)
            model.versions[key] = Version(id_, config)
        return model.versions[key]
