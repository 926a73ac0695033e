"""broker.registry: the life of a version, and make before break whatever happens meanwhile."""

import pytest

from broker.planning import ACKNOWLEDGE_TIMEOUT_NS
from common.config import VersionPolicy
from common.errors import Code, WireError
from common.messages import Snapshot, VersionId
from tests.unit.broker.registry_harness import (
    ALL,
    AVAILABLE,
    END,
    LOADING,
    SECOND,
    SIGNATURE,
    START,
    UNLOADING,
    Harness,
    model,
)

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
    assert h.is_ready()
    assert h.registry.view.hopeless == ""


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
    assert h.registry.view.needs_trial("CPU", h.now)
    assert not h.registry.view.needs_trial("GPU", h.now)
    h.join("t", trial=True)
    assert h.plan() == [("trial", "t", 1)]
    h.loaded(1, "t")
    assert h.states() == {1: LOADING, 2: AVAILABLE}, "a trial worker serves nothing"
    assert not h.registry.view.in_quarantine("CPU")
    assert h.plan() == [("load", "w", 1)]


def test_a_worker_that_serves_nothing_is_as_good_as_a_trial_worker() -> None:
    h = Harness()
    h.stored(1)
    h.join("w")
    h.plan()
    killed_while_loading(h)
    h.join("w")
    assert h.plan() == [("trial", "w", 1)]
    assert not h.registry.view.needs_trial("CPU", h.now)
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
    assert not h.registry.view.in_quarantine("CPU")


def test_a_load_that_fails_after_it_killed_is_out_of_quarantine() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    killed_while_loading(h)
    h.join()
    h.plan()
    h.failed(1)
    assert not h.registry.view.in_quarantine("CPU")


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
    assert not h.registry.view.needs_trial("CPU", h.now)
    assert not h.registry.view.in_quarantine("CPU")


# ---- readiness and the end of a start


def test_ready_means_that_every_served_version_has_a_live_worker() -> None:
    h = Harness(ALL, models=("m", "n"))
    assert not h.is_ready()
    h.stored(1)
    h.stored(model="n")
    h.join()
    h.plan()
    assert not h.is_ready()
    h.loaded(1)
    assert h.is_ready(), "a model without versions is not waited for"
    h.registry.worker_lost("w", h.now)
    assert not h.is_ready()


def test_ready_waits_for_each_model_of_the_start_to_be_tried() -> None:
    h = Harness(models=("m", "n"))
    h.stored(1)
    h.join()
    h.plan()
    h.loaded(1)
    assert not h.is_ready(), "n was not listed yet"
    h.stored(1, model="n")
    assert not h.is_ready(), "nor loaded"
    h.plan()
    h.registry.load_failed("w", VersionId("n", 1), "no such layer", h.now)
    assert h.is_ready(), "one model that cannot be served does not stop the others"


def test_what_comes_later_makes_nothing_unready() -> None:
    h = Harness()
    h.serve(1)
    assert h.is_ready()
    h.configure(model(), model("n"))
    h.stored(1, model="n")
    h.plan()
    assert h.is_ready(), "the others serve on while n is loaded"


def test_a_trial_worker_makes_nothing_ready() -> None:
    h = Harness()
    h.serve(1)
    h.join("t", 1, trial=True)
    h.registry.worker_lost("w", h.now)
    assert not h.is_ready()


def test_a_worker_serves_all_when_it_has_everything_of_its_device() -> None:
    h = Harness(ALL)
    h.serve(1, 2)
    h.join("w2", 1)
    h.join("gpu", device="GPU")
    assert h.registry.view.serving == {"w"}
    h.loaded(2, "w2")
    assert h.registry.view.serving == {"w", "w2"}


def test_tried_is_listed_and_loaded_or_failed() -> None:
    h = Harness(ALL)
    assert not h.is_tried()
    h.stored(1, 2)
    assert not h.is_tried()
    h.join()
    h.plan()
    h.loaded(1)
    assert not h.is_tried()
    h.plan()
    h.failed(2)
    assert h.is_tried()


def test_a_model_without_versions_is_tried_by_its_listing() -> None:
    h = Harness()
    h.stored()
    assert h.is_tried()
    assert h.registry.view.hopeless == "", "they may still appear"


def test_hopeless_names_every_reason() -> None:
    h = Harness(models=("m", "n"))
    h.stored(1)
    h.stored(model="n", error="permission denied")
    h.join()
    h.plan()
    h.failed(1, reason="no such layer")
    assert h.registry.view.hopeless == "model m version 1: no such layer; model n: permission denied"
    h.loaded(1)
    assert h.registry.view.hopeless == ""


def test_one_model_that_may_still_appear_is_hope() -> None:
    h = Harness(models=("m", "n"))
    h.stored(error="permission denied")
    h.stored(model="n")
    assert h.registry.view.hopeless == ""


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
    (model,) = h.registry.view.statuses
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
    (model,) = h.registry.view.statuses
    assert not model.versions[0].servable


def test_unknown_versions_and_models() -> None:
    h = Harness()
    h.registry.snapshot(Snapshot("stranger", {1: "/x"}))
    assert h.registry.find(VersionId("stranger", 1)) is None
    assert not h.registry.accepts(VersionId("m", 1))


# ---- a successor of a dead broker


def test_what_was_served_is_served_while_its_worker_is_still_to_be_heard() -> None:
    h = Harness()
    h.serve(1)
    h.restart()
    assert h.plan() == []
    assert h.states() == {1: AVAILABLE}
    assert h.registry.accepts(VersionId("m", 1))
    assert not h.is_ready()
    h.join("w", 1)
    h.stored(1)
    assert h.plan() == []
    assert h.is_ready()


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
    assert h.is_ready()


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
