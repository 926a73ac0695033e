"""broker.wanted: what a killed broker leaves to its successor."""

from pathlib import Path

import msgspec
import pytest

from broker.commands import Configuration, ServedVersion, WantedModel, WantedState
from broker.fleet import Slot
from broker.wanted import load_wanted, save_wanted
from common.config import BatchingParameters, DeviceConfig, ModelConfig, VersionPolicy
from common.messages import VersionId
from common.tensors import Signature, TensorSpec

SHAPED = ModelConfig(
    "m",
    "/models/m",
    batch_size="auto",
    shape={"": (1, -1, 3)},
    plugin_config={"NUM_STREAMS": "2"},
    version_policy=VersionPolicy("specific", versions=(1, (1 << 63) - 1)),
    labels={"stable": 1},
    workers=2,
    batching_parameters=BatchingParameters(allowed_batch_sizes=(4, 32)),
)
CONFIGURATION = Configuration((SHAPED,), {"MYRIAD": DeviceConfig("/opt/python", "CPU")})
STATE = WantedState(
    epoch=3,
    announced=True,
    serial=9,
    slots=(
        Slot("CPU-7", "CPU", 0, 2),
        Slot("CPU-8-trial", "CPU", 0, 1, trial=True),
        Slot("MYRIAD-9", "MYRIAD", 0, 1, python="/opt/python", emulate_on="CPU"),
    ),
    pools={"CPU": 2, "MULTI:GPU,CPU": 1},
    scaled={"CPU": 2},
    generation=4,
    configuration=CONFIGURATION,
    file=Configuration((ModelConfig("n", "/n", shape="auto"),)),
    config_error="models.json: not JSON",
    last_revision=5,
    models=(WantedModel(SHAPED, 5, {1: 4}), WantedModel(ModelConfig("gone", "/gone"), removed=True)),
    served=(
        ServedVersion(
            VersionId("m", (1 << 63) - 1, 4),
            "/models/m/1",
            Signature((TensorSpec("x", "bfloat16", (-1, 3), True),), ()),
            SHAPED,
            ("it keeps its own shape",),
            True,
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
