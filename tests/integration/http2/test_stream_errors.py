"""What must end one stream (RFC 9113, section 5.4.2): by RST_STREAM with this code, while its neighbour is answered."""

import pytest

from tests.support.grpc_table import TableServer
from tests.support.http2_peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    Connect,
    Header,
    Peer,
    block,
    frame,
    message,
    request_headers,
    word,
)
from tests.support.waiting import until

pytestmark = pytest.mark.integration

_WHOLE = END_HEADERS | END_STREAM
_OPEN = frame(HEADERS, END_HEADERS, 1, block(request_headers("Slow")))
_ASKED = _OPEN + frame(DATA, END_STREAM, 1, message(b"x"))

CASES = {
    "data after the end": ("STREAM_CLOSED", _ASKED + frame(DATA, 0, 1, b"x")),
    "headers after the end": ("STREAM_CLOSED", _ASKED + frame(HEADERS, _WHOLE, 1, block([(b"a", b"b")]))),
    "trailers that are not the end": (
        "PROTOCOL_ERROR",
        _OPEN + frame(HEADERS, END_HEADERS, 1, block([(b"a", b"b")])),
    ),
    "pseudo-headers in trailers": (
        "PROTOCOL_ERROR",
        _OPEN + frame(HEADERS, _WHOLE, 1, block([(b":path", b"/")])),
    ),
    "a window update of nothing": ("PROTOCOL_ERROR", _ASKED + frame(WINDOW_UPDATE, 0, 1, word(0))),
    "a window past 2**31": ("FLOW_CONTROL_ERROR", _ASKED + frame(WINDOW_UPDATE, 0, 1, word(2**31 - 1))),
    "priority of 4 bytes": ("FRAME_SIZE_ERROR", _ASKED + frame(PRIORITY, 0, 1, bytes(4))),
}


def _is_reset(peer: Peer, code: str) -> None:
    assert peer.answer().reset == code
    assert peer.of(1).headers == []
    peer.call(3)
    assert peer.answer(3).messages == [b"hello"]
    assert peer.goaway == ""


@pytest.mark.parametrize("case", CASES)
def test_what_ends_a_stream(peer: Peer, server: TableServer, case: str) -> None:
    code, sent = CASES[case]
    peer.send(sent)
    _is_reset(peer, code)


def _without(name: bytes) -> list[Header]:
    return [header for header in request_headers() if header[0] != name]


def _with(name: bytes, value: bytes) -> list[Header]:
    return [(each, value if each == name else old) for each, old in request_headers()]


MALFORMED = {
    "an uppercase name": [*request_headers(), (b"Name", b"x")],
    "a name with a space": [*request_headers(), (b"a b", b"x")],
    "a name with a colon": [*request_headers(), (b"a:b", b"x")],
    "a name that is not ASCII": [*request_headers(), (b"\xff", b"x")],
    "an empty name": [*request_headers(), (b"", b"x")],
    "a value with a line end": [*request_headers(), (b"a", b"x\r\ny: z")],
    "a value with a null byte": [*request_headers(), (b"a", b"x\0")],
    "a value that begins with a space": [*request_headers(), (b"a", b" x")],
    "a value that ends with a tabulator": [*request_headers(), (b"a", b"x\t")],
    "a pseudo-header after another header": [*request_headers()[1:], (b":method", b"POST")],
    "a pseudo-header of answers": [(b":status", b"200"), *request_headers()],
    "an unknown pseudo-header": [(b":unknown", b"x"), *request_headers()],
    "a pseudo-header twice": [(b":path", b"/test.Test/Echo"), *request_headers()],
    "no method": _without(b":method"),
    "no scheme": _without(b":scheme"),
    "no path": _without(b":path"),
    "an empty path": _with(b":path", b""),
    "connection": [*request_headers(), (b"connection", b"keep-alive")],
    "keep-alive": [*request_headers(), (b"keep-alive", b"5")],
    "proxy-connection": [*request_headers(), (b"proxy-connection", b"close")],
    "transfer-encoding": [*request_headers(), (b"transfer-encoding", b"chunked")],
    "upgrade": [*request_headers(), (b"upgrade", b"h2c")],
    "te that is not trailers": _with(b"te", b"gzip"),
    "a content-length that is no number": [*request_headers(), (b"content-length", b"+5")],
    "content-lengths that differ": [
        *request_headers(),
        (b"content-length", b"1"),
        (b"content-length", b"10"),
    ],
    "a longer content-length": [*request_headers(), (b"content-length", b"11")],
    "a shorter content-length": [*request_headers(), (b"content-length", b"9")],
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_requests(peer: Peer, server: TableServer, case: str) -> None:
    """Section 8.1.1. A body of ten bytes follows, which is under way already and is no further error."""
    peer.send(frame(HEADERS, END_HEADERS, 1, block(MALFORMED[case])))
    peer.data(1, message(b"hello"), ended=True)
    _is_reset(peer, "PROTOCOL_ERROR")


def test_content_lengths_that_are_kept(peer: Peer) -> None:
    peer.call(1, "Echo", b"hello", (b"content-length", b"10"))
    assert peer.answer().messages == [b"hello"]
    peer.open(3, "Echo", (b"content-length", b"10"))
    peer.data(3, message(b"hello"))
    peer.send(frame(HEADERS, _WHOLE, 3, block([(b"trailer", b"x")])))
    assert peer.answer(3).messages == [b"hello"]


def test_a_request_without_a_body_that_promised_one(peer: Peer, server: TableServer) -> None:
    peer.open(1, "Echo", (b"content-length", b"10"), ended=True)
    _is_reset(peer, "PROTOCOL_ERROR")


def test_trailers_that_come_before_the_promised_body(peer: Peer, server: TableServer) -> None:
    peer.open(1, "Slow", (b"content-length", b"10"))
    peer.data(1, message(b"hello")[:9])
    peer.send(frame(HEADERS, _WHOLE, 1, block([(b"trailer", b"x")])))
    _is_reset(peer, "PROTOCOL_ERROR")


def test_a_stream_error_cancels_the_handler(peer: Peer, server: TableServer) -> None:
    before = server.methods.cancelled
    peer.send(_ASKED)
    until(lambda: server.methods.waiting == 1, "the handler runs")
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(0)))
    _is_reset(peer, "PROTOCOL_ERROR")
    until(lambda: server.methods.cancelled == before + 1, "the handler is cancelled")


def test_what_comes_late_for_a_stream_that_the_server_has_reset(peer: Peer) -> None:
    """Frames that were under way are no errors (section 5.1, closed)."""
    peer.send(_ASKED + frame(WINDOW_UPDATE, 0, 1, word(0)))
    assert peer.answer().reset == "PROTOCOL_ERROR"
    for late in (
        frame(DATA, 0, 1, b"x" * 1000),
        frame(WINDOW_UPDATE, 0, 1, word(1)),
        frame(PRIORITY, 0, 1, bytes(5)),
        frame(HEADERS, END_STREAM, 1, block([(b"a", b"b")])) + frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(RST_STREAM, 0, 1, word(8)),
    ):
        peer.send(late)
        peer.ping()
    peer.call(3)
    assert peer.answer(3).messages == [b"hello"]


def test_what_comes_late_for_a_stream_that_was_answered(peer: Peer) -> None:
    peer.call(1)
    assert peer.answer().status == 0
    for late in (
        frame(WINDOW_UPDATE, 0, 1, word(1)),
        frame(RST_STREAM, 0, 1, word(8)),
        frame(PRIORITY, 0, 1, bytes(5)),
    ):
        peer.send(late)
        peer.ping()
    peer.call(3)
    assert peer.answer(3).messages == [b"hello"]


def test_late_data_is_given_back_to_the_connections_window(connect: Connect) -> None:
    """Else a client that does everything right would be stopped after 16 MiB."""
    peer = connect()
    for stream in range(1, 401, 2):
        peer.open(stream, "Slow")
        peer.send(frame(WINDOW_UPDATE, 0, stream, word(0)))
        peer.data(stream, bytes(131_072))
    peer.ping()
    assert sum(
        int.from_bytes(one.payload, "big")
        for one in peer.frames
        if one.kind == WINDOW_UPDATE and not one.stream
    ) > (24 << 20)
    assert peer.goaway == ""
