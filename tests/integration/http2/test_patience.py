"""Clients that are slow or silent: each is waited for so long and no longer."""

import time
from collections.abc import Iterator

import pytest

from frontends.grpc.native.shared import Patience
from tests.support.grpc_table import TableServer
from tests.support.http2_peer import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    PADDED,
    PING,
    PREFACE,
    WINDOW_UPDATE,
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

_STALL_S = 1.0


@pytest.fixture(scope="module")
def impatient() -> Iterator[TableServer]:
    """A server that waits for a second where others wait for half a minute, and is never silent for long."""
    running = TableServer(
        patience=Patience(greeting_s=1.0, stall_s=_STALL_S, keep_alive_s=600, answer_s=1.0, idle_s=3600)
    )
    yield running
    running.close()


def _peer(server: TableServer, *pairs: tuple[int, int], greet: bool = True) -> Peer:
    return Peer(server.port, *pairs, greet=greet)


@pytest.mark.parametrize(
    "sent",
    [b"", PREFACE[:10], PREFACE, PREFACE + settings()[:-1], PREFACE + settings((INITIAL_WINDOW, 1))[:12]],
)
def test_a_greeting_that_does_not_come(impatient: TableServer, sent: bytes) -> None:
    with _peer(impatient, greet=False) as peer:
        peer.send(sent)
        peer.read_to_end()


@pytest.mark.parametrize(
    "sent",
    [
        frame(PING, 0, 0, bytes(8))[:5],
        frame(PING, 0, 0, bytes(8))[:-1],
        frame(HEADERS, END_HEADERS, 1, block(request_headers()))[:-1],
        frame(HEADERS, 0, 1, block(request_headers())),
    ],
)
def test_a_frame_or_block_that_does_not_end(impatient: TableServer, sent: bytes) -> None:
    with _peer(impatient) as peer:
        peer.send(sent)
        peer.read_to_end()


def test_headers_that_come_byte_by_byte(impatient: TableServer) -> None:
    sent = frame(HEADERS, END_HEADERS, 1, block(request_headers("Echo", (b"x", b"y" * 1000))))
    with _peer(impatient) as peer:
        begun = time.monotonic()
        for byte in sent:
            peer.send(bytes((byte,)))
            if peer.closed or time.monotonic() - begun > 20:
                break
            time.sleep(0.1)
        assert peer.closed


@pytest.mark.parametrize("method", ["Echo", "Slow"])
def test_a_body_that_does_not_come(impatient: TableServer, method: str) -> None:
    with _peer(impatient) as peer:
        peer.open(1, method)
        peer.data(1, message(b"hello")[:7])
        assert peer.answer().status == 4
        peer.call(3)
        assert peer.answer(3).messages == [b"hello"]


def test_a_body_that_comes_too_slowly(impatient: TableServer) -> None:
    with _peer(impatient) as peer:
        peer.open(1)
        peer.send(frame(DATA, 0, 1, message(bytes(5000))[:10]))
        begun = time.monotonic()
        while not peer.of(1).ended and time.monotonic() - begun < 20:
            peer.data(1, b"x")
            peer.ping()
            time.sleep(0.1)
        assert peer.of(1).status == 4


def test_an_answer_that_is_not_taken(impatient: TableServer) -> None:
    with _peer(impatient, (INITIAL_WINDOW, 10)) as peer:
        peer.call(1, "Big", b"100000")
        peer.call(3)
        assert peer.answer(1).reset == "CANCEL"
        until(lambda: impatient.methods.lent == 0, "its memory is given back")
        peer.send(settings((INITIAL_WINDOW, 100)))
        peer.call(5)
        assert peer.answer(5).messages == [b"hello"]


def test_a_socket_that_is_not_read(impatient: TableServer) -> None:
    with Peer(impatient.port, (INITIAL_WINDOW, 2**31 - 1), receive_bytes=4096) as peer:
        peer.send(frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1 - 65_535)))
        peer.ping()
        for stream in range(1, 41, 2):
            peer.call(stream, "Big", b"1000000")
        until(lambda: impatient.methods.lent > 0, "it is answered")
        until(lambda: impatient.methods.lent == 0, "its memory is given back")


def test_slow_but_steady_clients_are_served(impatient: TableServer) -> None:
    """Longer than the stall limit, by pieces that each end within a padded frame."""
    with _peer(impatient) as peer:
        peer.open(1, "Stream")
        one = frame(DATA, PADDED, 1, b"\x05" + message(bytes(2000)) + bytes(5))
        sent = one[:1000]
        for _ in range(12):
            peer.send(sent)
            sent = one[1000:] + one[:1000]
            time.sleep(0.25)
        peer.send(one[1000:] + frame(DATA, END_STREAM, 1, b""))
        assert peer.answer().messages == [bytes(2000)] * 12


def test_silent_clients_are_asked_whether_they_are_there() -> None:
    server = TableServer(patience=Patience(keep_alive_s=0.5, answer_s=1.0))
    try:
        with Peer(server.port) as silent, Peer(server.port) as there:
            there.read(lambda: there.count(PING))
            until(lambda: _answered(there) >= 2, "it is asked again", pause_s=0)
            silent.read_to_end()
            there.call(1)
            assert there.answer().messages == [b"hello"]
    finally:
        server.close()


def _answered(peer: Peer) -> int:
    """Read for a moment, and answer all pings."""
    before = peer.count(PING)
    peer.send(frame(PING, ACK, 0, peer.frames[-1].payload))
    peer.read(lambda: peer.count(PING) > before)
    peer.send(frame(PING, ACK, 0, peer.frames[-1].payload))
    return peer.count(PING)


def test_connections_without_calls_are_ended_in_order() -> None:
    server = TableServer(patience=Patience(idle_s=0.5))
    try:
        with Peer(server.port) as peer:
            peer.call(1)
            peer.answer()
            peer.read_to_end()
            assert (peer.goaway, peer.goaway_stream, peer.count(GOAWAY)) == ("NO_ERROR", 1, 1)
    finally:
        server.close()
