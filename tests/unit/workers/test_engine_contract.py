"""What the loop relies on, held against both engines."""

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from common.arena import Segment
from common.dtypes import STORAGE
from common.errors import Code
from common.tensors import TensorSpec
from tests.unit.workers.conftest import MEMORY, Bench
from tests.unit.workers.models import TYPES, Tensors, fake_copies, model_config, openvino_copies
from workers.engine import Array, Binding, Engine, LoadError, MemoryId, Model, Run, RunResult, VariableModel
from workers.fake_engine import FakeEngine
from workers.openvino_engine import OpenVinoEngine

Load = Callable[..., Model]


@pytest.fixture(scope="module")
def openvino_engine() -> OpenVinoEngine:
    return OpenVinoEngine("CPU", 1)


@pytest.fixture(params=["openvino", "fake"])
def engine(request: pytest.FixtureRequest, openvino_engine: OpenVinoEngine) -> Engine:
    return openvino_engine if request.param == "openvino" else FakeEngine()


@pytest.fixture
def load(engine: Engine, tmp_path: Path, bench: Bench) -> Iterator[Load]:
    """Loads a model that copies its inputs. Depends on `bench`, so that models are closed before the memory is."""
    models: list[Model] = []

    def load_copies(*tensors: tuple[str, str, tuple[int, ...]], nireq: int = 1) -> Model:
        write = fake_copies if isinstance(engine, FakeEngine) else openvino_copies
        model = engine.load(write(tmp_path / "1", tensors), model_config(nireq))
        assert not isinstance(model, VariableModel)
        models.append(model)
        return models[-1]

    yield load_copies
    for model in models:
        model.close()
    models.clear()
    gc.collect()


@pytest.mark.parametrize("dtype", TYPES)
def test_every_element_type_runs_in_place(load: Load, bench: Bench, dtype: str) -> None:
    model = load(("in_0", dtype, (2, 3)))
    assert model.signature.inputs == (TensorSpec("in_0", dtype, (2, 3)),)
    assert model.signature.outputs == (TensorSpec("out_0", dtype, (2, 3)),)
    values = np.array([[0, 1, 2], [3, 4, 5]]).astype(STORAGE[dtype])
    if dtype == "bfloat16":
        values = np.array([[0, 1, 2], [3, 4, 5]], np.float32).view(np.uint16)[:, 1::2].copy()
    for _ in range(3):
        (output,) = bench.infer(model, [values])
        np.testing.assert_array_equal(output, values)


def test_several_tensors_keep_their_order(load: Load, bench: Bench) -> None:
    model = load(("in_0", "float32", (2,)), ("in_1", "int64", (3, 1)), ("in_2", "uint8", (1, 2, 2)))
    assert [spec.name for spec in model.signature.inputs] == ["in_0", "in_1", "in_2"]
    assert [spec.name for spec in model.signature.outputs] == ["out_0", "out_1", "out_2"]
    inputs: list[Array] = [
        np.array([1.5, -2], np.float32),
        np.array([[1], [2], [3]], np.int64),
        np.arange(4, dtype=np.uint8).reshape(1, 2, 2),
    ]
    for produced, given in zip(bench.infer(model, inputs), inputs, strict=True):
        np.testing.assert_array_equal(produced, given)


def test_scalar(load: Load, bench: Bench) -> None:
    model = load(("in_0", "float32", ()))
    (output,) = bench.infer(model, [np.array(2.5, np.float32)])
    assert output.shape == ()
    assert output == np.float32(2.5)


def test_dynamic_batch_comes_back_as_bytes(load: Load, bench: Bench) -> None:
    model = load(("in_0", "float32", (-1, 3)))
    assert model.signature.inputs == (TensorSpec("in_0", "float32", (-1, 3)),)
    for batch in (1, 4, 2, 0):
        given = np.arange(batch * 3, dtype=np.float32).reshape(batch, 3)
        (output,) = bench.infer(model, [given])
        assert output.shape == (batch, 3)
        np.testing.assert_array_equal(output, given)


def test_alternating_between_runs_mixes_nothing_up(load: Load, bench: Bench) -> None:
    model = load(("in_0", "int32", (4,)), nireq=2)
    for number in range(40):
        given = np.full(4, number, np.int32)
        (output,) = bench.infer(model, [given])
        np.testing.assert_array_equal(output, given)


def test_nireq_runs_at_once_each_in_its_own_memory(load: Load, bench: Bench) -> None:
    model = load(("in_0", "int32", (-1,)), nireq=3)
    runs = [bench.prepare(model, [np.full(n + 1, n, np.int32)]) for n in range(3)]
    results: dict[int, RunResult] = {}
    all_ended = threading.Event()

    def done(run: Run, result: RunResult) -> None:
        results[run.key.id] = result
        if len(results) == 3:
            all_ended.set()

    for run in runs:
        result = model.start(run, done)
        if result is not None:
            done(run, result)
    assert all_ended.wait(10)
    for number, run in enumerate(runs):
        result = results[run.key.id]
        assert result.error is None
        assert result.shapes == ((number + 1,),)
        assert result.data[0] == np.full(number + 1, number, np.int32).tobytes()


def test_released_memory_can_be_unmapped_and_other_memory_used(load: Load, bench: Bench) -> None:
    model = load(("in_0", "float32", (8,)), nireq=2)
    other = Bench()
    given = np.arange(8, dtype=np.float32)
    for _ in range(3):
        run = other.prepare(model, [given])
        run.memory = MemoryId("another", 0)
        assert other.wait(model, run).error is None
        run.forget()
    model.release(MemoryId("another", 0))
    other.segment.close()
    (output,) = bench.infer(model, [given])
    np.testing.assert_array_equal(output, given)


def test_release_leaves_other_memory_alone(load: Load, bench: Bench) -> None:
    model = load(("in_0", "float32", (8,)))
    given = np.arange(8, dtype=np.float32)
    bench.infer(model, [given])
    model.release(MemoryId(MEMORY.frontend, 7))
    (output,) = bench.infer(model, [given])
    np.testing.assert_array_equal(output, given)


def test_more_than_a_reply_may_hold_is_refused(load: Load) -> None:
    model = load(("in_0", "uint8", (-1,)))
    bound = 64 << 20
    segment = Segment.create(bound + 1)
    try:
        for size, code in ((bound, None), (bound + 1, Code.RESOURCE_EXHAUSTED)):
            bench = Bench()
            run = bench.prepare(model, [np.zeros(1, np.uint8)])
            run.binding = Binding([np.ndarray((size,), np.uint8, segment.buffer)], run.outputs)
            result = bench.wait(model, run)
            run.forget()
            model.release(MEMORY)
            bench.segment.close()
            if code is None:
                assert result.error is None
                assert len(result.data[0] or b"") == size
            else:
                assert result.error is not None
                assert result.error.code is code
                assert str(bound) in result.error.message
    finally:
        segment.close()


@pytest.mark.parametrize("missing", ["everything", "model.bin"])
def test_incomplete_directory_is_a_load_error_without_its_path(
    engine: Engine, tmp_path: Path, missing: str
) -> None:
    if missing == "model.bin":
        (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(LoadError) as raised:
        engine.load(tmp_path, model_config(1))
    assert raised.value.reason
    assert str(tmp_path) not in raised.value.reason


def test_directory_that_is_not_there(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        engine.load(tmp_path / "gone", model_config(1))


def test_closed_model_holds_no_memory(engine: Engine, tmp_path: Path) -> None:
    tensors: Tensors = [("in_0", "float32", (4,))]
    write = fake_copies if isinstance(engine, FakeEngine) else openvino_copies
    model = engine.load(write(tmp_path / "1", tensors), model_config(1))
    assert not isinstance(model, VariableModel)
    bench = Bench()
    bench.infer(model, [np.zeros(4, np.float32)])
    model.close()
    bench.segment.close()
