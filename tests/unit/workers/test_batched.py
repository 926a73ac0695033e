"""Batches in a worker: gathered, inferred with a model of their size, scattered; and models that take none."""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from common.config import BatchingParameters
from common.errors import Code
from common.tensors import TensorSpec
from tests.unit.workers.conftest import Bench, outputs_of
from tests.unit.workers.models import model_config, named, parameter, save
from workers.batch_shapes import UnbatchableError, check_inputs, check_outputs
from workers.batched import BatchedModel
from workers.engine import Array, BatchableModel, Run, RunResult
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel
from workers.ports import Port

Load = Callable[..., BatchedModel]
WIDTH, SCORES = 24, 5
RANDOM = np.random.default_rng(7)
WEIGHTS = RANDOM.standard_normal((WIDTH, SCORES), np.float32)


@pytest.fixture(scope="module")
def engine() -> OpenVinoEngine:
    return OpenVinoEngine("CPU", 1)


@pytest.fixture
def load(engine: OpenVinoEngine, bench: Bench) -> Iterator[Load]:
    """Loads models that take batches. Depends on `bench`, so that models are closed before the memory is."""
    models: list[BatchedModel] = []

    def load_path(path: Path, batching: BatchingParameters | None = None, **options: Any) -> BatchedModel:
        parameters = batching or BatchingParameters(8)
        loaded = engine.load(path, model_config(batching_parameters=parameters, **options))
        assert isinstance(loaded, BatchableModel), loaded.notes
        models.append(BatchedModel(loaded))
        return models[-1]

    yield load_path
    while models:
        models.pop().close()
    gc.collect()


def dense(path: Path, *shape: int) -> Path:
    """Scores (softmax of a matrix product) and their greatest, of a batch of rows."""
    x = parameter("x", "float32", shape or (1, WIDTH))
    scores = op.softmax(op.matmul(x, WEIGHTS, False, False), 1)
    return save(path, [named(scores, "scores"), named(op.reduce_max(scores, [1]), "best")], [x])


def together(bench: Bench, model: BatchedModel, *inputs: Sequence[Array]) -> list[list[Array] | RunResult]:
    """Run these as one batch; of each its outputs, or its failure."""
    runs = [bench.prepare(model, arrays) for arrays in inputs]
    results = run_batch(model, runs)
    return [
        result if result.error is not None else [output.copy() for output in outputs_of(model, run, result)]
        for run, result in zip(runs, results, strict=True)
    ]


def run_batch(model: BatchedModel, runs: list[Run]) -> Sequence[RunResult]:
    ended = threading.Event()
    found: list[RunResult] = []

    def done(_: Sequence[Run], results: Sequence[RunResult]) -> None:
        found.extend(results)
        ended.set()

    results = model.start_batch(runs, done)
    if results is not None:
        return results
    for _ in range(1000):
        if ended.wait(0.005):
            return found
        model.poll()
    raise AssertionError("the batch did not end")


def rows(count: int, width: int = WIDTH) -> Array:
    return RANDOM.standard_normal((count, width), np.float32)


def openvino_itself(path: Path, x: Array) -> list[Array]:
    """What OpenVINO gives for this input, called directly with a model of this very shape."""
    core = ov.Core()
    model = core.read_model(path / "model.xml")
    model.reshape([ov.Dimension(length) for length in x.shape])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": "1"})
    return [array.copy() for array in compiled(x).values()]


@pytest.mark.parametrize("counts", [(1,), (8,), (1, 1), (1, 3), (2, 2, 4), (1,) * 8, (5, 1, 2)])
def test_each_gets_its_own_rows_bit_for_bit(
    load: Load, bench: Bench, tmp_path: Path, counts: tuple[int, ...]
) -> None:
    path = dense(tmp_path / "1")
    model = load(path)
    parts = [rows(count) for count in counts]
    size = min(size for size in (1, 2, 4, 8) if size >= sum(counts))
    whole = np.concatenate(parts)
    padded = np.concatenate([whole, np.repeat(whole[-1:], size - len(whole), axis=0)])
    expected = openvino_itself(path, padded)
    row = 0
    for part, outputs in zip(parts, together(bench, model, *[[part] for part in parts]), strict=True):
        assert not isinstance(outputs, RunResult)
        assert [output.shape for output in outputs] == [(len(part), SCORES), (len(part),)]
        for output, right in zip(outputs, expected, strict=True):
            assert np.array_equal(output, right[row : row + len(part)])
        row += len(part)


def test_a_request_alone_is_inferred_with_the_model_of_its_size(
    load: Load, bench: Bench, tmp_path: Path
) -> None:
    path = dense(tmp_path / "1")
    model = load(path)
    for count in (1, 2, 4, 8):
        x = rows(count)
        for output, right in zip(bench.infer(model, [x]), openvino_itself(path, x), strict=True):
            assert np.array_equal(output, right)


@pytest.mark.parametrize("count", [3, 5, 6, 7])
def test_a_request_alone_of_another_size_is_padded(
    load: Load, bench: Bench, tmp_path: Path, count: int
) -> None:
    model = load(dense(tmp_path / "1"))
    x = rows(count)
    for output, right in zip(bench.infer(model, [x]), openvino_itself(tmp_path / "1", x), strict=True):
        np.testing.assert_allclose(np.asarray(output, np.float32), np.asarray(right, np.float32), rtol=1e-6)


def test_batch_after_batch_in_the_same_memory(load: Load, bench: Bench, tmp_path: Path) -> None:
    path = dense(tmp_path / "1")
    model = load(path, nireq=2)
    for _ in range(50):
        parts = [rows(1) for _ in range(4)]
        expected = openvino_itself(path, np.concatenate(parts))[0]
        for row, outputs in enumerate(together(bench, model, *[[part] for part in parts])):
            assert not isinstance(outputs, RunResult)
            assert np.array_equal(outputs[0][0], expected[row])


def test_allowed_sizes_alone_are_compiled(load: Load, bench: Bench, tmp_path: Path) -> None:
    path = dense(tmp_path / "1")
    model = load(path, BatchingParameters(6, 0, (3, 6)))
    x = rows(1)
    expected = openvino_itself(path, np.repeat(x, 3, axis=0))[0][:1]
    assert np.array_equal(bench.infer(model, [x])[0], expected)


def test_the_signature_leaves_the_rows_open_and_says_how_many(load: Load, tmp_path: Path) -> None:
    signature = load(dense(tmp_path / "1")).signature
    assert signature.inputs == (TensorSpec("x", "float32", (-1, WIDTH)),)
    assert [spec.shape for spec in signature.outputs] == [(-1, SCORES), (-1,)]
    assert signature.max_rows == 8


def test_several_inputs_and_types(load: Load, bench: Bench, tmp_path: Path) -> None:
    x, y = parameter("x", "float32", (4, 2, 3)), parameter("y", "int64", (4,))
    total = op.add(op.reduce_sum(x, [1, 2]), op.convert(y, "f32"))
    model = load(save(tmp_path / "1", [named(total, "total"), named(op.multiply(y, y), "square")], [x, y]))
    inputs = [
        (RANDOM.integers(0, 9, (count, 2, 3)).astype(np.float32), np.arange(count, dtype=np.int64))
        for count in (1, 2, 2)
    ]
    for (one, two), outputs in zip(inputs, together(bench, model, *inputs), strict=True):
        assert not isinstance(outputs, RunResult)
        assert np.array_equal(outputs[0], one.sum((1, 2)) + two)
        assert np.array_equal(outputs[1], two * two)


def test_an_output_that_is_an_input_passed_through(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = parameter("x", "float32", (1, 3))
    model = load(save(tmp_path / "1", [named(op.relu(x), "y"), x], [x]))
    parts = [[rows(count, 3)] for count in (1, 2, 1)]
    for (part,), outputs in zip(parts, together(bench, model, *parts), strict=True):
        assert not isinstance(outputs, RunResult)
        assert np.array_equal(outputs[0], np.maximum(part, 0))
        assert np.array_equal(outputs[1], part)


def test_other_dimensions_may_be_open(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = parameter("x", "float32", (-1, -1))
    model = load(save(tmp_path / "1", [named(op.relu(x), "y")], [x]))
    assert [spec.shape for spec in model.signature.outputs] == [(-1, -1)]
    for width in (3, 7):
        parts = [[rows(count, width)] for count in (1, 3)]
        for (part,), outputs in zip(parts, together(bench, model, *parts), strict=True):
            assert not isinstance(outputs, RunResult)
            assert np.array_equal(outputs[0], np.maximum(part, 0))
    assert np.array_equal(bench.infer(model, [part])[0], np.maximum(part, 0))


def test_a_batch_that_fails_fails_as_a_whole(load: Load, bench: Bench, tmp_path: Path) -> None:
    """A broadcast that is wrong is seen only when the open dimension is known."""
    x, y = parameter("x", "float32", (-1, -1)), parameter("y", "float32", (-1, -1))
    model = load(save(tmp_path / "1", [named(op.add(x, y), "sum")], [x, y]))
    misfit = [rows(1, 3), rows(1, 2)]
    results = together(bench, model, misfit, misfit)
    for result in results:
        assert isinstance(result, RunResult)
        assert result.error is not None
        assert result.error.code is Code.INVALID_ARGUMENT
    fit = [rows(1, 3), rows(1, 3)]
    assert not isinstance(together(bench, model, fit, fit)[0], RunResult), "the slot is free again"


# ---- options


@pytest.mark.parametrize("batch_size", [4, "auto"])
def test_batch_size_does_not_say_how_many_rows_a_request_has(
    load: Load, tmp_path: Path, batch_size: Any
) -> None:
    model = load(dense(tmp_path / "1"), batch_size=batch_size)
    assert model.signature.inputs[0].shape == (-1, WIDTH)
    expected = ("batching_parameters are given, so batch_size is not used",) if batch_size == 4 else ()
    assert model.notes == expected


def test_shape_says_all_but_the_rows(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = parameter("x", "float32", (1, 3))
    path = save(tmp_path / "1", [named(op.relu(x), "y")], [x])
    model = load(path, shape={"": (1, 9)})
    assert model.signature.inputs[0].shape == (-1, 9)
    part = rows(3, 9)
    assert np.array_equal(bench.infer(model, [part])[0], np.maximum(part, 0))


# ---- models that take no batches


def written_shape(path: Path) -> Path:
    x = parameter("x", "float32", (2, 3))
    return save(path, [named(op.reshape(x, np.array([3, 2]), False), "y")], [x])


def flattened(path: Path) -> Path:
    """Whatever comes is one row."""
    x = parameter("x", "float32", (1, 3))
    return save(path, [named(op.reshape(x, np.array([1, -1]), False), "y")], [x])


def summed(path: Path) -> Path:
    x = parameter("x", "float32", (1, 3))
    return save(path, [named(op.reduce_sum(x, [0]), "y")], [x])


def scalar(path: Path) -> Path:
    x = parameter("x", "float32", ())
    return save(path, [named(op.relu(x), "y")], [x])


def table(path: Path) -> Path:
    """The second input is a table for all rows."""
    x, y = parameter("x", "float32", (1, 3)), parameter("y", "float32", (3, 2))
    return save(path, [named(op.matmul(x, y, False, False), "z")], [x, y])


def squared(path: Path) -> Path:
    """The output depends on the number of rows beyond its first dimension."""
    x = parameter("x", "float32", (1, 3))
    return save(path, [named(op.matmul(x, x, False, True), "y")], [x])


@pytest.mark.parametrize(
    ("write", "options", "reason"),
    [
        (written_shape, {}, "it cannot be reshaped to x (1,3): "),
        (flattened, {}, "for 2 rows of input, output 'y' has the shape [1, 6]"),
        (summed, {}, "for 1 rows of input, output 'y' has the shape [3]"),
        (scalar, {}, "input 'x' has no first dimension"),
        (table, {}, "the first dimensions of the inputs differ: x 1, y 3"),
        (squared, {}, "output 'y' has the rows [1] or [2], depending on their number"),
        (dense, {"shape": "auto"}, "with shape auto each request is inferred in its own shape"),
        (dense, {"layout": {"": "CN"}}, "the first dimension of input 'x' is not the batch: CN"),
    ],
)
def test_where_batches_cannot_be_each_is_inferred_by_itself_and_it_is_said_why(
    engine: OpenVinoEngine,
    tmp_path: Path,
    write: Callable[[Path], Path],
    options: dict[str, Any],
    reason: str,
) -> None:
    path = write(tmp_path / "1")
    plain = engine.load(path, model_config(**options))
    model = engine.load(path, model_config(batching_parameters=BatchingParameters(8), **options))
    assert not isinstance(model, BatchableModel)
    assert type(model) is type(plain)
    assert model.signature == plain.signature
    assert [note for note in model.notes if note.startswith(f"batching_parameters have no effect: {reason}")]
    model.close()
    plain.close()


def test_only_numbers_are_gathered() -> None:
    text = TensorSpec("x", "text", (1,))
    with pytest.raises(UnbatchableError, match="input 'x' is of type text"):
        check_inputs((Port(text, frozenset({"x"})),), model_config())
    with pytest.raises(UnbatchableError, match="output 'x' is of type text"):
        check_outputs((text,), 1)


@pytest.mark.parametrize("misfit", ["rows", "shape"])
def test_a_batch_that_is_none_fails_and_costs_nothing(
    load: Load, bench: Bench, tmp_path: Path, misfit: str
) -> None:
    x = parameter("x", "float32", (-1, -1))
    model = load(save(tmp_path / "1", [named(op.relu(x), "y")], [x]))
    other = rows(8, 3) if misfit == "rows" else rows(1, 1)
    for result in together(bench, model, [rows(1, 3)], [other]):
        assert isinstance(result, RunResult)
        assert result.error is not None
        assert result.error.code is Code.INTERNAL


def test_one_allowed_size_does_not_make_a_model_of_that_size_batchable(
    engine: OpenVinoEngine, tmp_path: Path
) -> None:
    path = written_shape(tmp_path / "1")
    model = engine.load(path, model_config(batching_parameters=BatchingParameters(2, 0, (2,))))
    assert isinstance(model, OpenVinoModel)
    model.close()


def test_a_closed_model_holds_no_memory(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = engine.load(dense(tmp_path / "1"), model_config(batching_parameters=BatchingParameters(4)))
    assert isinstance(loaded, BatchableModel)
    bench, model = Bench(), BatchedModel(loaded)
    del loaded
    bench.infer(model, [rows(1)])
    together(bench, model, [rows(1)], [rows(2)])
    model.close()
    gc.collect()
    bench.segment.close()
