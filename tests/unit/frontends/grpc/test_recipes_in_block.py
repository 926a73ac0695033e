"""Predict by a form's recipe, of messages that lie in shared memory: the worker reads the inputs where they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from common.errors import UnavailableError
from common.messages import Completed, OutputResult, Stale, Submit
from common.tensors import Signature, TensorSpec
from frontends.grpc.calls import carry_out
from frontends.grpc.tensorflow_serving import IN_PLACE_BYTES
from tests.unit.frontends.grpc.calling import FakeCall
from tests.unit.frontends.grpc.recipe_rim import ONE, TWO, A, B, Rim, X, begun, message_of, outputs_of
from tests.unit.frontends.scripted_broker import ARENA_BYTES, Stage, catalogue, on_stage, status


async def _learnt(stage: Stage, signature: Signature = ONE) -> Rim:
    rim = await begun(stage, signature, in_block=True)
    await rim.learn(message_of(x=X), X)
    return rim


@on_stage
async def test_the_input_is_read_in_the_message(stage: Stage) -> None:
    rim = await _learnt(stage)
    message, call = message_of(x=X), FakeCall()
    received = rim.received(message, call)
    block = call.block
    assert block is not None
    task = asyncio.ensure_future(carry_out(rim.predict, received, call))
    submit = await stage.broker.next(Submit)
    assert block.offset < submit.inputs[0].offset < block.offset + block.size
    assert call.block is None, "it is the request's"
    np.testing.assert_array_equal(rim.seen(submit, 0, np.float32), X)
    rim.answer(submit, X + 1)
    assert outputs_of(b"".join(await task))["y"].tensor_content == (X + 1).tobytes()
    assert stage.memory.used == 0


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_one_that_lies_where_it_cannot_be_read_is_copied(tmp_path: Path, shift: int) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await _learnt(stage)
        call = FakeCall()
        task = asyncio.ensure_future(carry_out(rim.predict, rim.received(message_of(x=X), call, shift), call))
        submit = await stage.broker.next(Submit)
        assert submit.inputs[0].offset % 64 == 0
        np.testing.assert_array_equal(rim.seen(submit, 0, np.float32), X)
        rim.answer(submit, X + 1)
        assert outputs_of(b"".join(await task))["y"].tensor_content == (X + 1).tobytes()
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_equal_messages_may_come_both_ways(stage: Stage) -> None:
    rim = await _learnt(stage)
    for turn in range(6):
        rim.in_block = turn % 2 == 0
        submit, answer = await rim.served(message_of(x=X + turn), X * turn)
        np.testing.assert_array_equal(rim.seen(submit, 0, np.float32), X + turn)
        assert outputs_of(answer)["y"].tensor_content == (X * turn).tobytes()
    assert stage.memory.used == 0


@on_stage
async def test_an_input_of_another_type_beside_one_in_place(stage: Stage) -> None:
    rim = await begun(stage, TWO, in_block=True)
    message = message_of(a=A.astype(np.float64), b=B)
    for _ in range(4):
        submit, _ = await rim.served(message, B.reshape(-1), np.array(7, np.float32))
        np.testing.assert_array_equal(rim.seen(submit, 0, np.float32), A)
        np.testing.assert_array_equal(rim.seen(submit, 1, np.int64), B)
    assert stage.memory.used == 0


@on_stage
async def test_one_whose_version_has_left_is_asked_again_out_of_the_same_message(stage: Stage) -> None:
    rim = await _learnt(stage)
    task = rim.ask(message_of(x=X + 5))
    first = await stage.broker.next(Submit)
    stage.broker.say(Stale(first.id, 2))
    stage.broker.say(catalogue(2, status(2, signature=ONE)))
    again = await stage.broker.next(Submit)
    assert (again.version.version, again.inputs[0].offset) == (2, first.inputs[0].offset)
    np.testing.assert_array_equal(rim.seen(again, 0, np.float32), X + 5)
    rim.answer(again, X)
    assert outputs_of(await task)
    assert stage.memory.used == 0


@on_stage
async def test_a_new_catalogue_is_heeded(stage: Stage) -> None:
    rim = await _learnt(stage)
    stage.broker.say(catalogue(2, status(2, signature=ONE)))
    await stage.client.wait_for_catalogue(2, 1 << 62)
    for _ in range(3):
        submit, _ = await rim.served(message_of(x=X), X)
        assert (submit.version.version, submit.generation) == (2, 2)
    assert stage.memory.used == 0


@on_stage
async def test_the_message_is_let_go_before_a_long_answer_is_sent(stage: Stage) -> None:
    spec = TensorSpec("y", "float32", (IN_PLACE_BYTES // 4,))
    long = np.arange(IN_PLACE_BYTES // 4, dtype=np.float32)
    rim = await begun(stage, Signature(ONE.inputs, (spec,)), in_block=True)
    general = await rim.learn(message_of(x=X), long)
    call = FakeCall()
    task = asyncio.ensure_future(carry_out(rim.predict, rim.received(message_of(x=X), call), call))
    rim.answer(await stage.broker.next(Submit), long)
    reply = await task
    assert stage.memory.used == long.nbytes, "the outputs alone"
    assert b"".join(reply) == general
    call.finish()
    assert stage.memory.used == 0


@on_stage
async def test_where_the_arena_has_no_room_left_the_request_gets_memory_of_its_own(stage: Stage) -> None:
    rim = await _learnt(stage)
    call = FakeCall()
    received = rim.received(message_of(x=X), call)
    full = []
    while (block := stage.memory.allocate(64)) is not None:
        full.append(block)
    task = asyncio.ensure_future(carry_out(rim.predict, received, call))
    submit = await stage.broker.next(Submit)
    assert submit.segment != 0
    for block in full:
        stage.memory.free(block)
    view = stage.memory._large[submit.segment].view
    np.testing.assert_array_equal(view(submit.inputs[0].offset, X.shape, np.dtype(np.float32)), X)
    np.copyto(view(submit.outputs[0].offset, X.shape, np.dtype(np.float32)), X + 1)
    stage.broker.say(Completed(submit.id, (OutputResult(X.shape),)))
    assert outputs_of(b"".join(await task))["y"].tensor_content == (X + 1).tobytes()
    assert len(full) > ARENA_BYTES // 2 // 64
    await stage.until(lambda: stage.memory.used == 0)


@on_stage
async def test_what_is_refused_leaves_the_block_with_the_transport(stage: Stage) -> None:
    rim = await _learnt(stage)
    stage.admission.draining = True
    call = FakeCall()
    received = rim.received(message_of(x=X), call)
    block = call.block
    with pytest.raises(UnavailableError, match="shutting down"):
        await carry_out(rim.predict, received, call)
    assert block is not None
    assert call.take_block() == block
    stage.memory.free(block)
    assert stage.memory.used == 0
