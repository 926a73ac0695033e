"""broker.models: the states of a version, and which of several revisions is shown."""

import pytest

from broker.models import TRANSITIONS, Model, Version, needs_reload
from common.config import ModelConfig
from common.errors import Code, WireError
from common.messages import VersionId
from common.states import VersionState

START, LOADING, AVAILABLE, UNLOADING, END = VersionState
CONFIG = ModelConfig("m", "/m")


def test_every_state_has_its_transitions() -> None:
    assert set(TRANSITIONS) == set(VersionState)


@pytest.mark.parametrize("after", VersionState)
@pytest.mark.parametrize("before", VersionState)
def test_what_is_not_in_the_table_tells_the_versions_story(before: VersionState, after: VersionState) -> None:
    version = Version(VersionId("m", 7), CONFIG, state=before, history=[START, LOADING])
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
    version = Version(VersionId("m", 1), CONFIG)
    for _ in range(100):
        for state in (LOADING, AVAILABLE, UNLOADING, END, START):
            version.move(state)
    assert len(version.history) == 8


def test_every_option_but_these_is_loaded_anew_for() -> None:
    """A new option that nobody has thought of here is loaded anew for: slow, and never wrong."""
    changed = {
        name
        for name, value in {
            "base_path": "/n",
            "batch_size": 2,
            "shape": "auto",
            "max_shapes": 1,
            "nireq": 2,
            "target_device": "GPU",
            "plugin_config": {"A": "B"},
        }.items()
        if needs_reload(CONFIG, ModelConfig(**({"name": "m", "base_path": "/m"} | {name: value})))  # type: ignore[arg-type]
    }
    assert len(changed) == 7
    assert not needs_reload(CONFIG, ModelConfig("m", "/m", labels={"a": 1}, workers=4))


@pytest.mark.parametrize(
    ("states", "revision", "shown"),
    [
        ({0: AVAILABLE, 1: LOADING}, 1, 0),
        ({0: AVAILABLE, 1: AVAILABLE}, 1, 1),
        ({0: UNLOADING, 1: AVAILABLE}, 1, 1),
        ({0: UNLOADING, 1: LOADING}, 1, 1),
        ({0: END, 1: START}, 1, 1),
        ({0: AVAILABLE, 1: AVAILABLE}, 0, 0),
        ({0: LOADING, 1: AVAILABLE}, 0, 1),
    ],
)
def test_each_number_is_shown_once(states: dict[int, VersionState], revision: int, shown: int) -> None:
    """The revision that serves; of several equal ones the one of the present configuration, else the latest."""
    model = Model(CONFIG, revision)
    for one, state in states.items():
        model.versions[7, one] = Version(VersionId("m", 7, one), CONFIG, state=state)
    model.versions[3, 0] = Version(VersionId("m", 3, 0), CONFIG, state=END)
    assert list(model.shown()) == [3, 7]
    assert model.shown()[7].id.revision == shown


@pytest.mark.parametrize(
    ("state", "fetch_error", "reason", "shown"),
    [
        (LOADING, "", "", ""),
        (LOADING, "connection refused", "", "connection refused"),
        (LOADING, "connection refused", "no such layer", "no such layer"),
        (AVAILABLE, "connection refused", "no such layer", ""),
        (END, "connection refused", "", ""),
    ],
)
def test_an_error_is_shown_while_it_matters(
    state: VersionState, fetch_error: str, reason: str, shown: str
) -> None:
    version = Version(VersionId("m", 1), CONFIG, state, fetch_error=fetch_error, reason=reason)
    expected = WireError(Code.UNKNOWN, f"Error occurred while loading version: {shown}") if shown else None
    assert version.error == expected
