"""A gRPC client of few means, for load: one connection, one request at a time, its frames made beforehand.

It reads no more of an answer than frame heads: a right answer is one of the right length. So it takes a small part of
the CPU that grpc.aio takes, and each connection can go through the messages of many models, which h2load's cannot.
RFC 9113; gRPC over HTTP/2 as in its PROTOCOL-HTTP2.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from hpack import Encoder

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_HEAD_BYTES = 9
_WINDOW_BYTES = 2**31 - 1
_FIRST_WINDOW = 65_535
MOST_BYTES = 16_384
"""Of a message with its prefix: one DATA frame, within the window that every server gives at first."""

Answered = Callable[["Connection", int], None]
"""Told of each answer: the bytes of its messages, or -1 where the request or the connection failed."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class Connection(asyncio.Protocol):
    """One client. `send` may be called once connected, and again after each answer."""

    def __init__(self, authority: str, path: str, answered: Answered) -> None:
        self._answered = answered
        self._encoder = Encoder()
        self._headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", authority),
            (":path", path),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        self._repeated = b""
        self._stream = -1
        self._received = 0
        self._under_way = False
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the server."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        window = (4).to_bytes(2, "big") + _WINDOW_BYTES.to_bytes(4, "big")
        more = (_WINDOW_BYTES - _FIRST_WINDOW).to_bytes(4, "big")
        self._transport.write(_PREFACE + frame(_SETTINGS, 0, 0, window) + frame(_WINDOW, 0, 0, more))

    @property
    def connected(self) -> bool:
        """Whether there is anybody to send to."""
        return self._transport is not None

    def send(self, message: bytes, *, whole: bool = True) -> None:
        """A request of this gRPC frame (prefix and message); without `whole` its end is never sent."""
        assert self._transport is not None
        if len(message) > MOST_BYTES:
            raise ValueError(f"a message of {len(message)} bytes does not go into one frame")
        self._stream += 2
        self._received = 0
        self._under_way = True
        flags = _END_STREAM if whole else 0
        head = frame(_HEADERS, _END_HEADERS, self._stream, self._block())
        self._transport.write(head + frame(_DATA, flags, self._stream, message))

    def send_more(self, message: bytes) -> None:
        """More of a request that was not sent whole, and still not its end."""
        if self._transport is not None and self._under_way:
            self._transport.write(frame(_DATA, 0, self._stream, message))

    def close(self) -> None:
        """End the connection; nothing is told of it."""
        self._under_way = False
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Go through the whole frames that have come."""
        buffer = self._rest + data if self._rest else data
        position = 0
        while len(buffer) - position >= _HEAD_BYTES:
            length = int.from_bytes(buffer[position : position + 3], "big")
            end = position + _HEAD_BYTES + length
            if end > len(buffer):
                break
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big") & _WINDOW_BYTES
            self._frame(
                buffer[position + 3], buffer[position + 4], stream, buffer[position + _HEAD_BYTES : end]
            )
            position = end
        self._rest = buffer[position:]

    def connection_lost(self, exc: Exception | None) -> None:
        """What is under way has failed."""
        self._transport = None
        self._end(-1)

    def _block(self) -> bytes:
        """The first block fills the peer's table, all later ones are the same bytes."""
        if self._stream == 1:
            return bytes(self._encoder.encode(self._headers))
        if not self._repeated:
            self._repeated = bytes(self._encoder.encode(self._headers))
        return self._repeated

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA and stream == self._stream:
            self._received += len(payload)
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM and stream == self._stream:
            self._end(self._received)
        elif (kind == _RESET and stream == self._stream) or kind == _GOAWAY:
            self._end(-1)
        elif kind in (_SETTINGS, _PING) and not flags & _ACK and self._transport is not None:
            self._transport.write(frame(kind, _ACK, 0, payload if kind == _PING else b""))

    def _end(self, received: int) -> None:
        if self._under_way:
            self._under_way = False
            self._answered(self, received)


async def connect(port: int, path: str, count: int, answered: Answered) -> Sequence[Connection]:
    """So many connections to this machine. Raises OSError."""
    loop = asyncio.get_running_loop()
    authority = f"127.0.0.1:{port}"
    made = []
    for _ in range(count):
        _, protocol = await loop.create_connection(
            lambda: Connection(authority, path, answered), "127.0.0.1", port
        )
        made.append(protocol)
    return made
