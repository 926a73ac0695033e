"""gRPC on one connection: the protocol that asyncio calls, over the connection that knows HTTP/2.

    socket ─get_buffer, buffer_updated─▶ Connection ─request, data─▶ NativeCall ──task──▶ handler of the table
           ◀───────── flush ──────────── Connection ◀─respond, send──── reply, status ◀──────┘

All connections receive into one buffer of the process, which is read at once; what must stay is copied out of it. Of a
large message the rest is received straight to where it stays (`MessageReader`). Answers go out as they are, views of
shared memory included; what they refer to is released when the socket has taken them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from common.errors import (
    Code,
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    ServingError,
)
from frontends.grpc.calls import Reply, Unary
from frontends.grpc.errors import STATUS, status_of
from frontends.grpc.http2.connection import Connection
from frontends.grpc.http2.frames import ErrorCode
from frontends.grpc.http2.header_blocks import Headers
from frontends.grpc.http2.sending import Buffer
from frontends.grpc.http2.streams import Stream
from frontends.grpc.native import replies
from frontends.grpc.native.calls import NativeCall
from frontends.grpc.native.head import UNIMPLEMENTED, Head, understand
from frontends.grpc.native.intake import Intake
from frontends.grpc.native.messages import IN_PLACE_BYTES, Message
from frontends.grpc.native.shared import Shared

JOINED_BYTES = 32_768
"""Output up to this length is joined before it is written; longer output is written in its parts."""

MIN_IN_PLACE_BYTES = 16_384
"""What must be left of a frame for the next bytes to be received in place: fewer are copied with less effort."""

_OVERDUE = DeadlineExceededError("The deadline passed before the answer was there")
_MAX_REPLY = 2**32 - 1
_LAST_WORDS_S = 0.05
"""Between the end of the calls and that of the connection, at shutdown."""
_DRAIN = b"draining"
_KEEP_ALIVE = b"are you?"


class GrpcProtocol:
    """One connection; see the module's text. An asyncio.BufferedProtocol in all but descent, which would keep it from
    being compiled."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._connection: Connection[Head] = Connection(self, shared.limits)
        self._intake = Intake(shared, self._connection, self._begin_message, self._refuse, self._flush_soon)
        self._transport: Any = None
        self._paused_since = 0
        """When the socket stopped taking bytes; 0 while it takes them."""
        self._deaf = False
        """Whether nothing is read, because requests that are read would add to what waits to be written."""
        self._in_place: NativeCall | None = None
        """The call whose message is being received in place."""
        self._flush_due = False
        self._receiving = False
        self._lost = False
        self._releases: list[Callable[[], None]] = []
        """What waits until the output is written."""
        self._born = self._heard = self._asked = 0
        self._last_call = 0

    # ---- asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Greet."""
        self._transport = transport
        self._born = self._heard = self._last_call = time.monotonic_ns()
        shared = self._shared
        encrypted = transport.get_extra_info("ssl_object")
        if len(shared.connections) >= shared.most_connections or (
            encrypted is not None and encrypted.selected_alpn_protocol() != "h2"
        ):
            transport.abort()
            return
        shared.connections.add(self)
        # Whatever the socket does not take at once pauses us: only then is it known what has been written. An encrypted
        # transport, which copies what it is given, pauses from `high` bytes on: at 0 it would with nothing left.
        transport.set_write_buffer_limits(high=0 if encrypted is None else 1)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody is there any more: every call ends."""
        self._shared.connections.discard(self)
        self._lost = True
        for stream in self._connection.lose():
            self.reset(stream)
        self._release()
        self._shared.ended()

    def pause_writing(self) -> None:
        """The socket does not take more now."""
        self._paused_since = time.monotonic_ns()

    def resume_writing(self) -> None:
        """All that was given to it is written."""
        self._paused_since = 0
        if self._deaf and not self._transport.is_closing():
            self._transport.resume_reading()
        self._deaf = False
        self._connection.sender.now = time.monotonic_ns()
        self._connection.sender.written()
        self._flush()
        for stream in list(self._connection.streams.values()):
            self.drained(stream)

    def get_buffer(self, size_hint: int) -> memoryview:
        """Where the next bytes belong."""
        room = self._connection.room()
        if room is not None and room[1] >= MIN_IN_PLACE_BYTES:
            stream, left = room
            call: NativeCall | None = stream.call
            if call is not None and call.reader is not None:
                target = call.reader.room()
                if target is not None and len(target) >= MIN_IN_PLACE_BYTES:
                    self._in_place = call
                    return target[:left]
        self._in_place = None
        return self._shared.staging

    def buffer_updated(self, size: int) -> None:
        """So many bytes have come."""
        self._heard = now = time.monotonic_ns()
        self._receiving = True
        call, self._in_place = self._in_place, None
        if call is not None:
            self._intake.filled(call, size, now)
        else:
            self._connection.receive(self._shared.staging[:size], now)
        self._receiving = False
        self._flush()
        if self._paused_since and not self._deaf and not self._transport.is_closing():
            self._deaf = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more, and so reads no more either."""
        return False

    # ---- the connection's side

    def understand(self, headers: Headers) -> Head:
        """See Handler."""
        return understand(headers)

    def request(self, stream: Stream, request: Head, *, ended: bool) -> None:
        """See Handler."""
        shared = self._shared
        method = shared.methods.get(request.path)
        if request.answer is not None:
            self._connection.finish(stream, replies.end_with(stream.id, request.answer))
            return
        if method is None:
            refusal = replies.refusal(UNIMPLEMENTED, "Method not found!")
            self._connection.finish(stream, replies.end_with(stream.id, refusal))
            return
        if ended and request.content_length:
            self._connection.abort(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.content_left = request.content_length
        call = stream.call = NativeCall(self._intake, stream, request, method, time.monotonic_ns())
        self._last_call = call.began
        if not isinstance(method, Unary):
            call.ended = ended
            call.reader = self._intake.reader(call)
            self._begin(call, self._serve_stream(call))
        elif ended:
            self._refuse(call, InvalidArgumentError("The call has one message, and none came"))

    def data(self, stream: Stream, piece: memoryview, *, ended: bool) -> None:
        """See Handler."""
        call: NativeCall = stream.call
        size = len(piece) - 5
        # Nearly every small request: the whole message at once. (Unary: a streaming call has its reader.)
        if (
            ended
            and call.reader is None
            and 0 <= size < IN_PLACE_BYTES
            and piece[0] == 0
            and int.from_bytes(piece[1:5], "big") == size <= self._shared.message_bytes
        ):
            self._begin(call, self._serve_unary(call, memoryview(bytes(piece[5:]))))
        else:
            self._intake.read(call, piece, self._heard, ended=ended)

    def reset(self, stream: Stream) -> None:
        """See Handler."""
        call: NativeCall | None = stream.call
        if call is None:
            return
        self._cancel(call)

    def sent(self, stream: Stream) -> None:
        """See Handler."""
        call: NativeCall | None = stream.call
        if call is not None:
            self._let_go(call)

    def drained(self, stream: Stream) -> None:
        """See Handler."""
        if stream.call is not None:
            stream.call.wake()

    def pinged(self, payload: bytes) -> None:
        """See Handler."""
        if payload == _DRAIN:
            self._connection.end()

    # ---- handlers

    def _begin(self, call: NativeCall, serving: Any) -> None:
        self._connection.unanswered += 1
        call.task = self._loop.create_task(serving)

    def _begin_message(self, call: NativeCall, message: Message) -> None:
        self._begin(call, self._serve_message(call, message))

    async def _serve_message(self, call: NativeCall, message: Message | None) -> None:
        """A unary call whose message did not come at once, or was compressed."""
        assert message is not None
        call.block, call.counted = message.block, message.counted
        call.started = True
        try:
            view = await self._intake.unpacked(call, message)
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
        self._close(call)
        self._flush_soon()

    def _close(self, call: NativeCall) -> None:
        """Give back what the call's messages hold."""
        budget = self._shared.budget
        if call.reader is not None:
            call.reader.drop()
            call.reader = None
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
            self._let_go(call)

    def _free(self, block: Any) -> None:
        assert self._shared.room is not None
        self._shared.room.free(block)

    # ---- answers out

    def _reply(self, call: NativeCall, reply: Reply) -> None:
        """All of a unary call's answer."""
        stream = call.stream
        if stream.local_closed:
            return
        size = _size(reply)
        call.answered = True
        self._connection.respond(stream, replies.begin(stream.id))
        parts = [replies.PREFIX.pack(0, size), *reply]
        self._connection.sender.send(stream, parts, size + 5, replies.end_well(stream.id))

    def _begin_answer(self, call: NativeCall) -> None:
        if not call.answered:
            call.answered = True
            self._connection.respond(call.stream, replies.begin(call.stream.id))

    async def _send_part(self, call: NativeCall, reply: Reply) -> None:
        """One message of a streaming call's answer; returns when the client's windows have let it out."""
        stream = call.stream
        size = _size(reply)
        self._begin_answer(call)
        if stream.local_closed:
            return
        self._connection.sender.send(stream, [replies.PREFIX.pack(0, size), *reply], size + 5, None)
        self._flush()
        while stream.queued_bytes or (self._paused_since and not stream.local_closed):
            await call.wait()

    def _fail(self, call: NativeCall, error: BaseException) -> None:
        """End the call with the status of `error`."""
        if isinstance(error, asyncio.CancelledError):
            if call.overdue:
                error = _OVERDUE
            elif call.stream.local_closed:
                return
            else:
                self._status(call, STATUS[Code.CANCELLED], "The server is shutting down")
                return
        assert isinstance(error, Exception)
        self._status(call, *status_of(error))

    def _refuse(self, call: NativeCall, error: ServingError) -> None:
        """End a call with `error`, whether its handler runs or not."""
        self._status(call, *status_of(error))
        self._cancel(call)
        self._flush_soon()

    def _cancel(self, call: NativeCall) -> None:
        """End its handler, if it has one. One that has not begun looks at its stream when it does."""
        if call.task is None:
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

    def _let_go(self, call: NativeCall) -> None:
        """The answer is in the output, or never will be: what it refers to goes when the output is written."""
        if call.releases:
            self._releases += call.releases
            call.releases = None
        call.wake()

    # ---- the socket

    def _flush_soon(self) -> None:
        """Write at the end of this round of the loop, with whatever else comes; at once where nothing else can."""
        if self._receiving or self._flush_due:
            return
        if self._connection.unanswered:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        connection = self._connection
        while not self._paused_since and not self._transport.is_closing():
            output = connection.take()
            if not output:
                break
            self._write(output)
            if not self._paused_since:
                self._release()
                connection.sender.written()
        if self._lost or not self._paused_since:
            # Also of calls that were given up, after which nothing is written.
            self._release()
        ended = connection.closed or (connection.ending and not connection.streams)
        if ended and not self._lost and not self._paused_since:
            self._transport.close()

    def _write(self, output: list[Buffer]) -> None:
        if _size(output) <= JOINED_BYTES:
            self._transport.write(b"".join(output))
        else:
            self._transport.writelines(output)

    def _release(self) -> None:
        """What the written output referred to is free."""
        if self._releases:
            releases, self._releases = self._releases, []
            for release in releases:
                release()

    # ---- time

    def sweep(self, now: int) -> None:
        """Called a few times a second: end what has taken too long."""
        patience, connection = self._shared.patience, self._connection
        connection.sender.now = now
        stall = int(patience.stall_s * 1e9)
        for stream in list(connection.streams.values()):
            if stream.call is not None:
                self._sweep_call(stream.call, now, stall)
        for stream in connection.sender.stalled(now - stall):
            connection.abort(stream, ErrorCode.CANCEL)
            self.reset(stream)
        silent = now - self._heard
        if (
            (not connection.greeted and now - self._born > patience.greeting_s * 1e9)
            or (connection.unfinished_since and now - connection.unfinished_since > stall)
            or (self._paused_since and now - self._paused_since > stall)
            or (self._asked > self._heard and now - self._asked > patience.answer_s * 1e9)
        ):
            self._transport.abort()
        elif silent > patience.keep_alive_s * 1e9 and self._asked <= self._heard:
            self._asked = now
            connection.ping(_KEEP_ALIVE)
        elif not connection.streams and now - self._last_call > patience.idle_s * 1e9:
            connection.end()
        self._flush()

    def _sweep_call(self, call: NativeCall, now: int, stall: int) -> None:
        if call.deadline_ns is not None and now >= call.deadline_ns and not call.overdue:
            call.overdue = True
            self._refuse(call, _OVERDUE)
        elif call.task is None and not call.stream.remote_closed:
            age = now - call.began
            slow = age > stall and call.received < self._shared.patience.slowest_bytes_s * age / 1e9
            if slow or now - call.heard > stall:
                self._refuse(call, DeadlineExceededError("The message did not come in time"))

    def drain(self) -> None:
        """Take no new calls; the connection ends when those that run are answered."""
        self._connection.announce_end()
        self._connection.ping(_DRAIN)
        self._flush()

    def end(self) -> None:
        """Cancel what runs, and end."""
        self._connection.end()
        for stream in list(self._connection.streams.values()):
            if stream.call is not None:
                self._cancel(stream.call)
        self._loop.call_later(_LAST_WORDS_S, self._transport.abort)


def _size(buffers: Sequence[Buffer]) -> int:
    """Raises ResourceExhaustedError for more than a message can have."""
    size = sum(map(len, buffers))
    if size > _MAX_REPLY:
        raise ResourceExhaustedError(f"An answer of {size} bytes is longer than gRPC's messages can be")
    return size
