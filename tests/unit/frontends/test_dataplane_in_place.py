"""frontends.dataplane: inputs are read where the message lies, and its block is freed once, however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from common.allocator import ALIGNMENT
from common.errors import (
    Code,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
    WireError,
)
from common.messages import Completed, OutputResult, Released, Stale, Submit
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.interface import InputTensor, Selector, Served
from frontends.memory import ARENA, Block
from frontends.prediction import Prediction
from tests.unit.frontends.scripted_broker import (
    ARENA_BYTES,
    LARGE_BYTES,
    Stage,
    catalogue,
    on_stage,
    status,
)

FAR = 1 << 62
DEFAULT = Selector("m")
HEAD = 64
"""Bytes of a message before its input."""
X = np.arange(64, dtype=np.float32).reshape(16, 4)
Y = np.arange(8, dtype=np.float32).reshape(2, 4)


async def body_of(
    stage: Stage, where: str = "arena", head: int = HEAD, array: np.ndarray = X
) -> tuple[Block, np.ndarray]:
    """A message with this input, in the arena or in a segment of its own."""
    size = head + array.nbytes
    block = stage.memory.allocate(size) if where == "arena" else await stage.memory.allocate_large(size)
    assert block is not None
    view = block.memory.view(block.offset + head, array.shape, array.dtype)
    np.copyto(view, array)
    return block, view


def predict(
    stage: Stage,
    body: Block,
    array: np.ndarray,
    dtype: str = "float32",
    selector: Selector = DEFAULT,
    build: Callable[[Served], Mapping[str, InputTensor]] | None = None,
) -> asyncio.Task[Prediction]:
    given = build or (lambda _: {"x": InputTensor(dtype, array)})
    return asyncio.create_task(stage.dataplane.predict(selector, given, FAR, frozenset(), body))


def view(stage: Stage, segment: int, offset: int, shape: tuple[int, ...]) -> np.ndarray:
    """What a worker sees at a reference; all are of float32."""
    memory = stage.memory._arena if segment == ARENA else stage.memory._large[segment]
    return memory.view(offset, shape, np.dtype(np.float32))


def answer(stage: Stage, submit: Submit, expected: np.ndarray = X) -> None:
    """As a worker: look at the input, write the output."""
    ref, room = submit.inputs[0], submit.outputs[0]
    np.testing.assert_array_equal(view(stage, submit.segment, ref.offset, ref.shape), expected)
    np.copyto(view(stage, submit.segment, room.offset, Y.shape), Y)
    np.testing.assert_array_equal(view(stage, submit.segment, ref.offset, ref.shape), expected)
    stage.broker.say(Completed(submit.id, (OutputResult(Y.shape), OutputResult((0,)))))


async def check_answered(stage: Stage, task: asyncio.Task[Prediction]) -> None:
    prediction = await task
    np.testing.assert_array_equal(prediction.outputs["y"].array, Y)
    prediction.release()
    prediction.release()
    assert stage.memory.used == 0


# ---- where inputs are read


@on_stage
async def test_an_input_in_the_message_is_not_copied(stage: Stage) -> None:
    await stage.link()
    body, array = await body_of(stage)
    task = predict(stage, body, array)
    submit = await stage.broker.next(Submit)
    assert submit.segment == ARENA
    assert submit.inputs[0].offset == body.offset + HEAD
    assert stage.memory.used == HEAD + X.nbytes + ALIGNMENT, (
        "the message and the outputs, no copy of the input"
    )
    answer(stage, submit)
    prediction = await task
    assert stage.memory.used == ALIGNMENT, "the outputs"
    np.testing.assert_array_equal(prediction.outputs["y"].array, Y)
    prediction.release()
    assert stage.memory.used == 0


@pytest.mark.parametrize("head", [1, 2, 3, 65])
def test_an_input_that_is_not_aligned_to_its_elements_is_copied(tmp_path: Path, head: int) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        body, array = await body_of(stage, "arena", head)
        task = predict(stage, body, array)
        submit = await stage.broker.next(Submit)
        assert submit.inputs[0].offset % ALIGNMENT == 0
        answer(stage, submit)
        await check_answered(stage, task)

    on_stage(scenario)(tmp_path)


@on_stage
async def test_an_input_aligned_to_its_elements_alone_is_not_copied(stage: Stage) -> None:
    await stage.link()
    body, array = await body_of(stage, "arena", 68)
    task = predict(stage, body, array)
    submit = await stage.broker.next(Submit)
    assert submit.inputs[0].offset == body.offset + 68
    answer(stage, submit)
    await check_answered(stage, task)


@on_stage
async def test_an_input_of_another_type_is_converted_into_room_of_its_own(stage: Stage) -> None:
    await stage.link()
    body, array = await body_of(stage, "arena", array=X.astype(np.float64))
    task = predict(stage, body, array, "float64")
    submit = await stage.broker.next(Submit)
    answer(stage, submit)
    await check_answered(stage, task)


@on_stage
async def test_what_is_not_the_message_is_copied(stage: Stage) -> None:
    """A view with gaps, memory of the process, a place in the arena beside the message, and nothing at all."""
    await stage.link()
    body, array = await body_of(stage, "arena", array=np.repeat(X, 2, axis=1))
    beside = stage.memory.allocate(X.nbytes)
    assert beside is not None
    other = beside.memory.view(beside.offset, X.shape, X.dtype)
    np.copyto(other, X)
    for found in (array[:, ::2], X.copy(), other, X[:0]):
        again, _ = await body_of(stage)
        task = predict(stage, again, found)
        submit = await stage.broker.next(Submit)
        assert submit.inputs[0].offset not in (body.offset + HEAD, beside.offset)
        answer(stage, submit, found)
        (await task).release()
    stage.memory.free(body)
    stage.memory.free(beside)
    assert stage.memory.used == 0


@on_stage
async def test_of_two_inputs_one_may_be_copied(stage: Stage) -> None:
    specs = (TensorSpec("x", "float32", (-1, 4)), TensorSpec("w", "float32", (-1, 4)))
    await stage.link(
        catalogue(1, status(1, signature=Signature(specs, (TensorSpec("y", "float32", (2, 4)),))))
    )
    body, array = await body_of(stage)
    given = {"x": InputTensor("float32", array), "w": InputTensor("float32", X + 1)}
    task = predict(stage, body, array, build=lambda _: given)
    submit = await stage.broker.next(Submit)
    first, second = submit.inputs
    assert first.offset == body.offset + HEAD
    np.testing.assert_array_equal(view(stage, ARENA, second.offset, second.shape), X + 1)
    np.copyto(view(stage, ARENA, submit.outputs[0].offset, Y.shape), Y)
    stage.broker.say(Completed(submit.id, (OutputResult(Y.shape),)))
    np.testing.assert_array_equal(array, X)
    await check_answered(stage, task)


@on_stage
async def test_a_segment_of_its_own_is_copied_out_of(stage: Stage) -> None:
    await stage.link()
    body, array = await body_of(stage, "large")
    task = predict(stage, body, array)
    submit = await stage.broker.next(Submit)
    assert submit.segment == ARENA
    answer(stage, submit)
    await check_answered(stage, task)


@on_stage
async def test_an_arena_without_room_for_outputs_is_copied_out_of(stage: Stage) -> None:
    await stage.link()
    body, array = await body_of(stage)
    rest = stage.memory.allocate(ARENA_BYTES - stage.memory.used)
    assert rest is not None
    task = predict(stage, body, array)
    submit = await stage.broker.next(Submit)
    assert submit.segment != ARENA
    answer(stage, submit)
    (await task).release()
    stage.memory.free(rest)
    assert stage.memory.used == 0


# ---- every end of a request: the block is free, and only when no worker can read it


async def _answered(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    answer(stage, submit)
    await check_answered(stage, task)


async def _answered_badly(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.broker.say(Completed(submit.id, ()))
    with pytest.raises(InternalError, match="does not fit"):
        await task


async def _failed(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.broker.say(Completed(submit.id, (), WireError(Code.NOT_FOUND, "gone")))
    with pytest.raises(NotFoundError):
        await task


async def _expired(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    lent = stage.memory.used
    stage.expire(submit)
    with pytest.raises(DeadlineExceededError):
        await task
    assert stage.memory.used == lent, "a worker may still read it"
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


async def _cancelled(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    lent = stage.memory.used
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.memory.used == lent, "a worker may still read it"
    stage.broker.say(Completed(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


async def _cancelled_as_it_is_answered(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.client.receive(Completed(submit.id), ())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancelled_as_it_is_stale(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.client.receive(Stale(submit.id, 2), ())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancelled_while_it_is_stale(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.client.receive(Stale(submit.id, 2), ())
    for _ in range(5):
        await asyncio.sleep(0)
    assert stage.memory.used
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _stale_and_answered(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.broker.say(Stale(submit.id, 2))
    await stage.until(lambda: len(stage.client.ledger) == 0)
    others = [stage.memory.allocate(HEAD + X.nbytes) for _ in range(2)]
    for other in others:
        assert other is not None
        other.memory.view(other.offset, (other.size,), np.dtype(np.uint8)).fill(0xAB)
    stage.broker.say(catalogue(2, status(2)))
    answer(stage, await stage.broker.next(Submit))
    (await task).release()
    for other in others:
        assert other is not None
        stage.memory.free(other)


async def _stale_and_gone(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.broker.say(Stale(submit.id, 2), catalogue(2, status(1, VersionState.END)))
    with pytest.raises(NotFoundError):
        await task


async def _answered_by_the_next_broker(stage: Stage, task: asyncio.Task[Prediction], submit: Submit) -> None:
    stage.client._on_death()
    hello = await stage.broker.greet(catalogue(2, status(1)))
    assert hello.requests == (submit,)
    answer(stage, submit)
    await check_answered(stage, task)


async def _given_up_and_released_by_the_next_broker(
    stage: Stage, task: asyncio.Task[Prediction], submit: Submit
) -> None:
    stage.expire(submit)
    stage.client._on_death()
    with pytest.raises(DeadlineExceededError):
        await task
    hello = await stage.broker.greet(catalogue(2, status(1)))
    assert hello.abandoned == (submit.id,)
    assert stage.memory.used
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


_ENDS: tuple[Callable[[Stage, asyncio.Task[Prediction], Submit], Awaitable[None]], ...] = (
    _answered,
    _answered_badly,
    _failed,
    _expired,
    _cancelled,
    _cancelled_as_it_is_answered,
    _cancelled_as_it_is_stale,
    _cancelled_while_it_is_stale,
    _stale_and_answered,
    _stale_and_gone,
    _answered_by_the_next_broker,
    _given_up_and_released_by_the_next_broker,
)


@pytest.mark.parametrize("end", _ENDS, ids=lambda end: end.__name__[1:])
@pytest.mark.parametrize(("where", "head"), [("arena", HEAD), ("arena", 1), ("large", HEAD)])
def test_however_a_request_ends_its_memory_is_free(
    tmp_path: Path,
    where: str,
    head: int,
    end: Callable[[Stage, asyncio.Task[Prediction], Submit], Awaitable[None]],
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link()
        body, array = await body_of(stage, where, head)
        task = predict(stage, body, array)
        submit = await stage.broker.next(Submit)
        await end(stage, task, submit)
        assert stage.memory.used == 0
        assert len(stage.client.ledger) == 0

    on_stage(scenario)(tmp_path)


@pytest.mark.parametrize("where", ["arena", "large"])
def test_a_request_that_never_leaves_frees_its_message(tmp_path: Path, where: str) -> None:
    async def scenario(stage: Stage) -> None:
        async def refused(kind: type[Exception], selector: Selector = DEFAULT, **given: np.ndarray) -> None:
            body, array = await body_of(stage, where)
            found = {name: InputTensor("float32", one) for name, one in (given or {"x": array}).items()}
            with pytest.raises(kind):
                await predict(stage, body, array, selector=selector, build=lambda _: found)
            assert stage.memory.used == 0

        await refused(UnavailableError)
        await stage.link()
        await refused(NotFoundError, Selector("nobody"))
        await refused(InvalidArgumentError, other=X)
        await refused(InvalidArgumentError, x=X.reshape(-1))
        await refused(ResourceExhaustedError, x=np.broadcast_to(np.float32(0), (LARGE_BYTES, 4)))
        unwritable = np.array([["a"] * 4] * 2, object)
        body, _ = await body_of(stage, where)
        with pytest.raises(TypeError):
            await predict(stage, body, unwritable, "float64")
        assert stage.memory.used == 0
        stage.admission.draining = True
        await refused(UnavailableError)

    on_stage(scenario)(tmp_path)


@on_stage
async def test_a_request_that_no_broker_has_seen_frees_its_message_when_it_is_cancelled(stage: Stage) -> None:
    await stage.link()
    stage.client._on_death()
    body, array = await body_of(stage)
    task = predict(stage, body, array)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stage.memory.used == 0
