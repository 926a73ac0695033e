"""gRPC over HTTP/2 (doc/PROTOCOL-HTTP2.md of grpc/grpc), as a client sees it that may do everything by hand."""

import gzip
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.grpc_table import MESSAGE_BYTES, TableServer
from tests.support.http2_peer import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Answer,
    Header,
    Peer,
    block,
    frame,
    message,
    request_headers,
    word,
)

pytestmark = pytest.mark.integration

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13


def _text(answer: Answer) -> str:
    return unquote_to_bytes(answer.headers[-1].get(b"grpc-message", b"")).decode()


def _with(name: bytes, value: bytes | None) -> list[Header]:
    changed = [(each, value if each == name else old) for each, old in request_headers()]
    return [(each, new) for each, new in changed if new is not None]


def _asked(peer: Peer, headers: list[Header], data: bytes = b"hello", stream: int = 1) -> Answer:
    peer.send(frame(HEADERS, END_HEADERS, stream, block(headers)))
    peer.data(stream, message(data), ended=True)
    return peer.answer(stream)


def test_an_answer_is_headers_messages_and_trailers(peer: Peer) -> None:
    peer.call(1)
    answer = peer.answer()
    assert answer.headers == [
        {b":status": b"200", b"content-type": b"application/grpc"},
        {b"grpc-status": b"0"},
    ]
    assert answer.messages == [b"hello"]


@pytest.mark.parametrize(
    "kind",
    [b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=x", b"application/grpc+json"],
)
def test_content_types_of_grpc(peer: Peer, kind: bytes) -> None:
    assert _asked(peer, _with(b"content-type", kind)).messages == [b"hello"]


@pytest.mark.parametrize("kind", [b"application/json", b"application/grpcx", b"text/plain", b"", None])
def test_other_content_types(peer: Peer, kind: bytes | None) -> None:
    assert _asked(peer, _with(b"content-type", kind)).headers[0][b":status"] == b"415"


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"OPTIONS", b"post"])
def test_other_methods_of_http(peer: Peer, method: bytes) -> None:
    answer = _asked(peer, _with(b":method", method))
    assert (answer.headers[0][b":status"], answer.headers[0][b"allow"]) == (b"405", b"POST")


def test_a_get_without_a_body(peer: Peer) -> None:
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(_with(b":method", b"GET"))))
    assert peer.answer().headers[0][b":status"] == b"405"
    assert peer.of(1).reset == ""


@pytest.mark.parametrize(
    "path",
    [b"/test.Test/Nothing", b"/", b"*", b"no-slash", b"/\xff\xfe", b"/test.Test/Echo/", b"/" + b"x" * 5000],
)
def test_unknown_methods(peer: Peer, path: bytes) -> None:
    answer = _asked(peer, _with(b":path", path))
    assert (answer.status, len(answer.headers)) == (UNIMPLEMENTED, 1)


# ---- messages


@pytest.mark.parametrize("sizes", [[1] * 10, [5, 5], [4, 1, 5], [10], [0, 10], [6, 0, 4, 0], [3, 7]])
@pytest.mark.parametrize("last_empty", [False, True])
def test_a_message_may_be_split_anywhere(peer: Peer, sizes: list[int], last_empty: bool) -> None:
    peer.open(1)
    rest = message(b"hello")
    for index, size in enumerate(sizes):
        peer.data(1, rest[:size], ended=index == len(sizes) - 1 and not last_empty)
        rest = rest[size:]
    if last_empty:
        peer.data(1, b"", ended=True)
    assert peer.answer().messages == [b"hello"]


@pytest.mark.parametrize("size", [0, 1, 16_379, 65_535, 65_536, 262_144, MESSAGE_BYTES])
def test_messages_of_any_length(peer: Peer, size: int) -> None:
    peer.send(frame(8, 0, 0, word(1 << 24)) + frame(4, 0, 0, b"\0\4\0\xff\xff\xff"))
    data = bytes(index % 251 for index in range(size))
    peer.open(1)
    rest = message(data)
    while rest:
        peer.data(1, rest[:16_384], ended=len(rest) <= 16_384)
        rest = rest[16_384:]
    assert peer.answer().messages == [data]


def test_a_message_that_is_too_long_is_refused_by_its_prefix(peer: Peer) -> None:
    peer.open(1)
    peer.data(1, b"\0" + word(MESSAGE_BYTES + 1))
    answer = peer.answer()
    assert answer.status == RESOURCE_EXHAUSTED
    assert _text(answer) == f"Received message larger than max ({MESSAGE_BYTES + 1} vs. {MESSAGE_BYTES})"


@pytest.mark.parametrize("method", ["Echo", "Stream"])
def test_what_came_with_a_refused_message_is_given_back(peer: Peer, method: str) -> None:
    """`undisturbed` sees that nothing is counted any more."""
    for stream in range(1, 21, 2):
        peer.open(stream, method)
        peer.data(stream, message(bytes(100_000)) + b"\0\xff\xff\xff\xff", ended=True)
        answer = peer.answer(stream)
        assert answer.status in (RESOURCE_EXHAUSTED, INVALID_ARGUMENT)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "none came"),
        (b"\0\0\0", "ended"),
        (message(b"hello")[:-1], "ended"),
        (message(b"a") + message(b"b"), "more came"),
        (message(b"a") + b"\0", "more came"),
        (b"\2" + message(b"hello")[1:], "0 or 1"),
        (message(b"hello", compressed=True), "compress"),
    ],
)
def test_bodies_that_are_not_one_message(peer: Peer, body: bytes, text: str) -> None:
    peer.open(1)
    peer.data(1, body, ended=True)
    answer = peer.answer()
    assert answer.status in (INVALID_ARGUMENT, INTERNAL, UNIMPLEMENTED)
    assert text in _text(answer)
    assert answer.data == b""


def test_a_call_that_ends_with_its_headers(peer: Peer) -> None:
    peer.open(1, ended=True)
    assert peer.answer().status == INVALID_ARGUMENT


# ---- compression


def _packed(peer: Peer, body: bytes, stream: int = 1, method: str = "Echo") -> Answer:
    peer.open(stream, method, (b"grpc-encoding", b"gzip"))
    peer.data(stream, message(body, compressed=True), ended=True)
    return peer.answer(stream)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(50_000), bytes(MESSAGE_BYTES)])
@pytest.mark.parametrize("method", ["Echo", "Stream"])
def test_gzip(peer: Peer, data: bytes, method: str) -> None:
    peer.send(frame(8, 0, 0, word(1 << 24)) + frame(4, 0, 0, b"\0\4\0\xff\xff\xff"))
    assert _packed(peer, gzip.compress(data), method=method).messages == [data]


@pytest.mark.parametrize("encoding", [b"gzip", b"identity"])
def test_a_message_that_is_not_marked_is_not_compressed(peer: Peer, encoding: bytes) -> None:
    peer.call(1, "Echo", b"plain", (b"grpc-encoding", encoding))
    assert peer.answer().messages == [b"plain"]


@pytest.mark.parametrize("encoding", [b"deflate", b"rot13", b"\xff", b"gzip,identity"])
def test_encodings_that_are_not_understood(peer: Peer, encoding: bytes) -> None:
    peer.call(1, "Echo", b"x", (b"grpc-encoding", encoding))
    answer = peer.answer()
    assert answer.status == UNIMPLEMENTED
    assert set(answer.headers[-1][b"grpc-accept-encoding"].split(b",")) == {b"identity", b"gzip"}


def test_gzip_that_is_too_long_unpacked_costs_no_memory(peer: Peer) -> None:
    assert _packed(peer, gzip.compress(bytes(MESSAGE_BYTES + 1))).status == RESOURCE_EXHAUSTED
    lying = bytearray(gzip.compress(bytes(64 * MESSAGE_BYTES)))
    lying[-4:] = (100).to_bytes(4, "little")
    assert _packed(peer, bytes(lying), 3).status == INVALID_ARGUMENT


_GOOD = gzip.compress(b"hello" * 1000, mtime=0)  # names of tests must not depend on the time


@pytest.mark.parametrize(
    "body", [b"", b"x" * 30, _GOOD[:-1], _GOOD + b"x", _GOOD + _GOOD, _GOOD[:-8] + bytes(8)]
)
def test_what_is_not_gzip(peer: Peer, body: bytes) -> None:
    assert _packed(peer, body).status in (INVALID_ARGUMENT, RESOURCE_EXHAUSTED)


# ---- streams


def test_a_stream_answers_each_message_as_it_comes(peer: Peer) -> None:
    peer.open(1, "Stream")
    for index in range(5):
        peer.data(1, message(b"%d" % index))
        peer.read(lambda: len(peer.of(1).messages) == index + 1)  # noqa: B023 - called at once
    assert not peer.of(1).ended
    peer.data(1, b"", ended=True)
    answer = peer.answer()
    assert (answer.messages, answer.status) == ([b"0", b"1", b"2", b"3", b"4"], OK)


def test_many_messages_in_one_frame_and_one_in_many(peer: Peer) -> None:
    peer.open(1, "Stream")
    peer.data(1, b"".join(message(b"%d" % index) for index in range(100)) + message(b"split")[:7])
    peer.data(1, message(b"split")[7:], ended=True)
    assert peer.answer().messages == [b"%d" % index for index in range(100)] + [b"split"]


def test_a_stream_without_messages(peer: Peer) -> None:
    peer.open(1, "Stream", ended=True)
    assert (peer.answer().messages, peer.of(1).status, len(peer.of(1).headers)) == ([], OK, 2)


def test_a_stream_that_ends_within_a_message(peer: Peer) -> None:
    peer.open(1, "Stream")
    peer.data(1, message(b"whole") + message(b"hello")[:7], ended=True)
    assert peer.answer().status in (INVALID_ARGUMENT, INTERNAL)


def test_a_status_after_an_answer_has_begun(peer: Peer) -> None:
    peer.open(1, "FailLater")
    peer.data(1, message(b"first"))
    answer = peer.answer()
    assert (answer.messages, answer.status, _text(answer), len(answer.headers)) == (
        [b"first"],
        NOT_FOUND,
        "later",
        2,
    )


def test_an_answer_before_the_end_of_the_request(peer: Peer, server: TableServer) -> None:
    """Section 8.1: the client is told to stop sending, without an error."""
    peer.open(1, "Ignore")
    peer.data(1, message(b"x"))
    peer.ping()
    server.await_(_opened(server)).result(20)
    peer.read(lambda: peer.of(1).reset)
    assert (peer.of(1).messages, peer.of(1).status, peer.of(1).reset) == ([b"ignored"], OK, "NO_ERROR")


def _opened(server: TableServer) -> Any:
    async def open_and_shut() -> None:
        server.methods.gate.set()
        server.methods.gate.clear()

    return open_and_shut
