"""broker.registry in any order of events: what it promises whatever storage, workers and operators do.

A served version is never unloaded before its successor is there; no worker is told to load what it has; in the end
everything wanted is loaded or reported as failing, and everything else is gone.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.models import LoadState, Model, Version
from common.config import ModelConfig, VersionPolicy
from common.messages import LoadedVersion, VersionId
from tests.unit.broker.registry_harness import (
    ALL,
    AVAILABLE,
    END,
    LOADING,
    SECOND,
    SIGNATURE,
    Harness,
    check,
    record,
)

NAMES = ("m", "n")
DEVICES = ("CPU", "GPU")
BASES = ("/a", "/b")
numbers = st.sets(st.integers(1, 4))
policies = st.sampled_from(
    [VersionPolicy(), VersionPolicy("latest", 2), ALL, VersionPolicy("specific", versions=(1, 3))]
)
picks = st.integers(0, 99)


def configs_of(names: st.SearchStrategy[set[str]]) -> st.SearchStrategy[tuple[ModelConfig, ...]]:
    """Configurations of some models: policy, device, path and one option that loading depends on."""
    return names.flatmap(
        lambda chosen: st.tuples(
            *(
                st.builds(
                    ModelConfig,
                    name=st.just(name),
                    base_path=st.sampled_from(BASES),
                    nireq=st.integers(1, 2),
                    target_device=st.sampled_from(DEVICES),
                    version_policy=policies,
                )
                for name in sorted(chosen)
            )
        )
    )


class Serving(RuleBasedStateMachine):
    """Storage, workers, frontends and operators do what they like; the registry has to keep its promises."""

    @initialize(configs=configs_of(st.just(set(NAMES))))
    def start(self, configs: tuple[ModelConfig, ...]) -> None:
        self.h = Harness(configs=configs)
        self.stored: dict[str, set[int]] = {base: set() for base in BASES}
        self.edition: dict[tuple[str, int], int] = {}
        """How often the content of a version in storage has changed."""
        self.unfetched: set[tuple[str, int]] = set()
        self.workers: dict[str, dict[VersionId, str]] = {}
        self.births = 0
        self.unheard: set[str] = set()
        """Workers that have not greeted the present broker yet."""
        self.bad: set[VersionId] = set()
        """Versions that fail to load from now on."""

    # ---- what is so

    def versions(self) -> list[Version]:
        return [one for model in self.h.registry.models.values() for one in model.versions.values()]

    def device_of(self, slot: str) -> str:
        return slot.split("-")[0]

    def is_trial(self, slot: str) -> bool:
        return slot.endswith("-t")

    # ---- storage

    @rule(base=st.sampled_from(BASES), held=numbers)
    def storage_changes(self, base: str, held: set[int]) -> None:
        self.stored[base] = held
        self.tell_storage(base)

    @rule(base=st.sampled_from(BASES), number=st.integers(1, 4))
    def content_changes(self, base: str, number: int) -> None:
        self.edition[base, number] = self.edition.get((base, number), 0) + 1
        self.tell_storage(base)

    @rule(base=st.sampled_from(BASES), number=st.integers(1, 4))
    def fetching_fails_or_works_again(self, base: str, number: int) -> None:
        self.unfetched ^= {(base, number)}
        self.tell_storage(base)

    def tell_storage(self, base: str) -> None:
        for name in NAMES:
            paths, failures = {}, {}
            for number in self.stored[base]:
                if (base, number) in self.unfetched:
                    failures[number] = "connection refused"
                else:
                    paths[number] = f"{base}/{number}.{self.edition.get((base, number), 0)}"
            self.h.say_stored(paths, name, failures=failures, base=base)

    @rule(base=st.sampled_from(BASES), name=st.sampled_from(NAMES))
    def listing_fails(self, base: str, name: str) -> None:
        self.h.say_stored({}, name, error="disk", base=base)

    # ---- the operator

    @rule(configs=configs_of(st.sets(st.sampled_from(NAMES))))
    def configuration_changes(self, configs: tuple[ModelConfig, ...]) -> None:
        self.h.configure(*configs)

    # ---- workers

    @rule(device=st.sampled_from(DEVICES), trial=st.booleans())
    def worker_joins(self, device: str, trial: bool) -> None:
        if len(self.workers) < 4:
            self.births += 1
            slot = f"{device}-{self.births}{'-t' if trial else ''}"
            self.workers[slot] = {}
            self.greet(slot)

    @precondition(lambda self: self.workers)
    @rule(index=picks, deliberate=st.booleans())
    def worker_dies(self, index: int, deliberate: bool) -> None:
        slot = sorted(self.workers)[index % len(self.workers)]
        del self.workers[slot]
        self.unheard.discard(slot)
        self.h.registry.worker_lost(slot, self.h.now, deliberate=deliberate)

    @precondition(lambda self: self.workers)
    @rule(index=picks)
    def worker_greets_anew(self, index: int) -> None:
        self.greet(sorted(self.workers)[index % len(self.workers)])

    def greet(self, slot: str) -> None:
        self.unheard.discard(slot)
        state = self.workers[slot]
        loaded = [LoadedVersion(id_, 1, SIGNATURE) for id_, one in state.items() if one == "loaded"]
        self.h.greet(slot, loaded, self.device_of(slot), trial=self.is_trial(slot))
        for id_, one in state.items():
            if one == "loading":
                self.h.registry.worker_loading(slot, id_, self.h.now)

    @rule(index=picks, fails=st.booleans())
    def load_ends(self, index: int, fails: bool) -> None:
        loading = sorted(
            (slot, id_) for slot, state in self.workers.items() for id_ in state if state[id_] == "loading"
        )
        if loading:
            self.end_load(*loading[index % len(loading)], fails=fails)

    def end_load(self, slot: str, id_: VersionId, *, fails: bool) -> None:
        if fails:
            del self.workers[slot][id_]
        else:
            self.workers[slot][id_] = "loaded"
        if slot in self.unheard:
            return
        if fails:
            self.h.registry.load_failed(slot, id_, "no such layer", self.h.now)
        else:
            self.h.registry.loaded(slot, record(id_.version, id_.model, id_.revision))

    # ---- frontends, the broker, the clock

    @rule(index=picks)
    def request_comes(self, index: int) -> None:
        accepted = sorted(one.id for one in self.versions() if self.h.registry.accepts(one.id))
        if accepted:
            self.h.open.add(accepted[index % len(accepted)])

    @rule()
    def requests_are_answered(self) -> None:
        self.h.open.clear()

    @rule(acknowledge=st.booleans())
    def catalogue(self, acknowledge: bool) -> None:
        self.h.publish(acknowledge=acknowledge)

    @rule()
    def broker_restarts(self) -> None:
        """The successor knows what was written down, and the rest from storage and workers, in any order."""
        self.h.restart()
        self.h.open = {id_ for id_ in self.h.open if self.h.registry.find(id_) is not None}
        self.unheard = set(self.workers)

    @rule(ns=st.sampled_from([1, SECOND // 2, 2 * SECOND, 20 * SECOND]))
    def time_passes(self, ns: int) -> None:
        self.h.now += ns

    @rule()
    def plan(self) -> None:
        served = {one.id: one for one in self.versions() if one.state is AVAILABLE}
        for kind, slot, id_ in self.h.orders():
            self.carry_out(kind, slot, id_)
        for id_, version in served.items():
            if version.state is not AVAILABLE:
                self.check_relieved(id_)

    def carry_out(self, kind: str, slot: str, id_: VersionId) -> None:
        state = self.workers[slot]
        if kind == "unload":
            assert state[id_] == "loaded", "unloaded without having it"
            assert id_ not in self.h.open, "unloaded under its requests"
            version = self.h.registry.find(id_)
            assert version is not None
            assert version.state is not AVAILABLE
            del state[id_]
            self.h.registry.unloaded(slot, id_)
            return
        assert id_ not in state, "loaded twice in one worker"
        assert "loading" not in state.values(), "two loads at a time in one worker"
        assert kind == "trial" or not self.is_trial(slot), "a trial worker is for trials"
        version = self.h.registry.find(id_)
        assert version is not None
        assert version.device == self.device_of(slot), "on a worker of another device"
        state[id_] = "loading"

    def check_relieved(self, id_: VersionId) -> None:
        """A version has stopped being served: the policy must not have left its model without one."""
        model = self.h.registry.models.get(id_.model)
        if model is None or model.removed:
            return
        wanted = list(model.wanted())
        if not wanted:
            return
        assert any(one.state is AVAILABLE for one in model.versions.values()), "broken before made"
        same = [one for one in wanted if one.id.version == id_.version]
        for successor in same:
            others = [one for one in model.versions.values() if one.id.version == id_.version]
            assert any(one.state is AVAILABLE for one in others), f"{id_} left before {successor.id} came"

    # ---- what must hold

    @invariant()
    def the_records_agree(self) -> None:
        if hasattr(self, "h"):
            check(self.h.registry)

    @invariant()
    def ready_is_not_said_in_vain(self) -> None:
        if not hasattr(self, "h") or not self.h.registry.view.is_ready:
            return
        for version in self.versions():
            if version.state is AVAILABLE:
                assert any(
                    state.get(version.id) == "loaded" and not self.is_trial(slot)
                    for slot, state in self.workers.items()
                )

    @invariant()
    def what_the_registry_thinks_of_a_worker_is_so(self) -> None:
        if not hasattr(self, "h"):
            return
        names = {LoadState.LOADING: "loading", LoadState.LOADED: "loaded"}
        for version in self.versions():
            for slot, state in version.loads.items():
                if state in names:
                    assert self.workers[slot].get(version.id) == names[state]

    @rule(index=picks)
    def a_version_goes_bad(self, index: int) -> None:
        """It fails to load from now on, whoever tries: seen when everything else has come to its end."""
        current = sorted(one.id for one in self.versions() if one.wanted)
        if current:
            self.bad.add(current[index % len(current)])

    def teardown(self) -> None:
        """When everything behaves, all that is wanted is served or failing, and all else is gone."""
        if not hasattr(self, "h"):
            return
        for slot in sorted(self.unheard):
            self.greet(slot)
        for base in BASES:
            self.tell_storage(base)
        self.h.open.clear()
        for device in DEVICES:
            for slot in (f"{device}-0", f"{device}-0-t"):
                self.workers.setdefault(slot, {})
                self.greet(slot)
        for _ in range(80):
            self.plan()
            for slot, state in self.workers.items():
                for id_ in [id_ for id_, one in state.items() if one == "loading"]:
                    self.end_load(slot, id_, fails=id_ in self.bad)
            self.h.publish()
            self.h.now += SECOND
        assert [one.config for one in self.models().values()] == list(self.h.configs)
        for model in self.models().values():
            self.check_end(model)

    def models(self) -> dict[str, Model]:
        return self.h.registry.models

    def check_end(self, model: Model) -> None:
        for version in model.versions.values():
            id_ = version.id
            fails = id_ in self.bad or (model.config.base_path, id_.version) in self.unfetched
            if version.wanted and (version.state is not AVAILABLE):
                assert fails, f"{id_} is wanted and {version.state.name} for ever"
                assert version.state is LOADING
                assert version.error is not None, "it fails, and does not say so"
            elif not version.wanted and version.state is not END:
                assert version.state is AVAILABLE, f"{id_} is not wanted and {version.state.name} for ever"
                assert self.is_held(model, version), f"{id_} is not wanted and stays for ever"
            for slot, state in self.workers.items():
                has = id_ in state
                if has and not self.is_trial(slot):
                    assert version.state is AVAILABLE, f"{slot} has {id_}, which is {version.state.name}"
                if version.state is AVAILABLE and slot.startswith(f"{version.device}-") and not has:
                    assert self.is_trial(slot) or fails, f"{slot} lacks {id_}"

    @staticmethod
    def is_held(model: Model, version: Version) -> bool:
        """Whether it serves on because what should take its place fails."""
        return any(one.wanted and one.state is not AVAILABLE for one in model.versions.values())


Serving.TestCase.settings = settings(
    max_examples=settings().max_examples * 3 // 5, stateful_step_count=40, deadline=None
)
TestServing = Serving.TestCase
