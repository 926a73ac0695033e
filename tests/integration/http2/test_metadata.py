"""What the headers of a call say of it and to its handler: metadata, status texts, deadlines, and calls given up."""

import base64
import json
import time
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from tests.support.grpc_table import TableServer
from tests.support.http2_peer import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    Answer,
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

OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 0, 1, 3, 4, 5
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 8, 12, 13


def _text(answer: Answer) -> str:
    return unquote_to_bytes(answer.headers[-1].get(b"grpc-message", b"")).decode()


# ---- metadata


def _seen(peer: Peer, *more: Header, stream: int = 1) -> Any:
    peer.call(stream, "Seen", b"", *more)
    answer = peer.answer(stream)
    assert answer.status == OK, _text(answer)
    return json.loads(answer.messages[0])


def test_metadata(peer: Peer) -> None:
    binary = bytes(range(256))
    found = _seen(
        peer,
        (b"x-name", b"a"),
        (b"x-name", b"b,c"),
        (b"x-padded-bin", base64.b64encode(b"a")),
        (b"x-bare-bin", base64.b64encode(b"a").rstrip(b"=")),
        (b"x-both-bin", base64.b64encode(binary) + b"," + base64.b64encode(b"z").rstrip(b"=")),
        (b"x-empty-bin", b""),
        (b"x-empty", b""),
    )
    mine = [pair for pair in found["metadata"] if pair[0].startswith("x-")]
    assert mine == [
        ["x-name", "a"],
        ["x-name", "b,c"],
        ["x-padded-bin", [97]],
        ["x-bare-bin", [97]],
        ["x-both-bin", list(binary)],
        ["x-both-bin", [122]],
        ["x-empty-bin", []],
        ["x-empty", ""],
    ]


@pytest.mark.parametrize("value", [b"!!!", b"a", b"YQ=", b"Y Q", b"\xff"])
def test_binary_metadata_that_is_none(peer: Peer, value: bytes) -> None:
    peer.call(1, "Seen", b"", (b"x-bad-bin", value))
    answer = peer.answer()
    assert answer.status in (OK, INVALID_ARGUMENT)
    assert peer.goaway == ""


@pytest.mark.parametrize("text", ["plain", "a % b", "ünï ☃", "line\nline\r\0\t\x7f", "語" * 20_000, "%41"])
def test_status_texts(peer: Peer, text: str) -> None:
    peer.send(frame(8, 0, 0, word(1 << 24)))
    peer.call(1, "Fail", text.encode())
    answer = peer.answer()
    assert (answer.status, len(answer.headers), answer.data) == (NOT_FOUND, 1, b"")
    assert all(0x20 <= byte < 0x7F for byte in answer.headers[0][b"grpc-message"])
    assert len(answer.headers[0][b"grpc-message"]) < 8192
    assert _text(answer) == text or (_text(answer).endswith(" …") and text.startswith(_text(answer)[:-2]))


# ---- deadlines, and calls that are given up


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(b"2H", 7200), (b"3M", 180), (b"50S", 50), (b"40000m", 40), (b"50000000u", 50), (b"0099S", 99)],
)
def test_deadlines_reach_the_handler(peer: Peer, text: bytes, seconds: float) -> None:
    left = _seen(peer, (b"grpc-timeout", text))["left_s"]
    assert seconds - 20 < left <= seconds


def test_without_a_deadline(peer: Peer) -> None:
    assert _seen(peer)["left_s"] is None


def test_the_longest_deadline(peer: Peer) -> None:
    assert _seen(peer, (b"grpc-timeout", b"99999999H"))["left_s"] > 1e9


@pytest.mark.parametrize("text", [b"soon", b"1", b"S", b"123456789S", b"-1S", b"1.5S", b"1s", b"", b"1 S"])
def test_deadlines_that_are_none(peer: Peer, text: bytes) -> None:
    peer.call(1, "Echo", b"x", (b"grpc-timeout", text))
    assert peer.answer().status in (INVALID_ARGUMENT, INTERNAL)


@pytest.mark.parametrize("text", [b"100m", b"1n", b"0S"])
def test_a_deadline_cancels_the_handler(peer: Peer, server: TableServer, text: bytes) -> None:
    begun = time.monotonic()
    peer.call(1, "Slow", b"x", (b"grpc-timeout", text))
    assert peer.answer().status == DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 10
    until(lambda: server.methods.waiting == 0, "the handler ends")


def test_a_deadline_holds_while_the_message_is_on_its_way(peer: Peer) -> None:
    peer.open(1, "Echo", (b"grpc-timeout", b"100m"))
    peer.data(1, message(b"hello")[:7])
    assert peer.answer().status == DEADLINE_EXCEEDED


def test_a_reset_cancels_the_handler(peer: Peer, server: TableServer) -> None:
    before = server.methods.cancelled
    peer.call(1, "Slow")
    until(lambda: server.methods.waiting == 1, "the handler runs")
    peer.send(frame(RST_STREAM, 0, 1, word(8)))
    until(lambda: server.methods.cancelled == before + 1, "the handler is cancelled")
    peer.ping()
    assert peer.of(1) == Answer()


def test_a_reset_in_the_same_bytes_as_its_call(peer: Peer, server: TableServer) -> None:
    call = frame(HEADERS, END_HEADERS, 1, block(request_headers("Slow"))) + frame(
        DATA, END_STREAM, 1, message(b"")
    )
    peer.send(call + frame(RST_STREAM, 0, 1, word(8)))
    peer.ping()
    assert peer.of(1) == Answer()
