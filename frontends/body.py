"""A request's message that lies in this frontend's shared memory, with inputs that a worker can read right there.

    segment   …|        block                                   |…
                |  message                       |  spare room  |
                |  head │ input's elements │ …   |              |

A request names one segment for all its tensors. So the room for outputs, and for inputs that must be copied, is in the
arena if the message is there; else behind the message, as far as its block has spare room. An input is copied where it
is of another type than the model's, or not aligned to its own elements, or where there is no such room.
"""

from dataclasses import dataclass, replace

import numpy as np

from common.allocator import ALIGNMENT
from frontends.memory import ARENA, Block


@dataclass(frozen=True, slots=True)
class Body:
    """A message in shared memory; the block is lent until nothing reads the message any more."""

    block: Block
    end: int
    """Where the message ends, in bytes from the segment's start; the rest of the block is spare room."""

    @classmethod
    def of(cls, message: memoryview, block: Block) -> "Body":
        """Of a message that lies in `block`."""
        start = block.memory.find(np.ndarray(len(message), np.uint8, message))
        assert start is not None, "the message lies in its block"
        return cls(block, start + len(message))

    def find(self, array: np.ndarray) -> int | None:
        """Where an array lies, in bytes from the segment's start; None unless a worker can read it there.

        It can when the elements lie in the message one after another and aligned to their own size. OpenVINO is hardly
        faster with tensors that are aligned to more.
        """
        if not array.nbytes or not array.flags.c_contiguous:
            return None
        offset = self.block.memory.find(array)
        if offset is None or offset % array.itemsize:
            return None
        return offset if self.block.offset <= offset <= self.end - array.nbytes else None

    def spare(self, size: int) -> Block | None:
        """Room of `size` bytes behind the message, if it has a segment of its own."""
        start = -(-self.end // ALIGNMENT) * ALIGNMENT
        if self.block.segment == ARENA or start + size > self.block.offset + self.block.size:
            return None
        return Block(self.block.segment, start, size, self.block.memory)

    def holds(self, room: Block) -> bool:
        """Whether this is spare room of the message's block: one cannot be freed without the other."""
        return room.segment == self.block.segment != ARENA

    def beside(self, room: Block) -> Block:
        """The room as it is lent to a request: the message is freed with it."""
        return room if self.holds(room) else replace(room, beside=self.block)
