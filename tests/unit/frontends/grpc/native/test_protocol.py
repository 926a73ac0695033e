"""The protocol between asyncio and a connection, by hand: where bytes are received, and what becomes of them."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.support.http2_peer import DATA, END_STREAM, frame, message
from tests.unit.frontends.grpc.native.protocol_server import Server, head

_LONG = 200_000


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """One that runs only as far as a test says."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_long_frame_is_received_where_its_message_stays(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        server = Server()
        content = bytes(range(256)) * (_LONG // 256)
        sent = head(1) + frame(DATA, END_STREAM, 1, message(content))
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
        server = Server()
        content = bytes(range(256)) * (_LONG // 256)
        body = message(content)
        frames = [frame(DATA, 0, 1, body[at : at + 10_000]) for at in range(0, len(body), 10_000)]
        server.feed(head(1) + b"".join(frames) + frame(DATA, END_STREAM, 1, b""))
        assert server.protocol.get_buffer(-1) is server.shared.staging
        assert server.memory.used >= len(content)
        await asyncio.sleep(0)
        assert server.seen == [content]
        assert server.memory.used == 0

    loop.run_until_complete(run())


def test_a_call_may_end_between_where_bytes_belong_and_their_coming(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        server = Server()
        sent = head(1) + frame(DATA, END_STREAM, 1, message(bytes(_LONG)))
        server.feed(sent[:1000])
        assert server.protocol.get_buffer(-1) is not server.shared.staging
        # Nothing came, and the call is overdue.
        server.protocol.sweep(time.monotonic_ns() + int(40e9))
        assert server.memory.used == 0
        server.feed(sent[1000:] + head(3) + frame(DATA, END_STREAM, 3, message(b"another")))
        await asyncio.sleep(0)
        assert server.seen == [b"another"]
        assert not server.socket.closed

    loop.run_until_complete(run())


def test_many_small_calls_are_answered_by_one_write_each_round(loop: asyncio.AbstractEventLoop) -> None:
    async def run() -> None:
        server = Server()
        server.socket.written = b""
        calls = [head(n) + frame(DATA, END_STREAM, n, message(b"call %d" % n)) for n in (1, 3, 5, 7)]
        server.feed(b"".join(calls))
        assert server.socket.written == b""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.seen == [b"call 1", b"call 3", b"call 5", b"call 7"]
        assert all(message(content) in server.socket.written for content in server.seen)
        assert server.shared.budget.used == 0

    loop.run_until_complete(run())
