"""gzip, bounded; and what a client says of the encodings that it accepts. Pure."""

import zlib
from collections.abc import Iterator
from typing import Any

from common.errors import InvalidArgumentError

_GZIP_WINDOW = 31
"""zlib's word for "the largest window, with gzip's head and tail"."""
_STEP_BYTES = 1 << 20
_FEED_BYTES = 16 << 10
"""Given to zlib in one go, because it copies what it does not take."""
_MAX_MEMBERS = 1 << 16
_LEVEL = 1
"""Of compression: JSON numbers shrink by half with the fastest level, and hardly more with the others."""


class DecompressedTooLongError(Exception):
    """The text would be longer than it may be."""


def decompress(compressed: bytes, limit: int) -> Iterator[bytes]:
    """The text in pieces of at most _STEP_BYTES; several gzip members in a row are one text (RFC 1952).

    Raises DecompressedTooLongError as soon as there are more than `limit` bytes, and InvalidArgumentError.
    """
    length = position = members = 0
    member = None
    while position < len(compressed):
        if member is None:
            members += 1
            if members > _MAX_MEMBERS:
                raise InvalidArgumentError(f"The request's body has more than {_MAX_MEMBERS} gzip members")
            member = zlib.decompressobj(_GZIP_WINDOW)
        given = compressed[position : position + _FEED_BYTES]
        position += len(given)
        for piece in _feed(member, given):
            length += len(piece)
            if length > limit:
                raise DecompressedTooLongError
            yield piece
        if member.eof:
            position -= len(member.unused_data)
            member = None
    if member is not None:
        raise InvalidArgumentError("The request's body ends in the middle of its gzip data")


def _feed(member: Any, given: bytes) -> Iterator[bytes]:
    more = True
    while more:
        try:
            piece = member.decompress(given, _STEP_BYTES)
        except zlib.error:
            raise InvalidArgumentError("The request's body is not valid gzip") from None
        yield piece
        given = member.unconsumed_tail
        # A full piece may have left some more behind, even when all that was given is read.
        more = not member.eof and (bool(given) or len(piece) == _STEP_BYTES)


def compress(text: bytes) -> bytes:
    """gzip."""
    packer = zlib.compressobj(_LEVEL, wbits=_GZIP_WINDOW)
    return packer.compress(text) + packer.flush()


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header asks for gzip (RFC 9110 section 12.5.3): by name, else by `*`, with a weight
    above 0 that is not below that of `identity`."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, *parameters = [word.strip() for word in part.split(";")]
        weights["gzip" if coding == "x-gzip" else coding] = _weight(parameters)
    gzip = weights.get("gzip", weights.get("*", 0.0))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _weight(parameters: list[str]) -> float:
    """1 where none is given, 0 for one that cannot be read."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0
    return 1.0
