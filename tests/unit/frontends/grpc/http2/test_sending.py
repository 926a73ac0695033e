"""What is sent: never more than the windows allow, all of it, in order, and nobody is forgotten."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontends.grpc.http2.frames import (
    DATA,
    HEAD,
    HEAD_BYTES,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    StreamFault,
)
from frontends.grpc.http2.sending import BURST, Sender
from frontends.grpc.http2.streams import Stream

_TRAILERS = b"\x00\x00\x00\x01\x05" + b"\x00\x00\x00\x00"


class _Client:
    """Reads frames and minds its windows."""

    def __init__(self, streams: int, window: int, connection_window: int) -> None:
        self.sent: list[int] = []
        self.drained: list[int] = []
        self.sender = Sender(
            lambda stream: self.sent.append(stream.id), lambda stream: self.drained.append(stream.id)
        )
        self.sender.window = self.window = connection_window
        self.streams = {2 * n + 1: Stream(2 * n + 1, window, 0) for n in range(streams)}
        self.windows = dict.fromkeys(self.streams, window)
        self.received: defaultdict[int, bytes] = defaultdict(bytes)

    def read(self) -> None:
        output = b"".join(self.sender.take()).replace(_TRAILERS, b"")
        while output:
            high, low, kind, _, number = HEAD.unpack(output[:HEAD_BYTES])
            length = high << 8 | low
            assert kind == DATA
            assert length <= self.sender.max_frame
            self.windows[number] -= length
            self.window -= length
            assert self.windows[number] >= 0
            assert self.window >= 0
            self.received[number] += output[HEAD_BYTES : HEAD_BYTES + length]
            output = output[HEAD_BYTES + length :]
        self.sender.written()

    def open(self, number: int, increment: int) -> None:
        if number:
            self.windows[number] += increment
            self.sender.credit_stream(self.streams[number], increment)
        else:
            self.window += increment
            self.sender.credit(increment)


@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=4), min_size=1, max_size=6),
    st.integers(0, 200),
    st.integers(0, 400),
    st.integers(1, 64),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 100)), max_size=40),
)
def test_everything_arrives_within_the_windows(
    messages: list[list[bytes]],
    window: int,
    connection_window: int,
    max_frame: int,
    updates: list[tuple[int, int]],
) -> None:
    client = _Client(len(messages), window, connection_window)
    client.sender.max_frame = max_frame
    for number, parts in zip(client.streams, messages, strict=True):
        client.sender.send(client.streams[number], parts, sum(map(len, parts)), _TRAILERS)
        client.read()
    for index, increment in updates:
        client.open(2 * index - 1 if 0 < index <= len(messages) else 0, increment)
        client.read()
    client.open(0, 10_000)
    for number in client.streams:
        if client.streams[number].queued_bytes:
            client.open(number, 10_000)
    client.read()
    assert [client.received[number] for number in client.streams] == [b"".join(parts) for parts in messages]
    assert sorted(client.sent) == list(client.streams)
    assert not client.sender.waiting


def test_streams_take_turns() -> None:
    client = _Client(2, 1 << 20, 0)
    client.sender.max_frame = 10
    for stream in client.streams.values():
        client.sender.send(stream, [bytes(100)], 100, _TRAILERS)
    client.open(0, 60)
    client.read()
    assert {number: len(data) for number, data in client.received.items()} == {1: 30, 3: 30}


def test_no_more_is_put_out_at_once_than_a_burst() -> None:
    client = _Client(1, MAX_WINDOW, MAX_WINDOW)
    client.sender.send(client.streams[1], [bytes(3 * BURST)], 3 * BURST, _TRAILERS)
    assert sum(map(len, client.sender.take())) <= BURST + BURST // 100
    client.read()
    assert client.sender.waiting


def test_an_answer_that_goes_on_is_reported_when_nothing_of_it_waits() -> None:
    client = _Client(1, 5, 100)
    client.sender.send(client.streams[1], [b"0123456789"], 10, None)
    assert client.drained == []
    client.open(1, 5)
    assert client.drained == [1]
    client.sender.finish(client.streams[1], _TRAILERS)
    assert client.sent == [1]


def test_what_waits_is_dropped_with_its_stream() -> None:
    client = _Client(1, 0, 100)
    client.sender.send(client.streams[1], [bytes(10)], 10, _TRAILERS)
    client.sender.drop(client.streams[1])
    client.sender.credit(10)
    assert not client.sender.waiting
    assert client.sender.take() == []


def test_a_stream_that_does_not_move_is_found() -> None:
    client = _Client(1, 1, 100)
    client.sender.now = 50
    client.sender.send(client.streams[1], [bytes(10)], 10, _TRAILERS)
    assert client.sender.stalled(before=50) == []
    assert client.sender.stalled(before=51) == [client.streams[1]]
    client.sender.now = 60
    client.open(1, 1)
    assert client.sender.stalled(before=60) == []


def test_windows_that_grow_too_large_are_faults() -> None:
    client = _Client(1, 1, 1)
    with pytest.raises(StreamFault) as stream_fault:
        client.sender.credit_stream(client.streams[1], MAX_WINDOW)
    assert stream_fault.value.code == ErrorCode.FLOW_CONTROL_ERROR
    with pytest.raises(ConnectionFault) as connection_fault:
        client.sender.credit(MAX_WINDOW)
    assert connection_fault.value.code == ErrorCode.FLOW_CONTROL_ERROR
