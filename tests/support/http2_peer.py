"""A client that sends HTTP/2 frame by frame, right or wrong, and reads what comes back: RFC 9113 by hand."""

import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import hpack

from tests.support.server import HOST

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_LIST = range(1, 7)

CODES = (
    *(
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
    ),
    *(
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
    ),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)
TIMEOUT_S = 20.0

Header = tuple[bytes, bytes]


class Frame(NamedTuple):
    """One that has come."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Answer:
    """Everything that came for one stream."""

    headers: list[dict[bytes, bytes]] = field(default_factory=list)
    """Of each block: the first, and trailers."""
    data: bytes = b""
    ended: bool = False
    reset: str = ""
    """The code, where the server has reset it."""

    @property
    def status(self) -> int:
        """gRPC's, of the last block."""
        return int(self.headers[-1][b"grpc-status"])

    @property
    def messages(self) -> list[bytes]:
        """Whole ones."""
        found, rest = [], self.data
        while rest:
            length = int.from_bytes(rest[1:5], "big")
            found.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return found


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """Its bytes; `length` is what its head says, where that is to be wrong."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def word(number: int) -> bytes:
    """Four bytes."""
    return number.to_bytes(4, "big")


def message(data: bytes, *, compressed: bool = False) -> bytes:
    """A gRPC message with its prefix."""
    return bytes((compressed,)) + len(data).to_bytes(4, "big") + data


def request_headers(method: str = "Echo", *more: Header) -> list[Header]:
    """Of a call to /test.Test/`method`."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/test.Test/" + method.encode()),
        (b":authority", b"here"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    ]


def block(headers: Iterable[Header]) -> bytes:
    """Literal headers without indexing or Huffman: it means the same whatever the table holds, and hides no error."""
    return b"".join(b"\0" + _string(name) + _string(value) for name, value in headers)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, encoded = len(text) - 127, b"\x7f"
    while rest >= 128:
        encoded += bytes((rest % 128 + 128,))
        rest //= 128
    return encoded + bytes((rest,)) + text


class Peer:
    """A connection. What has come is kept by stream in `answers`."""

    def __init__(
        self, port: int, *pairs: tuple[int, int], greet: bool = True, receive_bytes: int = 0
    ) -> None:
        """`pairs`: our settings. `receive_bytes`: of the socket's buffer, for a client that reads slowly."""
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT_S)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers: dict[int, Answer] = {}
        self.frames: list[Frame] = []
        self.goaway = ""
        """The code of the last GOAWAY that came."""
        self.goaway_stream = -1
        self.closed = False
        """Whether the server has closed the connection."""
        self._decoder = hpack.Decoder()
        self._received = b""
        if greet:
            self.send(PREFACE + settings(*pairs))

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # ---- sending

    def send(self, data: bytes) -> None:
        """As it is. A connection that the server has closed takes it silently: the answer shows why."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def open(self, stream: int, method: str = "Echo", *more: Header, ended: bool = False) -> None:
        """Begin a call."""
        flags = END_HEADERS | (END_STREAM if ended else 0)
        self.send(frame(HEADERS, flags, stream, block(request_headers(method, *more))))

    def data(self, stream: int, data: bytes, *, ended: bool = False) -> None:
        """A DATA frame."""
        self.send(frame(DATA, END_STREAM if ended else 0, stream, data))

    def call(self, stream: int, method: str = "Echo", data: bytes = b"hello", *more: Header) -> None:
        """A whole unary call."""
        self.open(stream, method, *more)
        self.data(stream, message(data), ended=True)

    # ---- receiving

    def read(self, until: Callable[[], object], patience_s: float = TIMEOUT_S) -> None:
        """Frames until the condition holds. Raises AssertionError when it never does."""
        deadline = time.monotonic() + patience_s
        while not until():
            assert not self.closed, f"closed by the server, {self.goaway or 'without GOAWAY'}"
            self._receive(deadline)

    def read_to_end(self, patience_s: float = TIMEOUT_S) -> None:
        """Frames until the server closes the connection."""
        deadline = time.monotonic() + patience_s
        while not self.closed:
            self._receive(deadline)

    def answer(self, stream: int = 1) -> Answer:
        """Of a call, whole."""
        self.read(lambda: self.of(stream).ended or self.of(stream).reset)
        return self.of(stream)

    def of(self, stream: int) -> Answer:
        """What has come so far."""
        return self.answers.setdefault(stream, Answer())

    def ping(self, payload: bytes = b"12345678") -> None:
        """Everything that was sent before has been seen by the server when this returns."""
        self.send(frame(PING, 0, 0, payload))
        self.read(lambda: Frame(PING, ACK, 0, payload) in self.frames)
        self.frames.remove(Frame(PING, ACK, 0, payload))

    def count(self, kind: int) -> int:
        """Frames of a kind that have come."""
        return sum(one.kind == kind for one in self.frames)

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        assert left > 0, f"nothing came in time; frames: {self.frames[-5:]}"
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            data = b""
            raise AssertionError(f"nothing came in time; frames: {self.frames[-5:]}") from None
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        self._received += data
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                return
            head, payload = self._received[:9], self._received[9 : 9 + length]
            self._received = self._received[9 + length :]
            self._take(Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload))

    def _take(self, found: Frame) -> None:
        kind, flags, stream, payload = found
        if kind != DATA:
            self.frames.append(found)
        answer = self.of(stream) if stream else Answer()
        if kind == HEADERS:
            assert flags & END_HEADERS
            answer.headers.append(dict(self._decoder.decode(payload, raw=True)))
        elif kind == DATA:
            answer.data += payload
        elif kind == RST_STREAM:
            answer.reset = CODES[int.from_bytes(payload, "big")]
        elif kind == GOAWAY:
            self.goaway_stream = int.from_bytes(payload[:4], "big")
            self.goaway = CODES[int.from_bytes(payload[4:8], "big")]
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            answer.ended = True


Connect = Callable[..., Peer]
"""What the fixture of that name is: makes a Peer of the test's server, by the settings of the client and more."""
