"""Answers as they stand on the wire: header blocks and message prefixes. Pure."""

import re
import struct
from collections.abc import Sequence

from frontends.grpc.http2.frames import END_HEADERS, END_STREAM, HEADERS, frame_head
from frontends.grpc.http2.header_blocks import literal

PREFIX = struct.Struct(">BI")
"""In front of each message: whether it is compressed, and its length."""

_STATUS_200 = b"\x88"
"""`:status: 200`, which stands in HPACK's static table (RFC 7541, appendix A)."""
_GRPC = literal(b"content-type", b"application/grpc")
_BEGIN = _STATUS_200 + _GRPC
_OK = literal(b"grpc-status", b"0")
_BEGIN_LENGTH, _OK_LENGTH = len(_BEGIN), len(_OK)

_TO_ENCODE = re.compile(rb"[^ -$&-~]")
"""Bytes of a status text that are written as %XX."""


def begin(stream: int) -> bytes:
    """The frame that begins an answer."""
    return frame_head(_BEGIN_LENGTH, HEADERS, END_HEADERS, stream) + _BEGIN


def end_well(stream: int) -> bytes:
    """The frame that ends an answer that went well."""
    return frame_head(_OK_LENGTH, HEADERS, END_HEADERS | END_STREAM, stream) + _OK


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
