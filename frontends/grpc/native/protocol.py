"""gRPC on one connection: the protocol that asyncio calls, over the connection that knows HTTP/2.

    socket ─get_buffer, buffer_updated─▶ Connection ─whole, request, data─▶ Serving ──task──▶ handler of the table
           ◀────────── Outlet ────────── Connection ◀── answer, send, finish ── Serving ◀──────┘

All connections receive into one buffer of the process, which is read at once; what must stay is copied out of it. Of a
large message the rest is received straight to where it stays (`MessageReader`), if its frames are large too. Answers go
out as they are, views of shared memory included; what they refer to is released when the socket has taken them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any, Final

from common.errors import DeadlineExceededError, InvalidArgumentError
from frontends.grpc.calls import Unary
from frontends.grpc.http2.connection import Connection
from frontends.grpc.http2.frames import ErrorCode
from frontends.grpc.http2.header_blocks import Headers
from frontends.grpc.http2.streams import Stream
from frontends.grpc.native import replies
from frontends.grpc.native.calls import NativeCall, Opening
from frontends.grpc.native.head import UNIMPLEMENTED, understand
from frontends.grpc.native.messages import IN_PLACE_BYTES
from frontends.grpc.native.outlet import Outlet
from frontends.grpc.native.replies import PREFIX, PREFIX_BYTES
from frontends.grpc.native.serving import OVERDUE, Serving
from frontends.grpc.native.shared import Shared

MIN_IN_PLACE_BYTES = 16_384
"""What must be left of a frame for the next bytes to be received in place: fewer are copied with less effort."""

ACKNOWLEDGED_BYTES: Final = 16_384
"""What is received in one piece of this length or more is acknowledged at once. It is a part of a large message, and a
client whose window is full sends no more before it hears of that; but where questions and answers alternate, the kernel
keeps an acknowledgement back for 40 ms.
"""

_TCP: Final = socket.IPPROTO_TCP
_QUICKACK: Final = socket.TCP_QUICKACK
_ON_TCP: Final = (socket.AF_INET, socket.AF_INET6)

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
        self._connection: Connection[Opening] = Connection(self, shared.limits)
        self._outlet = Outlet(self._connection, self._loop)
        self._serving = Serving(shared, self._connection, self._outlet)
        self._intake = self._serving.intake
        self._staging = shared.staging
        self._transport: Any = None
        self._tcp: Any = None
        """The socket, if it is one of TCP."""
        self._in_place = False
        """Whether a part of a body is being received to where it stays."""
        self._born = self._heard = self._asked = 0
        self._last_call = 0

    # ---- asyncio's side

    def connection_made(self, transport: Any) -> None:
        """Greet."""
        self._transport = transport
        self._outlet.open(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in _ON_TCP:
            self._tcp = connected
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
        self._outlet.flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody is there any more: every call ends."""
        self._shared.connections.discard(self)
        for stream in self._connection.lose():
            self.reset(stream)
        self._outlet.lose()
        self._shared.ended()

    def pause_writing(self) -> None:
        """The socket does not take more now."""
        self._outlet.pause()

    def resume_writing(self) -> None:
        """All that was given to it is written."""
        self._outlet.resume()
        for stream in list(self._connection.streams.values()):
            self.drained(stream)

    def get_buffer(self, size_hint: int) -> memoryview:
        """Where the next bytes belong."""
        left = self._connection.payload_left
        if left >= MIN_IN_PLACE_BYTES:
            stream = self._connection.receiving()
            target = None if stream is None else self.room(stream)
            if target is not None and len(target) >= MIN_IN_PLACE_BYTES:
                self._in_place = True
                return target[:left]
        self._in_place = False
        return self._staging

    def buffer_updated(self, size: int) -> None:
        """So many bytes have come."""
        self._heard = now = time.monotonic_ns()
        if size >= ACKNOWLEDGED_BYTES and self._tcp is not None:
            self._acknowledge()
        outlet = self._outlet
        outlet.receiving = True
        if self._in_place:
            self._in_place = False
            self._connection.filled(size, now)
        else:
            self._connection.receive(self._staging[:size], now)
        outlet.receiving = False
        outlet.received()

    def _acknowledge(self) -> None:
        """What has come; the kernel takes it for this once."""
        # A socket that is about to go is found by whoever reads it next.
        with contextlib.suppress(OSError):
            self._tcp.setsockopt(_TCP, _QUICKACK, 1)

    def data_received(self, data: bytes) -> None:
        """The same from loops that know a BufferedProtocol by its descent alone."""
        self._heard = now = time.monotonic_ns()
        self._outlet.receiving = True
        self._connection.receive(memoryview(data), now)
        self._outlet.receiving = False
        self._outlet.received()

    def eof_received(self) -> bool:
        """The client sends no more, and so reads no more either."""
        return False

    # ---- the connection's side

    def understand(self, headers: Headers) -> Opening:
        """See Handler."""
        head = understand(headers)
        return Opening(head, self._shared.methods.get(head.path))

    def whole(self, stream: Stream, request: Opening, body: memoryview) -> bool:
        """See Handler."""
        size, method = len(body) - PREFIX_BYTES, request.method
        if method is None or not request.direct or not self._is_message(body, size):
            return False
        length = request.head.content_length
        if length is not None and length != len(body):
            return False
        self._last_call = now = self._heard
        call = stream.call = NativeCall(self._intake, stream, request.head, method, now)
        self._serving.begin(call, memoryview(body[PREFIX_BYTES:].tobytes()))
        return True

    def request(self, stream: Stream, request: Opening, *, ended: bool) -> None:
        """See Handler."""
        head, method = request.head, request.method
        if head.answer is not None:
            self._connection.finish(stream, replies.end_with(stream.id, head.answer))
            return
        if method is None:
            refusal = replies.refusal(UNIMPLEMENTED, "Method not found!")
            self._connection.finish(stream, replies.end_with(stream.id, refusal))
            return
        if ended and head.content_length:
            self._connection.abort(stream, ErrorCode.PROTOCOL_ERROR)
            return
        stream.content_left = head.content_length
        self._last_call = now = self._heard
        call = stream.call = NativeCall(self._intake, stream, head, method, now)
        if not isinstance(method, Unary):
            call.ended = ended
            self._intake.begin(call)
            self._serving.begin_stream(call)
        elif ended:
            self._serving.refuse(call, InvalidArgumentError("The call has one message, and none came"))

    def data(self, stream: Stream, piece: memoryview, *, ended: bool) -> None:
        """See Handler."""
        call: NativeCall = stream.call
        # Nearly every small request: the whole message at once. (Unary: a streaming call has its reader.)
        if ended and call.reader is None and self._is_message(piece, len(piece) - PREFIX_BYTES):
            self._serving.begin(call, memoryview(piece[PREFIX_BYTES:].tobytes()))
        else:
            self._intake.read(call, piece, self._heard, ended=ended)

    def _is_message(self, piece: memoryview, size: int) -> bool:
        """Whether it is one message of `size` bytes, not compressed, and no large one."""
        return (
            0 <= size < IN_PLACE_BYTES
            and PREFIX.unpack_from(piece) == (0, size)
            and size <= self._shared.message_bytes
        )

    def room(self, stream: Stream) -> memoryview | None:
        """See Handler."""
        call: NativeCall | None = stream.call
        return None if call is None or call.reader is None else call.reader.room()

    def placed(self, stream: Stream, size: int, *, ended: bool) -> None:
        """See Handler."""
        self._intake.placed(stream.call, size, self._heard, ended=ended)

    def reset(self, stream: Stream) -> None:
        """See Handler."""
        if stream.call is not None:
            self._serving.cancel(stream.call)

    def sent(self, stream: Stream) -> None:
        """See Handler."""
        call: NativeCall | None = stream.call
        if call is not None:
            self._serving.let_go(call)

    def drained(self, stream: Stream) -> None:
        """See Handler."""
        if stream.call is not None:
            stream.call.wake()

    def pinged(self, payload: bytes) -> None:
        """See Handler."""
        if payload == _DRAIN:
            self._connection.end()

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
            or (self._outlet.paused_since and now - self._outlet.paused_since > stall)
            or (self._asked > self._heard and now - self._asked > patience.answer_s * 1e9)
        ):
            self._transport.abort()
        elif silent > patience.keep_alive_s * 1e9 and self._asked <= self._heard:
            self._asked = now
            connection.ping(_KEEP_ALIVE)
        elif not connection.streams and now - self._last_call > patience.idle_s * 1e9:
            connection.end()
        self._outlet.flush()

    def _sweep_call(self, call: NativeCall, now: int, stall: int) -> None:
        if call.deadline_ns is not None and now >= call.deadline_ns and not call.overdue:
            call.overdue = True
            self._serving.refuse(call, OVERDUE)
        elif call.task is None and not call.stream.remote_closed:
            age = now - call.began
            slow = age > stall and call.received < self._shared.patience.slowest_bytes_s * age / 1e9
            if slow or now - call.heard > stall:
                self._serving.refuse(call, DeadlineExceededError("The message did not come in time"))

    def drain(self) -> None:
        """Take no new calls; the connection ends when those that run are answered."""
        self._connection.announce_end()
        self._connection.ping(_DRAIN)
        self._outlet.flush()

    def end(self) -> None:
        """Cancel what runs, and end."""
        self._connection.end()
        for stream in list(self._connection.streams.values()):
            if stream.call is not None:
                self._serving.cancel(stream.call)
        self._loop.call_later(_LAST_WORDS_S, self._transport.abort)
