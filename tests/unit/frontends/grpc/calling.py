"""Calls the handlers of a method table as a transport would, without one."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from frontends.grpc.calls import Stream, Table, Unary

Result = TypeVar("Result")


@dataclass
class FakeCall:
    """A call without a connection."""

    deadline_ns: int | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end, in a loop of its own."""
    return asyncio.run(coroutine)


async def unary(table: Table, path: str, message: bytes, deadline_ns: int | None = None) -> bytes:
    """One message in, one out. Raises what the handler raises."""
    method = table[path]
    assert isinstance(method, Unary)
    return b"".join(await method.handler(memoryview(message), FakeCall(deadline_ns)))


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
