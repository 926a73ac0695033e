"""Settings, windows, padding, priorities, and bytes that come split anywhere: all that a server must bear with."""

import random

import hpack
import pytest

from tests.support.grpc_table import TableServer
from tests.support.http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    MAX_LIST,
    MAX_STREAMS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Connect,
    Frame,
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

_WHOLE = END_HEADERS | END_STREAM
_BLOCK = block(request_headers())
_BIG_ANSWER = 5 + 100_000


def test_the_server_greets_first_and_acknowledges(connect: Connect) -> None:
    peer = connect(greet=False)
    peer.read(lambda: peer.frames)
    first = peer.frames[0]
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    offered = {
        int.from_bytes(first.payload[at : at + 2], "big"): int.from_bytes(
            first.payload[at + 2 : at + 6], "big"
        )
        for at in range(0, len(first.payload), 6)
    }
    assert 100 <= offered[MAX_STREAMS] <= 10_000
    assert offered[MAX_LIST] <= 65_536
    assert 16_384 <= offered[MAX_FRAME] < 2**24
    peer.send(PREFACE + settings())
    peer.read(lambda: Frame(SETTINGS, ACK, 0, b"") in peer.frames)


@pytest.mark.parametrize(
    "harmless",
    [
        settings((0xABCD, 7), (0, 0), (0xFFFF, 2**32 - 1)),
        settings((HEADER_TABLE_SIZE, 0)),
        settings((HEADER_TABLE_SIZE, 2**32 - 1)),
        settings((ENABLE_PUSH, 0), (ENABLE_PUSH, 1)),
        settings((MAX_STREAMS, 0), (MAX_LIST, 1 << 20)),
        settings((MAX_FRAME, 2**24 - 1), (INITIAL_WINDOW, 2**31 - 1)),
        frame(SETTINGS, 0xFE, 0),
        frame(SETTINGS, ACK, 0),
        frame(PING, 0xFE, 0, b"abcdefgh"),
        frame(PING, ACK, 0, b"unasked!"),
        frame(PRIORITY, 0, 1, bytes(5)),
        frame(PRIORITY, 0, 2, word(2) + b"\0"),
        frame(PRIORITY, 0, 99, word(99) + b"\xff"),
        frame(0x0A, 0, 0, b"altsvc"),
        frame(0x10, 0, 0, word(1) + b"u=3"),
        frame(0xFF, 0xFF, 2**31 - 1, b"x" * 16_384),
        frame(0xFF, 0xFF, 1),
        frame(PING, 0, 2**31, bytes(8)),
        frame(GOAWAY, 0, 0, bytes(8) + b"text"),
        frame(WINDOW_UPDATE, 0, 0, word(2**31)[:0] + (2**31 + 1).to_bytes(4, "big")),
    ],
)
def test_what_is_allowed_or_to_be_ignored(peer: Peer, harmless: bytes) -> None:
    peer.send(harmless)
    peer.call(1)
    assert peer.answer().messages == [b"hello"]
    assert (peer.goaway in ("", "NO_ERROR"), peer.of(1).reset) == (True, "")


def test_pings_are_answered_with_their_bytes(peer: Peer) -> None:
    for payload in (b"abcdefgh", bytes(8), b"\xff" * 8):
        peer.ping(payload)


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding(peer: Peer, padding: int) -> None:
    head = bytes((padding,))
    priority = word(2**31 + 1) + b"\x10"
    peer.send(
        frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, head + priority + _BLOCK + bytes(padding))
    )
    peer.send(frame(DATA, PADDED, 1, head + message(b"hello")[:3] + bytes(padding)))
    peer.send(frame(DATA, PADDED, 1, head + bytes(padding)))
    peer.send(frame(DATA, PADDED | END_STREAM, 1, head + message(b"hello")[3:] + bytes(padding)))
    assert peer.answer().messages == [b"hello"]


def test_a_header_block_in_many_frames(peer: Peer) -> None:
    pieces = [_BLOCK[at : at + 10] for at in range(0, len(_BLOCK), 10)]
    peer.send(frame(HEADERS, 0, 1, b""))
    for piece in pieces:
        peer.send(frame(CONTINUATION, 0, 1, piece))
    peer.send(frame(CONTINUATION, END_HEADERS, 1, b""))
    peer.data(1, message(b"hello"), ended=True)
    assert peer.answer().messages == [b"hello"]


def test_the_table_of_headers_is_kept_in_step(peer: Peer) -> None:
    """By an encoder that uses all of HPACK; refused streams and trailers count for the table as well."""
    encoder, chance = hpack.Encoder(), random.Random(7)
    for stream in range(1, 801, 2):
        more = [
            (b"x-%d" % chance.randrange(40), b"v" * chance.randrange(1, 300))
            for _ in range(chance.randrange(4))
        ]
        if chance.random() < 0.05:
            encoder.header_table_size = chance.choice([0, 100, 1000, 4096])
        method = chance.choice(["Echo", "Nothing"])
        headers = [(name, value) for name, value in request_headers(method, *more) if name]
        ends = chance.random() < 0.3
        peer.send(frame(HEADERS, END_HEADERS, stream, encoder.encode(headers, huffman=chance.random() < 0.5)))
        peer.data(stream, message(b"%d" % stream), ended=not ends)
        if ends:
            peer.send(frame(HEADERS, _WHOLE, stream, encoder.encode([(b"x-trailer", b"%d" % stream)])))
        answer = peer.answer(stream)
        # A request that is refused before its end is answered, and then reset without an error (section 8.1).
        assert answer.reset in ("", "NO_ERROR")
        assert answer.status == (0 if method == "Echo" else 12)
        assert answer.messages == ([b"%d" % stream] if method == "Echo" else [])


def test_bytes_that_come_one_by_one(connect: Connect) -> None:
    peer = connect(greet=False)
    sent = PREFACE + settings() + frame(HEADERS, END_HEADERS, 1, _BLOCK) + frame(PING, 0, 0, bytes(8))
    for byte in sent + frame(DATA, END_STREAM, 1, message(b"hello")):
        peer.send(bytes((byte,)))
    assert peer.answer().messages == [b"hello"]


@pytest.mark.parametrize("seed", range(10))
def test_bytes_that_come_in_pieces(connect: Connect, seed: int) -> None:
    chance = random.Random(seed)
    peer, sent, calls = connect(greet=False), PREFACE + settings(), {}
    for stream in range(1, 41, 2):
        data = chance.randbytes(chance.choice([0, 1, 100, 20_000, 70_000, 200_000]))
        calls[stream] = data
        sent += frame(HEADERS, END_HEADERS, stream, _BLOCK)
        rest = message(data)
        while rest:
            size = chance.choice([1, 4, 5, 6, 1000, 16_384, 100_000])
            ends = size >= len(rest)
            sent += frame(DATA, END_STREAM if ends else 0, stream, rest[:size])
            rest = rest[size:]
    while sent:
        size = chance.choice([1, 8, 9, 10, 1000, 60_000, 300_000])
        peer.send(sent[:size])
        sent = sent[size:]
        peer.send(b"")
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(1 << 24)))
    for stream in calls:
        peer.send(frame(WINDOW_UPDATE, 0, stream, word(1 << 20)))
    for stream, data in calls.items():
        assert peer.answer(stream).messages == [data]


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
