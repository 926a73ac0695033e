"""What must end the connection (RFC 9113, section 5.4.1): by GOAWAY with this code, and then the end."""

import pytest

from tests.support.http2_peer import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW,
    MAX_FRAME,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    Connect,
    block,
    frame,
    message,
    request_headers,
    settings,
    word,
)

pytestmark = pytest.mark.integration

_BLOCK = block(request_headers("Slow"))
_WHOLE = END_HEADERS | END_STREAM
_OPEN = frame(HEADERS, END_HEADERS, 1, _BLOCK)
_BEGUN = frame(HEADERS, END_STREAM, 1, _BLOCK)
"""A header block that goes on."""

CASES = {
    "data of no stream": ("PROTOCOL_ERROR", frame(DATA, 0, 0, b"x")),
    "headers of no stream": ("PROTOCOL_ERROR", frame(HEADERS, _WHOLE, 0, _BLOCK)),
    "priority of no stream": ("PROTOCOL_ERROR", frame(PRIORITY, 0, 0, bytes(5))),
    "reset of no stream": ("PROTOCOL_ERROR", frame(RST_STREAM, 0, 0, word(8))),
    "continuation of no stream": ("PROTOCOL_ERROR", frame(CONTINUATION, END_HEADERS, 0, b"")),
    "settings of a stream": ("PROTOCOL_ERROR", frame(SETTINGS, 0, 1)),
    "ping of a stream": ("PROTOCOL_ERROR", frame(PING, 0, 1, bytes(8))),
    "goaway of a stream": ("PROTOCOL_ERROR", frame(GOAWAY, 0, 1, bytes(8))),
    "data of an idle stream": ("PROTOCOL_ERROR", frame(DATA, 0, 1, b"x")),
    "reset of an idle stream": ("PROTOCOL_ERROR", frame(RST_STREAM, 0, 1, word(8))),
    "window of an idle stream": ("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 1, word(1))),
    "window of an idle stream of ours": ("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 2, word(1))),
    "continuation of an idle stream": ("PROTOCOL_ERROR", frame(CONTINUATION, END_HEADERS, 1, b"")),
    "continuation after a whole block": ("PROTOCOL_ERROR", _OPEN + frame(CONTINUATION, END_HEADERS, 1, b"")),
    "a push": ("PROTOCOL_ERROR", _OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, word(2) + _BLOCK)),
    "an even stream": ("PROTOCOL_ERROR", frame(HEADERS, _WHOLE, 2, _BLOCK)),
    # Section 5.1.1: the first use of a number closes all lower ones. A server cannot remember which of them were used.
    "a lower stream that was never used": (
        "STREAM_CLOSED",
        frame(HEADERS, END_HEADERS, 5, _BLOCK) + frame(HEADERS, END_HEADERS, 3, _BLOCK),
    ),
    "a frame within a header block": ("PROTOCOL_ERROR", _BEGUN + frame(PING, 0, 0, bytes(8))),
    "an unknown frame within a header block": ("PROTOCOL_ERROR", _BEGUN + frame(0xFF, 0, 1, b"x")),
    "data within a header block": ("PROTOCOL_ERROR", _BEGUN + frame(DATA, 0, 1, b"x")),
    "another block within a header block": ("PROTOCOL_ERROR", _BEGUN + frame(HEADERS, _WHOLE, 3, _BLOCK)),
    "continuation of another stream": ("PROTOCOL_ERROR", _BEGUN + frame(CONTINUATION, END_HEADERS, 3, b"")),
    "padding as long as data": ("PROTOCOL_ERROR", _OPEN + frame(DATA, PADDED, 1, b"\x03xx")),
    "padding longer than data": ("PROTOCOL_ERROR", _OPEN + frame(DATA, PADDED, 1, b"\xffxx")),
    "padding longer than headers": ("PROTOCOL_ERROR", frame(HEADERS, _WHOLE | PADDED, 1, b"\xff" + _BLOCK)),
    "data without its padding's length": ("FRAME_SIZE_ERROR", _OPEN + frame(DATA, PADDED, 1)),
    "headers without their padding's length": ("FRAME_SIZE_ERROR", frame(HEADERS, _WHOLE | PADDED, 1)),
    "headers too short for priority": (
        "FRAME_SIZE_ERROR",
        frame(HEADERS, _WHOLE | WITH_PRIORITY, 1, bytes(4)),
    ),
    "ping of 7 bytes": ("FRAME_SIZE_ERROR", frame(PING, 0, 0, bytes(7))),
    "ping of 9 bytes": ("FRAME_SIZE_ERROR", frame(PING, 0, 0, bytes(9))),
    "settings of 5 bytes": ("FRAME_SIZE_ERROR", frame(SETTINGS, 0, 0, bytes(5))),
    "acknowledged settings that are some": ("FRAME_SIZE_ERROR", frame(SETTINGS, ACK, 0, bytes(6))),
    "reset of 3 bytes": ("FRAME_SIZE_ERROR", _OPEN + frame(RST_STREAM, 0, 1, bytes(3))),
    "window update of 3 bytes": ("FRAME_SIZE_ERROR", frame(WINDOW_UPDATE, 0, 0, bytes(3))),
    "window update of 5 bytes": ("FRAME_SIZE_ERROR", _OPEN + frame(WINDOW_UPDATE, 0, 1, bytes(5))),
    "goaway of 7 bytes": ("FRAME_SIZE_ERROR", frame(GOAWAY, 0, 0, bytes(7))),
    "data longer than any frame may be": ("FRAME_SIZE_ERROR", _OPEN + frame(DATA, 0, 1, b"", 2**24 - 1)),
    "headers longer than any frame may be": ("FRAME_SIZE_ERROR", frame(HEADERS, _WHOLE, 1, b"", 2**24 - 1)),
    "an unknown frame longer than any may be": ("FRAME_SIZE_ERROR", frame(0x77, 0, 0, b"", 2**24 - 1)),
    "pushes switched on by 2": ("PROTOCOL_ERROR", settings((ENABLE_PUSH, 2))),
    "a window of 2**31": ("FLOW_CONTROL_ERROR", settings((INITIAL_WINDOW, 2**31))),
    "frames of 16383 bytes": ("PROTOCOL_ERROR", settings((MAX_FRAME, 16383))),
    "frames of 2**24 bytes": ("PROTOCOL_ERROR", settings((MAX_FRAME, 2**24))),
    "a window update of nothing": ("PROTOCOL_ERROR", frame(WINDOW_UPDATE, 0, 0, word(0))),
    "a connection's window past 2**31": (
        "FLOW_CONTROL_ERROR",
        frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1)),
    ),
    "a stream's window past 2**31 by the settings": (
        "FLOW_CONTROL_ERROR",
        _OPEN + frame(WINDOW_UPDATE, 0, 1, word(2**31 - 1 - 65535)) + settings((INITIAL_WINDOW, 65536)),
    ),
    "an index of no header": ("COMPRESSION_ERROR", frame(HEADERS, _WHOLE, 1, b"\x80")),
    "an index past the table": ("COMPRESSION_ERROR", frame(HEADERS, _WHOLE, 1, b"\xff\x80\x01")),
    "an index without end": ("COMPRESSION_ERROR", frame(HEADERS, _WHOLE, 1, b"\xff" + b"\xff" * 20)),
    "a header that is cut off": ("COMPRESSION_ERROR", frame(HEADERS, _WHOLE, 1, _BLOCK[:-1])),
    "a string longer than the block": (
        "COMPRESSION_ERROR",
        frame(HEADERS, _WHOLE, 1, b"\0\x7f\xff\xff\x03a"),
    ),
    "a code that Huffman has not": (
        "COMPRESSION_ERROR",
        frame(HEADERS, _WHOLE, 1, b"\0\x84\xff\xff\xff\xff\0"),
    ),
    "a table larger than was offered": (
        "COMPRESSION_ERROR",
        frame(HEADERS, _WHOLE, 1, b"\x3f\xe2\x1f" + _BLOCK),
    ),
    "a table that is made smaller too late": (
        "COMPRESSION_ERROR",
        frame(HEADERS, _WHOLE, 1, _BLOCK + b"\x20"),
    ),
    "trailers that cannot be decoded": ("COMPRESSION_ERROR", _OPEN + frame(HEADERS, _WHOLE, 1, b"\x80")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_ends_the_connection(connect: Connect, case: str) -> None:
    code, sent = CASES[case]
    peer = connect()
    peer.send(sent)
    peer.read_to_end()
    assert peer.goaway == code


@pytest.mark.parametrize("case", ["data longer than any frame may be", "an index past the table", "a push"])
def test_the_same_comes_byte_by_byte(connect: Connect, case: str) -> None:
    code, sent = CASES[case]
    peer = connect()
    for byte in sent:
        peer.send(bytes((byte,)))
    peer.read_to_end()
    assert peer.goaway == code


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x", b"\0" * 24, b"\x16\x03\x01\x02\0"]
)
def test_what_is_no_preface(connect: Connect, sent: bytes) -> None:
    peer = connect(greet=False)
    peer.send(sent)
    peer.read_to_end()
    assert peer.goaway in ("PROTOCOL_ERROR", "")


@pytest.mark.parametrize(
    "first", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, ACK, 0), frame(HEADERS, _WHOLE, 1, _BLOCK)]
)
def test_the_first_frame_is_settings(connect: Connect, first: bytes) -> None:
    peer = connect(greet=False)
    peer.send(PREFACE + first)
    peer.read_to_end()
    assert peer.goaway == "PROTOCOL_ERROR"


def test_a_stream_is_not_used_twice(connect: Connect) -> None:
    peer = connect()
    peer.call(1)
    assert peer.answer().status == 0
    peer.call(1)
    peer.read_to_end()
    assert peer.goaway == "STREAM_CLOSED"


def test_goaway_names_the_last_stream_that_was_seen(connect: Connect) -> None:
    peer = connect()
    for stream in (1, 7):
        peer.call(stream)
        assert peer.answer(stream).messages == [b"hello"]
    peer.send(frame(PING, 0, 0, bytes(7)))
    peer.read_to_end()
    assert (peer.goaway, peer.goaway_stream) == ("FRAME_SIZE_ERROR", 7)


def test_calls_end_with_their_connection(connect: Connect, server: object) -> None:
    peer = connect()
    for stream in range(1, 21, 2):
        peer.open(stream, "Slow")
        peer.data(stream, message(b"x"), ended=True)
    peer.ping()
    peer.send(frame(PING, 0, 0, bytes(7)))
    peer.read_to_end()
    assert peer.goaway == "FRAME_SIZE_ERROR"
