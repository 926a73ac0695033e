"""Decides which bytes of an arena are lent. Pure: numbers in, numbers out; the memory itself is elsewhere.

    |  block  | free | block | block |        free        |        blocks and free ranges tile [0, size) exactly

Best fit over a sorted list of free lengths; a freed block joins its free neighbours at once, so two free ranges never
touch. The cost is a binary search and a few dictionary look-ups a call.
"""

from bisect import bisect_left, insort

ALIGNMENT = 64
"""Bytes; a cache line, and what OpenVINO's CPU plugin wants for tensors that it uses in place."""


def align(size: int) -> int:
    """`size` bytes rounded up to whole ALIGNMENTs; at least one."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


class Allocator:
    """Blocks of one segment of `size` bytes."""

    def __init__(self, size: int) -> None:
        self.size = size // ALIGNMENT * ALIGNMENT
        self.used = 0
        self._lent: dict[int, int] = {}
        self._free_by_start: dict[int, int] = {}
        self._free_by_end: dict[int, int] = {}
        self._free: list[tuple[int, int]] = []
        if self.size:
            self._add_free(0, self.size)

    def allocate(self, size: int) -> int | None:
        """Lend `size` bytes (rounded up to ALIGNMENT); their offset, or None when no free range is long enough."""
        length = align(size)
        index = bisect_left(self._free, (length, 0))
        if index == len(self._free):
            return None
        found, start = self._free.pop(index)
        del self._free_by_start[start]
        del self._free_by_end[start + found]
        if found > length:
            self._add_free(start + length, found - length)
        self._lent[start] = length
        self.used += length
        return start

    def free(self, offset: int) -> None:
        """Take a block back. Raises KeyError for an offset that is not lent."""
        length = self._lent.pop(offset)
        self.used -= length
        start, end = offset, offset + length
        before = self._free_by_end.get(start)
        if before is not None:
            self._remove_free(before, start - before)
            start = before
        after = self._free_by_start.get(end)
        if after is not None:
            self._remove_free(end, after)
            end += after
        self._add_free(start, end - start)

    def lent(self) -> dict[int, int]:
        """Offset → length in bytes of every lent block."""
        return dict(self._lent)

    def free_ranges(self) -> dict[int, int]:
        """Offset → length in bytes of every free range."""
        return dict(self._free_by_start)

    def _add_free(self, start: int, length: int) -> None:
        self._free_by_start[start] = length
        self._free_by_end[start + length] = start
        insort(self._free, (length, start))

    def _remove_free(self, start: int, length: int) -> None:
        del self._free_by_start[start]
        del self._free_by_end[start + length]
        del self._free[bisect_left(self._free, (length, start))]
