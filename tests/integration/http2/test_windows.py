"""Flow control (RFC 9113, section 5.2): the windows of the client, and those of the server."""

import socket
import statistics
import struct
import time

import pytest

from frontends.grpc.native.protocol import ACKNOWLEDGED_BYTES
from tests.support.grpc_table import TableServer
from tests.support.http2_peer import (
    DATA,
    GOAWAY,
    INITIAL_WINDOW,
    MAX_FRAME,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    Connect,
    Frame,
    Peer,
    frame,
    message,
    settings,
    word,
)
from tests.support.waiting import until

pytestmark = pytest.mark.integration

_BIG_ANSWER = 5 + 100_000


# ---- the client's windows


def _ask_big(peer: Peer, stream: int = 1, size: int = 100_000) -> None:
    peer.call(stream, "Big", b"%d" % size)


def _came(peer: Peer, size: int, stream: int = 1) -> None:
    """So many bytes of the answer come, and no more."""
    peer.read(lambda: len(peer.of(stream).data) >= size)
    peer.ping()
    assert len(peer.of(stream).data) == size


def _counting(size: int) -> bytes:
    return bytes(index & 0xFF for index in range(size))


def test_an_answer_waits_for_the_stream_window(connect: Connect) -> None:
    peer = connect((INITIAL_WINDOW, 10))
    _ask_big(peer)
    _came(peer, 10)
    for more in (1, 9, 1000):
        before = len(peer.of(1).data)
        peer.send(frame(WINDOW_UPDATE, 0, 1, word(more)))
        _came(peer, before + more)
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(1 << 20)) + frame(WINDOW_UPDATE, 0, 0, word(1 << 20)))
    assert peer.answer().messages == [_counting(100_000)]


def test_an_answer_waits_for_the_connections_window(connect: Connect) -> None:
    peer = connect((INITIAL_WINDOW, 1 << 20))
    _ask_big(peer)
    _came(peer, 65_535)
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(_BIG_ANSWER - 65_535 - 1)))
    _came(peer, _BIG_ANSWER - 1)
    assert not peer.of(1).ended
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(1)))
    assert peer.answer().messages == [_counting(100_000)]


def test_windows_that_the_settings_change_meanwhile(connect: Connect) -> None:
    """Section 6.9.2, down to a window below zero and up again."""
    peer = connect((INITIAL_WINDOW, 1000))
    _ask_big(peer)
    _came(peer, 1000)
    peer.send(settings((INITIAL_WINDOW, 0)))
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(999)))
    peer.ping()
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(1)))
    peer.ping()
    assert len(peer.of(1).data) == 1000, "the window is zero again"
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(1)))
    _came(peer, 1001)
    peer.send(settings((INITIAL_WINDOW, 500)))
    _came(peer, 1501)
    peer.send(settings((INITIAL_WINDOW, 1 << 20)) + frame(WINDOW_UPDATE, 0, 0, word(1 << 20)))
    assert peer.answer().messages == [_counting(100_000)]


def test_several_settings_of_one_kind_count_in_order(connect: Connect) -> None:
    peer = connect((INITIAL_WINDOW, 5), (INITIAL_WINDOW, 70_000), (INITIAL_WINDOW, 7))
    _ask_big(peer)
    _came(peer, 7)
    assert not peer.of(1).ended


@pytest.mark.parametrize("longest", [16_384, 16_385, 65_536, 2**24 - 1])
def test_frames_are_no_longer_than_the_client_takes(connect: Connect, longest: int) -> None:
    peer = connect((INITIAL_WINDOW, 1 << 24), (MAX_FRAME, longest))
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(1 << 24)))
    peer.ping()
    lengths: list[int] = []
    take = peer._take

    def seen(found: Frame) -> None:
        if found.kind == DATA:
            lengths.append(len(found.payload))
        take(found)

    peer._take = seen  # type: ignore[method-assign]
    _ask_big(peer, size=1_000_000)
    assert peer.answer().messages == [_counting(1_000_000)]
    assert max(lengths) <= longest


def test_streams_take_turns(connect: Connect) -> None:
    """One whose client does not read it holds none of the others up."""
    peer = connect((INITIAL_WINDOW, 0))
    for stream in (1, 3, 5):
        _ask_big(peer, stream, 30_000)
    peer.send(frame(WINDOW_UPDATE, 0, 3, word(1 << 20)))
    assert peer.answer(3).messages == [_counting(30_000)]
    assert peer.of(1).data == peer.of(5).data == b""
    peer.send(frame(WINDOW_UPDATE, 0, 5, word(1 << 20)))
    assert peer.answer(5).messages == [_counting(30_000)]


def test_an_answer_is_released_once_however_its_call_ends(connect: Connect, server: TableServer) -> None:
    peer = connect((INITIAL_WINDOW, 10))
    _ask_big(peer, 1)
    _ask_big(peer, 3)
    _came(peer, 10, 1)
    _came(peer, 10, 3)
    assert server.methods.lent == 2
    peer.send(frame(RST_STREAM, 0, 1, word(8)))
    until(lambda: server.methods.lent == 1, "what was reset is released")
    peer.socket.close()
    until(lambda: server.methods.lent == 0, "what was cut off is released")


def test_an_answer_goes_on_after_the_socket_was_full(connect: Connect, server: TableServer) -> None:
    """Far longer than the buffers between, in frames as long as there are, to a client that reads late."""
    peer = connect((INITIAL_WINDOW, 2**31 - 1), (MAX_FRAME, 2**24 - 1), receive_bytes=4096)
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1 - 65_535)))
    _ask_big(peer, 1, 32_000_000)
    until(lambda: server.methods.lent == 1, "it is being answered")
    _ask_big(peer, 3, 1000)
    assert len(peer.answer(1).data) == 5 + 32_000_000
    assert peer.answer(3).messages == [_counting(1000)]


# ---- the server's windows


def test_a_client_that_sends_past_the_streams_window(peer: Peer) -> None:
    """A handler that takes no messages leaves the window as it is: 1 MiB."""
    peer.open(1, "Ignore")
    body = message(b"waits") + message(bytes(1 << 20))
    for at in range(0, 1 << 20, 16_384):
        peer.data(1, body[at : at + 16_384])
    peer.ping()
    assert peer.of(1).reset == ""
    peer.data(1, b"x")
    assert peer.answer().reset == "FLOW_CONTROL_ERROR"


def test_a_client_that_sends_past_the_connections_window(peer: Peer) -> None:
    for stream in range(1, 81, 2):
        peer.open(stream, "Ignore")
    peer.ping()
    sent, offered = (
        0,
        65_535 + sum(int.from_bytes(one.payload, "big") for one in peer.frames if one.kind == WINDOW_UPDATE),
    )
    assert offered < 40 << 20
    stream = 1
    while sent <= offered and not peer.closed:
        peer.data(stream, bytes(1 << 20))
        sent, stream = sent + (1 << 20), stream + 2
    peer.send(frame(PING, 0, 0, bytes(8)))
    peer.read(lambda: peer.goaway or peer.count(PING))
    credited = sum(
        int.from_bytes(one.payload, "big")
        for one in peer.frames
        if one.kind == WINDOW_UPDATE and not one.stream
    )
    assert peer.goaway == "FLOW_CONTROL_ERROR" or 65_535 + credited >= sent


def test_after_the_clients_goaway_open_calls_are_answered(connect: Connect, server: TableServer) -> None:
    peer = connect()
    peer.call(1, "Slow", b"last")
    peer.send(frame(GOAWAY, 0, 0, bytes(8)))
    peer.ping()
    until(lambda: server.methods.waiting == 1, "the handler runs")
    server.open_gate()
    assert peer.answer().messages == [b"last"]


# ---- TCP's


def _seconds_unacknowledged(peer: Peer) -> float:
    """Until the server's kernel has told that all came which was sent."""
    begun = time.monotonic()
    while struct.unpack_from("I", peer.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0]:
        assert time.monotonic() - begun < 10
        time.sleep(0.0005)
    return time.monotonic() - begun


def test_parts_of_a_large_message_are_acknowledged_at_once(peer: Peer) -> None:
    """On a connection on which questions and answers alternate the kernel would keep it back for 40 ms."""
    peer.open(1, "Echo")
    peer.data(1, struct.pack(">BI", 0, 1 << 20))
    took = []
    for number in range(15):
        small = 3 + 2 * number
        peer.call(small)
        peer.answer(small)
        peer.data(1, bytes(ACKNOWLEDGED_BYTES))
        took.append(_seconds_unacknowledged(peer))
    assert statistics.median(took) < 0.02
