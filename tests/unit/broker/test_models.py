"""broker.models: the life of a version, and make before break whatever happens meanwhile."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.models import (
    ACKNOWLEDGE_TIMEOUT_NS,
    TRANSITIONS,
    LoadCommand,
    LoadState,
    Registry,
    UnloadCommand,
    Version,
)
from common.config import ModelConfig, VersionPolicy
from common.errors import Code, WireError
from common.messages import LoadedVersion, Snapshot, VersionId
from common.states import VersionState
from common.tensors import Signature, TensorSpec

START, LOADING, AVAILABLE, UNLOADING, END = VersionState
SECOND = 1_000_000_000
SIGNATURE = Signature((TensorSpec("x", "float32", (1,)),), ())
ALL = VersionPolicy("all")


def record(number: int, model: str = "m") -> LoadedVersion:
    return LoadedVersion(VersionId(model, number), 1, SIGNATURE)


def nothing_open(_: VersionId) -> bool:
    return False


class Harness:
    """A registry with its surroundings reduced to a few variables."""

    def __init__(
        self,
        policy: VersionPolicy | None = None,
        retry_ns: int | None = SECOND,
        models: tuple[str, ...] = ("m",),
    ) -> None:
        policy = policy or VersionPolicy()
        self.registry = Registry(
            tuple(ModelConfig(name, f"/{name}", version_policy=policy) for name in models), retry_ns
        )
        self.now = SECOND
        self.generation = 1
        self.acknowledged = 1
        self.open: set[VersionId] = set()

    def stored(self, *numbers: int, model: str = "m", error: str = "") -> None:
        self.registry.snapshot(Snapshot(model, {number: f"/{model}/{number}" for number in numbers}, error))

    def join(self, slot: str = "w", *numbers: int, device: str = "CPU", trial: bool = False) -> None:
        self.registry.worker_joined(
            slot, device, trial=trial, loaded=tuple(record(number) for number in numbers)
        )

    def plan(self) -> list[tuple[str, str, int]]:
        """What is to be done: (load, trial or unload; worker; version)."""
        commands = self.registry.plan(self.now, self.acknowledged, lambda id_: id_ in self.open)
        found = []
        for command in commands:
            if isinstance(command, LoadCommand):
                kind = "trial" if command.trial else "load"
            else:
                assert isinstance(command, UnloadCommand)
                kind = "unload"
            found.append((kind, command.slot, command.version.id.version))
        return found

    def publish(self, *, acknowledge: bool = True) -> None:
        self.generation += 1
        self.registry.catalogue_made(self.generation, self.now)
        if acknowledge:
            self.acknowledged = self.generation

    def loaded(self, number: int, slot: str = "w") -> None:
        self.registry.loaded(slot, record(number))

    def failed(self, number: int, slot: str = "w", reason: str = "no such layer") -> None:
        self.registry.load_failed(slot, VersionId("m", number), reason, self.now)

    def unloaded(self, number: int, slot: str = "w") -> None:
        self.registry.unloaded(slot, VersionId("m", number))

    def version(self, number: int, model: str = "m") -> Version:
        found = self.registry.find(VersionId(model, number))
        assert found is not None
        return found

    def states(self, model: str = "m") -> dict[int, VersionState]:
        return {number: one.state for number, one in self.registry.models[model].versions.items()}

    def serve(self, *numbers: int, slot: str = "w") -> None:
        """Have these stored and loaded in one worker."""
        self.stored(*numbers)
        self.join(slot)
        for _ in numbers:
            for kind, where, number in self.plan():
                assert kind == "load"
                self.loaded(number, where)
        self.publish()
        assert self.plan() == []


# ---- transitions


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(VersionState)


@pytest.mark.parametrize("after", VersionState)
@pytest.mark.parametrize("before", VersionState)
def test_what_is_not_in_the_table_tells_the_versions_story(before: VersionState, after: VersionState) -> None:
    version = Version(VersionId("m", 7), state=before, history=[START, LOADING])
    if after in TRANSITIONS[before]:
        version.move(after)
        assert version.state is after
        return
    with pytest.raises(AssertionError) as caught:
        version.move(after)
    assert "'m'" in str(caught.value)
    assert f"START → LOADING → {before.name} → {after.name}" in str(caught.value)
    assert version.state is before


def test_the_story_stays_short() -> None:
    version = Version(VersionId("m", 1))
    for _ in range(100):
        for state in (LOADING, AVAILABLE, UNLOADING, END, START):
            version.move(state)
    assert len(version.history) == 8


# ---- a plain life


def test_a_version_is_loaded_served_and_ended() -> None:
    h = Harness()
    h.stored(1)
    assert h.plan() == []
    assert h.states() == {1: START}
    h.join()
    assert h.plan() == [("load", "w", 1)]
    assert h.states() == {1: LOADING}
    assert h.plan() == [], "asked for once"
    h.loaded(1)
    assert h.states() == {1: AVAILABLE}
    assert h.plan() == []
    h.stored()
    assert h.plan() == []
    assert h.states() == {1: UNLOADING}
    h.publish()
    assert h.plan() == [("unload", "w", 1)]
    assert h.plan() == [], "asked for once"
    assert h.states() == {1: UNLOADING}
    h.unloaded(1)
    assert h.plan() == []
    assert h.states() == {1: END}
    assert h.version(1).history == [START, LOADING, AVAILABLE, UNLOADING]


def test_an_ended_version_starts_again() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    h.publish()
    h.plan()
    h.unloaded(1)
    h.plan()
    assert h.states() == {1: END}
    h.stored(1)
    assert h.plan() == [("load", "w", 1)]
    assert h.states() == {1: LOADING}
    h.loaded(1)
    assert h.registry.accepts(VersionId("m", 1))


def test_a_version_that_was_never_wanted_is_listed_as_ended() -> None:
    h = Harness()
    h.stored(1, 2)
    h.join()
    assert h.plan() == [("load", "w", 2)]
    assert h.states() == {1: END, 2: LOADING}


def test_one_load_at_a_time_a_worker_and_each_worker_loads() -> None:
    h = Harness(ALL)
    h.stored(1, 2)
    h.join("w1")
    h.join("w2")
    assert h.plan() == [("load", "w1", 1), ("load", "w2", 1)]
    h.loaded(1, "w1")
    assert h.plan() == [("load", "w1", 2)]


def test_only_workers_of_its_device_load_a_version() -> None:
    h = Harness()
    h.stored(1)
    h.join("gpu", device="GPU")
    assert h.plan() == []
    h.join("cpu")
    assert h.plan() == [("load", "cpu", 1)]


def test_a_version_that_is_not_wanted_any_more_while_it_loads_is_unloaded_then() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    h.stored()
    h.plan()
    assert h.states() == {1: UNLOADING}
    h.publish()
    assert h.plan() == []
    h.loaded(1)
    assert h.states() == {1: UNLOADING}
    assert h.plan() == [("unload", "w", 1)]
    h.unloaded(1)
    h.plan()
    assert h.states() == {1: END}


def test_a_version_that_comes_back_while_it_leaves_leaves_first() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    h.stored(1)
    h.plan()
    assert h.states() == {1: UNLOADING}
    h.publish()
    assert h.plan() == [("unload", "w", 1)]
    h.unloaded(1)
    h.plan()
    assert h.states() == {1: END}
    assert h.plan() == [("load", "w", 1)]


# ---- leaving


def test_a_version_leaves_dispatch_when_every_frontend_has_acknowledged() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    assert h.registry.accepts(VersionId("m", 1)), "no catalogue says yet that it has gone"
    h.publish(acknowledge=False)
    h.plan()
    assert h.registry.accepts(VersionId("m", 1))
    h.acknowledged = h.generation - 1
    h.plan()
    assert h.registry.accepts(VersionId("m", 1))
    h.acknowledged = h.generation
    assert h.plan() == [("unload", "w", 1)]
    assert not h.registry.accepts(VersionId("m", 1))


def test_a_silent_frontend_is_waited_for_a_second() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    h.publish(acknowledge=False)
    h.now += ACKNOWLEDGE_TIMEOUT_NS - 1
    assert h.plan() == []
    h.now += 1
    assert h.plan() == [("unload", "w", 1)]


def test_a_version_is_unloaded_after_its_last_request() -> None:
    h = Harness()
    h.serve(1)
    h.open.add(VersionId("m", 1))
    h.stored()
    h.plan()
    h.publish()
    assert h.plan() == []
    assert not h.registry.accepts(VersionId("m", 1))
    h.open.clear()
    assert h.plan() == [("unload", "w", 1)]


def test_a_leaving_version_whose_worker_died_is_loaded_again_for_its_last_requests() -> None:
    h = Harness()
    h.serve(1)
    h.open.add(VersionId("m", 1))
    h.stored()
    h.plan()
    h.publish()
    h.plan()
    h.registry.worker_lost("w", h.now)
    h.join("w2")
    assert h.plan() == [("load", "w2", 1)]
    h.loaded(1, "w2")
    assert h.plan() == []
    h.open.clear()
    assert h.plan() == [("unload", "w2", 1)]


def test_an_unload_whose_worker_dies_is_done() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    h.publish()
    h.plan()
    assert h.registry.worker_lost("w", h.now) == []
    h.plan()
    assert h.states() == {1: END}


# ---- make before break


def test_the_old_version_goes_after_the_new_one_is_loaded_everywhere() -> None:
    h = Harness()
    h.serve(1)
    h.join("w2", 1)
    h.stored(1, 2)
    assert h.plan() == [("load", "w", 2), ("load", "w2", 2)]
    h.loaded(2, "w")
    assert h.plan() == []
    assert h.states() == {1: AVAILABLE, 2: AVAILABLE}
    h.loaded(2, "w2")
    h.plan()
    assert h.states() == {1: UNLOADING, 2: AVAILABLE}


def test_the_old_version_stays_while_the_new_one_fails() -> None:
    h = Harness()
    h.serve(1)
    h.stored(1, 2)
    for _ in range(3):
        assert h.plan() == [("load", "w", 2)]
        h.failed(2)
        assert h.plan() == []
        assert h.states() == {1: AVAILABLE, 2: LOADING}
        h.now += SECOND
    assert h.plan() == [("load", "w", 2)]
    h.loaded(2)
    h.plan()
    assert h.states() == {1: UNLOADING, 2: AVAILABLE}


def test_one_failing_version_of_several_does_not_keep_the_old_ones() -> None:
    h = Harness(VersionPolicy("latest", 2))
    h.serve(1)
    h.stored(1, 2, 3)
    h.now += 1
    assert h.plan() == [("load", "w", 2)]
    h.failed(2)
    assert h.plan() == [("load", "w", 3)]
    h.loaded(3)
    h.plan()
    assert h.states() == {1: UNLOADING, 2: LOADING, 3: AVAILABLE}


def test_a_draining_worker_is_not_waited_for_and_loads_nothing() -> None:
    h = Harness()
    h.serve(1)
    h.join("w2", 1)
    h.registry.drain("w2")
    h.stored(1, 2)
    assert h.plan() == [("load", "w", 2)]
    h.loaded(2)
    h.plan()
    assert h.states() == {1: UNLOADING, 2: AVAILABLE}


def test_deleted_from_storage_it_goes_without_a_successor() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    assert h.states() == {1: UNLOADING}


def test_a_listing_that_fails_changes_nothing_that_is_served() -> None:
    h = Harness()
    h.serve(1)
    h.stored(error="permission denied")
    h.plan()
    assert h.states() == {1: AVAILABLE}
    assert h.registry.is_ready()
    assert h.registry.hopeless() == ""


# ---- failing


def test_a_failed_load_is_shown_and_tried_again_at_the_next_poll() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    h.failed(1, reason="no such layer")
    version = h.version(1)
    assert (version.state, version.error) == (
        LOADING,
        WireError(Code.UNKNOWN, "Error occurred while loading version: no such layer"),
    )
    h.now += SECOND - 1
    assert h.plan() == []
    h.now += 1
    assert h.plan() == [("load", "w", 1)]
    assert version.error is not None, "until it has been loaded"
    h.loaded(1)
    assert h.states() == {1: AVAILABLE}
    assert h.version(1).error is None


def test_with_updates_switched_off_a_failed_load_is_not_tried_again() -> None:
    h = Harness(retry_ns=None)
    h.stored(1)
    h.join()
    h.plan()
    h.failed(1)
    h.now += 10**6 * SECOND
    assert h.plan() == []


def test_a_failed_version_that_is_deleted_ends() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    h.failed(1)
    h.stored()
    h.plan()
    h.publish()
    h.plan()
    assert h.states() == {1: END}
    assert h.version(1).error is None


# ---- quarantine


def killed_while_loading(h: Harness, slot: str = "w") -> None:
    blamed = h.registry.worker_lost(slot, h.now)
    assert [one.id.version for one in blamed] == [1]


def test_a_load_that_kills_its_worker_is_tried_again_only_where_nothing_is_served() -> None:
    h = Harness(VersionPolicy("all"))
    h.stored(1, 2)
    h.join("w")
    assert h.plan() == [("load", "w", 1)]
    killed_while_loading(h)
    error = h.version(1).error
    assert error is not None
    assert "1 times in a row" in error.message
    h.join("w")
    assert h.plan() == [("load", "w", 2)], "the innocent one first"
    h.loaded(2)
    h.now += 100 * SECOND
    assert h.plan() == [], "this worker serves something now"
    assert h.registry.needs_trial("CPU", h.now)
    assert not h.registry.needs_trial("GPU", h.now)
    h.join("t", trial=True)
    assert h.plan() == [("trial", "t", 1)]
    h.loaded(1, "t")
    assert h.states() == {1: LOADING, 2: AVAILABLE}, "a trial worker serves nothing"
    assert not h.registry.in_quarantine("CPU")
    assert h.plan() == [("load", "w", 1)]


def test_a_worker_that_serves_nothing_is_as_good_as_a_trial_worker() -> None:
    h = Harness()
    h.stored(1)
    h.join("w")
    h.plan()
    killed_while_loading(h)
    h.join("w")
    assert h.plan() == [("trial", "w", 1)]
    assert not h.registry.needs_trial("CPU", h.now)
    h.loaded(1)
    assert h.states() == {1: AVAILABLE}


def test_back_off_of_loads_that_kill() -> None:
    h = Harness()
    h.stored(1)
    for seconds in (0, 1, 1, 2, 3, 5, 8, 13, 13):
        h.join("w")
        (command,) = h.plan()
        assert command[1:] == ("w", 1)
        killed_while_loading(h)
        h.join("w")
        if seconds:
            h.now += seconds * SECOND - 1
            assert h.plan() == []
            h.now += 1
        assert h.plan() == [("trial", "w", 1)]
        h.registry.worker_lost("w", h.now, deliberate=True)


def test_a_trial_worker_is_given_nothing_else() -> None:
    h = Harness()
    h.stored(1)
    h.join("t", trial=True)
    assert h.plan() == []


def test_a_worker_that_is_stopped_blames_nobody() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    assert h.registry.worker_lost("w", h.now, deliberate=True) == []
    assert not h.registry.in_quarantine("CPU")


def test_a_load_that_fails_after_it_killed_is_out_of_quarantine() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    killed_while_loading(h)
    h.join()
    h.plan()
    h.failed(1)
    assert not h.registry.in_quarantine("CPU")


def test_a_quarantined_version_that_is_deleted_needs_no_trial() -> None:
    h = Harness(VersionPolicy("all"))
    h.stored(1, 2)
    h.join()
    h.plan()
    killed_while_loading(h)
    h.join()
    h.plan()
    h.loaded(2)
    h.now += 100 * SECOND
    h.stored(2)
    assert not h.registry.needs_trial("CPU", h.now)
    assert not h.registry.in_quarantine("CPU")


# ---- readiness and the end of a start


def test_ready_means_that_every_served_version_has_a_live_worker() -> None:
    h = Harness(ALL, models=("m", "n"))
    assert not h.registry.is_ready()
    h.stored(1)
    h.stored(model="n")
    h.join()
    h.plan()
    assert not h.registry.is_ready()
    h.loaded(1)
    assert h.registry.is_ready(), "a model without versions is not waited for"
    h.stored(1, model="n")
    assert not h.registry.is_ready(), "no version of n is there yet"
    h.plan()
    h.registry.loaded("w", record(1, "n"))
    assert h.registry.is_ready()
    h.registry.worker_lost("w", h.now)
    assert not h.registry.is_ready()


def test_a_trial_worker_makes_nothing_ready() -> None:
    h = Harness()
    h.serve(1)
    h.join("t", 1, trial=True)
    h.registry.worker_lost("w", h.now)
    assert not h.registry.is_ready()


def test_a_worker_serves_all_when_it_has_everything_of_its_device() -> None:
    h = Harness(ALL)
    h.serve(1, 2)
    h.join("w2", 1)
    h.join("gpu", device="GPU")
    assert h.registry.serves_all("w")
    assert not h.registry.serves_all("w2")
    assert not h.registry.serves_all("gpu")
    assert not h.registry.serves_all("nobody")
    h.loaded(2, "w2")
    assert h.registry.serves_all("w2")


def test_tried_is_listed_and_loaded_or_failed() -> None:
    h = Harness(ALL)
    assert not h.registry.is_tried()
    h.stored(1, 2)
    assert not h.registry.is_tried()
    h.join()
    h.plan()
    h.loaded(1)
    assert not h.registry.is_tried()
    h.plan()
    h.failed(2)
    assert h.registry.is_tried()


def test_a_model_without_versions_is_tried_by_its_listing() -> None:
    h = Harness()
    h.stored()
    assert h.registry.is_tried()
    assert h.registry.hopeless() == "", "they may still appear"


def test_hopeless_names_every_reason() -> None:
    h = Harness(models=("m", "n"))
    h.stored(1)
    h.stored(model="n", error="permission denied")
    h.join()
    h.plan()
    h.failed(1, reason="no such layer")
    assert h.registry.hopeless() == "model m version 1: no such layer; model n: permission denied"
    h.loaded(1)
    assert h.registry.hopeless() == ""


def test_one_model_that_may_still_appear_is_hope() -> None:
    h = Harness(models=("m", "n"))
    h.stored(error="permission denied")
    h.stored(model="n")
    assert h.registry.hopeless() == ""


def test_overdue_loads() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    assert h.registry.overdue_loads(h.now + 9, 10) == []
    assert h.registry.overdue_loads(h.now + 10, 10) == ["w"]
    h.loaded(1)
    assert h.registry.overdue_loads(h.now + 100, 10) == []


# ---- what clients see


def test_statuses_are_ascending_and_whole() -> None:
    h = Harness()
    h.serve(10)
    h.stored(9, 10, 11)
    h.plan()
    h.failed(11, reason="bad")
    (model,) = h.registry.statuses()
    assert model.name == "m"
    assert [(one.version, one.state, one.servable) for one in model.versions] == [
        (9, END, False),
        (10, AVAILABLE, True),
        (11, LOADING, False),
    ]
    assert model.versions[1].signature == SIGNATURE
    assert model.versions[2].error == WireError(Code.UNKNOWN, "Error occurred while loading version: bad")


def test_a_leaving_version_is_not_servable() -> None:
    h = Harness()
    h.serve(1)
    h.stored()
    h.plan()
    (model,) = h.registry.statuses()
    assert not model.versions[0].servable


def test_unknown_versions_and_models() -> None:
    h = Harness()
    h.registry.snapshot(Snapshot("stranger", {1: "/x"}))
    assert h.registry.find(VersionId("stranger", 1)) is None
    assert not h.registry.accepts(VersionId("m", 1))


# ---- a successor of a dead broker


def test_what_was_served_is_served_while_its_worker_is_still_to_be_heard() -> None:
    first = Harness()
    first.serve(1)
    h = Harness()
    h.registry.restore(first.registry.served())
    assert h.plan() == []
    assert h.states() == {1: AVAILABLE}
    assert h.registry.accepts(VersionId("m", 1))
    assert not h.registry.is_ready()
    h.join("w", 1)
    h.stored(1)
    assert h.plan() == []
    assert h.registry.is_ready()


def test_what_is_not_configured_any_more_is_not_restored() -> None:
    h = Harness()
    h.registry.restore((record(1, "gone"),))
    assert h.registry.statuses()[0].versions == ()


@pytest.mark.parametrize("listed_first", [True, False])
@pytest.mark.parametrize("heard_while_loading", [True, False])
def test_what_a_worker_loads_or_has_loaded_is_taken_over(
    listed_first: bool, heard_while_loading: bool
) -> None:
    """Its Hello, the end of its load and the first listing of storage come in any order."""
    h = Harness()
    if listed_first:
        h.stored(2)
    if heard_while_loading:
        h.join("w")
        h.registry.worker_loading("w", VersionId("m", 2), h.now)
        assert h.plan() == []
        h.loaded(2)
    else:
        h.join("w", 2)
    assert h.plan() == []
    h.publish()
    assert h.plan() == []
    if not listed_first:
        h.stored(2)
    assert h.plan() == [], "loaded already"
    assert h.states() == {2: AVAILABLE}
    assert h.registry.is_ready()


def test_what_a_worker_has_loaded_and_nobody_wants_is_unloaded() -> None:
    h = Harness()
    h.stored(3)
    h.join("w")
    h.registry.worker_loading("w", VersionId("m", 2), h.now)
    h.plan()
    h.publish()
    h.loaded(2)
    commands = h.plan()
    h.publish()
    commands += h.plan()
    if ("load", "w", 3) in commands:
        h.loaded(3)
    for _ in range(3):
        h.publish()
        commands += h.plan()
    assert ("unload", "w", 2) in commands
    h.unloaded(2)
    h.plan()
    assert h.states()[2] is END


def test_a_new_link_of_a_worker_says_anew_what_it_has() -> None:
    h = Harness(ALL)
    h.serve(1, 2)
    h.join("w", 1)
    assert h.plan() == [("load", "w", 2)]


# ---- all of it in any order


class Serving(RuleBasedStateMachine):
    """Storage, workers and frontends do what they like; the registry has to keep its promises."""

    @initialize(policy=st.sampled_from([VersionPolicy(), VersionPolicy("latest", 2), ALL]))
    def start(self, policy: VersionPolicy) -> None:
        self.h = Harness(policy)
        self.stored: set[int] = set()
        self.workers: dict[str, dict[int, str]] = {}
        self.births = 0
        self.unheard: set[str] = set()
        """Workers that have not greeted the present broker yet."""

    def wanted(self) -> set[int]:
        return {number for number, one in self.h.registry.models["m"].versions.items() if one.wanted}

    def available(self) -> set[int]:
        return {number for number, state in self.h.states().items() if state is AVAILABLE}

    @rule(numbers=st.sets(st.integers(1, 4)))
    def storage_changes(self, numbers: set[int]) -> None:
        self.stored = numbers
        self.h.stored(*numbers)

    @rule()
    def listing_fails(self) -> None:
        self.h.stored(error="disk")

    @rule(trial=st.booleans())
    def worker_joins(self, trial: bool) -> None:
        if len(self.workers) < 3:
            self.births += 1
            slot = f"{'t' if trial else 'w'}{self.births}"
            self.workers[slot] = {}
            self.h.join(slot, trial=trial)

    @rule(index=st.integers(0, 9), deliberate=st.booleans())
    def worker_dies(self, index: int, deliberate: bool) -> None:
        if self.workers:
            slot = sorted(self.workers)[index % len(self.workers)]
            del self.workers[slot]
            self.unheard.discard(slot)
            self.h.registry.worker_lost(slot, self.h.now, deliberate=deliberate)

    @rule(index=st.integers(0, 9))
    def worker_greets_anew(self, index: int) -> None:
        if self.workers:
            slot = sorted(self.workers)[index % len(self.workers)]
            self.greet(slot)

    def greet(self, slot: str) -> None:
        self.unheard.discard(slot)
        state = self.workers[slot]
        loaded = [number for number, one in state.items() if one == "loaded"]
        self.h.join(slot, *loaded, trial=slot.startswith("t"))
        for number, one in state.items():
            if one == "loading":
                self.h.registry.worker_loading(slot, VersionId("m", number), self.h.now)

    @rule()
    def broker_restarts(self) -> None:
        """The successor knows what was served, and the rest from storage and workers, in any order."""
        served, policy = self.h.registry.served(), self.h.registry.models["m"].config.version_policy
        self.h.registry = Harness(policy).registry
        self.h.registry.restore(served)
        self.h.open &= {record.version for record in served}
        self.unheard = set(self.workers)

    @rule(index=st.integers(0, 9), fails=st.booleans())
    def load_ends(self, index: int, fails: bool) -> None:
        loading = [
            (slot, number)
            for slot, state in self.workers.items()
            for number in state
            if state[number] == "loading"
        ]
        if loading:
            slot, number = sorted(loading)[index % len(loading)]
            if fails:
                del self.workers[slot][number]
            else:
                self.workers[slot][number] = "loaded"
            if slot not in self.unheard:
                (self.h.failed if fails else self.h.loaded)(number, slot)

    @rule(number=st.integers(1, 4))
    def request_comes(self, number: int) -> None:
        if self.h.registry.accepts(VersionId("m", number)):
            self.h.open.add(VersionId("m", number))

    @rule()
    def requests_are_answered(self) -> None:
        self.h.open.clear()

    @rule(acknowledge=st.booleans())
    def catalogue(self, acknowledge: bool) -> None:
        self.h.publish(acknowledge=acknowledge)

    @rule(ns=st.sampled_from([1, SECOND // 2, 2 * SECOND, 20 * SECOND]))
    def time_passes(self, ns: int) -> None:
        self.h.now += ns

    @rule()
    def plan(self) -> None:
        available_before = self.available()
        commands = self.h.plan()
        left = available_before - self.available()
        if left and self.wanted():
            assert self.wanted() & self.available(), "broken before made"
        for kind, slot, number in commands:
            state = self.workers[slot]
            if kind == "unload":
                assert state[number] == "loaded", "unloaded without having it"
                assert VersionId("m", number) not in self.h.open, "unloaded under its requests"
                assert number not in self.available()
                del state[number]
                self.h.unloaded(number, slot)
            else:
                assert number not in state, "loaded twice in one worker"
                assert "loading" not in state.values(), "two loads at a time in one worker"
                assert kind == "trial" or not slot.startswith("t"), "a trial worker is for trials"
                state[number] = "loading"

    @invariant()
    def ready_is_not_said_in_vain(self) -> None:
        if not hasattr(self, "h") or not self.h.registry.is_ready():
            return
        for number in self.available():
            assert any(
                state.get(number) == "loaded"
                for slot, state in self.workers.items()
                if not slot.startswith("t")
            )

    @invariant()
    def what_the_registry_thinks_of_a_worker_is_so(self) -> None:
        if not hasattr(self, "h"):
            return
        names = {LoadState.LOADING: "loading", LoadState.LOADED: "loaded"}
        for number, version in self.h.registry.models["m"].versions.items():
            for slot, state in version.loads.items():
                if state in names:
                    assert self.workers[slot].get(number) == names[state]

    def teardown(self) -> None:
        """When everything behaves, all that is wanted is served and all else is gone."""
        if not hasattr(self, "h"):
            return
        for slot in sorted(self.unheard):
            self.greet(slot)
        self.h.stored(*self.stored)
        self.h.open.clear()
        if not any(slot.startswith("w") for slot in self.workers):
            self.workers["w0"] = {}
            self.h.join("w0")
        self.workers.setdefault("t0", {})
        self.h.join("t0", trial=True)
        for _ in range(60):
            self.plan()
            for slot, state in self.workers.items():
                for number in [number for number, one in state.items() if one == "loading"]:
                    state[number] = "loaded"
                    self.h.loaded(number, slot)
            self.h.publish()
            self.h.now += SECOND
        wanted = self.wanted()
        for number, reached in self.h.states().items():
            assert reached is (AVAILABLE if number in wanted else END), f"{number} is {reached.name} for ever"
        for slot, loads in self.workers.items():
            if slot.startswith("w"):
                assert set(loads) == wanted, f"{slot} has {loads}"


Serving.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
TestServing = Serving.TestCase
