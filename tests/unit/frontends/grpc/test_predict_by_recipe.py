"""Predict by a form's recipe: the same answers and refusals as in the general way."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest

from common.errors import (
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from common.messages import Completed, OutputResult, Submit, VersionId
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.grpc.tensorflow_serving import IN_PLACE_BYTES
from frontends.memory import ARENA
from tests.unit.frontends.grpc.recipe_rim import ONE, TWO, A, B, Rim, X, begun, message_of, outputs_of
from tests.unit.frontends.scripted_broker import Stage, catalogue, on_stage, status


@pytest.mark.parametrize(
    ("signature", "inputs", "answers"),
    [
        (ONE, {"x": X}, [X + 1]),
        (TWO, {"a": A, "b": B}, [B.reshape(-1), np.array(7, np.float32)]),
        (TWO, {"b": B, "a": A}, [B.reshape(-1), np.array(7, np.float32)]),
        (ONE, {"x": X.astype(np.float64)}, [X]),
    ],
)
@pytest.mark.parametrize("in_block", [False, True])
def test_answers_are_the_same_bytes(
    tmp_path: Path,
    signature: Signature,
    inputs: dict[str, np.ndarray],
    answers: list[np.ndarray],
    *,
    in_block: bool,
) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage, signature, in_block=in_block)
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


@pytest.mark.parametrize("in_block", [False, True])
def test_the_elements_are_those_of_each_message(tmp_path: Path, *, in_block: bool) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage, in_block=in_block)
        await rim.learn(message_of(x=X), X)
        await _check_twenty(stage, rim)

    on_stage(scenario)(tmp_path)


async def _check_twenty(stage: Stage, rim: Rim) -> None:
    """At once, each with elements of its own."""
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
@pytest.mark.parametrize("in_block", [False, True])
def test_an_answer_that_does_not_fit(
    tmp_path: Path, outputs: tuple[OutputResult, ...], *, in_block: bool
) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage, in_block=in_block)
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


def test_at_debug_each_request_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage)
        for _ in range(4):
            await rim.served(message_of(x=X), X)

    with caplog.at_level(logging.DEBUG, "frontends"):
        on_stage(scenario)(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len([line for line in lines if line.startswith("model m version 1: deserialization")]) == 4
