"""Answers as they stand on the wire: header blocks and message prefixes. Pure."""

import re
import struct
from collections.abc import Sequence
from typing import Final

from frontends.grpc.http2.frames import END_HEADERS, END_STREAM, HEAD_BYTES, HEADERS, frame_head
from frontends.grpc.http2.header_blocks import literal

PREFIX = struct.Struct(">BI")
"""In front of each message: whether it is compressed, and its length."""

_STATUS_200 = b"\x88"
"""`:status: 200`, which stands in HPACK's static table (RFC 7541, appendix A)."""
_GRPC = literal(b"content-type", b"application/grpc")
_BEGIN = _STATUS_200 + _GRPC
_OK = literal(b"grpc-status", b"0")
_BEGIN_LENGTH, _OK_LENGTH = len(_BEGIN), len(_OK)
_BEGIN_HEAD = frame_head(_BEGIN_LENGTH, HEADERS, END_HEADERS, 0)[:5]
_OK_HEAD = frame_head(_OK_LENGTH, HEADERS, END_HEADERS | END_STREAM, 0)[:5]
_BEGIN_WHOLE = struct.Struct(f">5sI{_BEGIN_LENGTH}sHBHIBI")
"""Frame of headers, head of DATA, prefix of the message. No flags; the type of DATA is 0."""
_END = struct.Struct(f">5sI{_OK_LENGTH}s")

PREFIX_BYTES: Final = 5
BEGIN_BYTES = HEAD_BYTES + _BEGIN_LENGTH
"""Of the frame that begins an answer."""

_TO_ENCODE = re.compile(rb"[^ -$&-~]")
"""Bytes of a status text that are written as %XX."""


def begin(stream: int) -> bytes:
    """The frame that begins an answer."""
    return frame_head(_BEGIN_LENGTH, HEADERS, END_HEADERS, stream) + _BEGIN


def begin_whole(stream: int, size: int) -> bytes:
    """All that stands in front of an answer's only message, of `size` bytes, where DATA takes it in one frame."""
    length = size + PREFIX_BYTES
    return _BEGIN_WHOLE.pack(_BEGIN_HEAD, stream, _BEGIN, length >> 8, length & 0xFF, 0, stream, 0, size)


def end_well(stream: int) -> bytes:
    """The frame that ends an answer that went well."""
    return _END.pack(_OK_HEAD, stream, _OK)


def end_with(stream: int, block: bytes) -> bytes:
    """A frame of a header block that ends the stream."""
    return frame_head(len(block), HEADERS, END_HEADERS | END_STREAM, stream) + block


def status(number: int, text: str) -> bytes:
    """The header block of trailers after an answer that has begun."""
    block = literal(b"grpc-status", b"%d" % number)
    return block + literal(b"grpc-message", percent_encoded(text)) if text else block


def refusal(number: int, text: str, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The header block of an answer that is nothing but a status."""
    return _BEGIN + status(number, text) + b"".join(literal(name, value) for name, value in more)


def http_answer(code: int, more: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The header block of an answer to a client that does not speak gRPC."""
    return literal(b":status", b"%d" % code) + b"".join(literal(name, value) for name, value in more)


def percent_encoded(text: str) -> bytes:
    """A status text as gRPC's headers carry it."""
    return _TO_ENCODE.sub(lambda found: b"%%%02X" % found[0][0], text.encode("utf-8", "replace"))
