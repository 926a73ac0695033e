"""Header blocks (RFC 7541): reading the client's, writing ours. Pure.

A client's blocks repeat: once its names and values stand in the HPACK table, each further call sends the same few
bytes. What such bytes mean depends on nothing but the table, so that the meaning is kept until the table changes.

Ours use no table: each header is written out, so that the client's settings do not matter and constant answers are
constant bytes.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from hpack import Decoder, HPACKError, OversizedHeaderListError

from frontends.grpc.http2.frames import ConnectionFault, ErrorCode

Meaning = TypeVar("Meaning")
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

_KEPT = 64
_LONGEST_KEPT = 1024
"""Bytes of a block whose meaning is kept."""
_LARGEST_KEPT = 4096
"""Of its headers: a byte can stand for an entry of 4 KB of the table, again and again."""


class BlockReader(Generic[Meaning]):
    """The client's half of a connection's compression. `understand` turns headers into what they mean."""

    def __init__(self, understand: Callable[[Headers], Meaning], list_bytes: int) -> None:
        self._understand = understand
        self._decoder = Decoder(max_header_list_size=list_bytes)
        self._kept: dict[bytes, Meaning] = {}

    def read(self, block: bytes) -> Meaning:
        """What a block means. Raises ConnectionFault when it cannot be decoded, and whatever `understand` raises."""
        kept = self._kept.get(block)
        if kept is not None:
            return kept
        headers, changed = self._decode(block)
        meaning = self._understand(headers)
        if not changed and len(block) <= _LONGEST_KEPT and _size(headers) <= _LARGEST_KEPT:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[block] = meaning
        return meaning

    def known(self, block: bytes) -> Meaning | None:
        """What a block means that was read before and means the same still; None for any other."""
        return self._kept.get(block)

    def trailers(self, block: bytes) -> Headers:
        """The headers of a block that is not a request's. Raises ConnectionFault."""
        return self._decode(block)[0]

    def _decode(self, block: bytes) -> tuple[Headers, bool]:
        """The headers, and whether the table is another now. Raises ConnectionFault: nothing can be read after it."""
        table = self._decoder.header_table
        entries: Sequence[object] = table.dynamic_entries
        newest: object = entries[0] if entries else None
        count, size = len(entries), table.maxsize
        try:
            headers: Headers = self._decoder.decode(block, raw=True)  # type: ignore[assignment]
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header list is too large") from error
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "headers cannot be decoded") from error
        # An entry that is added is a new object at the front; one that is too large to be added empties the table.
        now_newest: object = entries[0] if entries else None
        changed = now_newest is not newest or len(entries) != count or table.maxsize != size
        if changed:
            self._kept.clear()
        return headers, changed


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) for name, value in headers)


def literal(name: bytes, value: bytes) -> bytes:
    """A header written out, never to be put into a table (RFC 7541, section 6.2.2)."""
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    """Not Huffman-coded: the length in seven bits or with continuation (section 5.1), then the bytes."""
    length = len(text)
    if length < 0x7F:
        return bytes((length,)) + text
    encoded = bytearray((0x7F,))
    length -= 0x7F
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded) + text
