"""Infer requests that stay bound to the places of quick models."""

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import workers.openvino_api as ov
from common.errors import Code
from common.tensors import Signature, TensorSpec
from tests.unit.workers.conftest import MEMORY, Bench
from tests.unit.workers.models import model_config, named, openvino_copies, parameter, save
from workers import openvino_bound
from workers.engine import Binding, MemoryId, Run
from workers.openvino_bound import MOST, MOST_BYTES, most_of
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel

OTHER = MemoryId("another", 0)


def load(path: Path) -> OpenVinoModel:
    model = OpenVinoEngine("CPU", 1).load(path, model_config(1))
    assert isinstance(model, OpenVinoModel)
    model._pace._limit = 1 << 62
    model._pace.is_quick = True
    return model


@pytest.fixture
def model(tmp_path: Path, bench: Bench) -> Iterator[OpenVinoModel]:
    """Copies four int32, always within `start`; closed before the memory is."""
    model = load(openvino_copies(tmp_path, [("in_0", "int32", (4,))]))
    yield model
    model.close()
    gc.collect()


def infer(model: OpenVinoModel, run: Run, number: int) -> None:
    """A run over the same places, with another input."""
    run.inputs[0][...] = number  # type: ignore[index]
    assert run.outputs[0] is not None
    run.outputs[0][...] = -1
    result = model.start(run, lambda _, __: pytest.fail("reported twice"))
    assert result is not None
    assert result.error is None
    assert run.outputs[0].tolist() == [number] * 4


def prepare(model: OpenVinoModel, bench: Bench) -> Run:
    return bench.prepare(model, [np.zeros(4, np.int32)])


def test_a_known_place_is_not_bound_again(model: OpenVinoModel, bench: Bench) -> None:
    runs = [prepare(model, bench) for _ in range(4)]
    for number, run in enumerate(runs):
        infer(model, run, number)
    assert len(model._bound) == 4
    for run in runs:
        run.binding.tensors = "nothing that could be set"
    for number, run in enumerate(reversed(runs)):
        infer(model, run, 100 + number)


def test_more_places_than_are_kept(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_bound, "MOST", 2)
    model = load(openvino_copies(tmp_path, [("in_0", "int32", (4,))]))
    a, b, c = (prepare(model, bench) for _ in range(3))
    for number, run in enumerate((a, b, a, c, a, b, c, a, a, b)):
        infer(model, run, number)
        assert len(model._bound) <= 2
    assert model._bound.find(c.binding) is None, "the least recently used goes"
    assert model._bound.find(a.binding) is not None
    model.close()


def test_released_memory_is_let_go_of_and_no_other(model: OpenVinoModel, bench: Bench) -> None:
    kept = prepare(model, bench)
    infer(model, kept, 1)
    other = Bench()
    runs = [prepare(model, other) for _ in range(3)]
    for run in runs:
        run.memory = OTHER
        infer(model, run, 2)
        run.forget()
    runs.clear()
    del run
    with pytest.raises(BufferError):
        other.segment.close()
    model.release(OTHER)
    other.segment.close()
    assert model._bound.find(kept.binding) is not None
    infer(model, kept, 3)
    model.release(MEMORY)
    assert len(model._bound) == 0


def test_what_failed_is_not_used_again(model: OpenVinoModel, bench: Bench) -> None:
    run = prepare(model, bench)
    infer(model, run, 1)
    bound = model._bound.find(run.binding)
    assert bound is not None

    def fail(*_: object) -> object:
        raise RuntimeError("the device is lost")

    bound.infer = fail
    result = model.start(run, lambda _, __: None)
    assert result is not None
    assert result.error is not None
    assert result.error.code is Code.INTERNAL
    assert "the device is lost" in result.error.message
    assert len(model._bound) == 0
    infer(model, run, 2)
    assert model._bound.find(run.binding) is not bound


def test_a_place_that_cannot_be_bound(model: OpenVinoModel, bench: Bench) -> None:
    good, bad = prepare(model, bench), prepare(model, bench)
    bad.binding = Binding([np.zeros(3, np.int32)], bad.outputs)
    result = model.start(bad, lambda _, __: None)
    assert result is not None
    assert result.error is not None
    assert len(model._bound) == 0
    infer(model, good, 1)


def test_outputs_without_a_place_come_as_bytes(model: OpenVinoModel, bench: Bench) -> None:
    """As those of shapes that requests bring."""
    first, second = prepare(model, bench), prepare(model, bench)
    for number, run in enumerate((first, second, first)):
        run.binding.outputs = (None,)
        run.inputs[0][...] = number  # type: ignore[index]
        result = model.start(run, lambda _, __: None)
        assert result is not None
        assert result.in_place is None
        assert result.data == (np.full(4, number, np.int32).tobytes(),)


def test_an_input_passed_through_is_copied_each_time(tmp_path: Path, bench: Bench) -> None:
    x = parameter("x", "int32", (4,))
    model = load(save(tmp_path, [named(x, "x")], [x]))
    run = prepare(model, bench)
    for number in range(3):
        infer(model, run, number)
    model.close()


def test_the_end_of_a_run_is_noted(model: OpenVinoModel, bench: Bench) -> None:
    run = prepare(model, bench)
    infer(model, run, 1)
    assert run.ended > run.started


def test_nothing_is_bound_before_the_first_run_nor_after_closing(tmp_path: Path, bench: Bench) -> None:
    model = load(openvino_copies(tmp_path, [("in_0", "int32", (4,))]))
    assert len(model._bound) == 0
    infer(model, prepare(model, bench), 1)
    model.close()
    assert len(model._bound) == 0


def test_larger_tensors_are_bound_to_fewer_places() -> None:
    def signature(*lengths: int) -> Signature:
        return Signature(tuple(TensorSpec("x", "uint8", (length,)) for length in lengths), ())

    assert most_of(signature(4)) == MOST
    assert most_of(signature(MOST_BYTES // 4, MOST_BYTES // 4)) == 2
    assert most_of(signature(MOST_BYTES + 1)) == 1
    assert most_of(signature(0)) == MOST


@pytest.mark.parametrize(
    ("signature", "arguments"),
    [
        ("infer(self: openvino._pyopenvino.InferRequest, inputs: dict) -> dict", ({},)),
        ("infer(self: o.InferRequest, inputs: dict, share_outputs: bool) -> object", ({}, True)),
        (
            "1. infer(self: o.InferRequest, inputs: openvino._pyopenvino.Tensor, share_outputs: bool) -> object\n"
            "2. infer(self: o.InferRequest, inputs: dict, share_outputs: bool, decode_strings: bool) -> object",
            ({}, True, True),
        ),
        (
            "infer(self: o.InferRequest, inputs: Dict[str, o.Tensor], share_outputs: bool) -> object",
            ({}, True),
        ),
        ("infer(self: o.InferRequest, inputs: dict, something_new: bool) -> object", None),
        ("infer(*args, **kwargs)", None),
        ("", None),
    ],
)
def test_bindings_of_all_releases(signature: str, arguments: object) -> None:
    assert ov._bare_arguments(signature) == arguments


def test_this_release_is_called_without_detours() -> None:
    assert ov._BARE is not None
    assert ov._BINDING.__module__.endswith("_pyopenvino")


def test_a_release_of_a_kind_that_was_never_seen(
    model: OpenVinoModel, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ov, "_BARE", None)
    monkeypatch.setattr(ov, "INFER_ARGUMENTS", ())
    infer(model, prepare(model, bench), 7)
