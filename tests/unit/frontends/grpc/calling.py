"""Calls the handlers of a method table as a transport would, without one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from frontends.grpc.calls import Stream, Table, Unary
from frontends.memory import Block

Result = TypeVar("Result")


@dataclass
class FakeCall:
    """A call without a connection."""

    deadline_ns: int | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    block: Block | None = None
    releases: list[Callable[[], None]] = field(default_factory=list)

    def take_block(self) -> Block | None:
        """See Call."""
        block, self.block = self.block, None
        return block

    def give_block(self, block: Block) -> None:
        """See Call."""
        self.block = block

    def after_reply(self, release: Callable[[], None]) -> None:
        """See Call."""
        self.releases.append(release)

    def finish(self) -> None:
        """The reply was read."""
        for release in self.releases:
            release()


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end, in a loop of its own."""
    return asyncio.run(coroutine)


async def unary(table: Table, path: str, message: bytes, deadline_ns: int | None = None) -> bytes:
    """One message in, one out. Raises what the handler raises."""
    method = table[path]
    assert isinstance(method, Unary)
    call = FakeCall(deadline_ns)
    try:
        return b"".join(await method.handler(memoryview(message), call))
    finally:
        call.finish()


def stream(table: Table, path: str, messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Messages in, messages out. Raises what the handler raises."""
    method = table[path]
    assert isinstance(method, Stream)
    handler = method.handler

    async def sent() -> AsyncIterator[memoryview]:
        for message in messages:
            yield memoryview(message)

    async def received() -> AsyncIterator[bytes]:
        async for reply in handler(sent(), FakeCall()):
            yield b"".join(reply)

    return received()
