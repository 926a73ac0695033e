"""broker.registry: the configuration changes, storage shows other content, versions cannot be fetched."""

from typing import Any

import pytest

from broker.models import Changes
from common.config import BatchingParameters, ModelConfig, VersionPolicy
from common.errors import Code, WireError
from common.messages import LoadedVersion, VersionId
from tests.unit.broker.registry_harness import (
    ALL,
    AVAILABLE,
    END,
    LOADING,
    SECOND,
    SIGNATURE,
    UNLOADING,
    Harness,
    model,
    record,
)

LATEST_2 = VersionPolicy("latest", 2)


def serving(*numbers: int, policy: VersionPolicy | None = None) -> Harness:
    """Versions of `m` served by worker `w`."""
    h = Harness(policy)
    h.serve(*numbers)
    return h


# ---- models come and go


def test_a_model_that_is_added_is_listed_and_loaded() -> None:
    h = serving(1)
    assert h.configure(model(), model("n")) == Changes(added=("n",))
    assert [one.name for one in h.registry.view.statuses] == ["m", "n"]
    h.stored(3, model="n")
    revision = h.registry.models["n"].revision
    assert h.orders() == [("load", "w", VersionId("n", 3, revision))]
    h.registry.loaded("w", record(3, "n", revision))
    assert h.states("n") == {3: AVAILABLE}


def test_a_model_that_is_removed_leaves_and_is_forgotten() -> None:
    h = serving(1)
    h.open.add(VersionId("m", 1))
    assert h.configure(model("n")) == Changes(added=("n",), removed=("m",))
    assert [one.name for one in h.registry.view.statuses] == ["n", "m"], "those that leave come last"
    h.orders()
    assert h.states() == {1: UNLOADING}
    h.publish()
    assert h.orders() == [], "a request is to be answered first"
    h.open.clear()
    assert h.orders() == [("unload", "w", VersionId("m", 1))]
    h.unloaded(1)
    h.orders()
    assert h.states() == {1: END}
    h.publish(acknowledge=False)
    h.orders()
    assert h.states() == {1: END}, "frontends are to see that it has ended"
    h.acknowledged = h.generation
    h.orders()
    assert "m" not in h.registry.models


def test_a_removed_model_that_comes_back_serves_without_being_loaded_anew() -> None:
    h = serving(1)
    h.configure()
    h.configure(model())
    assert h.flow() == []
    assert h.revisions() == {(1, 0): AVAILABLE}


def test_a_removed_model_that_comes_back_while_it_leaves_is_loaded_again() -> None:
    h = serving(1)
    h.configure()
    h.orders()
    h.configure(model())
    orders = h.flow()
    assert [kind for kind, _, _ in orders] == ["unload", "load"]
    assert h.states() == {1: AVAILABLE}


def test_a_forgotten_model_that_comes_back_has_another_revision() -> None:
    """A request that was chosen by an old catalogue must not reach it."""
    h = serving(1)
    h.configure()
    h.flow()
    assert h.registry.models == {}
    h.configure(model())
    h.stored(1)
    h.flow()
    ((number, revision),) = h.revisions()
    assert number == 1
    assert revision > 0
    assert not h.registry.accepts(VersionId("m", 1, 0))


# ---- a model changes

RELOADING: list[dict[str, Any]] = [
    {"batch_size": 4},
    {"batch_size": "auto"},
    {"shape": {"": (1, 3)}},
    {"max_shapes": 3},
    {"nireq": 2},
    {"plugin_config": {"NUM_STREAMS": "2"}},
    {"batching_parameters": BatchingParameters()},
]
ADJUSTING: list[dict[str, Any]] = [
    {"labels": {"stable": 1}},
    {"workers": 3},
    {"policy": ALL},
]


@pytest.mark.parametrize("options", RELOADING, ids=str)
def test_what_loading_depends_on_is_loaded_anew_before_the_old_one_goes(options: dict[str, Any]) -> None:
    h = serving(1)
    assert h.configure(model(**options)) == Changes(reloaded=("m",))
    assert h.orders() == [("load", "w", VersionId("m", 1, 1))]
    assert h.version(1, revision=1).config == model(**options)
    assert h.revisions() == {(1, 0): AVAILABLE, (1, 1): LOADING}
    (status,) = h.registry.view.statuses[0].versions
    assert (status.version, status.servable, status.revision) == (1, True, 0)
    h.loaded(1, revision=1)
    (status,) = h.registry.view.statuses[0].versions
    assert (status.version, status.servable, status.revision) == (1, True, 1)
    assert [order for order in h.flow() if order[0] == "unload"] == [("unload", "w", VersionId("m", 1, 0))]
    assert h.revisions() == {(1, 1): AVAILABLE}, "the old one is not listed beside it"


@pytest.mark.parametrize("options", ADJUSTING, ids=str)
def test_what_loading_does_not_depend_on_is_not_loaded_anew(options: dict[str, Any]) -> None:
    h = serving(1)
    assert h.configure(model(**options)) == Changes(adjusted=("m",))
    assert h.flow() == []
    assert h.revisions() == {(1, 0): AVAILABLE}


def test_the_same_configuration_changes_nothing() -> None:
    h = serving(1)
    assert not h.configure(model())
    assert h.flow() == []


def test_requests_of_the_old_revision_are_answered_before_it_is_unloaded() -> None:
    h = serving(1)
    h.open.add(VersionId("m", 1, 0))
    h.configure(model(nireq=2))
    h.orders()
    h.loaded(1, revision=1)
    h.orders()
    assert h.revisions() == {(1, 0): UNLOADING, (1, 1): AVAILABLE}
    h.publish(acknowledge=False)
    assert h.registry.accepts(VersionId("m", 1, 0)), "a frontend may still choose it"
    h.acknowledged = h.generation
    assert h.orders() == []
    assert not h.registry.accepts(VersionId("m", 1, 0))
    h.open.clear()
    assert h.orders() == [("unload", "w", VersionId("m", 1, 0))]


def test_a_new_revision_that_fails_leaves_the_old_one_serving() -> None:
    h = serving(1)
    h.configure(model(nireq=2))
    h.orders()
    h.failed(1, revision=1, reason="no such layer")
    h.publish()
    h.orders()
    assert h.revisions() == {(1, 0): AVAILABLE, (1, 1): LOADING}
    (status,) = h.registry.view.statuses[0].versions
    assert (status.servable, status.revision, status.error) == (True, 0, None)
    assert h.registry.view.failures == ("model m version 1: no such layer",)
    h.now += SECOND
    assert h.orders() == [("load", "w", VersionId("m", 1, 1))], "tried again"
    h.loaded(1, revision=1)
    h.flow()
    assert h.revisions() == {(1, 1): AVAILABLE}


def test_each_version_waits_for_its_own_successor() -> None:
    """A client that asks for version 2 by its number must not lose it because version 3 is fine."""
    h = serving(2, 3, policy=LATEST_2)
    h.configure(model(policy=LATEST_2, nireq=2))
    h.orders()
    h.failed(2, revision=1)
    h.orders()
    h.loaded(3, revision=1)
    h.publish()
    h.orders()
    assert h.revisions() == {(2, 0): AVAILABLE, (3, 0): UNLOADING, (2, 1): LOADING, (3, 1): AVAILABLE}


def test_going_back_to_what_is_still_served_loads_nothing() -> None:
    h = serving(1)
    h.configure(model(nireq=2))
    h.orders()
    h.failed(1, revision=1)
    assert h.configure(model()) == Changes(reloaded=("m",))
    assert [order for order in h.flow() if order[0] == "load"] == []
    assert h.revisions() == {(1, 0): AVAILABLE}


def test_of_three_revisions_the_middle_one_relieves_the_first() -> None:
    h = serving(1)
    h.configure(model(nireq=2))
    h.orders()
    h.loaded(1, revision=1)
    h.configure(model(nireq=3))
    h.orders()
    h.publish()
    assert h.revisions() == {(1, 0): UNLOADING, (1, 1): AVAILABLE, (1, 2): LOADING}
    h.failed(1, revision=2)
    h.orders()
    assert h.revisions()[1, 1] is AVAILABLE


def test_another_device_is_served_before_the_old_one_is_left() -> None:
    h = serving(1)
    h.configure(model(target_device="GPU"))
    assert h.orders() == []
    assert h.registry.view.devices == {"CPU", "GPU"}
    h.now += 1000 * SECOND
    assert h.orders() == [], "there is no such worker, and that may last"
    assert h.states() == {1: AVAILABLE}
    h.join("g", device="GPU")
    assert h.orders() == [("load", "g", VersionId("m", 1, 1))]
    h.loaded(1, "g", revision=1)
    assert [order for order in h.flow() if order[0] == "unload"] == [("unload", "w", VersionId("m", 1, 0))]
    assert h.registry.view.devices == {"GPU"}


def test_another_base_path_is_listed_before_anything_goes() -> None:
    h = serving(1)
    elsewhere = ModelConfig("m", "/elsewhere")
    assert h.configure(elsewhere) == Changes(reloaded=("m",))
    h.stored(1, 2)
    h.orders()
    assert h.revisions() == {(1, 0): AVAILABLE}, "a listing of the old path says nothing"
    assert not h.is_tried()
    h.stored(error="no such bucket", base="/elsewhere")
    h.orders()
    assert h.revisions() == {(1, 0): AVAILABLE}
    assert h.registry.view.failures == ("model m: no such bucket",)
    h.stored(7, base="/elsewhere")
    assert h.orders() == [("load", "w", VersionId("m", 7, 1))]
    h.loaded(7, revision=1)
    h.flow()
    assert h.revisions() == {(1, 0): END, (7, 1): AVAILABLE}


def test_another_base_path_that_is_taken_back_is_not_waited_for() -> None:
    """The storekeeper may never have heard of the change, and then says nothing new."""
    h = serving(1)
    h.configure(ModelConfig("m", "/elsewhere"))
    h.configure(model())
    assert h.is_tried()
    assert h.flow() == []
    assert h.revisions() == {(1, 0): AVAILABLE}


def test_a_changed_policy_chooses_at_once_of_what_was_listed() -> None:
    h = serving(2)
    h.stored(1, 2)
    h.configure(model(policy=ALL))
    assert h.orders() == [("load", "w", VersionId("m", 1))]
    h.loaded(1)
    h.configure(model(policy=VersionPolicy("specific", versions=(1,))))
    h.orders()
    assert h.states() == {1: AVAILABLE, 2: UNLOADING}


# ---- storage shows other content under the same number


def test_other_content_of_a_number_is_loaded_before_the_old_one_goes() -> None:
    h = serving(1)
    h.say_stored({1: "/cache/1.new"})
    assert h.orders() == [("load", "w", VersionId("m", 1, 1))]
    assert (h.version(1).path, h.version(1, revision=1).path) == ("/m/1", "/cache/1.new")
    assert list(h.registry.view.paths) == ["/cache/1.new", "/m/1"], "both are in use"
    h.loaded(1, revision=1)
    h.flow()
    assert h.revisions() == {(1, 1): AVAILABLE}
    assert list(h.registry.view.paths) == ["/cache/1.new"]


def test_other_content_is_noticed_by_a_new_broker_too() -> None:
    h = serving(1)
    h.restart()
    h.say_stored({1: "/cache/1.new"})
    h.join("w", 1)
    assert h.orders() == [("load", "w", VersionId("m", 1, 1))]


def test_mended_content_of_a_version_that_failed_is_tried_at_once() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    h.failed(1)
    h.say_stored({1: "/cache/1.new"})
    assert h.plan() == [("load", "w", 1)]
    assert h.version(1).path == "/cache/1.new"


# ---- versions that cannot be fetched


def test_a_version_that_cannot_be_fetched_fails_like_one_that_cannot_be_loaded() -> None:
    h = serving(1)
    h.stored(1, failures={2: "connection refused"})
    assert h.orders() == []
    assert h.states() == {1: AVAILABLE, 2: LOADING}
    status = h.registry.view.statuses[0].versions[1]
    assert status.error == WireError(Code.UNKNOWN, "Error occurred while loading version: connection refused")
    assert h.registry.view.failures == ("model m version 2: connection refused",)
    h.stored(1, 2)
    assert h.version(2).error is None
    assert h.plan() == [("load", "w", 2)]
    h.loaded(2)
    h.flow()
    assert h.states() == {1: END, 2: AVAILABLE}


def test_a_served_version_whose_new_content_cannot_be_fetched_serves_on() -> None:
    h = serving(1)
    h.stored(failures={1: "connection refused"})
    assert h.flow() == []
    assert h.states() == {1: AVAILABLE}
    assert h.version(1).trouble == "connection refused"
    assert h.registry.view.statuses[0].versions[0].error is None


def test_a_version_that_could_not_be_fetched_and_is_gone_ends() -> None:
    h = Harness()
    h.join()
    h.stored(failures={1: "connection refused"})
    assert h.is_tried()
    assert h.registry.view.hopeless == "model m version 1: connection refused"
    h.stored()
    h.flow()
    assert h.states() == {1: END}
    assert h.registry.view.hopeless == ""


# ---- labels, notes, devices


def test_labels_of_known_versions_are_shown() -> None:
    h = Harness(configs=(model(labels={"stable": 1, "next": 2}),))
    assert h.registry.view.statuses[0].labels == {}
    h.stored(1)
    assert h.registry.view.statuses[0].labels == {"stable": 1}


def test_notes_are_news_once() -> None:
    h = Harness()
    h.stored(1)
    h.join()
    h.plan()
    assert h.loaded(1, notes=("MYRIAD is absent",)) == ["MYRIAD is absent"]
    assert h.version(1).notes == {"w": ("MYRIAD is absent",)}
    h.registry.worker_lost("w", h.now)
    assert h.version(1).notes == {}
    h.join("w")
    h.plan()
    assert h.loaded(1, notes=("MYRIAD is absent", "it keeps its shape")) == ["it keeps its shape"]
    h.restart()
    assert h.loaded_by_greeting(1, ("MYRIAD is absent",)) == []


def test_a_device_whose_workers_do_not_come_up_fails_its_versions_alone() -> None:
    h = Harness(configs=(model(), model("g", target_device="GPU")))
    h.stored(1)
    h.stored(1, model="g")
    h.join()
    h.plan()
    h.loaded(1)
    assert not h.is_tried()
    (version,) = h.registry.device_fails("GPU", "no worker comes up")
    assert (version.id, version.state) == (VersionId("g", 1), LOADING)
    assert h.registry.device_fails("GPU", "no worker comes up") == [], "said once"
    assert h.registry.device_fails("CPU", "no worker comes up") == [], "what serves is left alone"
    assert h.is_tried()
    assert h.is_ready()
    assert h.registry.view.hopeless == ""
    h.join("g", device="GPU")
    assert h.orders() == [("load", "g", VersionId("g", 1))]
    h.registry.loaded("g", record(1, "g"))
    assert version.error is None
    assert h.states("g") == {1: AVAILABLE}


# ---- a new broker


def test_a_broker_that_dies_in_the_middle_of_a_change_is_succeeded() -> None:
    h = serving(1)
    h.configure(model(nireq=2))
    assert h.orders() == [("load", "w", VersionId("m", 1, 1))]
    h.restart()
    assert h.revisions() == {(1, 0): AVAILABLE}
    assert h.version(1).config == model(), "by which it is loaded again if its worker dies"
    h.join("w", 1)
    h.registry.worker_loading("w", VersionId("m", 1, 1), h.now)
    h.stored(1)
    assert h.orders() == [], "it is being loaded"
    h.loaded(1, revision=1)
    h.flow()
    assert h.revisions() == {(1, 1): AVAILABLE}


def test_what_workers_have_of_a_model_that_was_forgotten_is_unloaded() -> None:
    h = Harness(models=("n",))
    h.stored(1, model="n")
    h.greet("w", [record(1), LoadedVersion(VersionId("n", 1), 1, SIGNATURE)])
    assert not any(
        status.servable for one in h.registry.view.statuses if one.name == "m" for status in one.versions
    )
    assert [order for order in h.flow() if order[0] == "unload"] == [("unload", "w", VersionId("m", 1))]
    assert set(h.registry.models) == {"n"}


def test_what_workers_have_of_an_unknown_revision_leaves_when_its_successor_is_there() -> None:
    h = Harness()
    h.greet("w", [record(1, revision=9)])
    h.stored(1)
    orders = h.flow()
    assert orders == [("load", "w", VersionId("m", 1)), ("unload", "w", VersionId("m", 1, 9))]
    assert h.revisions() == {(1, 0): AVAILABLE}


def test_a_removed_model_goes_on_leaving_under_a_new_broker() -> None:
    h = serving(1)
    h.configure()
    h.restart()
    assert h.states() == {1: AVAILABLE}
    h.join("w", 1)
    assert h.flow() == [("unload", "w", VersionId("m", 1))]
    assert h.registry.models == {}


def test_a_version_that_was_leaving_goes_on_leaving_under_a_new_broker() -> None:
    """Its last requests may still be to be answered, so it is known, and loaded again if its worker dies."""
    h = serving(1)
    h.stored()
    h.open.add(VersionId("m", 1))
    h.orders()
    h.restart()
    assert h.revisions() == {(1, 0): UNLOADING}
    assert h.registry.accepts(VersionId("m", 1))
    h.join("w")
    assert h.orders() == [("load", "w", VersionId("m", 1))]
    h.loaded(1)
    h.open.clear()
    h.stored()
    assert h.flow() == [("unload", "w", VersionId("m", 1))]
    assert h.revisions() == {(1, 0): END}


def test_what_serves_by_an_earlier_configuration_has_a_trial_too() -> None:
    """It is not wanted any more, but as long as its successor fails it is what answers."""
    h = serving(1)
    h.configure(model(nireq=2), model("n"))
    h.stored(1, model="n")
    h.registry.worker_lost("w", h.now)
    h.join("w")
    assert h.orders() == [("load", "w", VersionId("m", 1, 0))], "what serves comes first"
    h.registry.worker_lost("w", h.now)
    h.join("w")
    revision = h.registry.models["n"].revision
    h.orders()
    h.failed(1, revision=1)
    assert h.orders() == [("load", "w", VersionId("n", 1, revision))]
    h.registry.loaded("w", record(1, "n", revision))
    h.now += SECOND
    assert h.registry.view.needs_trial("CPU", h.now)
    h.join("t", trial=True)
    assert ("trial", "t", VersionId("m", 1, 0)) in h.orders()


# ---- bounds


def test_ended_versions_do_not_add_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.planning.MAX_ENDED", 3)
    h = Harness()
    h.join()
    for number in range(1, 8):
        h.stored(number)
        h.flow(5)
    assert h.states() == {4: END, 5: END, 6: END, 7: AVAILABLE}
