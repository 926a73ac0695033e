"""Calls that are under way without a task: however they end, the client hears of it once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from common.errors import NotFoundError
from frontends.grpc.calls import Call, Ended, Outcome, Reply, Unary
from tests.support.http2_peer import DATA, END_STREAM, RST_STREAM, frame, message, word
from tests.unit.frontends.grpc.native.protocol_server import Server, head

_CANCEL = 8


class _Begun:
    """What a method has begun."""

    def __init__(self, call: Call, ended: Ended) -> None:
        self._call = call
        self._ended = ended
        self.cancelled = 0

    def end(self, outcome: Outcome) -> None:
        """It comes to this."""
        self._ended(self._call, outcome)

    def cancel(self) -> None:
        """See frontends.grpc.calls.Begun."""
        self.cancelled += 1


class _Method:
    """Begins what it can, and says of all else that it went the other way."""

    def __init__(self) -> None:
        self.begun: list[_Begun] = []
        self.begins: Any = True
        """False: it does not begin calls; an exception: it refuses them."""
        self.server = Server(Unary(self._handle, begin=self._begin))

    def _begin(self, _message: memoryview, call: Call, ended: Ended) -> _Begun | None:
        if isinstance(self.begins, Exception):
            raise self.begins
        if not self.begins:
            return None
        self.begun.append(_Begun(call, ended))
        return self.begun[-1]

    async def _handle(self, _message: memoryview, _call: Call) -> Reply:
        return [b"the other way"]

    def call(self, *streams: int) -> None:
        """Calls come, each whole."""
        self.server.socket.written = b""
        self.server.feed(
            b"".join(head(number) + frame(DATA, END_STREAM, number, message(b"call")) for number in streams)
        )

    async def written(self) -> bytes:
        """What the client has been sent since."""
        for _ in range(3):
            await asyncio.sleep(0)
        return self.server.socket.written


Scenario = Callable[[_Method], Awaitable[None]]


def play(scenario: Scenario) -> None:
    """On a loop; nothing is unanswered in the end."""

    async def run() -> None:
        method = _Method()
        await scenario(method)
        assert method.server.protocol._connection.unanswered == 0

    asyncio.run(run())


def test_the_answer_goes_out_whenever_it_comes() -> None:
    async def scenario(method: _Method) -> None:
        method.call(1, 3)
        assert await method.written() == b""
        method.begun[1].end([b"second, ", b"first"])
        assert message(b"second, first") in await method.written()
        method.begun[0].end([b"first, second"])
        assert message(b"first, second") in await method.written()

    play(scenario)


def test_what_it_fails_with_is_the_status() -> None:
    async def scenario(method: _Method) -> None:
        method.call(1)
        method.begun[0].end(NotFoundError("no such model"))
        assert b"no such model" in await method.written()

    play(scenario)


def test_a_refusal_at_once_is_the_status() -> None:
    async def scenario(method: _Method) -> None:
        method.begins = NotFoundError("not at all")
        method.call(1)
        assert b"not at all" in await method.written()

    play(scenario)


def test_what_is_not_begun_goes_the_other_way() -> None:
    async def scenario(method: _Method) -> None:
        method.begins = False
        method.call(1)
        assert message(b"the other way") in await method.written()

    play(scenario)


def test_a_client_that_resets_has_it_cancelled_once_and_hears_nothing() -> None:
    async def scenario(method: _Method) -> None:
        method.call(1)
        method.server.feed(frame(RST_STREAM, 0, 1, word(_CANCEL)))
        assert method.begun[0].cancelled == 1
        assert await method.written() == b""
        method.call(3)
        method.begun[1].end([b"the connection goes on"])
        assert message(b"the connection goes on") in await method.written()

    play(scenario)


@pytest.mark.parametrize("lost", [True, False])
def test_the_connections_end_cancels_it(lost: bool) -> None:
    async def scenario(method: _Method) -> None:
        method.call(1)
        if lost:
            method.server.protocol.connection_lost(None)
        else:
            method.server.protocol.end()
        assert method.begun[0].cancelled == 1
        assert (b"shutting down" in await method.written()) is not lost

    play(scenario)


def test_an_overdue_call_is_cancelled_and_told() -> None:
    async def scenario(method: _Method) -> None:
        method.call(1)
        call = method.begun[0]._call
        call.deadline_ns = 1  # type: ignore[misc]
        method.server.protocol.sweep(2)
        method.server.protocol.sweep(3)
        assert method.begun[0].cancelled == 1
        assert (await method.written()).count(b"deadline passed") == 1

    play(scenario)
