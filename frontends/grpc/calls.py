"""What a transport and the methods know of each other: raw messages, and a few facts about the call.

    transport ── memoryview, Call ──▶ handler ── buffers ──▶ transport

Neither side of this seam knows grpcio, so that the transport can be another. A handler parses its message itself,
answers with the buffers that make up the reply one after another (they stay valid for as long as the transport holds
them), and refuses by raising a ServingError. When the client goes away its task is cancelled.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from frontends.memory import Block

Buffer: TypeAlias = bytes | memoryview
Reply: TypeAlias = Sequence[Buffer]
"""One message, in parts."""

Outcome: TypeAlias = Reply | BaseException
"""What a call comes to: its answer, or what was raised."""


class Call(Protocol):
    """The circumstances of a call."""

    @property
    def deadline_ns(self) -> int | None:
        """By CLOCK_MONOTONIC when the client stops waiting; None when it set no deadline."""
        ...

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The client's metadata; values of `-bin` keys are bytes."""
        ...

    def take_block(self) -> Block | None:
        """The block of this frontend's shared memory in which the message lies; None where it lies elsewhere.

        Whoever takes it frees it, once; what is not taken the transport frees after the handler has returned.
        """
        ...

    def give_block(self, block: Block) -> None:
        """What was taken is the transport's again."""
        ...

    def after_reply(self, release: Callable[[], None]) -> None:
        """Have `release` called once, when the reply's buffers are needed no longer, however the call ends."""
        ...


class Begun(Protocol):
    """A call that is under way without a task that waits for it."""

    def cancel(self) -> None:
        """The answer is not wanted any more. Nothing is told of the call from here on."""
        ...


Ended: TypeAlias = Callable[[Any, Outcome], None]
"""Told once what the call comes to, later than it was begun. It raises nothing."""


@dataclass(frozen=True, slots=True)
class Unary:
    """One message in, one out."""

    handler: Callable[[memoryview, Call], Awaitable[Reply]]
    locate: Callable[[memoryview], int] | None = None
    """Finds in the first bytes of a large message the offset of what should lie aligned in memory."""
    begin: Callable[[memoryview, Call, Ended], Begun | None] | None = None
    """Does what `handler` does, for the messages of which that is known at once, and without a task; None: not for
    this one. Raises as `handler` does.
    """


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages in, messages out; also for methods of which only the answers are a stream."""

    handler: Callable[[AsyncIterator[memoryview], Call], AsyncIterator[Reply]]


Method: TypeAlias = Unary | Stream
Table: TypeAlias = Mapping[str, Method]
"""Full method path, as in `/tensorflow.serving.PredictionService/Predict`, to what answers it."""


async def carry_out(method: Unary, message: memoryview, call: Call) -> Reply:
    """What the method answers, for transports that have a task for each call anyway. Raises as the handler does."""
    waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def ended(_: Any, outcome: Outcome) -> None:
        if not waiter.done():
            waiter.set_result(outcome)

    begun = None if method.begin is None else method.begin(message, call, ended)
    if begun is None:
        return await method.handler(message, call)
    try:
        outcome = await waiter
    except asyncio.CancelledError:
        begun.cancel()
        raise
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
