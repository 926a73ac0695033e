"""Connections that carry out short Predicts themselves: however a request ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.errors import Code, WireError
from common.messages import Cancel, Completed, Released, Stale, Submit
from frontends.memory import ARENA
from tests.unit.frontends.rest.connection_site import (
    GOOD,
    PLAIN,
    VERSIONS,
    Client,
    Site,
    answer,
    request,
    scene,
    working,
)
from tests.unit.frontends.scripted_broker import ARENA_BYTES, Stage, catalogue, status

pytestmark = pytest.mark.usefixtures("patched")


@scene
async def test_a_client_that_goes(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    await client.close()
    assert (await stage.broker.next(Cancel)).id == submit.id
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Released(submit.id))


@scene
async def test_a_client_that_goes_while_its_request_is_on_the_way(
    stage: Stage, site: Site, client: Client
) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    await client.close()
    answer(stage, submit)
    await stage.until(lambda: not stage.client.ledger.entries)
    assert site.asked == 0, "nobody is there to be answered"


@scene
async def test_a_client_that_goes_before_its_error_is_written(
    stage: Stage, site: Site, client: Client
) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.expire(submit)
    site.connections[0].transport.abort()
    await client.close()
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Released(submit.id))


@scene
async def test_an_error_of_the_broker(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id, (), WireError(Code.RESOURCE_EXHAUSTED, "too many")))
    text = await client.answer()
    assert text.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 1\r\n".lower() in text.lower()
    assert text.endswith(b'{"error":"too many"}')
    assert site.asked == 1
    async with working(stage):
        assert GOOD in await client.ask(request())
    assert site.asked == 1, "the connection is as before"


@scene
async def test_the_deadline(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.expire(submit)
    assert b" 504 Gateway Timeout\r\n" in await client.answer()
    assert (await stage.broker.next(Cancel)).id == submit.id
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Released(submit.id))


@scene
async def test_a_version_that_has_left(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    again = [status(number, signature=one) for number, one in enumerate(VERSIONS, 1)]
    stage.broker.say(Stale(submit.id, 2), catalogue(2, *again))
    second = await stage.broker.next(Submit)
    assert (second.generation, second.deadline) == (2, submit.deadline)
    answer(stage, second)
    assert GOOD in await client.answer()


@pytest.mark.parametrize("draining", [True, False])
def test_a_version_that_has_left_when_no_others_are_taken(tmp_path: Path, draining: bool) -> None:
    """What was taken once is not refused later."""

    async def play(stage: Stage, site: Site, client: Client) -> None:
        client.send(request())
        submit = await stage.broker.next(Submit)
        if draining:
            stage.admission.draining = True
        else:
            stage.admission._max_requests = 0
        again = [status(number, signature=one) for number, one in enumerate(VERSIONS, 1)]
        # The catalogue by which it can begin anew comes later.
        stage.broker.say(Stale(submit.id, 2))
        await asyncio.sleep(0.01)
        assert not any(isinstance(one, Submit) for one in stage.broker.pending())
        stage.broker.say(catalogue(2, *again))
        answer(stage, await stage.broker.next(Submit))
        assert GOOD in await client.answer()

    scene(play)(tmp_path)


@scene
async def test_another_broker_answers(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.client._on_death()
    hello = await stage.broker.greet(catalogue(2, status(1, signature=PLAIN)))
    assert hello.requests == (submit,)
    answer(stage, submit)
    assert GOOD in await client.answer()
    assert site.asked == 0


@scene
async def test_a_refusal_is_counted_once(stage: Stage, site: Site, client: Client) -> None:
    stage.admission.draining = True
    assert b" 503 Service Unavailable\r\n" in await client.ask(request())
    assert stage.admission.refused() == {"UNAVAILABLE": 1}


@scene
async def test_a_server_that_ends(stage: Stage, site: Site, client: Client) -> None:
    """What is under way is waited for, and its answer is the connection's last."""
    client.send(request())
    submit = await stage.broker.next(Submit)
    site.worker.alive = False
    waiting = asyncio.create_task(site.in_flight.ended(10.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    answer(stage, submit)
    text = await client.answer()
    assert GOOD in text
    assert b"\r\nConnection: close\r\n" in text
    assert await client.ends()
    assert await waiting


@scene
async def test_the_timer_of_idle_connections(stage: Stage, site: Site, client: Client) -> None:
    """It counts from the last answer, and not while a request is under way."""
    one = site.connections[0]
    armed = one._keepalive_handle
    assert armed is not None
    client.send(request())
    submit = await stage.broker.next(Submit)
    assert one._keepalive_handle is armed, "a timer a connection, not a request"
    one._keepalive_timeout()
    assert one._keepalive_handle is not armed
    answer(stage, submit)
    assert GOOD in await client.answer()
    one._keepalive_timeout()
    assert not one._closed
    assert one._keepalive_handle.when() > site.worker.loop.time() + 59
    one._answered_at -= 61
    one._keepalive_timeout()
    assert await client.ends()


@scene
async def test_a_client_that_does_not_read(stage: Stage, site: Site, client: Client) -> None:
    """It is gunicorn that waits until it does."""
    one = site.connections[0]
    one.pause_writing()
    async with working(stage):
        assert GOOD in await client.ask(request())
        assert site.asked == 1
        one.resume_writing()
        await stage.until(lambda: one._awaiting_request)
        assert GOOD in await client.ask(request())
    assert site.asked == 1


@scene
async def test_a_worker_that_has_answered_enough(stage: Stage, site: Site, client: Client) -> None:
    site.worker.max_requests = site.worker.nr + 2
    async with working(stage):
        assert b"Connection: close" not in await client.ask(request())
        last = await client.ask(request())
    assert GOOD in last
    assert b"\r\nConnection: close\r\n" in last
    assert await client.ends()
    assert not site.worker.alive


@scene
async def test_places_are_kept_and_made_anew(stage: Stage, site: Site, client: Client) -> None:
    offsets = set()
    for _ in range(3):
        client.send(request())
        submit = await stage.broker.next(Submit)
        offsets.add(submit.inputs[0].offset)
        answer(stage, submit)
        assert GOOD in await client.answer()
    assert len(offsets) == 1
    assert stage.memory.kept > 0
    stage.dataplane._plans.clear()
    async with working(stage):
        assert GOOD in await client.ask(request())
    assert site.asked == 0


@scene
async def test_no_room_in_the_arena(stage: Stage, site: Site, client: Client) -> None:
    whole = stage.memory.allocate(ARENA_BYTES)
    assert whole is not None
    client.send(request())
    submit = await stage.broker.next(Submit)
    assert submit.segment != ARENA
    assert site.asked == 1
    stage.broker.say(Completed(submit.id, (), WireError(Code.UNAVAILABLE, "later")))
    assert b" 503 " in await client.answer()
    stage.memory.free(whole)
