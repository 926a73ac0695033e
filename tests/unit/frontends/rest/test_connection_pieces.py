"""Connections that carry out short Predicts themselves: whatever pieces requests come in, and what comes meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from common.messages import Submit
from frontends.rest import connection
from tests.unit.frontends.rest.connection_site import (
    GET,
    GOOD,
    OTHER,
    Client,
    Site,
    answer,
    request,
    scene,
    working,
)
from tests.unit.frontends.scripted_broker import Stage

pytestmark = pytest.mark.usefixtures("patched")


@scene
async def test_requests_in_one_piece_are_answered_in_their_order(
    stage: Stage, site: Site, client: Client
) -> None:
    async with working(stage):
        client.send(request() + OTHER + GET + request())
        texts = [await client.answer() for _ in range(4)]
    assert [GOOD in text for text in texts] == [True, False, False, True]
    assert b"[[1.0,1.0,1.0]]" in texts[1]
    assert b"model_version_status" in texts[2]
    assert site.asked == 4


@scene
async def test_what_comes_meanwhile_waits(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    for text in (request(), OTHER, GET, request()[:100]):
        client.send(text)
        await asyncio.sleep(0.01)
    held = site.connections[0]._held
    await stage.until(lambda: len(held) == len(request() + OTHER + GET) + 100)
    assert not any(isinstance(message, Submit) for message in stage.broker.pending())
    answer(stage, submit)
    async with working(stage):
        client.send(request()[100:])
        texts = [await client.answer() for _ in range(5)]
    assert [GOOD in text for text in texts] == [True, True, False, False, True]
    assert b"model_version_status" in texts[3]


@scene
async def test_one_that_waited_alone_is_quick_again(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    client.send(request())
    await stage.until(lambda: bool(site.connections[0]._held))
    answer(stage, submit)
    assert GOOD in await client.answer()
    answer(stage, await stage.broker.next(Submit))
    assert GOOD in await client.answer()
    assert site.asked == 0


@scene
async def test_not_too_much_is_read_meanwhile(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    one = site.connections[0]
    many = (16 << 20) // len(GET)
    client.send(GET * many)
    await stage.until(lambda: one._reading_paused)
    assert len(one._held) < 1 << 20
    answer(stage, submit)
    assert GOOD in await client.answer()
    first = await client.answer()
    assert b"model_version_status" in first
    for _ in range(20):
        assert await client.answer() == first
        # gunicorn has them all now, and reads on as it answers.
        assert len(one._callback_parser._buffer) < 1 << 20


@scene
async def test_whatever_the_pieces_are(stage: Stage, site: Site, client: Client) -> None:
    async with working(stage):
        for text in (request(), request()):
            for number in range(len(text)):
                client.send(text[number : number + 1])
                await asyncio.sleep(0)
            assert GOOD in await client.answer()
            assert GOOD in await client.ask(text)
        for at in range(1, len(request()), 7):
            client.send(request()[:at])
            await asyncio.sleep(0.001)
            client.send(request()[at:] + request()[:at])
            assert GOOD in await client.answer()
            client.send(request()[at:])
            assert GOOD in await client.answer()


@scene
async def test_a_body_that_comes_apart_from_its_head(stage: Stage, site: Site, client: Client) -> None:
    text = request()
    end = text.index(b"\r\n\r\n") + 4
    one = site.connections[0]
    for cuts in ((end,), (end, end + 5), (end, end + 5, len(text) - 1)):
        for start, stop in itertools.pairwise((0, *cuts)):
            client.send(text[start:stop])
            await stage.until(lambda: len(one._started) == stop)  # noqa: B023 - it is awaited here
        client.send(text[cuts[-1] :])
        answer(stage, await stage.broker.next(Submit))
        assert GOOD in await client.answer()
    assert site.asked == 0


@scene
async def test_a_body_that_is_late(stage: Stage, site: Site, client: Client) -> None:
    """It is waited for by the application, whose bounds hold, and its deadline counts from the head."""
    text = request()
    end = text.index(b"\r\n\r\n") + 4
    before = time.monotonic_ns()
    client.send(text[: end + 3])
    await stage.until(lambda: site.asked == 1)
    after = time.monotonic_ns() - int(connection._MORE_S * 1e9)
    client.send(text[end + 3 :] + request())
    for _ in range(2):
        submit = await stage.broker.next(Submit)
        if before:
            assert before <= submit.deadline - 60_000_000_000 <= after
        before = 0
        answer(stage, submit)
        assert GOOD in await client.answer()


@scene
async def test_more_than_a_body_after_its_head(stage: Stage, site: Site, client: Client) -> None:
    text = request()
    end = text.index(b"\r\n\r\n") + 4
    client.send(text[:end])
    await stage.until(lambda: bool(site.connections[0]._started))
    client.send(text[end:] + GET)
    async with working(stage):
        assert GOOD in await client.answer()
        assert b"model_version_status" in await client.answer()
    assert site.asked == 2


@scene
async def test_a_client_that_goes_before_its_body(stage: Stage, site: Site, client: Client) -> None:
    client.send(request()[:-4])
    await stage.until(lambda: bool(site.connections[0]._started))
    await client.close()
    await asyncio.sleep(2 * connection._MORE_S)
    assert site.asked == 0
