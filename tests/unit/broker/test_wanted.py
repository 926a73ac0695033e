"""broker.wanted: what a killed broker leaves to its successor."""

from pathlib import Path

import msgspec
import pytest

from broker.commands import WantedState
from broker.fleet import Slot
from broker.wanted import load_wanted, save_wanted
from common.messages import LoadedVersion, VersionId
from common.tensors import Signature, TensorSpec

STATE = WantedState(
    epoch=3,
    announced=True,
    serial=9,
    replicas={"CPU": 2, "MULTI:GPU,CPU": 1},
    slots=(Slot("CPU-7", "CPU", 0, 2), Slot("CPU-8-trial", "CPU", 0, 1, trial=True)),
    served=(
        LoadedVersion(
            VersionId("m", (1 << 63) - 1), 4, Signature((TensorSpec("x", "bfloat16", (-1, 3), True),), ())
        ),
    ),
)


def test_every_field_survives(tmp_path: Path) -> None:
    for field in WantedState.__struct_fields__:
        assert getattr(STATE, field) != getattr(WantedState(), field)
    save_wanted(tmp_path, STATE)
    assert load_wanted(tmp_path) == STATE


def test_the_beginning_is_empty(tmp_path: Path) -> None:
    assert load_wanted(tmp_path) == WantedState()


def test_the_file_is_replaced_whole_and_no_draft_is_left(tmp_path: Path) -> None:
    save_wanted(tmp_path, STATE)
    before = (tmp_path / "wanted.json").stat().st_ino
    save_wanted(tmp_path, WantedState(epoch=4))
    assert load_wanted(tmp_path) == WantedState(epoch=4)
    assert [path.name for path in tmp_path.iterdir()] == ["wanted.json"]
    assert (tmp_path / "wanted.json").stat().st_ino != before, (
        "written in place, a kill would leave half of it"
    )


def test_a_draft_of_a_killed_broker_is_not_read(tmp_path: Path) -> None:
    save_wanted(tmp_path, STATE)
    (tmp_path / "wanted.json.12345").write_text("{")
    assert load_wanted(tmp_path) == STATE


@pytest.mark.parametrize("text", ["", "{", '{"epoch": "three"}', "[]"])
def test_what_is_not_a_state_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "wanted.json").write_text(text)
    with pytest.raises(msgspec.DecodeError):
        load_wanted(tmp_path)
