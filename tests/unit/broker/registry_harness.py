"""What the tests of the registry share: a registry with its surroundings reduced to a few variables.

After every event it is checked: no state follows another that the table does not allow, the records agree with each
other, and a registry that says it rests has nothing left to decide.
"""

import copy
import itertools
from collections.abc import Iterable, Mapping

from broker.models import TRANSITIONS, Changes, LoadState, Version
from broker.planning import LoadCommand, Planner, UnloadCommand
from broker.registry import Registry
from common.config import ModelConfig, VersionPolicy
from common.messages import LoadedVersion, ModelStatus, Snapshot, VersionId
from common.states import VersionState
from common.tensors import Signature, TensorSpec

START, LOADING, AVAILABLE, UNLOADING, END = VersionState
SECOND = 1_000_000_000
SIGNATURE = Signature((TensorSpec("x", "float32", (1,)),), ())
ALL = VersionPolicy("all")


def record(number: int, model: str = "m", revision: int = 0, notes: tuple[str, ...] = ()) -> LoadedVersion:
    return LoadedVersion(VersionId(model, number, revision), 1, SIGNATURE, notes)


def model(name: str = "m", policy: VersionPolicy | None = None, **options: object) -> ModelConfig:
    return ModelConfig(name, f"/{name}", version_policy=policy or VersionPolicy(), **options)  # type: ignore[arg-type]


def check(registry: Registry) -> None:
    """Raise AssertionError if the registry's records contradict each other."""
    loading: dict[str, VersionId] = {}
    for name, one in registry.models.items():
        assert one.name == name
        assert one.revision <= registry.last_revision
        for (number, revision), version in one.versions.items():
            assert version.id == VersionId(name, number, revision)
            story = [*version.history, version.state]
            for before, after in itertools.pairwise(story):
                assert after in TRANSITIONS[before], f"{version.id}: {before.name} → {after.name}"
            assert not version.wanted or one.is_current(version), f"{version.id} is wanted, but not current"
            assert version.state is not AVAILABLE or version.signature is not None
            assert version.state is not END or not version.loads
            accepted = version.dispatchable and version.state in (AVAILABLE, UNLOADING)
            assert registry.accepts(version.id) == accepted
            assert version.dispatchable or version.state in (UNLOADING, END)
            for slot, state in version.loads.items():
                assert slot in registry._hosts, f"{version.id} is in {slot}, which has gone"
                if state is LoadState.LOADING:
                    other = loading.setdefault(slot, version.id)
                    assert other == version.id, f"{slot} loads {other} and {version.id} at once"


class Harness:
    """Numbers stand for versions of the model `m` under its first configuration, unless a test says otherwise."""

    def __init__(
        self,
        policy: VersionPolicy | None = None,
        retry_ns: int | None = SECOND,
        models: tuple[str, ...] = ("m",),
        configs: tuple[ModelConfig, ...] = (),
    ) -> None:
        self.retry_ns = retry_ns
        self.configs = configs or tuple(model(name, policy) for name in models)
        self.registry = Registry(self.configs, retry_ns)
        self.now = SECOND
        self.generation = 1
        self.acknowledged = 1
        self.open: set[VersionId] = set()
        self._catalogue: tuple[ModelStatus, ...] = ()

    def restart(self) -> None:
        """A new broker, with what the old one wrote down."""
        old = self.registry
        configs = tuple(one.config for one in old.models.values() if not one.removed)
        self.registry = Registry(configs, self.retry_ns, awaited=False)
        self.registry.restore(old.remembered(), old.view.served, old.last_revision)
        check(self.registry)

    # ---- events

    def configure(self, *configs: ModelConfig) -> Changes:
        self.configs = configs
        changes = self.registry.configure(configs)
        check(self.registry)
        return changes

    def stored(
        self,
        *numbers: int,
        model: str = "m",
        error: str = "",
        failures: Mapping[int, str] | None = None,
        base: str = "",
    ) -> None:
        base = base or f"/{model}"
        self.say_stored({number: f"{base}/{number}" for number in numbers}, model, error, failures, base)

    def say_stored(
        self,
        paths: dict[int, str],
        model: str = "m",
        error: str = "",
        failures: Mapping[int, str] | None = None,
        base: str = "/m",
    ) -> None:
        self.registry.snapshot(Snapshot(model, paths, error, (), base, dict(failures or {})))
        check(self.registry)

    def join(
        self, slot: str = "w", *numbers: int, device: str = "CPU", trial: bool = False, revision: int = 0
    ) -> None:
        self.greet(slot, [record(number, revision=revision) for number in numbers], device, trial=trial)

    def greet(
        self, slot: str, records: Iterable[LoadedVersion], device: str = "CPU", *, trial: bool = False
    ) -> None:
        self.registry.worker_joined(slot, device, trial=trial, loaded=tuple(records))
        check(self.registry)

    def loaded_by_greeting(self, number: int, notes: tuple[str, ...], slot: str = "w") -> list[str]:
        """What is news of a version that a worker's Hello lists."""
        loaded = record(number, notes=notes)
        news = self.registry.worker_joined(slot, "CPU", trial=False, loaded=(loaded,))
        check(self.registry)
        return news[loaded.version]

    def loaded(
        self, number: int, slot: str = "w", revision: int = 0, notes: tuple[str, ...] = ()
    ) -> list[str]:
        news = self.registry.loaded(slot, record(number, "m", revision, notes))
        check(self.registry)
        return news

    def failed(self, number: int, slot: str = "w", reason: str = "no such layer", revision: int = 0) -> None:
        self.registry.load_failed(slot, VersionId("m", number, revision), reason, self.now)
        check(self.registry)

    def unloaded(self, number: int, slot: str = "w", revision: int = 0) -> None:
        self.registry.unloaded(slot, VersionId("m", number, revision))
        check(self.registry)

    def publish(self, *, acknowledge: bool = True) -> None:
        """As the core does it: the catalogue in force stays if its content is the same."""
        statuses = self.registry.view.statuses
        if statuses != self._catalogue:
            self._catalogue = statuses
            self.generation += 1
        self.registry.catalogue_made(self.generation, self.now)
        if acknowledge:
            self.acknowledged = self.generation

    # ---- decisions

    def orders(self) -> list[tuple[str, str, VersionId]]:
        """What is to be done: (load, trial or unload; worker; version)."""
        found = []
        for command in self.registry.plan(self.now, self.acknowledged, self.is_open):
            if isinstance(command, LoadCommand):
                kind = "trial" if command.trial else "load"
            else:
                assert isinstance(command, UnloadCommand)
                kind = "unload"
            found.append((kind, command.slot, command.version.id))
        check(self.registry)
        self._check_rest()
        return found

    def plan(self) -> list[tuple[str, str, int]]:
        """The same, of versions of which there is one revision only."""
        return [(kind, slot, id_.version) for kind, slot, id_ in self.orders()]

    def is_open(self, id_: VersionId) -> bool:
        return id_ in self.open

    def _check_rest(self) -> None:
        if self.registry.is_restless(self.now):
            return
        twin = copy.deepcopy(self.registry)
        planner = Planner(twin.models, twin._hosts, self.now, self.acknowledged, self.is_open)
        assert planner.run() == [], "it rests, and has something to do"
        assert not planner.changed, "it rests, and something is to be moved"

    # ---- facts

    def version(self, number: int, model: str = "m", revision: int = 0) -> Version:
        found = self.registry.find(VersionId(model, number, revision))
        assert found is not None
        return found

    def states(self, model: str = "m") -> dict[int, VersionState]:
        """Of the revision of each number that is shown."""
        return {number: one.state for number, one in self.registry.models[model].shown().items()}

    def revisions(self, model: str = "m") -> dict[tuple[int, int], VersionState]:
        return {key: one.state for key, one in self.registry.models[model].versions.items()}

    def is_ready(self) -> bool:
        return self.registry.view.is_ready

    def is_tried(self) -> bool:
        return self.registry.view.is_tried

    def serve(self, *numbers: int, slot: str = "w") -> None:
        """Have these stored and loaded in one worker."""
        self.stored(*numbers)
        self.join(slot)
        for _ in numbers:
            for kind, where, id_ in self.orders():
                assert kind == "load"
                self.loaded(id_.version, where, id_.revision)
        self.publish()
        assert self.plan() == []

    def flow(self, rounds: int = 12) -> list[tuple[str, str, VersionId]]:
        """Let everything be carried out and acknowledged; every load succeeds. What was ordered."""
        seen = []
        for _ in range(rounds):
            self.publish()
            for order in self.orders():
                seen.append(order)
                kind, slot, id_ = order
                if kind == "unload":
                    self.registry.unloaded(slot, id_)
                else:
                    self.registry.loaded(slot, record(id_.version, id_.model, id_.revision))
                check(self.registry)
            self.now += SECOND // 4
        return seen
