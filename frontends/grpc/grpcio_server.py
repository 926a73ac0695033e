"""grpcio's asyncio server, with an accept loop that no client can end.

grpcio's own loop decodes the path of every call that it has no registered method for as UTF-8, outside of any `try`;
one call whose path holds the byte 0xFF ends the loop, and with it the server. Here every method is registered, so that
its name is known beforehand, and a call to any other is refused without its path being looked at:

    tasks for each method:    request a call ─▶ a task that answers it ─▶ request the next …
    one task for all others:  request a call ─▶ UNIMPLEMENTED             ─▶ request the next …

Tasks of its own for each method also spare grpcio's wait over all of them, once a call.

This leans on parts of grpcio that are not its public interface. The lock file pins grpcio, and the tests of the
transport send the calls that this is about: they fail when another version of grpcio is made differently.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from grpc._cython import cygrpc  # type: ignore[attr-defined]

ACCEPTING = 8
"""Calls of a method that are requested at once. With one, a call that comes waits a turn of the loop for the one before
it, and each wakes the loop on its own; with several, calls that come together are handed over together."""

_NO_METHOD = ""
"""No path is empty, so that grpcio's look-up finds nothing and refuses the call."""


class GrpcioServer(cygrpc.AioServer):  # type: ignore[misc]
    """Serves `handlers` by their full method paths. Made in the loop in which it runs."""

    def __init__(self, handlers: Mapping[str, Any], options: Sequence[tuple[str, int]]) -> None:
        self._accepting = asyncio.get_running_loop()
        super().__init__(self._accepting, None, (), (), tuple(options), None)
        self._resolver = cygrpc._MethodResolver([], dict(handlers))  # noqa: SLF001 - see the module's text
        self._answering: set[asyncio.Task[None]] = set()
        self.add_registered_method_handlers(dict(handlers))

    async def _request_registered_call(self, method: bytes) -> None:
        """Called once by grpcio for each method; stock, it would return the next call."""
        request = super()._request_registered_call
        path = method.decode()
        await asyncio.gather(*(self._accept(path, lambda: request(method)) for _ in range(ACCEPTING)))

    async def _request_call(self) -> None:
        """Called once by grpcio for calls to anything else."""
        await self._accept(_NO_METHOD, super()._request_call)

    async def _accept(self, method: str, request: Callable[[], Awaitable[Any]]) -> None:
        """Take calls until `request` raises, which it does when the server stops."""
        while True:
            state = await request()
            loop = self._accepting
            answer = cygrpc._handle_rpc(method, self._resolver, (), state, loop, False)  # noqa: SLF001
            task = loop.create_task(cygrpc._schedule_rpc_coro(answer, state, loop, method))  # noqa: SLF001
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
