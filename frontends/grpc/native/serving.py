"""The handlers of one connection's calls, and what they answer."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Final

from common.errors import Code, DeadlineExceededError, ServingError
from frontends.grpc.calls import Outcome, Reply
from frontends.grpc.errors import STATUS, status_of
from frontends.grpc.http2.connection import Connection
from frontends.grpc.http2.sending import Buffer
from frontends.grpc.http2.streams import Stream
from frontends.grpc.native import replies
from frontends.grpc.native.calls import NativeCall, Opening
from frontends.grpc.native.intake import Intake
from frontends.grpc.native.messages import Message
from frontends.grpc.native.outlet import Outlet, size_of
from frontends.grpc.native.shared import Shared

_SHORT_BYTES: Final = 4096
"""An answer up to this length is put together at once: it is short enough to be copied once more with others."""

OVERDUE = DeadlineExceededError("The deadline passed before the answer was there")


class Serving:
    """From a call's message to the end of its answer."""

    def __init__(self, shared: Shared, connection: Connection[Opening], outlet: Outlet) -> None:
        self._shared = shared
        self._connection = connection
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self.intake = Intake(shared, connection, self.begin_message, self.refuse, outlet.flush_soon)

    # ---- handlers

    def begin(self, call: NativeCall, message: memoryview) -> None:
        """Have a unary call's message handled."""
        begin = call.method.begin  # type: ignore[union-attr]
        if begin is not None:
            try:
                call.begun = begin(message, call, self._ended)
            except Exception as error:  # noqa: BLE001 - see _serve_unary
                self._fail(call, error)
                if call.reader is not None:
                    self._close(call)
                self._outlet.flush_soon()
                return
            if call.begun is not None:
                self._connection.unanswered += 1
                return
        self._start(call, self._serve_unary(call, message))

    def begin_message(self, call: NativeCall, message: Message) -> None:
        """The same where the message did not come at once, or was compressed."""
        if message.compressed:
            self._start(call, self._serve_message(call, message))
            return
        call.block, call.counted = message.block, message.counted
        self.begin(call, message.view)

    def begin_stream(self, call: NativeCall) -> None:
        """Have a streaming call handled."""
        self._start(call, self._serve_stream(call))

    def _start(self, call: NativeCall, serving: Any) -> None:
        self._connection.unanswered += 1
        # Not by the loop's create_task: that a task has a name already saves making one up.
        call.task = asyncio.Task(serving, loop=self._loop, name="call")

    async def _serve_message(self, call: NativeCall, message: Message | None) -> None:
        assert message is not None
        call.block, call.counted = message.block, message.counted
        call.started = True
        try:
            view = await self.intake.unpacked(call, message)
        except (ServingError, asyncio.CancelledError) as error:
            self._fail(call, error)
            self._finish(call)
            return
        message = None  # what was unpacked is not kept beside what it became
        await self._serve_unary(call, view)

    async def _serve_unary(self, call: NativeCall, message: memoryview) -> None:
        call.started = True
        try:
            if not call.stream.local_closed:
                self._reply(call, await call.method.handler(message, call))  # type: ignore[arg-type, misc]
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, the client gets a status
            self._fail(call, error)
        finally:
            self._finish(call)

    def _ended(self, call: NativeCall, outcome: Outcome) -> None:
        """What was begun without a task has come to its end."""
        call.begun = None
        try:
            if isinstance(outcome, BaseException):
                self._fail(call, outcome)
            else:
                self._reply(call, outcome)
        except Exception as error:  # noqa: BLE001 - see _serve_unary
            self._fail(call, error)
        finally:
            self._finish(call)

    async def _serve_stream(self, call: NativeCall) -> None:
        handler: Any = call.method.handler
        call.started = True
        try:
            if call.stream.local_closed:
                return
            async with aclosing(handler(call.messages(), call)) as answers:
                async for reply in answers:
                    await self._send_part(call, reply)
            self._begin_answer(call)
            self._connection.finish(call.stream, replies.end_well(call.stream.id))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see _serve_unary
            self._fail(call, error)
        finally:
            self._finish(call)

    def _finish(self, call: NativeCall) -> None:
        """The handler has ended, however."""
        self._connection.unanswered -= 1
        call.task = None
        # A call without a reader has come whole, and holds nothing.
        if call.reader is not None:
            self._close(call)
        elif call.releases is not None and call.stream.local_closed:
            self.let_go(call)
        self._outlet.flush_soon()

    def _close(self, call: NativeCall) -> None:
        """Give back what the call's messages hold."""
        budget = self._shared.budget
        if call.reader is not None:
            call.reader.drop()
            call.reader = None
        if call.inbox is not None:
            for message in call.inbox:
                budget.give_back(message.counted)
                if message.block is not None:
                    self._free(message.block)
            call.inbox.clear()
        budget.give_back(call.counted)
        call.counted = 0
        block = call.take_block()
        if block is not None:
            self._free(block)
        if call.stream.local_closed:
            self.let_go(call)

    def _free(self, block: Any) -> None:
        assert self._shared.room is not None
        self._shared.room.free(block)

    # ---- answers

    def _reply(self, call: NativeCall, reply: Reply) -> None:
        """All of a unary call's answer."""
        stream = call.stream
        if stream.local_closed:
            return
        size = size_of(reply)
        call.answered = True
        framed = size + replies.PREFIX_BYTES
        if not self._connection.lets_out(stream, framed):
            self._connection.respond(stream, replies.begin(stream.id))
            self._send(stream, reply, size, replies.end_well(stream.id))
            return
        frames: list[Buffer] = [replies.begin_whole(stream.id, size), *reply, replies.end_well(stream.id)]
        if size <= _SHORT_BYTES:
            frames = [b"".join(frames)]
        self._connection.answer(stream, frames, framed, replies.BEGIN_BYTES)
        if call.releases is not None:
            self._outlet.let_go(call)

    def _send(self, stream: Stream, reply: Reply, size: int, trailers: bytes | None) -> None:
        parts = [replies.PREFIX.pack(0, size), *reply]
        self._connection.sender.send(stream, parts, size + replies.PREFIX_BYTES, trailers)

    def _begin_answer(self, call: NativeCall) -> None:
        if not call.answered:
            call.answered = True
            self._connection.respond(call.stream, replies.begin(call.stream.id))

    async def _send_part(self, call: NativeCall, reply: Reply) -> None:
        """One message of a streaming call's answer; returns when the client's windows have let it out."""
        stream = call.stream
        size = size_of(reply)
        self._begin_answer(call)
        if stream.local_closed:
            return
        self._send(stream, reply, size, None)
        self._outlet.flush()
        while stream.queued_bytes or (self._outlet.paused_since and not stream.local_closed):
            await call.wait()

    def _fail(self, call: NativeCall, error: BaseException) -> None:
        """End the call with the status of `error`."""
        if isinstance(error, asyncio.CancelledError):
            if call.overdue:
                error = OVERDUE
            elif call.stream.local_closed:
                return
            else:
                self._status(call, STATUS[Code.CANCELLED], "The server is shutting down")
                return
        assert isinstance(error, Exception)
        self._status(call, *status_of(error))

    def refuse(self, call: NativeCall, error: ServingError) -> None:
        """End a call with `error`, whether its handler runs or not."""
        self._status(call, *status_of(error))
        self.cancel(call)
        self._outlet.flush_soon()

    def cancel(self, call: NativeCall) -> None:
        """End its handler, if it has one. One that has not begun looks at its stream when it does."""
        if call.begun is not None:
            call.begun.cancel()
            self._ended(call, asyncio.CancelledError())
        elif call.task is None:
            self._close(call)
        elif call.started:
            call.task.cancel()

    def _status(self, call: NativeCall, number: int, text: str) -> None:
        stream = call.stream
        if stream.local_closed:
            return
        block = replies.status(number, text) if call.answered else replies.refusal(number, text)
        call.answered = True
        self._connection.finish(stream, replies.end_with(stream.id, block))

    def let_go(self, call: NativeCall) -> None:
        """The answer is in the output, or never will be."""
        self._outlet.let_go(call)
        call.wake()
