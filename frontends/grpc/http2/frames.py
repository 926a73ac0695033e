"""The frames of RFC 9113: numbers, and how a server writes those that it sends. Pure."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame (section 3.4)."""

HEAD_BYTES: Final = 9
"""Length (24 bits), type, flags, stream; in front of every frame (section 4.1)."""

MAX_WINDOW: Final = 2_147_483_647
DEFAULT_WINDOW: Final = 65_535
DEFAULT_MAX_FRAME: Final = 16_384
LARGEST_MAX_FRAME: Final = 16_777_215

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
"""Settings (section 6.5.2). The size of the client's HPACK table (1) does not concern a server that uses none."""


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFault(Exception):  # noqa: N818 - the standard's errors, which no caller ever sees raised
    """The connection cannot go on (section 5.4.1)."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class StreamFault(Exception):  # noqa: N818
    """One stream cannot go on (section 5.4.2)."""

    def __init__(self, stream: int, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.stream = stream
        self.code = code
        self.text = text


HEAD = struct.Struct(">HBBBI")
"""The first 16 bits of the length, its last 8, type, flags, stream."""
_WORD = struct.Struct(">I")
_SETTING = struct.Struct(">HI")


def frame_head(length: int, kind: int, flags: int, stream: int) -> bytes:
    """The nine bytes in front of a payload of `length` bytes."""
    return HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream)


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    payload = b"".join(_SETTING.pack(number, value) for number, value in values.items())
    return frame_head(len(payload), SETTINGS, 0, 0) + payload


SETTINGS_ACK = frame_head(0, SETTINGS, ACK, 0)


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame_head(4, WINDOW_UPDATE, 0, stream) + _WORD.pack(increment)


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """A RST_STREAM frame."""
    return frame_head(4, RST_STREAM, 0, stream) + _WORD.pack(code)


def ping(payload: bytes, *, ack: bool) -> bytes:
    """A PING frame; `payload` has eight bytes."""
    return frame_head(8, PING, ACK if ack else 0, 0) + payload


def goaway(last_stream: int, code: ErrorCode, text: str) -> bytes:
    """A GOAWAY frame."""
    payload = _WORD.pack(last_stream) + _WORD.pack(code) + text.encode()[:200]
    return frame_head(len(payload), GOAWAY, 0, 0) + payload


def word(view: memoryview | bytes) -> int:
    """31 bits, the reserved one in front of them ignored."""
    number: int = _WORD.unpack(view)[0]
    return number & 0x7FFFFFFF


def read_settings(payload: memoryview | bytes) -> list[tuple[int, int]]:
    """Number and value of each, in order; the length is a multiple of six."""
    return list(_SETTING.iter_unpack(payload))
