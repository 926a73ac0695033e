"""The messages of a connection's calls, from the bytes of their bodies to their handlers.

bytes ──▶ MessageReader ──▶ the call's inbox ──▶ its handler       windows open again as bodies are read (unary) or
                                                                  as messages are taken (streaming)
"""

import asyncio
from collections import deque
from collections.abc import Callable

from common.errors import InvalidArgumentError, ResourceExhaustedError, ServingError
from frontends.grpc.calls import Unary
from frontends.grpc.http2.connection import Connection
from frontends.grpc.native.calls import NativeCall, Opening
from frontends.grpc.native.messages import (
    MOST_WAITING,
    TOO_MANY,
    Message,
    MessageReader,
    unpack,
    unpacked_size,
)
from frontends.grpc.native.shared import Shared

UNPACK_ASIDE_BYTES = 4096
"""Compressed messages from this length on are unpacked by a thread."""


class Intake:
    """Of one connection."""

    def __init__(
        self,
        shared: Shared,
        connection: Connection[Opening],
        begin: Callable[[NativeCall, Message], None],
        refuse: Callable[[NativeCall, ServingError], None],
        flush_soon: Callable[[], None],
    ) -> None:
        """`begin`: a unary call has its message; `refuse`: a call cannot go on; `flush_soon`: a window was opened."""
        self._shared = shared
        self._connection = connection
        self._begin = begin
        self._refuse = refuse
        self._flush_soon = flush_soon

    def begin(self, call: NativeCall) -> deque[Message]:
        """Have a call's messages read in parts; where they wait for its handler."""
        unary = call.method if isinstance(call.method, Unary) else None
        locate = None if unary is None else unary.locate
        room = None if unary is None else self._shared.room
        return call.read_by(MessageReader(self._shared.message_bytes, self._shared.budget, room, locate))

    def read(self, call: NativeCall, piece: memoryview, now: int, *, ended: bool) -> None:
        """A part of a body that does not come whole."""
        call.heard = now
        call.received += len(piece)
        inbox = call.inbox
        if call.reader is None or inbox is None:
            inbox = self.begin(call)
        assert call.reader is not None
        try:
            inbox.extend(call.reader.read(piece))
        except ServingError as error:
            self._refuse(call, error)
            return
        self._admit(call, inbox, len(piece), ended=ended)

    def placed(self, call: NativeCall, size: int, now: int, *, ended: bool) -> None:
        """A part of a message was put where it belongs."""
        call.heard = now
        call.received += size
        assert call.reader is not None
        assert call.inbox is not None
        try:
            complete = call.reader.filled(size)
        except ServingError as error:
            self._refuse(call, error)
            return
        if complete is not None:
            call.inbox.append(complete)
        self._admit(call, call.inbox, size, ended=ended)

    def _admit(self, call: NativeCall, inbox: deque[Message], size: int, *, ended: bool) -> None:
        """Messages may have come whole, and perhaps the end of the request."""
        call.ended = call.ended or ended
        if isinstance(call.method, Unary):
            self._admit_unary(call, inbox, size)
            return
        assert call.reader is not None
        if ended and not call.reader.between:
            self._refuse(call, InvalidArgumentError("The request ended within a message"))
            return
        call.held += size
        self._give_back(call)
        if len(inbox) > MOST_WAITING:
            self._refuse(call, ResourceExhaustedError(TOO_MANY))
            return
        call.wake()

    def _give_back(self, call: NativeCall) -> None:
        """Open a streaming client's window again once its handler has taken all messages that have come."""
        if not call.inbox:
            self._connection.give_back(call.stream, call.held)
            call.held = 0

    def _admit_unary(self, call: NativeCall, inbox: deque[Message], size: int) -> None:
        assert call.reader is not None
        if len(inbox) > 1 or (inbox and not call.reader.between):
            self._refuse(call, InvalidArgumentError("The call has one message, and more came"))
        elif not call.ended:
            self._open_window(call, size)
        elif call.task is not None or call.begun is not None:
            pass  # its message was handed over already
        elif inbox:
            self._begin(call, inbox.popleft())
        else:
            what = "none came" if call.reader.between else "the request ended within it"
            self._refuse(call, InvalidArgumentError(f"The call has one message, and {what}"))

    def _open_window(self, call: NativeCall, size: int) -> None:
        """Let the client send the rest of its message without waiting for us."""
        assert call.reader is not None
        stream, connection = call.stream, self._connection
        missing = call.reader.missing() - stream.receive_window
        if missing > 0:
            connection.widen(stream, missing + self._shared.limits.window // 2)
        elif not call.reader.missing():
            connection.give_back(stream, size)

    def taken(self, call: NativeCall, message: Message) -> None:
        """A streaming handler has taken a message."""
        self._give_back(call)
        # With what the message before it was unpacked to.
        self._shared.budget.give_back(message.counted + call.counted)
        call.counted = 0
        self._flush_soon()

    async def unpacked(self, call: NativeCall, message: Message) -> memoryview:
        """The message as its sender wrote it. Raises InvalidArgumentError, ResourceExhaustedError."""
        if not message.compressed:
            return message.view
        if not call.gzip:
            raise InvalidArgumentError(
                "A message is marked as compressed, and grpc-encoding names no compression"
            )
        size = unpacked_size(message.view, self._shared.message_bytes)
        self._shared.budget.take(size)
        call.counted += size
        if len(message.view) < UNPACK_ASIDE_BYTES:
            return unpack(message.view, size)
        return await asyncio.get_running_loop().run_in_executor(None, unpack, message.view, size)
