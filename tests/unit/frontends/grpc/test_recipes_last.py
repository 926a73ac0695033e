"""Predict by a form's recipe: how long recipes and places hold."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from common.errors import (
    DeadlineExceededError,
    UnavailableError,
)
from common.messages import Released, Stale, Submit, VersionId
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.memory import ARENA
from tests.unit.frontends.grpc.recipe_rim import ONE, X, begun, message_of, outputs_of
from tests.unit.frontends.scripted_broker import ARENA_BYTES, Stage, catalogue, on_stage, status


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
