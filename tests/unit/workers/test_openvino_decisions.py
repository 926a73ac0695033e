"""What a worker decides for its models: threads, streams, how many run at once, on which executor and device."""

import time
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from openvino import opset13 as op

from tests.unit.workers.conftest import Bench, outputs_of
from tests.unit.workers.models import load_static, model_config, named, parameter, relu, save
from workers.engine import LoadError, Run, RunResult
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel


def test_threads_and_streams_follow_the_plan(tmp_path: Path) -> None:
    engine = OpenVinoEngine("CPU", 1)
    model = load_static(engine, relu(tmp_path), model_config(4))
    assert model._compiled is not None
    assert model._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    assert model._compiled.get_property("NUM_STREAMS") == 1
    assert model._compiled.get_property("ENABLE_CPU_PINNING") is False


@pytest.mark.parametrize("short", [True, False], ids=["short", "long"])
def test_the_worker_decides_how_many_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    """Of a quick model one; of another as many as OpenVINO advises, and one more if it is short; what is said holds."""
    monkeypatch.setattr("workers.openvino_compiler._SHORT_NS", 1 << 62 if short else 1)
    engine = OpenVinoEngine("CPU", 2)
    quick = load_static(engine, relu(tmp_path / "quick"), replace(model_config(1), nireq=None))
    assert quick.nireq == 1
    x = parameter("x", "float32", (1, 64, 128, 128))
    layer = op.constant(np.ones((64, 64, 3, 3), np.float32))
    slow = save(
        tmp_path / "slow", [named(op.convolution(x, layer, [1, 1], [1, 1], [1, 1], [1, 1]), "y")], [x]
    )
    free = load_static(engine, slow, replace(model_config(1), nireq=None))
    assert free._compiled is not None
    advised = free._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    assert advised > 1
    assert free.nireq == advised + short
    assert load_static(engine, slow, model_config(1)).nireq == 1
    chosen = replace(model_config(1), nireq=None, plugin_config={"NUM_STREAMS": "1"})
    assert load_static(engine, slow, chosen).nireq == 1
    assert load_static(OpenVinoEngine("CPU", 1), slow, replace(model_config(1), nireq=None)).nireq == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_within_the_call_is_reported_and_hurts_no_other_model(
    bench: Bench, tmp_path: Path, threads: int
) -> None:
    """Quick models share an executor of OpenVINO's; with one of its own and one thread it would swallow the failure."""
    engine = OpenVinoEngine("CPU", threads)
    left_to_us = replace(model_config(1), nireq=None)
    index = parameter("index", "int32", (1,))
    zeros, five = op.constant(np.zeros(4, np.float32)), op.constant(np.array([5], np.float32))
    scattered = named(op.scatter_update(zeros, index, five, op.constant(np.int64(0))), "y")
    scatter = load_static(engine, save(tmp_path / "scatter", [scattered], [index]), left_to_us)
    other = load_static(engine, relu(tmp_path / "relu"), left_to_us)
    assert scatter.is_quick
    assert other.is_quick

    def start(model: OpenVinoModel, array: np.ndarray) -> tuple[RunResult | None, Run]:
        run = bench.prepare(model, [array])
        run.started = time.monotonic_ns()
        return model.start(run, lambda *_: None), run

    for _ in range(3):
        failed, _run = start(scatter, np.array([99], np.int32))
        assert failed is not None
        assert failed.error is not None
        result, run = start(other, np.array([[-1, 2, -3], [4, -5, 6]], np.float32))
        assert result is not None
        np.testing.assert_array_equal(outputs_of(other, run, result)[0], [[0, 2, 0], [4, 0, 6]])
        result, run = start(scatter, np.array([2], np.int32))
        assert result is not None
        np.testing.assert_array_equal(outputs_of(scatter, run, result)[0], [0, 0, 5, 0])
    for model in (scatter, other):
        model.close()


@pytest.mark.parametrize("device", ["HETERO:CPU", "MULTI:CPU", "AUTO:CPU", "AUTO"])
def test_devices_that_delegate_to_the_cpu(bench: Bench, tmp_path: Path, device: str) -> None:
    model = load_static(OpenVinoEngine(device, 1), relu(tmp_path), model_config(2))
    for _ in range(3):
        (output,) = bench.infer(model, [np.array([[-1, 2, -3], [4, -5, 6]], np.float32)])
        np.testing.assert_array_equal(output, [[0, 2, 0], [4, 0, 6]])
    model.close()


def test_device_that_is_not_there(tmp_path: Path) -> None:
    engine = OpenVinoEngine("MYRIAD", 1)
    with pytest.raises(LoadError, match="MYRIAD"):
        engine.load(relu(tmp_path), model_config(1))
