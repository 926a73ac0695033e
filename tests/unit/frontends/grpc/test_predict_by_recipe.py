"""Predict by a form's recipe: the same answers and refusals as in the general way, and no byte lent in the end."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from common.messages import Cancel, Completed, OutputResult, Released, Stale, Submit, VersionId
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.forms import Form
from frontends.grpc.calls import Unary, carry_out
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.grpc.tensorflow_serving import IN_PLACE_BYTES, TensorFlowServing
from frontends.grpc.wire import DATA_TYPES, shape_proto
from frontends.memory import ARENA
from frontends.requests import RecipeRequest
from tests.unit.frontends.grpc.calling import FakeCall
from tests.unit.frontends.scripted_broker import ARENA_BYTES, Stage, catalogue, on_stage, status

X = np.arange(8, dtype=np.float32).reshape(2, 4)
ONE = Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (2, 4)),))
TWO = Signature(
    (TensorSpec("a", "float32", (2,)), TensorSpec("b", "int64", (1, 3))),
    (TensorSpec("p", "int64", (3,)), TensorSpec("q", "float32", ())),
)
A, B = np.array([1, 2], np.float32), np.array([[3, 4, 5]], np.int64)


def message_of(wanted: tuple[str, ...] = (), /, **inputs: np.ndarray) -> bytes:
    request = predict_pb2.PredictRequest(output_filter=wanted)
    request.model_spec.name = "m"
    for name, array in inputs.items():
        tensor = request.inputs[name]
        tensor.dtype = DATA_TYPES[str(array.dtype)]
        tensor.tensor_shape.CopyFrom(shape_proto(array.shape))
        tensor.tensor_content = array.tobytes()
    return bytes(request.SerializeToString(deterministic=True))


class Rim:
    """The handler under test, on a stage."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.handler = TensorFlowServing(stage.dataplane, 60.0)
        predict = self.handler.methods()["/tensorflow.serving.PredictionService/Predict"]
        assert isinstance(predict, Unary)
        self.predict = predict

    def ask(self, message: bytes, deadline_ns: int | None = None) -> asyncio.Task[bytes]:
        return asyncio.create_task(self._call(message, FakeCall(deadline_ns)))

    async def _call(self, message: bytes, call: FakeCall) -> bytes:
        try:
            return b"".join(await carry_out(self.predict, memoryview(message), call))
        finally:
            call.finish()

    def form(self, message: bytes) -> Form:
        form = self.handler._reader.read(memoryview(message))
        assert form is not None
        return form

    def seen(self, submit: Submit, number: int, dtype: type) -> np.ndarray:
        """An input as a worker sees it."""
        ref = submit.inputs[number]
        found: np.ndarray = np.ndarray(ref.shape, dtype, self.stage.memory._arena.buffer, ref.offset)
        return np.array(found)

    def answer(self, submit: Submit, *arrays: np.ndarray) -> None:
        """As a worker, into the block."""
        for ref, array in zip(submit.outputs, arrays, strict=True):
            np.copyto(
                np.ndarray(array.shape, array.dtype, self.stage.memory._arena.buffer, ref.offset), array
            )
        self.stage.broker.say(Completed(submit.id, tuple(OutputResult(array.shape) for array in arrays)))

    async def served(self, message: bytes, *arrays: np.ndarray) -> tuple[Submit, bytes]:
        """One request from end to end."""
        task = self.ask(message)
        submit = await self.stage.broker.next(Submit)
        self.answer(submit, *arrays)
        return submit, await task

    async def learn(self, message: bytes, *arrays: np.ndarray) -> bytes:
        """As many requests as it takes until there is a recipe; the answer in the general way."""
        _, first = await self.served(message, *arrays)
        assert self.form(message).recipe is None
        await self.served(message, *arrays)
        assert self.form(message).recipe is not None
        return first


async def begun(stage: Stage, signature: Signature = ONE) -> Rim:
    await stage.link(catalogue(1, status(1, signature=signature)))
    return Rim(stage)


def outputs_of(answer: bytes) -> dict[str, Any]:
    return dict(predict_pb2.PredictResponse.FromString(answer).outputs)


# ---- the same as in the general way


@pytest.mark.parametrize(
    ("signature", "inputs", "answers"),
    [
        (ONE, {"x": X}, [X + 1]),
        (TWO, {"a": A, "b": B}, [B.reshape(-1), np.array(7, np.float32)]),
        (TWO, {"b": B, "a": A}, [B.reshape(-1), np.array(7, np.float32)]),
        (ONE, {"x": X.astype(np.float64)}, [X]),
    ],
)
def test_answers_are_the_same_bytes(
    tmp_path: Path, signature: Signature, inputs: dict[str, np.ndarray], answers: list[np.ndarray]
) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage, signature)
        message = message_of((), **inputs)
        _, general = await rim.served(message, *answers)
        for _ in range(3):
            submit, answer = await rim.served(message, *answers)
            assert answer == general
            for number, spec in enumerate(signature.inputs):
                dtype = np.dtype(spec.dtype).type
                np.testing.assert_array_equal(rim.seen(submit, number, dtype), inputs[spec.name])
            assert (submit.version, submit.generation, submit.segment) == (VersionId("m", 1), 1, ARENA)
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_a_bool_is_one_whatever_its_byte(stage: Stage) -> None:
    signature = Signature((TensorSpec("x", "bool", (3,)),), (TensorSpec("y", "float32", (2, 4)),))
    rim = await begun(stage, signature)
    message = message_of(x=np.ones(3, np.bool_)).replace(b"\1\1\1", b"\0\2\xff")
    for _ in range(3):
        submit, _ = await rim.served(message, X)
        assert rim.seen(submit, 0, np.uint8).tolist() == [0, 1, 1]


@on_stage
async def test_the_elements_are_those_of_each_message(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    tasks = [rim.ask(message_of(x=X + number)) for number in range(20)]
    submits = [await stage.broker.next(Submit) for _ in tasks]
    assert len({submit.inputs[0].offset for submit in submits}) == 20, "two requests never share memory"
    for number, submit in enumerate(submits):
        np.testing.assert_array_equal(rim.seen(submit, 0, np.float32), X + number)
        rim.answer(submit, X * number)
    for number, task in enumerate(tasks):
        assert outputs_of(await task)["y"].tensor_content == (X * number).tobytes()
    assert stage.memory.used == 0


@pytest.mark.parametrize(
    ("result", "frames", "expected"),
    [
        (OutputResult((2, 4), 1), (X.tobytes(),), X),
        (OutputResult((1, 4)), (), X[:1]),
        (OutputResult((2, 4), 0), (), X),
    ],
)
def test_an_answer_out_of_the_ordinary(
    tmp_path: Path, result: OutputResult, frames: tuple[bytes, ...], expected: np.ndarray
) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage)
        await rim.learn(message_of(x=X), X)
        task = rim.ask(message_of(x=X))
        submit = await stage.broker.next(Submit)
        np.copyto(np.ndarray((2, 4), np.float32, stage.memory._arena.buffer, submit.outputs[0].offset), X)
        stage.broker.say(Completed(submit.id, (result,)), frames=frames)
        found = outputs_of(await task)["y"]
        assert found.tensor_content == expected.tobytes()
        assert tuple(one.size for one in found.tensor_shape.dim) == expected.shape
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


@pytest.mark.parametrize("outputs", [(), (OutputResult((2, 4)),) * 2, (OutputResult((1 << 20, 4)),)])
def test_an_answer_that_does_not_fit(tmp_path: Path, outputs: tuple[OutputResult, ...]) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage)
        await rim.learn(message_of(x=X), X)
        task = rim.ask(message_of(x=X))
        stage.broker.say(Completed((await stage.broker.next(Submit)).id, outputs))
        with pytest.raises(InternalError, match="does not fit"):
            await task
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_a_filter_of_some_outputs(stage: Stage) -> None:
    rim = await begun(stage, TWO)
    message = message_of(("q",), a=A, b=B)
    answers = B.reshape(-1), np.array(7, np.float32)
    general = await rim.learn(message, *answers)
    _, answer = await rim.served(message, *answers)
    assert answer == general
    assert list(outputs_of(answer)) == ["q"]
    for _ in range(3):
        with pytest.raises(InvalidArgumentError, match="alias not found"):
            await rim.ask(message_of(("r",), a=A, b=B))
    assert stage.memory.used == 0


@on_stage
async def test_long_answers_are_sent_out_of_the_block(stage: Stage) -> None:
    spec = TensorSpec("y", "float32", (IN_PLACE_BYTES // 4,))
    rim = await begun(stage, Signature(ONE.inputs, (spec,)))
    long = np.arange(IN_PLACE_BYTES // 4, dtype=np.float32)
    general = await rim.learn(message_of(x=X), long)
    _, answer = await rim.served(message_of(x=X), long)
    assert answer == general
    assert stage.memory.used == 0


@on_stage
async def test_a_signature_that_does_not_exist(stage: Stage) -> None:
    rim = await begun(stage)
    request = predict_pb2.PredictRequest.FromString(message_of(x=X))
    request.model_spec.signature_name = "other"
    for _ in range(3):
        with pytest.raises(InvalidArgumentError, match="'other' not found"):
            await rim.ask(request.SerializeToString())


# ---- refusals


@on_stage
async def test_refusals_are_those_of_the_general_way_each_time(stage: Stage) -> None:
    rim = Rim(stage)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="does not know its models yet"):
            await rim.ask(message_of(x=X))
    await stage.link(catalogue(1, status(1, signature=ONE)))
    for _ in range(3):
        with pytest.raises(InvalidArgumentError, match="alias not found in signature"):
            await rim.ask(message_of(z=X))
        with pytest.raises(InvalidArgumentError, match="Obtained shape"):
            await rim.ask(message_of(x=X.reshape(-1)))
    stage.broker.say(catalogue(2, status(1, VersionState.END)))
    await stage.client.wait_for_catalogue(2, 1 << 62)
    for _ in range(3):
        with pytest.raises(NotFoundError):
            await rim.ask(message_of(x=X))
    assert stage.memory.used == 0


@on_stage
async def test_the_bounds_hold(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    tasks = [rim.ask(message_of(x=X)) for _ in range(100)]
    submits = [await stage.broker.next(Submit) for _ in tasks]
    with pytest.raises(ResourceExhaustedError, match="100 requests in flight"):
        await rim.ask(message_of(x=X))
    stage.admission.draining = True
    with pytest.raises(UnavailableError, match="shutting down"):
        await rim.ask(message_of(x=X))
    assert stage.admission.refused() == {"RESOURCE_EXHAUSTED": 1, "UNAVAILABLE": 1}
    for submit in submits:
        rim.answer(submit, X)
    await asyncio.gather(*tasks)
    assert stage.memory.used == 0


# ---- catalogues


@on_stage
async def test_a_recipe_is_of_one_catalogue(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    other = Signature(ONE.inputs, (TensorSpec("y", "float32", (8,)),))
    stage.broker.say(catalogue(2, status(1, VersionState.UNLOADING), status(2, signature=other)))
    await stage.client.wait_for_catalogue(2, 1 << 62)
    for _ in range(2):
        submit, answer = await rim.served(message_of(x=X), X.reshape(-1))
        assert (submit.version, submit.generation) == (VersionId("m", 2), 2)
        assert predict_pb2.PredictResponse.FromString(answer).model_spec.version.value == 2
        assert [one.size for one in outputs_of(answer)["y"].tensor_shape.dim] == [8]


@on_stage
async def test_a_stale_request_is_chosen_anew(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    task = rim.ask(message_of(x=X + 1))
    stage.broker.say(Stale((await stage.broker.next(Submit)).id, 2))
    await stage.until(lambda: stage.memory.used == 0)
    assert not task.done(), "it waits for the catalogue that the broker spoke of"
    stage.broker.say(catalogue(2, status(2, signature=ONE)))
    submit = await stage.broker.next(Submit)
    assert (submit.version, submit.generation) == (VersionId("m", 2), 2)
    np.testing.assert_array_equal(rim.seen(submit, 0, np.float32), X + 1)
    rim.answer(submit, X)
    assert predict_pb2.PredictResponse.FromString(await task).model_spec.version.value == 2
    assert stage.memory.used == 0


@on_stage
async def test_a_model_that_never_stands_still_is_given_up_as_soon(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    task = rim.ask(message_of(x=X))
    for generation in range(2, 7):
        submit = await stage.broker.next(Submit)
        again = catalogue(generation, status(generation, signature=ONE))
        stage.broker.say(Stale(submit.id, generation), again)
    with pytest.raises(UnavailableError, match="faster"):
        await task
    assert stage.memory.used == 0


# ---- however it ends


async def _failed(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    stage.broker.say(Completed(submit.id, (), WireError(Code.NOT_FOUND, "gone")))
    with pytest.raises(NotFoundError, match="gone"):
        await task


async def _expired(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    stage.expire(submit)
    with pytest.raises(DeadlineExceededError):
        await task
    await stage.broker.next(Cancel)
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Released(submit.id))


async def _cancelled(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await stage.broker.next(Cancel)).id == submit.id
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Completed(submit.id, (OutputResult((2, 4)),)))


async def _cancelled_as_it_is_answered(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    stage.client.receive(Completed(submit.id, (OutputResult((2, 4)),)), ())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancelled_as_it_is_stale(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    stage.client.receive(Stale(submit.id, 2), ())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancelled_while_it_is_stale(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    stage.client.receive(Stale(submit.id, 2), ())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _answered_by_the_next_broker(stage: Stage, task: asyncio.Task[bytes], submit: Submit) -> None:
    stage.client._on_death()
    hello = await stage.broker.greet(catalogue(2, status(1, signature=ONE)))
    assert hello.requests == (submit,)
    stage.broker.say(Completed(submit.id, (OutputResult((2, 4)),)))
    assert outputs_of(await task)


async def _given_up_and_released_by_the_next_broker(
    stage: Stage, task: asyncio.Task[bytes], submit: Submit
) -> None:
    stage.expire(submit)
    stage.client._on_death()
    with pytest.raises(DeadlineExceededError):
        await task
    hello = await stage.broker.greet(catalogue(2, status(1, signature=ONE)))
    assert hello.abandoned == (submit.id,)
    assert stage.memory.used
    stage.broker.say(Released(submit.id))


@pytest.mark.parametrize(
    "end",
    [
        _failed,
        _expired,
        _cancelled,
        _cancelled_as_it_is_answered,
        _cancelled_as_it_is_stale,
        _cancelled_while_it_is_stale,
        _answered_by_the_next_broker,
        _given_up_and_released_by_the_next_broker,
    ],
    ids=lambda end: end.__name__[1:],
)
def test_however_a_request_ends_its_memory_is_free(
    tmp_path: Path, end: Callable[[Stage, asyncio.Task[bytes], Submit], Awaitable[None]]
) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage)
        await rim.learn(message_of(x=X), X)
        task = rim.ask(message_of(x=X))
        submit = await stage.broker.next(Submit)
        await end(stage, task, submit)
        await stage.until(lambda: stage.memory.used == 0)
        assert len(stage.client.ledger) == 0

    on_stage(scenario)(tmp_path)


@on_stage
async def test_the_clients_deadline_is_kept(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    deadline = time.monotonic_ns() + 20_000_000
    task = rim.ask(message_of(x=X), deadline)
    submit = await stage.broker.next(Submit)
    assert submit.deadline == deadline
    with pytest.raises(DeadlineExceededError):
        await task
    assert time.monotonic_ns() >= deadline
    stage.broker.say(Released(submit.id))
    await stage.until(lambda: stage.memory.used == 0)


class _Careless:
    """An owner that raises when it is told of the end, which it must not."""

    def answered(self, request: RecipeRequest, completed: Completed) -> None:
        """See Owner."""
        raise AssertionError("careless")

    def failed(self, request: RecipeRequest, error: Exception) -> None:
        """See Owner."""
        raise AssertionError("careless")


@pytest.mark.parametrize("error", [None, WireError(Code.INTERNAL, "no")])
def test_an_owner_that_raises_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: WireError | None
) -> None:
    # pytest's own handlers keep the error, its frames, and by them the request's memory.
    logged = io.StringIO()
    logger = logging.getLogger("frontends")
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [logging.StreamHandler(logged)])

    async def scenario(stage: Stage) -> None:
        rim = await begun(stage)
        await rim.learn(message_of(x=X), X)
        message, now = message_of(x=X), time.monotonic_ns()
        assert stage.dataplane.begin(rim.form(message), memoryview(message), _Careless(), now, now + 10**10)
        other = rim.ask(message)
        submits = [await stage.broker.next(Submit), await stage.broker.next(Submit)]
        # Both in the same round.
        stage.broker.say(Completed(submits[0].id, (OutputResult(X.shape),), error))
        rim.answer(submits[1], X)
        assert outputs_of(await other)
        assert not stage.client.ledger.entries
        assert "careless" in logged.getvalue()

    on_stage(scenario)(tmp_path)


# ---- places


@on_stage
async def test_requests_one_after_another_meet_the_same_place(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    offsets = {(await rim.served(message_of(x=X + n), X))[0].inputs[0].offset for n in range(5)}
    assert len(offsets) == 1
    assert stage.memory.used == 0
    assert stage.memory.kept == 128


@on_stage
async def test_a_place_that_a_worker_may_write_to_is_nobodys(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    task = rim.ask(message_of(x=X))
    first = await stage.broker.next(Submit)
    stage.expire(first)
    with pytest.raises(DeadlineExceededError):
        await task
    for number in range(3):
        submit, _ = await rim.served(message_of(x=X + number), X)
        assert submit.inputs[0].offset != first.inputs[0].offset
    stage.broker.say(Released(first.id))
    await stage.until(lambda: stage.memory.used == 0)


@on_stage
async def test_a_plan_that_is_forgotten_is_made_anew(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    stage.dataplane._plans.clear()
    offsets = {(await rim.served(message_of(x=X), X))[0].inputs[0].offset for _ in range(3)}
    recipe = rim.form(message_of(x=X)).recipe
    assert recipe is not None
    assert not recipe.plan.forgotten
    assert len(offsets) == len(recipe.plan.spare) == 1


@on_stage
async def test_kept_places_are_given_up_for_what_needs_the_arena(stage: Stage) -> None:
    rim = await begun(stage)
    await rim.learn(message_of(x=X), X)
    tasks = [rim.ask(message_of(x=X)) for _ in range(8)]
    for _ in tasks:
        rim.answer(await stage.broker.next(Submit), X)
    await asyncio.gather(*tasks)
    assert stage.memory.kept == 8 * 128
    whole = stage.memory.allocate(ARENA_BYTES)
    assert whole is not None
    assert stage.memory.kept == 0
    task = rim.ask(message_of(x=X))
    assert (await stage.broker.next(Submit)).segment != ARENA, "there is no room"
    task.cancel()
    stage.memory.free(whole)


def test_at_debug_each_request_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage)
        for _ in range(4):
            await rim.served(message_of(x=X), X)

    with caplog.at_level(logging.DEBUG, "frontends"):
        on_stage(scenario)(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len([line for line in lines if line.startswith("model m version 1: deserialization")]) == 4
