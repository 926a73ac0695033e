"""Strings for models that take strings, through the data plane and from examples; images stay what they were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from common.arena import Segment
from common.errors import InternalError, InvalidArgumentError, ResourceExhaustedError
from common.messages import Completed, OutputRef, OutputResult, Submit, TensorRef, VersionId
from common.strings import MAX_STRINGS, decode, encode_into, encoded_size
from common.tensors import Heads, Signature, TensorSpec
from frontends.checks import Layout, plan_layout
from frontends.inference import MAX_EXAMPLE_BYTES, check_classifiable, check_regressable, read_examples
from frontends.interface import STRING, InputTensor
from frontends.memory import Block
from frontends.plans import Plan
from tests.support.pictures import plain
from tests.unit.frontends.scripted_broker import Stage, catalogue, on_stage, status
from tests.unit.frontends.test_dataplane import predict, refusal

AWKWARD = [b"plain", b"", b"zeros\0\0", b"\xff\xfe", "schön".encode()]
TEXT = Signature((TensorSpec("s", STRING, (-1,)),), (TensorSpec("t", STRING, (-1,)),))
MIXED = Signature(
    (TensorSpec("s", STRING, (-1,)), TensorSpec("picture", "float32", (-1, 3, 1, 2))),
    (TensorSpec("t", STRING, (2, -1)),),
)


def strings_of(values: Sequence[bytes], shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape((len(values),) if shape is None else shape)


def text(values: Sequence[bytes], shape: tuple[int, ...] | None = None) -> InputTensor:
    return InputTensor(STRING, strings_of(values, shape))


def frame_of(values: Sequence[bytes]) -> bytes:
    array = strings_of(values)
    frame = bytearray(encoded_size(array))
    encode_into(array, memoryview(frame))
    return bytes(frame)


def written(stage: Stage, submit: Submit, index: int = 0) -> list[bytes]:
    """The strings that an input holds in the arena."""
    ref = submit.inputs[index]
    memory = bytes(memoryview(stage.memory._arena.buffer)[ref.offset :])
    found: list[bytes] = decode(memoryview(memory), ref.shape).to_array().tolist()
    return found


# ---- the way there and back


@on_stage
async def test_strings_are_given_and_taken_as_they_are(stage: Stage) -> None:
    await stage.link(catalogue(1, status(1, signature=TEXT)))
    task = predict(stage, given={"s": text(AWKWARD)})
    submit = await stage.broker.next(Submit)
    assert submit.version == VersionId("m", 1)
    assert written(stage, submit) == AWKWARD
    assert [ref.nbytes for ref in submit.outputs] == [0]
    answer = frame_of(AWKWARD[::-1])
    stage.broker.say(Completed(submit.id, (OutputResult((5,), 1),)), frames=(answer,))
    prediction = await task
    assert prediction.outputs["t"].dtype == STRING
    assert prediction.outputs["t"].array.tolist() == AWKWARD[::-1]
    prediction.release()
    assert stage.memory.used == 0


@on_stage
async def test_images_beside_strings_are_decoded_and_the_strings_are_not(stage: Stage) -> None:
    await stage.link(catalogue(1, status(1, signature=MIXED)))
    png = plain(5, 5, (1, 2, 3))
    task = predict(stage, given={"s": text([png, b""]), "picture": text([png])})
    submit = await stage.broker.next(Submit)
    assert written(stage, submit) == [png, b""]
    picture = submit.inputs[1]
    place = np.ndarray(picture.shape, np.float32, stage.memory._arena.buffer, picture.offset).copy()
    assert place.tolist() == [[[[3, 3]], [[2, 2]], [[1, 1]]]]
    task.cancel()


@pytest.mark.parametrize(
    ("shape", "frame", "content"),
    [
        ((5,), -1, b""),
        ((5,), 1, b"short"),
        ((4,), 1, frame_of([b"a"] * 3)),
        ((-1,), 1, frame_of([b"a"])),
        ((1,), 1, np.array([0, 9], np.int64).tobytes() + b"abc"),
        ((MAX_STRINGS + 1,), 1, bytes(8 * (MAX_STRINGS + 2))),
    ],
)
def test_an_answer_that_does_not_fit(
    tmp_path: Path, shape: tuple[int, ...], frame: int, content: bytes
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link(catalogue(1, status(1, signature=TEXT)))
        task = predict(stage, given={"s": text([b"a"])})
        submit = await stage.broker.next(Submit)
        stage.broker.say(Completed(submit.id, (OutputResult(shape, frame),)), frames=(content,))
        with pytest.raises(InternalError, match="does not fit"):
            await task
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_numbers_for_strings_and_strings_for_numbers(stage: Stage) -> None:
    await stage.link(catalogue(1, status(1, signature=TEXT)))
    error = await refusal(stage, given={"s": InputTensor("int64", np.zeros(3, np.int64))})
    assert isinstance(error, InvalidArgumentError)
    assert error.message == "Input 's' is of type int64, which cannot be converted to the model's type string"
    shape = await refusal(stage, given={"s": text(AWKWARD[:4], (2, 2))})
    assert "Obtained shape [2, 2], required shape [-1]" in shape.message


@on_stage
async def test_strings_for_numbers(stage: Stage) -> None:
    await stage.link()
    error = await refusal(stage, given={"x": text([b"1.5"])})
    assert isinstance(error, InvalidArgumentError)
    assert "takes no strings" in error.message


def test_strings_are_never_written_beyond_their_block() -> None:
    segment = Segment.create(4096)
    block = Block(1, 64, 128, segment)
    plan = Plan(TEXT, Layout((TensorRef(64, (1,)),), (OutputRef(0, 0),), 128))
    [(name, dtype, room)] = plan.at(block).targets
    assert (name, dtype) == ("s", STRING)
    encode_into(strings_of([b"x" * 48]), room.data)
    assert segment.buffer[128:192] == np.array([0, 48], np.int64).tobytes() + b"x" * 48
    for array in (strings_of([b"y" * 49]), strings_of([b""] * 8)):
        with pytest.raises(ValueError, match="and there are 64"):
            encode_into(array, room.data)
    assert segment.buffer[192:] == bytes(4096 - 192)
    del room
    segment.close()


# ---- layout


def test_room_for_strings_is_as_large_as_they_are() -> None:
    both = Signature((TensorSpec("a", STRING, (-1,)), TensorSpec("b", STRING, ())), ())
    layout = plan_layout(both, {"a": text([b"x" * 1000] * 3), "b": text([b""], ())})
    assert [ref.shape for ref in layout.inputs] == [(3,), ()]
    assert layout.inputs[1].offset >= encoded_size(strings_of([b"x" * 1000] * 3))
    assert layout.size >= layout.inputs[1].offset + 16


def test_more_strings_than_a_tensor_may_have() -> None:
    with pytest.raises(
        InvalidArgumentError, match=f"{MAX_STRINGS} elements at the most, got {MAX_STRINGS + 1}"
    ):
        plan_layout(TEXT, {"s": text([b""] * (MAX_STRINGS + 1))})


def test_more_bytes_than_a_tensor_may_have() -> None:
    long = b"x" * (1 << 20)
    with pytest.raises(InvalidArgumentError, match="bytes at the most"):
        plan_layout(TEXT, {"s": text([long] * 1024)})


# ---- examples


def test_bytes_of_examples_become_rows_of_strings() -> None:
    rows = Signature((TensorSpec("s", STRING, (-1, 2)), TensorSpec("n", "float32", (-1,))), ())
    inputs = read_examples(rows, [{"s": [b"a\0", b"\xff"], "n": [1.0]}, {"s": [b"", b"d"]}], {"n": [2.0]})
    assert inputs["s"].dtype == STRING
    assert inputs["s"].array.tolist() == [[b"a\0", b"\xff"], [b"", b"d"]]
    assert inputs["n"].array.tolist() == [1.0, 2.0]
    only = read_examples(TEXT, [{"whatever": [b"a"]}, {"whatever": [b"b"]}])
    assert only["s"].array.tolist() == [b"a", b"b"]


def test_the_values_of_an_example_must_fill_the_row() -> None:
    with pytest.raises(InvalidArgumentError, match="2 values an example, which do not fill"):
        read_examples(TEXT, [{"s": [b"a", b"b"]}])
    with pytest.raises(InvalidArgumentError, match="without a dimension for the examples"):
        read_examples(Signature((TensorSpec("s", STRING, ()),), ()), [{"s": [b"a"]}])


def test_a_context_is_not_multiplied_without_bound() -> None:
    wide = Signature((TensorSpec("s", STRING, (-1, -1)), TensorSpec("n", "int64", (-1,))), ())
    many = [{"n": [1]}] * 300
    with pytest.raises(ResourceExhaustedError, match=f"{MAX_STRINGS}"):
        read_examples(wide, many, {"s": [b""] * 300})
    with pytest.raises(ResourceExhaustedError, match=f"{MAX_EXAMPLE_BYTES}"):
        read_examples(wide, many, {"s": [b"x" * (1 << 20)]})


def test_outputs_of_strings_are_no_scores_and_no_values() -> None:
    for signature in (TEXT, Signature(TEXT.inputs, TEXT.outputs, Heads(classification="t", regression="t"))):
        for check in (check_classifiable, check_regressable):
            with pytest.raises(InvalidArgumentError, match="output 't' is of type string, not of numbers"):
                check(signature)
