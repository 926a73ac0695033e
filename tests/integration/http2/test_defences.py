"""Clients that attack with frames of which each is allowed: floods have bounds, and end their own connection alone."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from frontends.grpc.http2.limits import Limits
from tests.support.grpc_table import TableServer
from tests.support.http2_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connect,
    Peer,
    block,
    frame,
    message,
    request_headers,
    settings,
    word,
)
from tests.support.waiting import until

pytestmark = pytest.mark.integration

_MB = 1 << 20
_SLOW = block(request_headers("Slow"))
_LIMITS = Limits(streams=50, resets=200, control_frames=500)


@pytest.fixture(scope="module")
def server() -> Iterator[TableServer]:
    """With smaller limits, so that they are reached sooner."""
    running = TableServer(limits=_LIMITS)
    yield running
    running.close()


def _memory() -> int:
    """Bytes of this process, the server's threads among them."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _flood(peer: Peer, piece: bytes, times: int) -> None:
    """Send `piece` again and again, until the server has had enough."""
    many = piece * 100
    for _ in range(times // 100):
        if peer.closed:
            break
        peer.send(many)
    peer.read_to_end()


FLOODS = {
    "pings": frame(PING, 0, 0, bytes(8)),
    "answers to no pings": frame(PING, 1, 0, bytes(8)),
    "settings": settings((INITIAL_WINDOW, 65_535)),
    "empty settings": frame(SETTINGS, 0, 0),
    "priorities": frame(PRIORITY, 0, 5, bytes(5)),
    "unknown frames": frame(0xEE, 0, 0, b""),
    "empty data": frame(DATA, 0, 1, b""),
    "padded empty data": frame(DATA, 8, 1, b"\0"),
    "windows that nobody waits for": frame(WINDOW_UPDATE, 0, 1, word(1)),
    "resets of what is closed": frame(RST_STREAM, 0, 3, word(8)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_frames_that_move_nothing(peer: Peer, kind: str) -> None:
    peer.open(1, "Slow")
    peer.call(3)
    peer.answer(3)
    _flood(peer, FLOODS[kind], 200_000)
    assert peer.goaway in ("ENHANCE_YOUR_CALM", "")


def test_windows_of_the_connection_one_byte_at_a_time(peer: Peer) -> None:
    """Not bounded as the others: clients do that with each answer. It must only cost nothing that stays."""
    for _ in range(100):
        peer.send(frame(WINDOW_UPDATE, 0, 0, word(1)) * 100)
    peer.call(1)
    assert peer.answer().messages == [b"hello"]


def test_rapid_reset(peer: Peer, server: TableServer) -> None:
    """CVE-2023-44487: calls that are given up at once count although they are never open together."""
    begun = server.methods.begun
    for stream in range(1, 20_001, 2):
        peer.send(
            frame(HEADERS, END_HEADERS, stream, _SLOW)
            + frame(DATA, END_STREAM, stream, message(b""))
            + frame(RST_STREAM, 0, stream, word(8))
        )
        if peer.closed:
            break
    peer.read_to_end()
    assert peer.goaway in ("ENHANCE_YOUR_CALM", "")
    assert server.methods.begun - begun <= 1000


def test_resets_that_the_client_makes_the_server_send(peer: Peer, server: TableServer) -> None:
    """CVE-2025-8671: the same by errors of streams."""
    begun = server.methods.begun
    for stream in range(1, 20_001, 2):
        peer.send(
            frame(HEADERS, END_HEADERS, stream, _SLOW)
            + frame(DATA, END_STREAM, stream, message(b""))
            + frame(WINDOW_UPDATE, 0, stream, word(0))
        )
        if peer.closed:
            break
    peer.read_to_end()
    assert peer.goaway in ("ENHANCE_YOUR_CALM", "")
    assert server.methods.begun - begun <= 1000


def test_calls_past_the_limit_are_refused_and_may_be_tried_again(peer: Peer, server: TableServer) -> None:
    for stream in range(1, 2 * _LIMITS.streams + 1, 2):
        peer.call(stream, "Slow", b"%d" % stream)
    until(lambda: server.methods.waiting == _LIMITS.streams, "all run")
    late = 2 * _LIMITS.streams + 1
    peer.call(late, "Slow")
    assert peer.answer(late).reset == "REFUSED_STREAM"
    server.open_gate()
    assert [peer.answer(stream).messages for stream in (1, late - 2)] == [[b"1"], [b"%d" % (late - 2)]]
    peer.call(late + 2)
    assert peer.answer(late + 2).messages == [b"hello"]


def test_header_blocks_without_end(peer: Peer) -> None:
    peer.send(frame(HEADERS, END_STREAM, 1, block(request_headers())))
    _flood(peer, frame(CONTINUATION, 0, 1, b""), 100_000)
    assert peer.goaway in ("ENHANCE_YOUR_CALM", "")


def test_header_blocks_that_are_too_long(peer: Peer) -> None:
    peer.send(frame(HEADERS, END_STREAM, 1, block(request_headers())))
    _flood(peer, frame(CONTINUATION, 0, 1, block([(b"x", bytes(8000))])), 1000)
    assert peer.goaway in ("ENHANCE_YOUR_CALM", "")


def test_a_header_frame_that_is_too_long_is_not_waited_for(peer: Peer) -> None:
    peer.send(frame(HEADERS, END_HEADERS, 1, b"", 500_000))
    peer.read_to_end()
    assert peer.goaway in ("ENHANCE_YOUR_CALM", "FRAME_SIZE_ERROR")


def test_headers_that_unpack_to_many_times_their_bytes(connect: Connect) -> None:
    """HPACK bomb: one entry of 4000 bytes in the table, named again by one byte each."""
    before = _memory()
    for _ in range(10):
        peer = connect()
        entry = b"\x40\x01x\x7f" + b"\xa1\x1e" + b"v" * (127 + 0x21 + 0x1E * 128)
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(request_headers()) + entry))
        peer.ping()
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\xbe" * 16_000))
        peer.read(lambda: peer.closed or peer.of(3).ended or peer.of(3).reset)  # noqa: B023 - called at once
    assert _memory() - before < 64 * _MB


def test_messages_that_hold_nothing(peer: Peer) -> None:
    """Each costs the client five bytes and the server many times that, until they are taken."""
    before = _memory()
    peer.open(1, "Ignore")
    for _ in range(16):
        peer.data(1, message(b"") * 10_000)
    assert peer.answer().status == 8
    assert _memory() - before < 64 * _MB


_LARGE = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


def test_lengths_that_are_only_said() -> None:
    """Messages of 64 MiB of which nothing comes: they cost no memory, and keep nobody out."""
    server = TableServer(message_bytes=64 * _MB)
    before = _memory()
    with Peer(server.port) as peer:
        for stream in range(1, 41, 2):
            peer.open(stream)
            peer.data(stream, b"\0" + word(64 * _MB))
        peer.ping()
        assert not any(peer.of(stream).ended for stream in range(1, 41, 2))
        with grpc.insecure_channel(f"127.0.0.1:{server.port}", _LARGE) as channel:
            echo: Any = channel.unary_unary("/test.Test/Echo")
            assert len(echo(bytes(40 * _MB), timeout=20)) == 40 * _MB
        assert _memory() - before < 200 * _MB
    until(lambda: server.transport._shared.budget.used == 0, "nothing is counted any more")
    server.close()


def _reads_nothing(connect: Connect) -> Peer:
    peer = connect((INITIAL_WINDOW, 2**31 - 1), (MAX_FRAME, 2**24 - 1), receive_bytes=4096)
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1 - 65_535)))
    peer.ping()
    peer.socket.settimeout(0.5)
    return peer


def _blocked(peer: Peer, piece: bytes, times: int) -> bool:
    """Whether the server stops reading while its answers are not read."""
    for _ in range(times):
        try:
            peer.socket.sendall(piece)
        except TimeoutError:
            return True
        except OSError:
            peer.closed = True
            return True
    return False


def test_a_client_that_asks_and_does_not_read(connect: Connect) -> None:
    """Refusals, which open no stream that would be counted."""
    before = _memory()
    peer = _reads_nothing(connect)
    unknown = block(request_headers("Nothing"))
    pieces = b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, stream, unknown) for stream in range(1, 200_001, 2)
    )
    assert _blocked(peer, pieces, 1), "the server read on"
    assert _memory() - before < 128 * _MB


def test_a_client_that_has_much_answered_and_does_not_read(connect: Connect, server: TableServer) -> None:
    peer = _reads_nothing(connect)
    ask = block(request_headers("Big"))
    pieces = [
        frame(HEADERS, END_HEADERS, stream, ask) + frame(DATA, END_STREAM, stream, message(b"1000000"))
        for stream in range(1, 60_001, 2)
    ]
    assert _blocked(peer, b"".join(pieces), 1), "the server read on"
    # What is lent is what was asked for at once, and what waits to be written.
    assert server.methods.lent <= 4 * _LIMITS.streams


def test_a_stream_is_made_no_faster_than_it_is_read(connect: Connect, server: TableServer) -> None:
    before = server.methods.yielded
    peer = _reads_nothing(connect)
    peer.open(1, "Many", ended=True)
    until(lambda: server.methods.waiting == 1, "it has begun")
    socket.socket().close()
    seen = -1
    while seen != server.methods.yielded:
        seen = server.methods.yielded
        other = connect()
        other.call(1)
        other.answer()
    assert (server.methods.yielded - before) * 65_536 < 64 * _MB


def test_a_stream_whose_window_stays_shut(connect: Connect, server: TableServer) -> None:
    before = server.methods.yielded
    peer = connect((INITIAL_WINDOW, 0))
    peer.open(1, "Many", ended=True)
    until(lambda: server.methods.waiting == 1, "it has begun")
    peer.ping()
    assert server.methods.yielded - before <= 1


def test_too_many_connections(connect: Connect, server: TableServer) -> None:
    shared = server.transport._shared
    first = connect()
    first.ping()
    before, shared.most_connections = shared.most_connections, len(shared.connections)
    try:
        second = connect()
        second.read_to_end()
    finally:
        shared.most_connections = before
    first.call(1)
    assert first.answer().messages == [b"hello"]
