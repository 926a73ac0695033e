"""This frontend's shared memory: the arena, and segments of their own for what does not fit into it.

Every byte is the frontend's. Blocks are lent to requests and come back only when no worker can write to them; the
descriptors of the segments go to the workers through `common.descriptors`.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from common.allocator import Allocator, align
from common.arena import Segment
from common.errors import ResourceExhaustedError
from common.process import available_memory

ARENA = 0
"""Number of the arena among this frontend's segments."""

_SPARE_BYTES = 64 << 20
"""Memory that a large request must leave to the rest of the machine."""


class Block(NamedTuple):
    """Lent bytes: `size` of them at `offset` in a segment."""

    segment: int
    offset: int
    size: int
    memory: Segment
    beside: Block | None = None
    """Another block, which is freed with this one."""


class Memory:
    """The arena and the large segments."""

    def __init__(self, arena_bytes: int, large_bytes: int) -> None:
        self._arena = Segment.create(arena_bytes)
        self._allocator = Allocator(arena_bytes)
        self._large_limit = large_bytes
        self._large_bytes = 0
        self._large: dict[int, Segment] = {}
        self._last_segment = ARENA
        self._unclosed: list[Segment] = []

    @property
    def used(self) -> int:
        """Bytes lent, in the arena and outside of it."""
        return self._allocator.used + self._large_bytes

    def allocate(self, size: int) -> Block | None:
        """A block of the arena; None when it has no room for it now."""
        offset = self._allocator.allocate(size)
        return None if offset is None else Block(ARENA, offset, size, self._arena)

    def receive(self, size: int) -> Block | None:
        """A block of the arena for a message that is about to come; None when half of the arena is lent.

        The other half is for what requests need then: a client that sends slowly must not keep it from others.
        """
        if self._allocator.used + size > self._allocator.size // 2:
            return None
        return self.allocate(size)

    async def allocate_large(self, size: int) -> Block:
        """A segment for this request alone, made off the loop. Raises ResourceExhaustedError, naming the bound."""
        size = align(size)
        if self._large_bytes + size > self._large_limit:
            raise ResourceExhaustedError(
                f"The request needs {size} bytes of shared memory beyond the arena, of which large requests may take "
                f"{self._large_limit} together and have {self._large_bytes} now"
            )
        if size + _SPARE_BYTES > available_memory():
            raise ResourceExhaustedError(f"The machine has no {size} bytes of memory left for the request")
        self._large_bytes += size
        making = asyncio.get_running_loop().run_in_executor(None, Segment.create, size)
        try:
            segment = await asyncio.shield(making)
        except OSError as error:
            self._large_bytes -= size
            raise ResourceExhaustedError(f"{size} bytes of shared memory cannot be had now") from error
        except asyncio.CancelledError:
            making.add_done_callback(lambda made: self._discard(made, size))
            raise
        self._last_segment += 1
        self._large[self._last_segment] = segment
        return Block(self._last_segment, 0, size, segment)

    def free(self, block: Block) -> None:
        """Take a block back, and what is lent beside it."""
        if block.beside is not None:
            self.free(block.beside)
        if block.segment == ARENA:
            self._allocator.free(block.offset)
            return
        self._large_bytes -= block.size
        self._unclosed.append(self._large.pop(block.segment))
        self.collect()

    def collect(self) -> None:
        """Unmap large segments that are free. One that a view still points into is tried again at the next call."""
        kept = []
        for segment in self._unclosed:
            try:
                segment.close()
            except BufferError:
                kept.append(segment)
        self._unclosed = kept

    def descriptor(self, segment: int) -> int | None:
        """Of a segment that is in use; None for any other number."""
        if segment == ARENA:
            return self._arena.descriptor
        found = self._large.get(segment)
        return None if found is None else found.descriptor

    def _discard(self, making: asyncio.Future[Segment], size: int) -> None:
        self._large_bytes -= size
        if not making.cancelled() and making.exception() is None:
            making.result().close()
