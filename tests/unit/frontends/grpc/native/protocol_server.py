"""A protocol between a socket that is not there and methods of a test's own."""

from typing import Any

from frontends.grpc.calls import Call, Method, Reply, Unary
from frontends.grpc.native.messages import Budget
from frontends.grpc.native.protocol import GrpcProtocol
from frontends.grpc.native.shared import Shared
from frontends.memory import Memory
from tests.support.http2_peer import END_HEADERS, HEADERS, PREFACE, block, frame, request_headers, settings

ARENA_BYTES = 4 << 20


class Socket:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def get_extra_info(self, _name: str) -> None:
        """No TLS."""

    def set_write_buffer_limits(self, high: int) -> None:
        """Whatever they are."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.closed

    def write(self, data: bytes) -> None:
        """Nothing is held back."""
        self.written += data

    def writelines(self, parts: list[Any]) -> None:
        """Nothing is held back."""
        self.written += b"".join(parts)

    def close(self) -> None:
        """The protocol wants no more."""
        self.closed = True

    abort = close


class Server:
    """A protocol, and how bytes come to it."""

    def __init__(self, method: Method | None = None) -> None:
        """`method` answers what is called instead of an echo."""
        self.memory = Memory(ARENA_BYTES, ARENA_BYTES)
        self.seen: list[bytes] = []
        methods: dict[bytes, Method] = {b"/test.Test/Echo": method or Unary(self._echo)}
        self.shared = Shared(methods, ARENA_BYTES, Budget(ARENA_BYTES), self.memory)
        self.socket = Socket()
        self.protocol = GrpcProtocol(self.shared)
        self.protocol.connection_made(self.socket)
        self.feed(PREFACE + settings())

    async def _echo(self, content: memoryview, _call: Call) -> Reply:
        self.seen.append(bytes(content))
        return [self.seen[-1][:20]]

    def feed(self, data: bytes) -> None:
        """As a socket that has all of it would."""
        view = memoryview(data)
        while view:
            room = self.protocol.get_buffer(-1)
            size = min(len(room), len(view))
            room[:size] = view[:size]
            self.protocol.buffer_updated(size)
            view = view[size:]


def head(stream: int) -> bytes:
    """A call begins."""
    return frame(HEADERS, END_HEADERS, stream, block(request_headers()))
