"""The body of a request: bounded, and read only when somebody wants it.

Falcon asks for the first piece of a body before it even looks for a route, and with that a client that waits for
`100 Continue` is told to send what may be far too long. So falcon is handed a stand-in, and the resource reads here.

A body that an error leaves unread would turn into a reset of the connection, with the answer lost on its way: TCP
resets a connection that is closed over unread input. `linger` reads and drops the rest, for a bounded time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import falcon
from falcon import asgi

from common.errors import DeadlineExceededError, ResourceExhaustedError
from common.process import available_memory

Receive = Callable[[], Awaitable[Any]]

_SCOPE_KEY = "ie_serving.body"
HANDOVER = "ie_serving.handover"
"""In the scope of a request that was begun before the application was asked (see frontends.rest.connection)."""
LINGER_S = 2.0
"""Longest time that the rest of a refused body is read and dropped."""

LARGE_BYTES = 16 << 20
MEMORY_FACTOR = 24
"""A body over LARGE_BYTES is read only if the machine has this multiple of it: the body itself, simdjson's tape,
index and strings (about 15 times the text, if it is all numbers and brackets), and the arrays."""


class Handover(NamedTuple):
    """What has become of such a request."""

    arrived: int
    """When it came, by CLOCK_MONOTONIC [ns]."""
    outcome: bytes | Exception | None
    """See Body.outcome. Of a StaleVersionError, nothing: it begins anew, by a later catalogue."""


_STAND_IN = {"type": "http.request", "body": b"", "more_body": True}


class Body:
    """One a request."""

    __slots__ = (
        "_declared",
        "_limit",
        "_receive",
        "_waits_for_continue",
        "arrived",
        "encoding",
        "finished",
        "outcome",
    )

    def __init__(self, scope: dict[str, Any], receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._declared: int | None = None
        self._waits_for_continue = False
        self.encoding = ""
        """Its Content-Encoding, as it was sent."""
        handover: Handover | None = scope.get(HANDOVER)
        self.arrived: int | None = None if handover is None else handover.arrived
        """When the request came, if the application was not asked at once."""
        self.outcome: bytes | Exception | None = None if handover is None else handover.outcome
        """What the request has come to before falcon was asked: the answer's text, or what was raised."""
        chunked = False
        headers = scope["headers"]
        if type(headers) is not list:
            # ASGI promises something that can be gone through, not that this can be done twice.
            headers = scope["headers"] = [tuple(header) for header in headers]
        for name, value in headers:
            if name == b"content-length":
                self._declared = int(value)
            elif name == b"transfer-encoding":
                chunked = True
            elif name == b"expect":
                self._waits_for_continue = True
            elif name == b"content-encoding":
                self.encoding += f", {value.decode('latin-1')}" if self.encoding else value.decode("latin-1")
        self.finished = not chunked and not self._declared
        """Whether nothing of it is left on the connection."""
        scope[_SCOPE_KEY] = self

    async def stand_in(self) -> Any:
        """Instead of the server's `receive`, for falcon."""
        return _STAND_IN

    async def read(self, deadline_ns: int) -> bytes:
        """All of it, as it was sent.

        Raises HTTPContentTooLarge, ResourceExhaustedError, DeadlineExceededError, and HTTPError 408 when the client
        has gone or has stopped sending for longer than the server is patient.
        """
        self._check(self._declared or 0)
        self._waits_for_continue = False
        if self.finished:
            return b""
        chunks = [await self._next()]
        self._check(len(chunks[0]))
        if not self.finished:
            # Small bodies are there with the head; only longer ones are worth a timer.
            patience_s = max(0, deadline_ns - time.monotonic_ns()) / 1e9
            try:
                await asyncio.wait_for(self._read_rest(chunks), patience_s)
            except asyncio.TimeoutError:
                raise DeadlineExceededError(
                    "The deadline passed before the request's body was there"
                ) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _read_rest(self, chunks: list[bytes]) -> None:
        length = len(chunks[0])
        while not self.finished:
            chunks.append(await self._next())
            length += len(chunks[-1])
            if self._declared is None:
                self._check(length)

    async def _next(self) -> bytes:
        event = await self._receive()
        if event["type"] == "http.disconnect":
            self.finished = True
            raise falcon.HTTPError(408, description="The request's body did not come")
        self.finished = not event.get("more_body", False)
        chunk: bytes = event.get("body", b"")
        return chunk

    def _check(self, length: int) -> None:
        if length > self._limit:
            raise falcon.HTTPContentTooLarge(description=f"The body is longer than {self._limit} bytes")
        if length > LARGE_BYTES and length * MEMORY_FACTOR > available_memory():
            raise ResourceExhaustedError("There is not enough memory to read the request's body")

    async def linger(self) -> None:
        """After the answer: see the module's text."""
        if self.finished or self._waits_for_continue:
            return
        try:
            await asyncio.wait_for(self._drop(), LINGER_S)
        except asyncio.TimeoutError:
            return

    async def _drop(self) -> None:
        while not self.finished:
            event = await self._receive()
            self.finished = event["type"] == "http.disconnect" or not event.get("more_body", False)


def body_of(req: asgi.Request) -> Body:
    """The body that `Body` made for this request."""
    body: Body = req.scope[_SCOPE_KEY]
    return body
