"""Tensors of strings in OpenVINO: what its bindings make of them, and what the engine does instead."""

import gc
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openvino import opset15 as op

from common.errors import Code
from common.strings import MAX_STRINGS, StringTensor, decode, encode_into, encoded_size
from common.tensors import TensorSpec
from tests.support.string_models import shout, shouted, strings_of, text, weigh
from tests.unit.workers.conftest import Bench, outputs_of
from tests.unit.workers.models import fake, model_config, named, save
from workers.engine import LoadError, Run, RunResult, VariableModel
from workers.fake_engine import FakeEngine, FakeModel
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel
from workers.openvino_strings import StringCodec
from workers.shaped import ShapedModel

Load = Callable[..., OpenVinoModel]

AWKWARD = [b"plain", b"", b"zeros\0\0", b"\0", b"in\0side", b"\xff\xfe\x80", "schön".encode(), b"x" * 5000]


def tensor_of(values: Sequence[bytes], shape: tuple[int, ...] | None = None) -> StringTensor:
    array = strings_of(values, shape)
    memory = bytearray(encoded_size(array))
    encode_into(array, memoryview(memory))
    return decode(memoryview(memory), array.shape)


@pytest.fixture(scope="module")
def engine() -> OpenVinoEngine:
    return OpenVinoEngine("CPU", 1)


@pytest.fixture(scope="module")
def codec() -> StringCodec:
    return StringCodec(ov.Core())


@pytest.fixture
def load(engine: OpenVinoEngine, bench: Bench) -> Iterator[Load]:
    """Loads versions; closes them before the memory is."""
    models: list[OpenVinoModel] = []

    def load_path(path: Path, nireq: int = 1) -> OpenVinoModel:
        model = engine.load(path, model_config(nireq))
        assert isinstance(model, OpenVinoModel)
        models.append(model)
        return model

    yield load_path
    for model in models:
        model.close()
    models.clear()
    gc.collect()


# ---- the bindings' habits, for which there is a codec


def test_the_bindings_lose_zeros_at_the_end() -> None:
    tensor = ov.Tensor([b"a\0", b"in\0side"])
    assert tensor.bytes_data.tolist() == [b"a", b"in\0side"]


def test_the_bindings_show_every_string_as_long_as_the_longest() -> None:
    assert ov.Tensor([b"x" * 1000, b"y"]).bytes_data.nbytes == 2000


def test_the_bindings_show_invalid_text_with_replacement_characters() -> None:
    tensor = ov.Tensor([b"\xff"])
    assert tensor.bytes_data.tolist() == [b"\xff"]
    assert tensor.str_data.tolist() == ["\N{REPLACEMENT CHARACTER}"]


def test_the_bindings_take_no_objects() -> None:
    with pytest.raises(RuntimeError):
        ov.Tensor(strings_of([b"a"]))


# ---- the codec


@pytest.mark.parametrize("shape", [(8,), (2, 4), (8, 1, 1), (2, 2, 2)])
def test_strings_come_back_byte_for_byte(codec: StringCodec, shape: tuple[int, ...]) -> None:
    packed = codec.pack(tensor_of(AWKWARD, shape))
    assert tuple(packed.get_shape()) == shape
    for _ in range(2):
        found = codec.unpack(packed).to_array()
        assert found.shape == shape
        assert found.reshape(-1).tolist() == AWKWARD
    assert tuple(packed.get_shape()) == shape


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([b"a\0"], ()),
        ([b""], ()),
        ([], (0,)),
        ([], (0, 3)),
        ([], (3, 0)),
        ([b"", b""], (2,)),
        ([b"", b"z"], (1, 2)),
    ],
)
def test_scalars_and_nothing(codec: StringCodec, values: list[bytes], shape: tuple[int, ...]) -> None:
    packed = codec.pack(tensor_of(values, shape))
    assert tuple(packed.get_shape()) == shape
    found = codec.unpack(packed).to_array()
    assert found.shape == shape
    assert found.reshape(-1).tolist() == values


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_any_strings(codec: StringCodec, values: list[bytes]) -> None:
    assert codec.unpack(codec.pack(tensor_of(values))).to_array().tolist() == values


def test_what_was_packed_is_independent_of_what_came(codec: StringCodec) -> None:
    memory = bytearray(16) + b"long enough to lie on the heap"
    memory[8:16] = np.array([30], np.int64).tobytes()
    packed = codec.pack(decode(memoryview(memory), (1,)))
    memory[16:] = b"-" * 30
    codec.pack(tensor_of([b"another one, later, of some length"]))
    assert codec.unpack(packed).to_array().tolist() == [b"long enough to lie on the heap"]


# ---- models


def test_strings_through_a_model(load: Load, bench: Bench, tmp_path: Path) -> None:
    model = load(shout(tmp_path))
    assert model.signature.inputs == (TensorSpec("x", "string", (-1,)),)
    assert model.signature.outputs == (TensorSpec("y", "string", (-1,)),)
    for values in (AWKWARD, [b"one"], AWKWARD[::-1], [b"\xff\xfe", b""]):
        (y,) = bench.infer(model, [strings_of(values)])
        assert y.tolist() == shouted(values)


def test_strings_and_numbers_together_and_an_output_that_is_an_input(
    load: Load, bench: Bench, tmp_path: Path
) -> None:
    model = load(weigh(tmp_path))
    for rows in (4, 1, 2):
        values = strings_of(AWKWARD[: 2 * rows], (rows, 2))
        numbers = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
        total, x = bench.infer(model, [values, numbers])
        lengths = np.array([len(value) for value in values.reshape(-1)], np.float32).reshape(rows, 2)
        np.testing.assert_array_equal(total, lengths + numbers)
        assert x.tolist() == values.tolist()


@pytest.mark.parametrize(
    ("shape", "values"),
    [((), [b"a\0"]), ((), [b""]), ((2, 2), AWKWARD[:4]), ((1,), [b"\xff"])],
)
def test_a_static_shape_leaves_the_size_open(
    load: Load, bench: Bench, tmp_path: Path, shape: tuple[int, ...], values: list[bytes]
) -> None:
    x = text("x", shape)
    model = load(save(tmp_path, [x], [x]))
    (spec,) = model.signature.outputs
    assert spec.shape == shape
    assert spec.has_static_shape
    assert not spec.is_static
    for _ in range(2):
        (found,) = bench.infer(model, [strings_of(values, shape)])
        assert found.shape == shape
        assert found.reshape(-1).tolist() == values


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_static_output_of_strings_that_are_made(
    load: Load, bench: Bench, tmp_path: Path, rows: int
) -> None:
    model = load(shout(tmp_path, (2, 2)))
    values = [b"a" * rows, b"", b"c" * 100 * rows, b"\xff" * rows]
    (found,) = bench.infer(model, [strings_of(values, (2, 2))])
    assert found.reshape(-1).tolist() == shouted(values)


def test_operations_that_move_strings(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = text("x", (-1,))
    twice = op.concat([x, x], 0)
    picked = op.gather(twice, op.constant(np.array([-1, 0])), op.constant(0))
    table = op.transpose(
        op.reshape(twice, op.constant(np.array([2, -1])), False), op.constant(np.array([1, 0]))
    )
    model = load(save(tmp_path, [named(picked, "picked"), named(table, "table")], [x]))
    for values in (AWKWARD, [b"only"], [b"long" * 20, b"", b"s"]):
        picks, rows = bench.infer(model, [strings_of(values)])
        assert picks.tolist() == [values[-1], values[0]]
        assert rows.tolist() == [[value, value] for value in values]


def test_several_at_a_time(load: Load, bench: Bench, tmp_path: Path) -> None:
    nireq, rounds = 4, 50
    model = load(shout(tmp_path), nireq)
    results: dict[int, RunResult] = {}
    ended = threading.Semaphore(0)

    def done(run: Run, result: RunResult) -> None:
        results[run.key.id] = result
        ended.release()

    for number in range(rounds):
        sent = [[b"%d:%d" % (number, lane) * 30 * lane, b"z"] for lane in range(nireq)]
        runs = [bench.prepare(model, [strings_of(values)]) for values in sent]
        for run in runs:
            assert model.start(run, done) is None
        for _ in runs:
            assert ended.acquire(timeout=20)
        model.poll()
        for run, values in zip(runs, sent, strict=True):
            result = results[run.key.id]
            assert result.error is None
            (found,) = outputs_of(model, run, result)
            assert found.tolist() == shouted(values)


def test_requests_that_bring_their_shapes(engine: OpenVinoEngine, bench: Bench, tmp_path: Path) -> None:
    source = engine.load(weigh(tmp_path, (1, 2)), model_config(batch_size="auto"))
    assert isinstance(source, VariableModel)
    model = ShapedModel(source)
    assert [spec.shape for spec in model.signature.inputs] == [(-1, 2), (-1, 2)]
    model.compiled[((3, 2), (3, 2))] = source.compile(((3, 2), (3, 2)))
    values = strings_of(AWKWARD[:6], (3, 2))
    total, x = bench.infer(model, [values, np.ones((3, 2), np.float32)])
    assert total.reshape(-1).tolist() == [len(value) + 1 for value in AWKWARD[:6]]
    assert x.tolist() == values.tolist()
    model.close()
    gc.collect()


def test_a_compiled_model_from_the_cache(bench: Bench, tmp_path: Path) -> None:
    path = shout(tmp_path / "1")
    for _ in range(2):
        model = OpenVinoEngine("CPU", 1, cache_dir=tmp_path / "cache").load(path, model_config())
        assert isinstance(model, OpenVinoModel)
        (found,) = bench.infer(model, [strings_of([b"HAL"])])
        assert found.tolist() == [b"IBM"]
        model.close()
    gc.collect()


def test_more_strings_than_an_answer_may_have(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = text("x", (-1,))
    model = load(save(tmp_path, [named(op.concat([x, x], 0), "y")], [x]))
    run = bench.prepare(model, [strings_of([b""] * (MAX_STRINGS // 2 + 1))])
    result = bench.wait(model, run)
    assert result.error is not None
    assert result.error.code == Code.RESOURCE_EXHAUSTED
    assert str(MAX_STRINGS) in result.error.message
    (found,) = bench.infer(model, [strings_of([b"a"])])
    assert found.tolist() == [b"a", b"a"]


def test_more_bytes_than_a_reply_may_have(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = text("x", (-1,))
    model = load(save(tmp_path, [named(op.concat([x] * 200, 0), "y")], [x]))
    result = bench.wait(model, bench.prepare(model, [strings_of([b"a" * 400_000])]))
    assert result.error is not None
    assert result.error.code == Code.RESOURCE_EXHAUSTED
    assert "80001608 bytes" in result.error.message


# ---- refusals


def operations() -> dict[str, Callable[[Any], Any]]:
    def whole(*values: int) -> Any:
        return op.constant(np.array(values))

    return {
        "Slice": lambda x: op.slice(x, whole(0), whole(1), whole(1)),
        "StridedSlice": lambda x: op.strided_slice(x, whole(0), whole(1), whole(1), [0], [0]),
        "Split": lambda x: op.split(x, op.constant(0), 2).output(1),
        "Tile": lambda x: op.tile(x, whole(2)),
        "Equal": lambda x: op.equal(x, x),
    }


@pytest.mark.parametrize("kind", operations())
def test_operations_that_openvino_cannot_do_on_strings_are_refused(
    engine: OpenVinoEngine, tmp_path: Path, kind: str
) -> None:
    x = text("x", (4,))
    made = operations()[kind](x)
    path = save(tmp_path, [made], [x])
    with pytest.raises(LoadError, match=f"operation {kind} on strings"):
        engine.load(path, model_config())


def test_a_release_without_strings(
    engine: OpenVinoEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in releases that have strings, and opset 14 at the most.
    monkeypatch.setitem(sys.modules, "openvino.opset15", None)
    monkeypatch.delattr(ov, "opset15")
    with pytest.raises(LoadError, match="has no operations"):
        OpenVinoEngine("CPU", 1).load(shout(tmp_path), model_config())


def test_openvino_answers_a_tensor_without_elements_with_an_earlier_answer(tmp_path: Path) -> None:
    core = ov.Core()
    x = text("x", (-1,))
    parts = op.string_tensor_unpack(x)
    path = save(tmp_path, [named(op.subtract(parts.output(1), parts.output(0)), "y")], [x])
    request = core.compile_model(core.read_model(path / "model.xml"), "CPU").create_infer_request()
    for tensor in (ov.Tensor([b"secret"]), ov.Tensor(ov.Type.string, ov.Shape([0]))):
        request.set_input_tensor(0, tensor)
        request.start_async()
        request.wait()
        assert request.get_output_tensor(0).data.tolist() == [6]


@pytest.mark.parametrize("shape", [(-1,), (-1, 2)])
def test_strings_without_elements_are_refused(
    load: Load, bench: Bench, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    x = text("x", shape)
    for path in (shout(tmp_path / "1", shape), save(tmp_path / "2", [x], [x])):
        model = load(path)
        for _ in range(3):
            result = bench.wait(model, bench.prepare(model, [strings_of([], (0, *shape[1:]))]))
            assert result.error is not None
            assert result.error.code == Code.INVALID_ARGUMENT
            assert "must have elements" in result.error.message
        sent = strings_of([b"ab"] * 2, (1, 2)[-len(shape) :])
        (found,) = bench.infer(model, [sent])
        assert found.reshape(-1).tolist() == (shouted([b"ab"] * 2) if path.name == "1" else [b"ab"] * 2)


def _gathered(x: Any) -> Any:
    some = op.parameter(ov.PartialShape([-1]), ov.Type.i32, name="some")
    return op.reshape(op.gather(x, some, op.constant(0)), op.constant(np.array([-1])), False), some


def _packed(x: Any) -> Any:
    parts = op.string_tensor_unpack(x)
    some = op.parameter(ov.PartialShape([-1]), ov.Type.i32, name="some")
    return op.concat([op.string_tensor_pack(some, some, parts.output(2))], 0), some


@pytest.mark.parametrize(("make", "kind"), [(_gathered, "Gather"), (_packed, "StringTensorPack")])
def test_strings_that_may_come_to_nothing_within_a_model(
    engine: OpenVinoEngine, tmp_path: Path, make: Callable[[Any], Any], kind: str
) -> None:
    x = text("x", (-1,))
    strings, some = make(x)
    path = save(tmp_path, [op.string_tensor_unpack(strings).output(2)], [x, some])
    with pytest.raises(LoadError, match=f"on what {kind} .* gives, which may be no strings"):
        engine.load(path, model_config())


def test_strings_that_cannot_come_to_nothing(load: Load, bench: Bench, tmp_path: Path) -> None:
    x = text("x", (-1,))
    two = op.gather(op.concat([x, x], 0), op.constant(np.array([0, -1])), op.constant(0))
    rows = op.transpose(op.reshape(two, op.constant(np.array([1, -1])), False), op.constant(np.array([1, 0])))
    model = load(save(tmp_path, [op.string_tensor_unpack(rows).output(1)], [x]))
    (ends,) = bench.infer(model, [strings_of([b"abc", b"", b"de"])])
    assert ends.tolist() == [[3], [5]]


# ---- the engine that stands in


def test_the_fake_engine_echoes_strings(bench: Bench, tmp_path: Path) -> None:
    path = fake(tmp_path, [("x", "string", [-1])], [("y", "string", [-1]), ("z", "string", [2])])
    model = FakeEngine().load(path, model_config())
    assert isinstance(model, FakeModel)
    echoed, made = bench.infer(model, [strings_of(AWKWARD)])
    assert echoed.tolist() == AWKWARD
    assert made.tolist() == [b"", b""]
    model.close()
