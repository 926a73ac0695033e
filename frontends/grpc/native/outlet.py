"""What one connection writes to its socket, and when what it refers to may go."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from common.errors import ResourceExhaustedError
from frontends.grpc.http2.connection import Connection
from frontends.grpc.http2.sending import Buffer
from frontends.grpc.native.calls import NativeCall, Opening

JOINED_BYTES: Final = 32_768
"""Output up to this length is joined before it is written; longer output is written in its parts."""

_MAX_REPLY: Final = 4_294_967_295


class Outlet:
    """Of one connection. Nothing is written while the socket does not take what was written before."""

    def __init__(self, connection: Connection[Opening], loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._transport: Any = None
        self.paused_since = 0
        """When the socket stopped taking bytes; 0 while it takes them."""
        self.receiving = False
        """Whether bytes are being read, after which all that comes of it is written."""
        self._deaf = False
        """Whether nothing is read, because requests that are read would add to what waits to be written."""
        self._due = False
        self._lost = False
        self._releases: list[Callable[[], None]] = []
        """What waits until the output is written."""

    def open(self, transport: Any) -> None:
        """The socket is there."""
        self._transport = transport

    def lose(self) -> None:
        """Nobody is there any more."""
        self._lost = True
        self._release()

    def pause(self) -> None:
        """The socket does not take more now."""
        self.paused_since = time.monotonic_ns()

    def resume(self) -> None:
        """All that was given to the socket is written."""
        self.paused_since = 0
        if self._deaf and not self._transport.is_closing():
            self._transport.resume_reading()
        self._deaf = False
        self._connection.sender.now = time.monotonic_ns()
        self._connection.sender.written()
        self.flush()

    def let_go(self, call: NativeCall) -> None:
        """An answer is in the output, or never will be: what it refers to goes when the output is written."""
        if call.releases is not None:
            self._releases += call.releases
            call.releases = None

    def flush_soon(self) -> None:
        """Write at the end of this round of the loop, with whatever else comes; at once where nothing else can."""
        if self.receiving or self._due:
            return
        if self._connection.unanswered:
            self._due = True
            self._loop.call_soon(self.flush)
        else:
            self.flush()

    def received(self) -> None:
        """What has come was read."""
        connection = self._connection
        if connection.sender.output or self._releases or connection.over:
            self.flush()
        if self.paused_since and not self._deaf and not self._transport.is_closing():
            self._deaf = True
            self._transport.pause_reading()

    def flush(self) -> None:
        """Write what there is, and close the connection if that was all."""
        self._due = False
        connection = self._connection
        sender, transport = connection.sender, self._transport
        while sender.output and not self.paused_since and not transport.is_closing():
            output = sender.take()
            if len(output) == 1:
                transport.write(output[0])
            elif size_of(output) <= JOINED_BYTES:
                transport.write(b"".join(output))
            else:
                transport.writelines(output)
            if not self.paused_since:
                self._release()
                sender.written()
        if self._releases and (self._lost or not self.paused_since):
            # Also of calls that were given up, after which nothing is written.
            self._release()
        ended = connection.over and (connection.closed or not connection.streams)
        if ended and not self._lost and not self.paused_since:
            transport.close()

    def _release(self) -> None:
        """What the written output referred to is free."""
        if self._releases:
            releases, self._releases = self._releases, []
            for release in releases:
                release()


def size_of(buffers: Sequence[Buffer]) -> int:
    """Bytes of all of them. Raises ResourceExhaustedError for more than a message can have."""
    size = 0
    for buffer in buffers:
        size += len(buffer)
    if size > _MAX_REPLY:
        raise ResourceExhaustedError(f"An answer of {size} bytes is longer than gRPC's messages can be")
    return size
