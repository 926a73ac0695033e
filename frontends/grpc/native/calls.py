"""One call on a native connection: its head, its messages, its handler's task, what its answer holds."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from frontends.grpc.calls import Begun, Method, Unary
from frontends.grpc.http2.streams import Stream
from frontends.grpc.native.head import Head
from frontends.grpc.native.messages import Message, MessageReader
from frontends.memory import Block


class Owner(Protocol):
    """The connection, as its calls know it."""

    def taken(self, call: "NativeCall", message: Message) -> None:
        """A streaming handler has taken a message."""
        ...

    async def unpacked(self, call: "NativeCall", message: Message) -> memoryview:
        """The message as its sender wrote it. Raises InvalidArgumentError, ResourceExhaustedError."""
        ...


class Opening:
    """What a connection remembers of a call's headers: what they say, and what answers it."""

    def __init__(self, head: Head, method: Method | None) -> None:
        self.head = head
        self.method = method
        self.direct = isinstance(method, Unary) and head.answer is None
        """Whether a message that comes whole can be handled at once."""


class NativeCall:
    """A `frontends.grpc.calls.Call`.

    What a small unary call never needs stands at its default in the class, so that a new one costs little.
    """

    reader: MessageReader | None = None
    """Where a message does not come whole at once."""
    inbox: deque[Message] | None = None
    """Messages that its handler has not taken yet, where there is a reader."""
    received: int = 0
    """Bytes of its body."""
    ended: bool = False
    """Whether the client has ended its request."""
    held: int = 0
    """Bytes that have come and were not given back to the client's window."""
    started: bool = False
    """Whether the task has run at all: one that has not cannot be cancelled without its end being lost."""
    task: asyncio.Task[None] | None = None
    begun: Begun | None = None
    """What is under way, where there is no task."""
    waiter: asyncio.Future[None] | None = None
    """What the handler's task waits for: a message, or room for its answer."""
    answered: bool = False
    """Whether the answer has begun."""
    overdue: bool = False
    block: Block | None = None
    counted: int = 0
    releases: list[Callable[[], None]] | None = None
    deadline_ns: int | None = None
    """See Call."""

    def __init__(self, owner: Owner, stream: Stream, head: Head, method: Method, now: int) -> None:
        self._owner = owner
        self._head = head
        self.stream = stream
        self.method = method
        if head.timeout_ns is not None:
            self.deadline_ns = now + head.timeout_ns
        self.began = self.heard = now
        """When it began, and when the last part of its body came."""

    def read_by(self, reader: MessageReader) -> deque[Message]:
        """Have its messages read in parts; where they wait for its handler."""
        self.reader = reader
        if self.inbox is None:
            self.inbox = deque()
        return self.inbox

    @property
    def gzip(self) -> bool:
        """Whether messages that are marked as compressed are gzip."""
        return self._head.gzip

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """See Call."""
        return self._head.metadata

    def take_block(self) -> Block | None:
        """See Call."""
        block, self.block = self.block, None
        return block

    def give_block(self, block: Block) -> None:
        """See Call."""
        self.block = block

    def after_reply(self, release: Callable[[], None]) -> None:
        """See Call."""
        if self.releases is None:
            self.releases = []
        self.releases.append(release)

    def messages(self) -> AsyncIterator[memoryview]:
        """Of a streaming call. The client's window opens as they are taken."""
        return _Messages(self)

    async def next_message(self) -> memoryview | None:
        """The next one of a streaming call; None after the last. Raises as `Owner.unpacked` does."""
        inbox = self.inbox
        assert inbox is not None
        while not inbox:
            if self.ended:
                return None
            await self.wait()
        message = inbox.popleft()
        self._owner.taken(self, message)
        return await self._owner.unpacked(self, message)

    async def wait(self) -> None:
        """Until `wake`."""
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def wake(self) -> None:
        """Something has changed."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class _Messages:
    def __init__(self, call: NativeCall) -> None:
        self._call = call

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> memoryview:
        message = await self._call.next_message()
        if message is None:
            raise StopAsyncIteration
        return message
