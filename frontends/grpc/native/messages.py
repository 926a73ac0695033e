"""gRPC messages out of a stream's bytes: a prefix of five bytes and the message, split anywhere.

A message that does not come whole at once is written to where it stays: one large enough into a block of the arena when
there is room, so that a tensor in it needs no further copy; else into memory of its own. What is under way counts
against one budget of the process.
"""

import zlib
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np

from common.errors import InvalidArgumentError, ResourceExhaustedError, ServingError
from frontends.grpc.native.replies import PREFIX
from frontends.memory import Block

IN_PLACE_BYTES: Final = 65_536
"""Messages from this length on are received into shared memory."""

MOST_WAITING = 1024
"""Messages of one call that its handler has not taken. An empty one has five bytes on the wire and many more here."""
TOO_MANY = f"The call has sent more than {MOST_WAITING} messages that were not taken yet"

_GZIP_BYTES = 18
"""Of its header and trailer; there is none shorter."""

_FIRST_BYTES = 1 << 20
"""Of a message that is announced, count against the budget at once."""
_AHEAD = 4
"""So many times what has come counts, up to the message's length: large messages are refused early rather than late."""

_ALIGNMENT = 64
_BYTES = np.dtype(np.uint8)


class Room(Protocol):
    """Where large messages are received: frontends.memory.Memory."""

    def receive(self, size: int) -> Block | None:
        """A block, or None when there is no room for it now."""
        ...

    def free(self, block: Block) -> None:
        """Take it back."""
        ...


class Budget:
    """Bytes of messages that are under way or being answered, of one process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self, size: int) -> None:
        """Count `size` more. Raises ResourceExhaustedError."""
        if self.used + size > self._limit:
            raise ResourceExhaustedError(
                f"The server is receiving messages of {self.used} bytes, and takes {self._limit} at once; ask again"
            )
        self.used += size

    def give_back(self, size: int) -> None:
        """Count them no longer."""
        self.used -= size


class Message(NamedTuple):
    """A message that has come whole."""

    view: "memoryview"
    compressed: bool
    block: Block | None
    counted: int
    """Bytes that were taken of the budget for it."""


class MessageReader:
    """The messages of one stream, in order."""

    __slots__ = (
        "_budget",
        "_compressed",
        "_filled",
        "_limit",
        "_locate",
        "_prefix",
        "_room",
        "_target",
        "block",
        "counted",
    )

    def __init__(
        self, limit: int, budget: Budget, room: Room | None, locate: Callable[[memoryview], int] | None
    ) -> None:
        """`limit`: the longest message. `locate` finds in a message's first bytes what is to be aligned."""
        self._limit = limit
        self._budget = budget
        self._room = room
        self._locate = locate
        self._prefix = bytearray()
        self._compressed = False
        self._target: memoryview | None = None
        self._filled = 0
        self.block: Block | None = None
        self.counted = 0

    @property
    def between(self) -> bool:
        """Whether no message has begun."""
        return not self._prefix and self._target is None

    def missing(self) -> int:
        """Bytes that are wanted of the message that has begun; 0 while its length is not known."""
        return 0 if self._target is None else len(self._target) - self._filled

    def room(self) -> memoryview | None:
        """Where the next bytes belong, for whoever can receive them there."""
        return None if self._target is None else self._target[self._filled :]

    def filled(self, size: int) -> Message | None:
        """So many bytes were received into `room`; the message if it is complete. Raises ResourceExhaustedError."""
        self._filled += size
        assert self._target is not None
        self._count(len(self._target))
        return self._complete() if self._filled == len(self._target) else None

    def _count(self, length: int) -> None:
        """Take of the budget what may soon be needed, not what is only announced: nobody can keep others out by that.

        Raises ResourceExhaustedError.
        """
        wanted = min(length, max(_FIRST_BYTES, _AHEAD * self._filled))
        if wanted > self.counted:
            self._budget.take(wanted - self.counted)
            self.counted = wanted

    def read(self, piece: memoryview) -> list[Message]:
        """The messages that `piece` completes. Raises InvalidArgumentError, ResourceExhaustedError."""
        found: list[Message] = []
        try:
            self._read(piece, found)
        except ServingError:
            for message in found:
                self._discard(message)
            raise
        return found

    def _read(self, piece: memoryview, found: list[Message]) -> None:
        position, end = 0, len(piece)
        while position < end:
            if self._target is None:
                wanted = PREFIX.size - len(self._prefix)
                self._prefix += piece[position : position + wanted]
                position += wanted
                if len(self._prefix) < PREFIX.size:
                    break
                self._begin(piece[position:])
            size = self._take(piece[position:])
            position += size
            complete = self.filled(size)
            if complete is not None:
                found.append(complete)
                if len(found) > MOST_WAITING:
                    raise ResourceExhaustedError(TOO_MANY)

    def _take(self, piece: memoryview) -> int:
        """Copy what belongs to the message that has begun; how much."""
        assert self._target is not None
        size = min(len(self._target) - self._filled, len(piece))
        self._target[self._filled : self._filled + size] = piece[:size]
        return size

    def _discard(self, message: Message) -> None:
        self._budget.give_back(message.counted)
        if message.block is not None and self._room is not None:
            self._room.free(message.block)

    def drop(self) -> None:
        """Give back what the message that has begun has taken."""
        self._budget.give_back(self.counted)
        self.counted = 0
        block, self.block, self._target = self.block, None, None
        if block is not None and self._room is not None:
            self._room.free(block)

    def _begin(self, first: memoryview) -> None:
        """The prefix is there, and some of what follows it perhaps."""
        flag, length = PREFIX.unpack(self._prefix)
        self._prefix.clear()
        if flag > 1:
            raise InvalidArgumentError("A message's first byte says whether it is compressed: 0 or 1")
        if length > self._limit:
            raise ResourceExhaustedError(f"Received message larger than max ({length} vs. {self._limit})")
        self._compressed, self._filled = bool(flag), 0
        self._count(length)
        if length >= IN_PLACE_BYTES and not flag and self._room is not None:
            self.block = self._room.receive(length + _ALIGNMENT)
        if self.block is None:
            # Not cleared: what is only said, and does not come, costs no memory.
            self._target = np.empty(length, _BYTES).data
            return
        # So that what is looked for lies at a multiple of 64 bytes: there it can be inferred where it is.
        aligned = self._locate(first) if self._locate is not None else 0
        offset = self.block.offset + (-aligned) % _ALIGNMENT
        self._target = self.block.memory.view(offset, (length,), _BYTES).data

    def _complete(self) -> Message:
        assert self._target is not None
        message = Message(self._target, self._compressed, self.block, self.counted)
        self._target, self.block, self.counted = None, None, 0
        return message


def unpacked_size(packed: memoryview, limit: int) -> int:
    """How long gzip's content says to be when unpacked (RFC 1952, section 2.3.1). Raises InvalidArgumentError,
    ResourceExhaustedError past `limit` bytes.
    """
    if len(packed) < _GZIP_BYTES:
        raise InvalidArgumentError("A compressed message is too short to be gzip")
    size = int.from_bytes(packed[-4:], "little")
    if size > limit:
        raise ResourceExhaustedError(f"Received message larger than max ({size} when unpacked vs. {limit})")
    return size


def unpack(packed: memoryview, size: int) -> memoryview:
    """What gzip has packed, in no more memory than it says to need. Raises InvalidArgumentError."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(packed, size + 1)
    except zlib.error as error:
        raise InvalidArgumentError(f"A compressed message cannot be unpacked: {error}") from error
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidArgumentError(
            "A compressed message is cut off, followed by more, or longer than it says"
        )
    return memoryview(unpacked)
