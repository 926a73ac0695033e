"""The table of methods, served over our own HTTP/2 on asyncio: see frontends.grpc.native and frontends.grpc.http2."""

import asyncio
import contextlib
import os
import time
from typing import cast

from frontends import unix_socket
from frontends.grpc.calls import Table
from frontends.grpc.http2.limits import Limits
from frontends.grpc.listening import Listening
from frontends.grpc.native.messages import Budget, Room
from frontends.grpc.native.protocol import GrpcProtocol
from frontends.grpc.native.shared import Patience, Shared

SWEEP_S = 0.25
"""Between two looks at deadlines and at clients that take too long."""

_BACKLOG = 1024
_SPARE_MESSAGES_BYTES = 512 << 20
"""Of messages that are received at once, beside one of the longest."""


class NativeTransport:
    """A server on one port, and on a unix socket beside it. Several processes may listen on the same port."""

    def __init__(
        self,
        table: Table,
        listening: Listening,
        message_bytes: int,
        room: Room | None = None,
        *,
        limits: Limits | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Longer requests than `message_bytes` are refused; large ones are received into `room` where it has any."""
        self._listening = listening
        self._shared = Shared(
            {path.encode(): method for path, method in table.items()},
            message_bytes,
            Budget(message_bytes + _SPARE_MESSAGES_BYTES),
            room,
            limits or Limits(),
            patience or Patience(),
            ended=self._connection_ended,
        )
        self._servers: list[asyncio.Server] = []
        self._ended = asyncio.Event()
        self._quiet = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> int:
        """Listen and serve; the port. Raises OSError when port or socket cannot be had, or TLS's files not be used."""
        loop = asyncio.get_running_loop()
        where = self._listening
        context = None if where.tls is None else where.tls.context()
        try:
            server = await loop.create_server(
                self._connect, where.host, where.port, reuse_port=True, backlog=_BACKLOG, ssl=context
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(f"cannot listen on {where.host}:{where.port}: {reason}") from error
        self._servers.append(server)
        if where.socket:
            listener = unix_socket.bind(where.socket)
            self._servers.append(
                await loop.create_unix_server(self._connect, sock=listener, backlog=_BACKLOG)
            )
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def wait_ended(self) -> None:
        """Return when the server has ended. May be cancelled."""
        await self._ended.wait()

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more at once, wait `grace_s` seconds for calls that run, then cancel them."""
        for server in self._servers:
            server.close()
        if self._listening.socket:
            unix_socket.clear(self._listening.socket)
        for protocol in list(self._shared.connections):
            protocol.drain()
        await self._quieted(grace_s)
        for protocol in list(self._shared.connections):
            protocol.end()
        await self._quieted(1.0)
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()

    def _connect(self) -> asyncio.BufferedProtocol:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return cast("asyncio.BufferedProtocol", GrpcProtocol(self._shared))

    def _sweep(self) -> None:
        now = time.monotonic_ns()
        for protocol in list(self._shared.connections):
            protocol.sweep(now)
        self._timer = None
        if self._shared.connections:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _connection_ended(self) -> None:
        if not self._shared.connections:
            self._quiet.set()

    async def _quieted(self, timeout_s: float) -> None:
        """Until no connection is left, for so long at most."""
        self._quiet.clear()
        if self._shared.connections:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), timeout_s)
