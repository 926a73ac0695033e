"""Settings, padding, priorities, and bytes that come split anywhere: all that a server must bear with."""

import random

import hpack
import pytest

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

pytestmark = pytest.mark.integration

_WHOLE = END_HEADERS | END_STREAM
_BLOCK = block(request_headers())


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
