"""What is true of the real engine alone: OpenVINO's habits, names, properties and refusals."""

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset6, opset8
from openvino import opset13 as op

from common.errors import Code
from tests.unit.workers.conftest import MEMORY, Bench
from tests.unit.workers.models import load_static, model_config, named, parameter, relu, save
from workers.engine import LoadError, Run, RunResult, all_in_place
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel

Load = Callable[..., OpenVinoModel]


@pytest.fixture(scope="module")
def engine() -> OpenVinoEngine:
    return OpenVinoEngine("CPU", 1)


@pytest.fixture
def load(engine: OpenVinoEngine, bench: Bench) -> Iterator[Load]:
    """Loads versions; closes them before the memory is."""
    models: list[OpenVinoModel] = []

    def load_path(path: Path, nireq: int = 1, **plugin_config: str) -> OpenVinoModel:
        models.append(load_static(engine, path, model_config(nireq, plugin_config=plugin_config)))
        return models[-1]

    yield load_path
    for model in models:
        model.close()
    models.clear()
    gc.collect()


def add(path: Path, *shapes: tuple[int, ...]) -> Path:
    x, y = parameter("x", "float32", shapes[0]), parameter("y", "float32", shapes[1])
    return save(path, [named(op.add(x, y), "sum")], [x, y])


def address(array: Any) -> int:
    return int(array.ctypes.data)


@pytest.mark.parametrize("quick", [True, False], ids=["inline", "asynchronous"])
def test_tensors_lie_in_the_shared_memory(
    load: Load, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    model = load(relu(tmp_path))
    monkeypatch.setattr(model._pace, "is_quick", quick)
    monkeypatch.setattr(model._pace, "_until_review", 1 << 30)
    for _ in range(3):
        run = bench.prepare(model, [np.array([[-1, 2, -3], [4, -5, 6]], np.float32)])
        result = bench.wait(model, run)
        assert result == all_in_place(((2, 3),))
        bound = model._bound.find(run.binding)
        request = bound.request if bound is not None else model._slots[0].request
        assert quick == (bound is not None)
        assert request is not None
        assert address(request.get_input_tensor(0).data) == address(run.inputs[0])
        assert address(request.get_output_tensor(0).data) == address(run.outputs[0])
        np.testing.assert_array_equal(run.outputs[0], [[0, 2, 0], [4, 0, 6]])


@pytest.mark.parametrize("shape", [(2, 3), (-1, 3)])
def test_a_binding_keeps_its_memory_mapped_until_it_is_released(
    load: Load, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    model = load(relu(tmp_path, shape))
    bench = Bench()
    bench.infer(model, [np.ones((2, 3), np.float32)])
    with pytest.raises(BufferError):
        bench.segment.close()
    model.release(MEMORY)
    bench.segment.close()


def test_quick_static_models_are_inferred_within_the_call(load: Load, bench: Bench, tmp_path: Path) -> None:
    model = load(relu(tmp_path))
    run = bench.prepare(model, [np.zeros((2, 3), np.float32)])
    assert model.start(run, lambda _, __: pytest.fail("reported twice")) is not None


@pytest.mark.parametrize("case", ["dynamic input", "shape that depends on data", "loop"])
def test_models_that_can_fail_on_shapes_are_never_inferred_within_the_call(
    load: Load, tmp_path: Path, case: str
) -> None:
    x = parameter("x", "float32", (-1,) if case == "dynamic input" else (4,))
    if case == "shape that depends on data":
        save(tmp_path, [named(op.reduce_sum(op.non_zero(x), np.array([0, 1])), "y")], [x])
    elif case == "loop":
        then_x, else_x = parameter("then_x", "float32", (4,)), parameter("else_x", "float32", (4,))
        then_body = ov.Model([then_result := op.result(op.relu(then_x))], [then_x], "then")
        else_body = ov.Model([else_result := op.result(op.abs(else_x))], [else_x], "else")
        choice = opset8.if_op(op.greater(op.reduce_sum(x, np.array([0])), np.float32(0)))
        choice.set_then_body(then_body)
        choice.set_else_body(else_body)
        choice.set_input(x.output(0), then_x, else_x)
        save(tmp_path, [named(choice.set_output(then_result, else_result).get_node(), "y")], [x])
    else:
        save(tmp_path, [named(op.relu(x), "y")], [x])
    assert not load(tmp_path)._pace.is_quick


def test_numbers_are_openvinos_own(load: Load, bench: Bench, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    x = parameter("x", "float32", (-1, 32))
    weights = op.constant(rng.standard_normal((32, 10)).astype(np.float32))
    save(tmp_path, [named(op.softmax(op.matmul(x, weights, False, False), 1), "y")], [x])
    model = load(tmp_path)
    reference = ov.Core().compile_model(tmp_path / "model.xml", "CPU")
    for batch in (1, 5, 2):
        given = rng.standard_normal((batch, 32)).astype(np.float32)
        (output,) = bench.infer(model, [given])
        np.testing.assert_allclose(output.astype(np.float32), reference(given)[0], rtol=1e-6, atol=0)


def test_size_of_output_depends_on_data(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = parameter("x", "float32", (4,))
    save(tmp_path, [named(op.non_zero(x), "found"), named(op.relu(x), "y")], [x])
    model = load(tmp_path)
    assert [spec.is_static for spec in model.signature.outputs] == [False, True]
    for values in ([1, 0, 2, 0], [0, 0, 0, 0], [1, 1, 1, 1]):
        found, y = bench.infer(model, [np.array(values, np.float32)])
        np.testing.assert_array_equal(found, np.nonzero(np.array(values)))
        np.testing.assert_array_equal(y, values)


def test_rank_that_is_open_is_refused_by_the_cpu(load: Load, tmp_path: Path) -> None:
    node = op.parameter(ov.PartialShape.dynamic(), ov.Type.f32, name="x")
    node.output(0).set_names({"x"})
    with pytest.raises(LoadError, match="dynamic rank"):
        load(save(tmp_path, [named(op.relu(node), "y")], [node]))


@pytest.mark.parametrize("shape", [(3,), (-1,)])
def test_input_passed_through_and_one_tensor_given_out_twice(
    load: Load, bench: Bench, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    x, y = parameter("x", "float32", shape), parameter("y", "float32", shape)
    total = named(op.add(x, y), "sum")
    model = load(save(tmp_path, [y, total, total], [x, y]))
    names = [spec.name for spec in model.signature.outputs]
    assert names[:2] == ["y", "sum"]
    assert len(set(names)) == 3
    for number in range(3):
        first, second = np.full(3, number, np.float32), np.array([1, 2, 3], np.float32)
        outputs = bench.infer(model, [first, second])
        for output, expected in zip(outputs, (second, first + second, first + second), strict=True):
            np.testing.assert_array_equal(output, expected)


def test_outputs_of_dynamic_shape_are_not_mixed_up_between_requests(
    load: Load, bench: Bench, tmp_path: Path
) -> None:
    x = parameter("x", "int32", (-1,))
    same = named(op.convert(x, "i32"), "same")
    save(tmp_path, [same, named(op.add(x, np.int32(1)), "next")], [x])
    model = load(tmp_path, nireq=4, INFERENCE_NUM_THREADS="2", NUM_STREAMS="2")
    given = [np.full(n + 1, n, np.int32) for n in range(4)]
    runs = [bench.prepare(model, [array]) for array in given]
    for _ in range(50):
        results: dict[int, RunResult] = {}
        ended = threading.Semaphore(0)

        def done(
            run: Run,
            result: RunResult,
            results: dict[int, RunResult] = results,
            ended: threading.Semaphore = ended,
        ) -> None:
            results[run.key.id] = result
            ended.release()

        for run in runs:
            assert model.start(run, done) is None
        for _ in runs:
            while not ended.acquire(timeout=0.05):
                model.poll()
        for run, array in zip(runs, given, strict=True):
            assert results[run.key.id].data == (array.tobytes(), (array + 1).tobytes())


def test_openvinos_threads_keep_what_python_knows_of_them(load: Load, bench: Bench, tmp_path: Path) -> None:
    model = load(add(tmp_path, (-1,), (-1,)))
    of_the_thread, counts = threading.local(), []
    ended = threading.Semaphore(0)

    def done(_run: Run, _result: RunResult) -> None:
        # What is local to a thread goes with the state that Python has of it.
        of_the_thread.count = getattr(of_the_thread, "count", 0) + 1
        counts.append((threading.get_ident(), of_the_thread.count))
        ended.release()

    for _ in range(5):
        run = bench.prepare(model, [np.ones(3, np.float32), np.ones(3, np.float32)])
        assert model.start(run, done) is None
        assert ended.acquire(timeout=10)
    threads = {thread for thread, _ in counts}
    assert threading.get_ident() not in threads
    assert sum(max(count for thread, count in counts if thread == one) for one in threads) == 5


def test_shape_that_the_model_cannot_take(load: Load, bench: Bench, tmp_path: Path) -> None:
    model = load(add(tmp_path, (-1, -1), (-1, -1)))
    for _ in range(3):
        run = bench.prepare(model, [np.ones((2, 3), np.float32), np.ones((5, 7), np.float32)])
        error = bench.wait(model, run).error
        assert error is not None
        assert error.code is Code.INVALID_ARGUMENT
        assert error.message.startswith("Error occurred during inference execution: ")
        assert "mismatch" in error.message
        assert "/" not in error.message
        assert ".cpp" not in error.message
        run = bench.prepare(model, [np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)])
        result = bench.wait(model, run)
        assert result.error is None
        assert result.data[0] == np.full((2, 3), 2, np.float32).tobytes()


def test_dimension_outside_its_bounds(load: Load, bench: Bench, tmp_path: Path) -> None:
    node = op.parameter(ov.PartialShape([ov.Dimension(1, 4), 2]), ov.Type.f32, name="x")
    node.output(0).set_names({"x"})
    model = load(save(tmp_path, [named(op.relu(node), "y")], [node]))
    error = bench.wait(model, bench.prepare(model, [np.ones((9, 2), np.float32)])).error
    assert error is not None
    assert error.code is Code.INVALID_ARGUMENT
    (output,) = bench.infer(model, [np.ones((4, 2), np.float32)])
    assert output.shape == (4, 2)


def test_callback_that_never_comes_is_made_up_for(load: Load, bench: Bench, tmp_path: Path) -> None:
    model = load(relu(tmp_path, (-1, 3)))
    given = np.ones((2, 3), np.float32)
    bench.infer(model, [given])
    request = model._slots[0].request
    assert request is not None
    request.set_callback(lambda _: None, None)
    (output,) = bench.infer(model, [given])
    np.testing.assert_array_equal(output, given)


def test_names_of_a_model_of_2020(load: Load, tmp_path: Path) -> None:
    """An IR of version 10 names layers, not tensors."""
    port = "<dim>1</dim><dim>3</dim>"
    (tmp_path / "model.bin").touch()
    (tmp_path / "model.xml").write_text(
        f"""<?xml version="1.0"?><net name="n" version="10"><layers>
        <layer id="0" name="data" type="Parameter" version="opset1"><data shape="1,3" element_type="f32"/>
          <output><port id="0" precision="FP32">{port}</port></output></layer>
        <layer id="1" name="prob/act" type="ReLU" version="opset1"><input><port id="0">{port}</port></input>
          <output><port id="1" precision="FP32">{port}</port></output></layer>
        <layer id="2" name="prob/sink_port_0" type="Result" version="opset1">
          <input><port id="0">{port}</port></input></layer></layers>
        <edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>
          <edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>"""
    )
    model = load(tmp_path)
    assert [spec.name for spec in model.signature.inputs] == ["data"]
    assert [spec.name for spec in model.signature.outputs] == ["prob/act"]


def test_name_of_the_layer_wins_over_further_names(load: Load, tmp_path: Path) -> None:
    x = parameter("x", "float32", (2,))
    x.output(0).set_names({"a:0", "x", "x:0"})
    y = op.relu(x)
    y.output(0).set_names({"b:0", "c"})
    model = load(save(tmp_path, [y], [x]))
    assert [spec.name for spec in model.signature.inputs] == ["x"]
    assert [spec.name for spec in model.signature.outputs] == ["b:0"]


def test_stateful_model_is_refused(engine: OpenVinoEngine, tmp_path: Path) -> None:
    x = parameter("x", "float32", (2,))
    state = opset6.read_value(x, "memory")
    model = ov.Model([op.result(named(op.relu(state), "y"))], [opset6.assign(state, "memory")], [x], "m")
    ov.save_model(model, tmp_path / "model.xml")
    with pytest.raises(LoadError, match="stateful"):
        engine.load(tmp_path, model_config(1))


@pytest.mark.parametrize("kind", ["i4", "u4", "u1", "f8e4m3"])
def test_unsupported_element_type_is_refused(engine: OpenVinoEngine, tmp_path: Path, kind: str) -> None:
    node = op.parameter([8], getattr(ov.Type, kind), name="x")
    node.output(0).set_names({"x"})
    ov.save_model(ov.Model([op.result(node)], [node], "m"), tmp_path / "model.xml")
    with pytest.raises(LoadError, match="not supported"):
        engine.load(tmp_path, model_config(1))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("NO_SUCH_THING", "1", "NO_SUCH_THING"), ("NUM_STREAMS", "many", "many")],
)
def test_property_that_openvino_does_not_know(
    engine: OpenVinoEngine, tmp_path: Path, name: str, value: str, expected: str
) -> None:
    with pytest.raises(LoadError, match=expected) as raised:
        engine.load(relu(tmp_path), model_config(1, plugin_config={name: value}))
    assert ".cpp" not in raised.value.reason


@pytest.mark.parametrize(
    "plugin_config",
    [
        {"CPU_THROUGHPUT_STREAMS": "CPU_THROUGHPUT_AUTO"},
        {"CPU_THROUGHPUT_STREAMS": "CPU_THROUGHPUT_NUMA"},
        {"CPU_THROUGHPUT_STREAMS": "2", "CPU_THREADS_NUM": "2", "CPU_BIND_THREAD": "NO"},
        {"ENFORCE_BF16": "NO", "PERF_COUNT": "YES", "EXCLUSIVE_ASYNC_REQUESTS": "NO"},
        {"PERFORMANCE_HINT": "THROUGHPUT"},
    ],
)
def test_properties_that_have_to_work(
    load: Load, bench: Bench, tmp_path: Path, plugin_config: dict[str, str]
) -> None:
    model = load(relu(tmp_path), **plugin_config)
    outputs = bench.infer(model, [np.array([[-1, 2, -3], [4, -5, 6]], np.float32)])
    np.testing.assert_array_equal(outputs[0], [[0, 2, 0], [4, 0, 6]])


def test_two_models_in_one_directory(engine: OpenVinoEngine, tmp_path: Path) -> None:
    relu(tmp_path)
    (tmp_path / "other.xml").touch()
    with pytest.raises(LoadError, match=r"2 models instead of one: model\.xml, other\.xml"):
        engine.load(tmp_path, model_config(1))


def test_closing_waits_for_requests_that_are_held_still(engine: OpenVinoEngine, tmp_path: Path) -> None:
    """One of OpenVINO's threads may be the last to hold a request, and its end needs the lock that closing holds."""
    bench = Bench()
    model = load_static(engine, relu(tmp_path, (-1, 3)), model_config(1))
    bench.infer(model, [np.ones((2, 3), np.float32)])
    held = [model._slots[0].request]
    closing = threading.Thread(target=model.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    assert model._compiled is not None
    held.clear()
    closing.join(20)
    assert model._compiled is None


def test_closing_frees_the_model(engine: OpenVinoEngine, tmp_path: Path) -> None:
    """A request refers to its model by way of its callback, which the garbage collector does not see."""
    bench = Bench()
    model = load_static(engine, relu(tmp_path, (-1, 3)), model_config(2))
    bench.infer(model, [np.ones((2, 3), np.float32)])
    model.close()
    bench.segment.close()
    referrers = [slot.request for slot in model._slots]
    assert referrers == [None, None]
    assert model._compiled is None
