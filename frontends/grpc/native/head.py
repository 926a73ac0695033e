"""What the headers of a call say (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). Pure.

Headers that break HTTP/2's rules end the stream; those that break only gRPC's are answered, with an HTTP status where
the client cannot be speaking gRPC, with a gRPC status otherwise.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from frontends.grpc.http2.header_blocks import Headers
from frontends.grpc.native.replies import http_answer, refusal

_PSEUDO = (b":method", b":scheme", b":path", b":authority")
_FORBIDDEN = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""Headers of connections, not of messages (RFC 9113, section 8.2.2)."""
_OURS = frozenset((b"te", b"content-type", b"content-length", b"host"))
"""Headers that are not the client's metadata; neither are those of gRPC itself."""
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS_NS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
ENCODINGS = (b"identity", b"gzip")
"""Of messages, that are understood."""

INVALID_ARGUMENT, UNIMPLEMENTED = 3, 12


@dataclass(frozen=True, slots=True)
class Head:
    """A call's beginning. The same for every call with the same headers."""

    path: bytes
    timeout_ns: int | None
    gzip: bool
    """Whether messages that are marked as compressed are gzip."""
    content_length: int | None
    metadata: tuple[tuple[str, str | bytes], ...]
    answer: bytes | None = None
    """Header block that refuses the call, whatever it is for."""


def understand(headers: Headers) -> Head:
    """The head of a call. Raises ValueError for headers that are malformed (RFC 9113, sections 8.2 and 8.3)."""
    pseudo, fields = _split(headers)
    values = dict(fields)
    length = values.get(b"content-length")
    if length is not None and (
        not length.isdigit() or fields.count((b"content-length", length)) != _lengths(fields)
    ):
        raise ValueError("content-length is no number, or several")
    path = pseudo[b":path"]
    try:
        return Head(
            path,
            _timeout(values.get(b"grpc-timeout")),
            values.get(b"grpc-encoding") == b"gzip",
            None if length is None else int(length[:20]),
            tuple(_metadata(fields)),
            _refusal(pseudo, values),
        )
    except _InvalidError as error:
        return Head(path, None, False, None, (), refusal(INVALID_ARGUMENT, str(error)))


class _InvalidError(Exception):
    """Headers that break gRPC's rules."""


def _split(headers: Headers) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Pseudo-headers and the others. Raises ValueError."""
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if _BAD_VALUE.search(value) or value != value.strip(b" \t"):
            raise ValueError("a header's value holds what it must not")
        if name.startswith(b":"):
            if fields or name in pseudo or name not in _PSEUDO:
                raise ValueError("pseudo-headers are unknown, repeated or late")
            pseudo[name] = value
            continue
        if not _NAME.fullmatch(name) or name in _FORBIDDEN or (name == b"te" and value != b"trailers"):
            raise ValueError("a header is not allowed")
        fields.append((name, value))
    if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
        raise ValueError("pseudo-headers are missing")
    return pseudo, fields


def _lengths(fields: list[tuple[bytes, bytes]]) -> int:
    return sum(name == b"content-length" for name, _ in fields)


def _refusal(pseudo: dict[bytes, bytes], values: dict[bytes, bytes]) -> bytes | None:
    if pseudo[b":method"] != b"POST":
        return http_answer(405, ((b"allow", b"POST"),))
    kind = values.get(b"content-type", b"").lower()
    if not kind.startswith(b"application/grpc") or kind[16:17] not in (b"", b"+", b";"):
        return http_answer(415)
    encoding = values.get(b"grpc-encoding", b"identity")
    if encoding not in ENCODINGS:
        name = encoding.decode("ascii", "replace")
        return refusal(
            UNIMPLEMENTED,
            f"Compression {name!r} is not supported; identity and gzip are",
            ((b"grpc-accept-encoding", b",".join(ENCODINGS)),),
        )
    return None


def _timeout(text: bytes | None) -> int | None:
    if text is None:
        return None
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise _InvalidError("grpc-timeout is at most eight digits and one of H, M, S, m, u, n")
    return int(found[1]) * _UNITS_NS[found[2]]


def _metadata(fields: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str | bytes]]:
    for name, value in fields:
        if name in _OURS or name.startswith(b"grpc-"):
            continue
        key = name.decode("ascii")
        if name.endswith(b"-bin"):
            for each in value.split(b","):
                yield key, _binary(key, each.strip(b" "))
        else:
            yield key, value.decode("utf-8", "replace")


def _binary(key: str, text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _InvalidError(f"The metadata {key} is not base64") from error
