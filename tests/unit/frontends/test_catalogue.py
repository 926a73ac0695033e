"""frontends.catalogue: which version a request means, and what is said when there is none."""

import pytest

from common.errors import Code, NotFoundError, ServingError, UnavailableError, WireError
from common.messages import Catalogue, ModelStatus, VersionId, VersionStatus
from common.states import VersionState
from frontends.catalogue import CatalogueView
from frontends.interface import Selector
from tests.unit.frontends.scripted_broker import SIGNATURE, status

START, LOADING, AVAILABLE, UNLOADING, END = VersionState


def view(*versions: VersionStatus, ready: bool = True, generation: int = 7) -> CatalogueView:
    return CatalogueView(Catalogue(generation, ready, (ModelStatus("m", versions), ModelStatus("empty", ()))))


def refusal(seen: CatalogueView, selector: Selector) -> ServingError:
    with pytest.raises(ServingError) as caught:
        seen.choose(selector)
    return caught.value


def test_the_default_is_the_highest_that_is_servable() -> None:
    seen = view(status(1), status(2), status(9), status(10, LOADING), status(11, UNLOADING), status(12, END))
    chosen = seen.choose(Selector("m"))
    assert (chosen.id, chosen.generation, chosen.signature) == (VersionId("m", 9), 7, SIGNATURE)


def test_a_number_chooses_that_version() -> None:
    seen = view(status(1), status(2))
    assert seen.choose(Selector("m", 1)).id == VersionId("m", 1)


def test_generation_and_readiness_are_the_catalogues() -> None:
    assert view(generation=3).generation == 3
    assert view().ready
    assert not view(ready=False).ready


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (Selector("other"), "Servable not found for request: Specific(other, 0)"),
        (Selector("other", 3), "Servable not found for request: Specific(other, 3)"),
        (Selector("m", 3), "Servable not found for request: Specific(m, 3)"),
        (Selector("m", 0), "Servable not found for request: Specific(m, 0)"),
        (Selector("m", -1), "Servable not found for request: Specific(m, -1)"),
        (Selector("m", 2), "Servable not found for request: Specific(m, 2)"),
        (Selector("empty"), "Servable not found for request: Specific(empty, 0)"),
    ],
)
def test_what_is_not_there_is_not_found(selector: Selector, text: str) -> None:
    error = refusal(view(status(1), status(2, END)), selector)
    assert isinstance(error, NotFoundError)
    assert error.message == text


def test_a_model_whose_versions_have_all_ended_is_not_found() -> None:
    error = refusal(view(status(1, END), status(2, END)), Selector("m"))
    assert isinstance(error, NotFoundError)


@pytest.mark.parametrize("state", [START, LOADING, UNLOADING])
def test_what_is_not_loaded_is_unavailable_and_its_state_is_named(state: VersionState) -> None:
    for selector in (Selector("m"), Selector("m", 4)):
        error = refusal(view(status(3, END), status(4, state)), selector)
        assert isinstance(error, UnavailableError)
        assert f"4 is {state.name}" in error.message


def test_every_state_is_named() -> None:
    error = refusal(view(status(3, LOADING), status(4, START)), Selector("m"))
    assert error.message == "Model m has no version to serve the request: version 3 is LOADING, 4 is START"


def test_without_a_signature_nothing_can_be_chosen() -> None:
    error = refusal(view(VersionStatus(1, int(AVAILABLE), None, None, servable=True)), Selector("m"))
    assert isinstance(error, UnavailableError)


def test_requests_name_the_revision_that_serves() -> None:
    first = VersionStatus(1, int(AVAILABLE), None, SIGNATURE, servable=True, revision=3)
    chosen = view(first, status(2))
    assert chosen.choose(Selector("m", 1)).id == VersionId("m", 1, 3)
    assert chosen.choose(Selector("m")).id == VersionId("m", 2, 0)
    assert view(first).choose(Selector("m")).id == VersionId("m", 1, 3)


def labelled(*versions: VersionStatus, **labels: int) -> CatalogueView:
    return CatalogueView(Catalogue(7, True, (ModelStatus("m", versions, labels), ModelStatus("n", versions))))


def test_a_label_chooses_its_version() -> None:
    seen = labelled(status(1), status(2), status(3), stable=1, canary=2)
    assert seen.choose(Selector("m", label="stable")).id == VersionId("m", 1)
    assert seen.choose(Selector("m", label="canary")).id == VersionId("m", 2)
    assert [one.version for one in seen.statuses(Selector("m", label="canary"))] == [2]


@pytest.mark.parametrize("model", ["m", "n"])
def test_a_label_that_the_model_does_not_have_is_not_found(model: str) -> None:
    seen = labelled(status(1), stable=1)
    for call in (seen.choose, seen.statuses):
        with pytest.raises(NotFoundError) as caught:
            call(Selector(model, label="canary"))
        assert caught.value.message == f"Unrecognized servable version label: canary of model {model}"


def test_a_label_of_an_unknown_model_is_the_models_absence() -> None:
    for call in (labelled(stable=1).choose, labelled(stable=1).statuses):
        with pytest.raises(NotFoundError, match=r"Specific\(other, 0\)"):
            call(Selector("other", label="stable"))


def test_a_label_is_refused_as_its_version_would_be() -> None:
    seen = labelled(status(1), status(2, LOADING), status(3, END), loading=2, gone=3, never=9)
    for label, version in (("loading", 2), ("gone", 3), ("never", 9)):
        expected = refusal(seen, Selector("m", version))
        found = refusal(seen, Selector("m", label=label))
        assert (type(found), found.message) == (type(expected), expected.message)


def test_all_models_at_once() -> None:
    seen = view(status(1, END), status(2))
    assert {name: [one.version for one in versions] for name, versions in seen.all_statuses().items()} == {
        "m": [1, 2],
        "empty": [],
    }


def test_statuses_of_all_versions_and_of_one() -> None:
    failed = VersionStatus(2, int(LOADING), WireError(Code.UNKNOWN, "no such layer"))
    seen = view(status(1, END), failed, status(3))
    assert [one.version for one in seen.statuses(Selector("m"))] == [1, 2, 3]
    assert seen.statuses(Selector("m", 2)) == (failed,)
    assert seen.statuses(Selector("m", 1))[0].state == END


@pytest.mark.parametrize(
    ("selector", "named"),
    [(Selector("m", 9), "(m, 9)"), (Selector("other"), "(other, 0)"), (Selector("empty"), "(empty, 0)")],
)
def test_statuses_of_what_is_not_there(selector: Selector, named: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        view(status(1)).statuses(selector)
    assert named in caught.value.message
