"""This frontend's shared memory: the arena, and segments of their own for what does not fit into it.

Every byte is the frontend's. Blocks are lent to requests and come back only when no worker can write to them; the
descriptors of the segments go to the workers through `common.descriptors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from common.allocator import Allocator, align
from common.arena import Segment
from common.errors import ResourceExhaustedError
from common.process import available_memory

ARENA = 0
"""Number of the arena among this frontend's segments."""

_SPARE_BYTES = 64 << 20
"""Memory that a large request, or a growing arena, must leave to the rest of the machine."""

_STEP_BYTES = 4 << 20
"""The arena's memory is taken in steps of so many bytes, each when it is needed for the first time, which takes a
millisecond or two: an idle server then does not hold what only a loaded one needs."""

_KEPT_SHARE = 16
"""One part in so many of the arena may be kept in blocks of the sizes that were wanted last."""


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
        self._arena = Segment.create(arena_bytes, min(arena_bytes, _STEP_BYTES))
        self._allocator = Allocator(arena_bytes)
        self._large_limit = large_bytes
        self._large_bytes = 0
        self._large: dict[int, Segment] = {}
        self._last_segment = ARENA
        self._unclosed: list[Segment] = []
        self.most_kept = arena_bytes // _KEPT_SHARE
        """What `kept` may come to."""
        self.kept = 0
        """Bytes of the arena in blocks that nobody uses, kept by whoever has set `give_up`. They count as free."""
        self.give_up: Callable[[], None] | None = None
        """Has all of these blocks freed."""

    @property
    def used(self) -> int:
        """Bytes lent, in the arena and outside of it."""
        return self._allocator.used - self.kept + self._large_bytes

    def allocate(self, size: int) -> Block | None:
        """A block of the arena; None when it has no room for it now, or the machine has none."""
        block = self._allocate(size)
        if block is None and self.kept and self.give_up is not None:
            self.give_up()
            block = self._allocate(size)
        return block

    def _allocate(self, size: int) -> Block | None:
        offset = self._allocator.allocate(size)
        if offset is None:
            return None
        end = offset + size
        if end > self._arena.backed and not self._grow(end):
            self._allocator.free(offset)
            return None
        return Block(ARENA, offset, size, self._arena)

    def _grow(self, end: int) -> bool:
        """Have the arena's memory up to `end`; whether it could be had. Nothing is lent that was not taken before:
        touching what is not there would end this process and the workers by SIGBUS.
        """
        whole = min(self._arena.size, -(-end // _STEP_BYTES) * _STEP_BYTES)
        if whole - self._arena.backed + _SPARE_BYTES > available_memory():
            return False
        try:
            self._arena.back(whole)
        except OSError:
            return False
        return True

    def receive(self, size: int) -> Block | None:
        """A block of the arena for a message that is about to come; None when half of the arena is lent.

        The other half is for what requests need then: a client that sends slowly must not keep it from others.
        """
        if self._allocator.used - self.kept + size > self._allocator.size // 2:
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

    @property
    def is_restless(self) -> bool:
        """Whether `collect` has something to try again."""
        return bool(self._unclosed)

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
