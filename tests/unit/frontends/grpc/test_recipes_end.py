"""Predict by a form's recipe: however a request ends, no byte is lent."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from common.errors import (
    Code,
    DeadlineExceededError,
    NotFoundError,
    WireError,
)
from common.messages import Cancel, Completed, OutputResult, Released, Stale, Submit
from frontends.requests import RecipeRequest
from tests.unit.frontends.grpc.recipe_rim import ONE, X, begun, message_of, outputs_of
from tests.unit.frontends.scripted_broker import Stage, catalogue, on_stage, status


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
@pytest.mark.parametrize("in_block", [False, True])
def test_however_a_request_ends_its_memory_is_free(
    tmp_path: Path, end: Callable[[Stage, asyncio.Task[bytes], Submit], Awaitable[None]], *, in_block: bool
) -> None:
    async def scenario(stage: Stage) -> None:
        rim = await begun(stage, in_block=in_block)
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
