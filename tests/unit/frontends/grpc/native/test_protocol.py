"""The protocol between asyncio and a connection, by hand: where bytes are received, and what becomes of them."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from frontends.grpc.calls import Call, Method, Reply, Unary
from frontends.grpc.native.messages import Budget
from frontends.grpc.native.protocol import GrpcProtocol
from frontends.grpc.native.shared import Shared
from frontends.memory import Memory
from tests.support.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    block,
    frame,
    message,
    request_headers,
    settings,
)

_ARENA_BYTES = 4 << 20
_LONG = 200_000


class _Socket:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def get_extra_info(self, _name: str) -> None:
        """No TLS."""

    def set_write_buffer_limits(self, high: int) -> None:
        """Whatever they are."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def write(self, data: bytes) -> None:
        """Nothing is held back."""
        self.written += data

    def writelines(self, parts: list[Any]) -> None:
        """Nothing is held back."""
        self.written += b"".join(parts)

    def close(self) -> None:
        """The protocol wants no more."""
        self.closed = True


class _Server:
    """A protocol, and how bytes come to it."""

    def __init__(self) -> None:
        self.memory = Memory(_ARENA_BYTES, _ARENA_BYTES)
        self.seen: list[bytes] = []
        methods: dict[bytes, Method] = {b"/test.Test/Echo": Unary(self._echo)}
        self.shared = Shared(methods, _ARENA_BYTES, Budget(_ARENA_BYTES), self.memory)
        self.socket = _Socket()
        self.protocol = GrpcProtocol(self.shared)
        self.protocol.connection_made(self.socket)
        self.feed(PREFACE + settings())

    async def _echo(self, content: memoryview, _call: Call) -> Reply:
        self.seen.append(bytes(content))
        return [self.seen[-1][:20]]

    def feed(self, data: bytes) -> None:
        """As a socket that has all of it would."""
        view = memoryview(data)
        while view:
            room = self.protocol.get_buffer(-1)
            size = min(len(room), len(view))
            room[:size] = view[:size]
            self.protocol.buffer_updated(size)
            view = view[size:]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs only as far as a test says."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def _head(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block(request_headers()))


def test_a_long_frame_is_received_where_its_message_stays(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        server = _Server()
        content = bytes(range(256)) * (_LONG // 256)
        sent = _head(1) + frame(DATA, END_STREAM, 1, message(content))
        server.feed(sent[:1000])
        room = server.protocol.get_buffer(-1)
        assert room is not server.shared.staging
        assert len(room) == len(sent) - 1000
        server.feed(sent[1000:])
        await asyncio.sleep(0)
        assert server.seen == [content]
        assert server.memory.used == 0
        assert content[:20] in server.socket.written

    loop.run_until_complete(run())


def test_short_frames_are_received_aside_and_put_where_their_message_stays(
    loop: asyncio.AbstractEventLoop,
) -> None:
    async def run() -> None:
        server = _Server()
        content = bytes(range(256)) * (_LONG // 256)
        body = message(content)
        frames = [frame(DATA, 0, 1, body[at : at + 10_000]) for at in range(0, len(body), 10_000)]
        server.feed(_head(1) + b"".join(frames) + frame(DATA, END_STREAM, 1, b""))
        assert server.protocol.get_buffer(-1) is server.shared.staging
        assert server.memory.used >= len(content)
        await asyncio.sleep(0)
        assert server.seen == [content]
        assert server.memory.used == 0

    loop.run_until_complete(run())


def test_a_call_may_end_between_where_bytes_belong_and_their_coming(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        server = _Server()
        sent = _head(1) + frame(DATA, END_STREAM, 1, message(bytes(_LONG)))
        server.feed(sent[:1000])
        assert server.protocol.get_buffer(-1) is not server.shared.staging
        # Nothing came, and the call is overdue.
        server.protocol.sweep(time.monotonic_ns() + int(40e9))
        assert server.memory.used == 0
        server.feed(sent[1000:] + _head(3) + frame(DATA, END_STREAM, 3, message(b"another")))
        await asyncio.sleep(0)
        assert server.seen == [b"another"]
        assert not server.socket.closed

    loop.run_until_complete(run())


def test_many_small_calls_are_answered_by_one_write_each_round(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        server = _Server()
        server.socket.written = b""
        calls = [_head(n) + frame(DATA, END_STREAM, n, message(b"call %d" % n)) for n in (1, 3, 5, 7)]
        server.feed(b"".join(calls))
        assert server.socket.written == b""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.seen == [b"call 1", b"call 3", b"call 5", b"call 7"]
        assert all(message(content) in server.socket.written for content in server.seen)
        assert server.shared.budget.used == 0

    loop.run_until_complete(run())
