"""Calls into the native gRPC transport and answers out of it, without sockets: what `perf.micro` times of it."""

import asyncio
import struct
from collections.abc import Callable

import hpack
import uvloop

from frontends.grpc.calls import Call, Reply, Unary
from frontends.grpc.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    PREFACE,
    frame_head,
    settings,
    window_update,
)
from frontends.grpc.native.messages import Budget
from frontends.grpc.native.protocol import GrpcProtocol
from frontends.grpc.native.replies import PREFIX
from frontends.grpc.native.shared import Shared
from frontends.memory import Memory

_PATH = b"/test.Test/Echo"
_ARENA_BYTES = 8 << 20
_STREAM = struct.Struct(">I")
_FRAME_BYTES = 16_384
"""Of clients that do not mind what a server would take."""
_STREAM_AT = 5
"""Where a frame's head names the stream."""


class _Transport:
    """Takes everything."""

    def get_extra_info(self, _name: str) -> None:
        """No TLS."""

    def set_write_buffer_limits(self, high: int) -> None:
        """None."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def write(self, _data: bytes) -> None:
        """All of it."""

    def writelines(self, _buffers: list[bytes]) -> None:
        """All of it."""

    def close(self) -> None:
        """The protocol has found a fault."""
        raise AssertionError("the connection was closed")


def _blocks() -> tuple[bytes, bytes]:
    """A client's headers, as it sends them first and ever after."""
    encoder = hpack.Encoder()
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", _PATH),
        (b":authority", b"127.0.0.1:9000"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    return encoder.encode(headers), encoder.encode(headers)


def _frames(block: bytes, message: bytes) -> bytearray:
    """A call, of stream 0."""
    sent = bytearray(frame_head(len(block), HEADERS, END_HEADERS, 0) + block)
    body = PREFIX.pack(0, len(message)) + message
    for at in range(0, len(body), _FRAME_BYTES):
        piece = body[at : at + _FRAME_BYTES]
        flags = END_STREAM if at + _FRAME_BYTES >= len(body) else 0
        sent += frame_head(len(piece), DATA, flags, 0) + piece
    return sent


class Calls:
    """One call on each of several connections, again and again."""

    def __init__(self, connections: int, message: bytes, answer: Callable[[memoryview], bytes]) -> None:
        self._loop = uvloop.new_event_loop()
        self._connections = connections
        self._answer = answer
        first, again = _blocks()
        self._stream = -1
        self._sent = _frames(first, message)
        self._loop.run_until_complete(self._greet())
        self._sent = _frames(again, message)

    def run(self, rounds: int) -> None:
        """Rounds of a call on each."""
        self._loop.run_until_complete(self._run(rounds))

    async def _greet(self) -> None:
        shared = Shared(
            {_PATH: Unary(self._echo)}, 1 << 30, Budget(1 << 30), Memory(_ARENA_BYTES, _ARENA_BYTES)
        )
        self._protocols = [GrpcProtocol(shared) for _ in range(self._connections)]
        greeting = PREFACE + settings({}) + window_update(0, MAX_WINDOW - (1 << 16))
        for protocol in self._protocols:
            protocol.connection_made(_Transport())
            self._feed(protocol, memoryview(greeting))
        await self._run(1)

    async def _run(self, rounds: int) -> None:
        for _ in range(rounds):
            self._stream += 2
            self._name_stream()
            for protocol in self._protocols:
                self._feed(protocol, memoryview(self._sent))
            await asyncio.sleep(0)  # the handlers run

    def _name_stream(self) -> None:
        at = 0
        while at < len(self._sent):
            _STREAM.pack_into(self._sent, at + _STREAM_AT, self._stream)
            at += 9 + int.from_bytes(self._sent[at : at + 3], "big")

    def _feed(self, protocol: GrpcProtocol, data: memoryview) -> None:
        while data:
            room = protocol.get_buffer(-1)
            size = min(len(room), len(data))
            room[:size] = data[:size]
            protocol.buffer_updated(size)
            data = data[size:]

    async def _echo(self, message: memoryview, _call: Call) -> Reply:
        return [self._answer(message)]
