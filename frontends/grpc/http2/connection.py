"""The server's side of one HTTP/2 connection, as gRPC needs it (RFC 9113). Pure: bytes in, calls and bytes out.

    receive ──▶ frames ──▶ checks ──▶ Handler.request, data, reset …        `room` and `filled` receive in place
    respond, send, refuse ──▶ Sender ──▶ take ──▶ the socket

What is legal and concerns nobody here (priorities, unknown frames, settings of pushes) is read and counted. A fault of
a stream ends that stream; a fault of the connection says GOAWAY, and `closed` is true. Nothing that a client sends
raises an exception.

DATA is handed on in pieces as it comes, so that a frame may be longer than any buffer; all other frames are read whole
and are bounded (`Limits.header_block_bytes`).
"""

from typing import Generic, Protocol, TypeVar

from frontends.grpc.http2 import frames as f
from frontends.grpc.http2.controls import apply_setting, check_control, unpadded
from frontends.grpc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from frontends.grpc.http2.header_blocks import BlockReader, Headers
from frontends.grpc.http2.limits import CONTROL_FRAMES_A_SECOND, RESETS_A_SECOND, Bucket, Limits
from frontends.grpc.http2.sending import Buffer, Sender
from frontends.grpc.http2.streams import Stream

Request = TypeVar("Request")

_REMEMBERED = 256
"""Streams that the server has ended early: what was under way for them is not the client's fault."""


class Handler(Protocol[Request]):
    """The owner of a connection. `piece` is valid during the call alone."""

    def understand(self, headers: Headers) -> Request:
        """What a request's headers mean. Raises ValueError for those that are malformed (section 8.1.1)."""
        ...

    def request(self, stream: Stream, request: Request, *, ended: bool) -> None:
        """A request has begun; `ended`: it has no body."""
        ...

    def data(self, stream: Stream, piece: memoryview, *, ended: bool) -> None:
        """A part of its body; `ended`: the last one, and perhaps empty."""
        ...

    def reset(self, stream: Stream) -> None:
        """The client has given the request up, or has broken the rules: nothing can be answered any more."""
        ...

    def sent(self, stream: Stream) -> None:
        """The last frame of the answer is in the output."""
        ...

    def drained(self, stream: Stream) -> None:
        """Nothing of the answer waits any more, and it is not at its end."""
        ...

    def pinged(self, payload: bytes) -> None:
        """A PING of the server's was answered."""
        ...


class Connection(Generic[Request]):
    """From the preface to the end."""

    def __init__(self, handler: Handler[Request], limits: Limits) -> None:
        self._handler = handler
        self._limits = limits
        self._blocks = BlockReader(handler.understand, limits.header_list_bytes)
        self.sender = Sender(self._sent, handler.drained)
        self.streams: dict[int, Stream] = {}
        self.closed = False
        """Nothing that comes counts any more; what is in the output is to be sent still."""
        self.greeted = False
        """Whether the client's preface and settings have come."""
        self.last_stream = 0
        self.unanswered = 0
        """Calls whose handlers have not ended. The owner counts them."""
        self.fault = ""
        """Why the server has closed it, for the log."""
        self._accepts_up_to = f.MAX_WINDOW
        self._preface = f.PREFACE
        self._partial = bytearray()
        """The beginning of a frame, of which `_wanted` bytes are wanted before it can be read."""
        self._wanted = 0
        self.unfinished_since = 0
        """When a frame or a header block began that is not at its end; 0 where there is none."""
        self._payload_left = 0
        """Bytes of a DATA frame that have not come yet."""
        self._payload_of: Stream | None = None
        self._payload_ends = False
        self._block = bytearray()
        self._block_of = 0
        """Stream of the header block that has begun; nothing else may come before its end."""
        self._block_ends = False
        self._block_frames = 0
        self._ended_early: dict[int, None] = {}
        self._window = limits.connection_window
        self._to_credit = 0
        self._resets = Bucket(limits.resets, RESETS_A_SECOND, "calls were given up")
        self._control = Bucket(limits.control_frames, CONTROL_FRAMES_A_SECOND, "frames that move nothing")
        self._now = 0
        greeting = {
            f.MAX_CONCURRENT_STREAMS: limits.streams,
            f.INITIAL_WINDOW_SIZE: limits.window,
            f.MAX_FRAME_SIZE: limits.frame_bytes,
            f.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        self.sender.put(f.settings(greeting))
        self.sender.put(f.window_update(0, limits.connection_window - f.DEFAULT_WINDOW))

    # ---- incoming bytes

    def receive(self, view: memoryview, now: int) -> None:
        """Take what has come; `now` in nanoseconds of any clock that does not go back."""
        if self.closed:
            return
        self._now = self.sender.now = now
        if self._partial:
            self._partial += view
            if len(self._partial) < self._wanted:
                return
            view = memoryview(bytes(self._partial))
            self._partial.clear()
        try:
            if self._preface:
                view = self._read_preface(view)
            used = self._read_frames(view)
        except ConnectionFault as fault:
            self._fail(fault)
            return
        if used < len(view):
            self._partial += view[used:]
        if not self._partial and not self._block_of:
            self.unfinished_since = 0
        elif not self.unfinished_since or (used and not self._block_of):
            # A busy client's bytes may come so that there is always the beginning of a frame, each time another's.
            self.unfinished_since = now

    def room(self) -> tuple[Stream, int] | None:
        """The stream of which data must come next, and how much of it, for owners that receive it in place."""
        if self._payload_left and self._payload_of is not None and not self._partial:
            return self._payload_of, self._payload_left
        return None

    def filled(self, piece: memoryview, now: int) -> None:
        """The owner has received this much of what `room` told."""
        self._now = self.sender.now = now
        self._take_payload(piece)

    def _read_preface(self, view: memoryview) -> memoryview:
        size = min(len(view), len(self._preface))
        if view[:size] != self._preface[:size]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface")
        self._preface = self._preface[size:]
        return view[size:]

    def _read_frames(self, view: memoryview) -> int:
        """How many bytes were used; the others belong to a frame that has not come whole."""
        position, end = 0, len(view)
        unpack = f.HEAD.unpack_from
        while True:
            if self._payload_left:
                if position == end:
                    return position
                piece = view[position : position + self._payload_left]
                position += len(piece)
                self._take_payload(piece)
            if end - position < f.HEAD_BYTES:
                self._wanted = f.HEAD_BYTES
                return position
            high, low, kind, flags, number = unpack(view, position)
            length, number = high << 8 | low, number & 0x7FFFFFFF
            if kind == f.DATA and not flags & f.PADDED:
                self._check_head(length, kind, flags)
                position += f.HEAD_BYTES
                self._begin_data(number, length, length, bool(flags & f.END_STREAM))
                continue
            if end - position < f.HEAD_BYTES + length:
                # Its head alone can be wrong already.
                self._check_head(length, kind, flags)
                self._wanted = f.HEAD_BYTES + length
                return position
            self._check_head(length, kind, flags)
            position += f.HEAD_BYTES
            self._read_frame(kind, flags, number, view[position : position + length])
            position += length

    def _check_head(self, length: int, kind: int, flags: int) -> None:
        if length > self._limits.frame_bytes:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is longer than the settings allow")
        if kind != f.DATA and length > self._limits.header_block_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a frame that is not DATA is too long")
        if self._block_of and kind != f.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block is not at its end")
        if not self.greeted and (kind != f.SETTINGS or flags & f.ACK):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")

    def _read_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        try:
            if kind == f.HEADERS:
                self._read_headers(flags, number, payload)
            elif kind == f.DATA:
                self._read_padded_data(flags, number, payload)
            elif kind == f.WINDOW_UPDATE:
                self._read_window_update(number, payload)
            elif kind == f.CONTINUATION:
                self._read_continuation(flags, number, payload)
            elif kind == f.RST_STREAM:
                self._read_reset(number, payload)
            else:
                self._control.spend(self._now)
                self._read_other(kind, flags, number, payload)
        except StreamFault as fault:
            self._fail_stream(fault)

    # ---- data

    def _begin_data(self, number: int, flow: int, length: int, ends: bool) -> None:
        """The head of a DATA frame: `flow` bytes leave the windows, `length` of them are data."""
        self._window -= flow
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        self._to_credit += flow
        if self._to_credit >= self._limits.connection_window // 2:
            self.sender.put(f.window_update(0, self._to_credit))
            self._window += self._to_credit
            self._to_credit = 0
        self._payload_left, self._payload_ends, self._payload_of = length, ends, None
        if not length and not ends:
            self._control.spend(self._now)
        try:
            stream = self._open_stream(number, f.DATA)
            if stream is not None:
                stream.receive_window -= flow
                self._check_data(stream, length, ends)
        except StreamFault as fault:
            self._fail_stream(fault)
            return
        self._payload_of = stream
        if not length:
            self._take_payload(memoryview(b""))

    def _check_data(self, stream: Stream, length: int, ends: bool) -> None:
        if stream.receive_window < 0:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        if stream.content_left is not None:
            stream.content_left -= length
            if stream.content_left < 0 or (ends and stream.content_left):
                raise StreamFault(
                    stream.id, ErrorCode.PROTOCOL_ERROR, "the body is not as long as it should be"
                )

    def _take_payload(self, piece: memoryview) -> None:
        self._payload_left -= len(piece)
        stream = self._payload_of
        if stream is None:
            return
        ended = self._payload_ends and not self._payload_left
        if ended:
            self._payload_of = None
            self._close_remote(stream)
        if not stream.local_closed:
            self._handler.data(stream, piece, ended=ended)

    def _read_padded_data(self, flags: int, number: int, payload: memoryview) -> None:
        data = unpadded(flags, payload)
        self._begin_data(number, len(payload), len(data), bool(flags & f.END_STREAM))
        if data:
            self._take_payload(data)

    # ---- headers

    def _read_headers(self, flags: int, number: int, payload: memoryview) -> None:
        block = unpadded(flags, payload)
        if flags & f.PRIORITY_FLAG:
            if len(block) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS is too short for its priority")
            block = block[5:]
        if not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        ends = bool(flags & f.END_STREAM)
        if flags & f.END_HEADERS:
            self._read_block(number, bytes(block), ends)
            return
        self._block_of, self._block_ends, self._block_frames = number, ends, 1
        self._block += block

    def _read_continuation(self, flags: int, number: int, payload: memoryview) -> None:
        if number != self._block_of or not number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        self._block_frames += 1
        self._block += payload
        if (
            len(self._block) > self._limits.header_block_bytes
            or self._block_frames > self._limits.continuations
        ):
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too long")
        if flags & f.END_HEADERS:
            block, self._block, self._block_of = bytes(self._block), bytearray(), 0
            self._read_block(number, block, self._block_ends)

    def _read_block(self, number: int, block: bytes, ends: bool) -> None:
        if number <= self.last_stream:
            self._read_trailers(number, block, ends)
            return
        self.last_stream = number
        try:
            request = self._blocks.read(block)
        except ValueError as error:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, str(error)) from error
        if number > self._accepts_up_to:
            return
        if max(len(self.streams), self.unanswered) >= self._limits.streams:
            raise StreamFault(number, ErrorCode.REFUSED_STREAM, "too many calls at once")
        stream = Stream(number, self.sender.initial_window, self._limits.window)
        stream.remote_closed = ends
        self.streams[number] = stream
        self._handler.request(stream, request, ended=ends)

    def _read_trailers(self, number: int, block: bytes, ends: bool) -> None:
        """A second block of a stream ends it. It is decoded in any case, for what it adds to the table."""
        headers = self._blocks.trailers(block)
        stream = self._open_stream(number, f.HEADERS)
        if stream is None:
            return
        if not ends or any(name.startswith(b":") for name, _ in headers):
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "trailers are malformed")
        if stream.content_left:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "the body is not as long as it should be")
        self._close_remote(stream)
        if not stream.local_closed:
            self._handler.data(stream, memoryview(b""), ended=True)

    # ---- the other frames

    def _read_window_update(self, number: int, payload: memoryview) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = f.word(payload)
        if not number:
            if not increment:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            self.sender.credit(increment)
            return
        self._check_not_idle(number)
        stream = self.streams.get(number)
        if not increment:
            raise StreamFault(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        if stream is None or not stream.queued_bytes:
            self._control.spend(self._now)
        if stream is not None:
            self.sender.credit_stream(stream, increment)

    def _read_reset(self, number: int, payload: memoryview) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        self._check_not_idle(number)
        stream = self.streams.get(number)
        if stream is None:
            self._control.spend(self._now)
            return
        self._resets.spend(self._now)
        self._forget(stream)
        self._handler.reset(stream)

    def _read_other(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        check_control(kind, flags, number, payload)
        if kind == f.SETTINGS and not flags & f.ACK:
            self.greeted = True
            for setting, value in f.read_settings(payload):
                apply_setting(self.sender, self.streams.values(), setting, value)
            self._answer_control(f.SETTINGS_ACK)
            self.sender.pump()
        elif kind == f.PING and flags & f.ACK:
            self._handler.pinged(bytes(payload))
        elif kind == f.PING:
            self._answer_control(f.ping(bytes(payload), ack=True))

    def _answer_control(self, frame: bytes) -> None:
        if self.sender.held_back > self._limits.control_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")
        self.sender.put(frame)

    # ---- outgoing

    def respond(self, stream: Stream, headers: bytes) -> None:
        """Send frames of headers that do not end the stream."""
        if not stream.local_closed:
            self.sender.put(headers)

    def finish(self, stream: Stream, trailers: bytes) -> None:
        """Send frames that end the stream, after all its data."""
        if stream.local_closed:
            return
        self.sender.finish(stream, trailers)

    def give_back(self, stream: Stream, size: int) -> None:
        """`size` bytes of a stream's body need no memory of the connection any more: the client may send as many."""
        if stream.remote_closed or stream.local_closed:
            return
        stream.consumed += size
        if stream.consumed >= self._limits.window // 2:
            self.widen(stream, stream.consumed)
            stream.consumed = 0

    def widen(self, stream: Stream, size: int) -> None:
        """Let the client send `size` bytes more of this stream."""
        stream.receive_window += size
        self.sender.put(f.window_update(stream.id, size))

    def abort(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once."""
        if stream.id in self.streams:
            self._end_early(stream, code)

    def ping(self, payload: bytes) -> None:
        """Ask the client to answer; `payload` has eight bytes."""
        self.sender.put(f.ping(payload, ack=False))

    def announce_end(self) -> None:
        """Ask the client to open no streams any more; those that it opens until it has read this are served."""
        if not self.closed:
            self.sender.put(f.goaway(f.MAX_WINDOW, ErrorCode.NO_ERROR, ""))

    def end(self, code: ErrorCode = ErrorCode.NO_ERROR, text: str = "") -> None:
        """Take no further streams; those that are open go on."""
        if not self.closed and self._accepts_up_to > self.last_stream:
            self._accepts_up_to = self.last_stream
            self.sender.put(f.goaway(self.last_stream, code, text))

    @property
    def ending(self) -> bool:
        """Whether no further streams are taken."""
        return self._accepts_up_to != f.MAX_WINDOW

    def lose(self) -> list[Stream]:
        """The client has gone: the streams that were open."""
        self.closed = True
        lost = list(self.streams.values())
        for stream in lost:
            self._forget(stream)
        return lost

    def take(self) -> list[Buffer]:
        """What is to be written now."""
        return self.sender.take()

    # ---- ends

    def _open_stream(self, number: int, kind: int) -> Stream | None:
        """The stream if its client may send this; None when it does not matter any more."""
        self._check_not_idle(number)
        stream = self.streams.get(number)
        if stream is None:
            if number in self._ended_early or number > self._accepts_up_to:
                return None
            if kind == f.HEADERS:
                raise ConnectionFault(ErrorCode.STREAM_CLOSED, "HEADERS of a stream that was closed")
            self._control.spend(self._now)
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "the stream was closed")
        if stream.remote_closed:
            raise StreamFault(number, ErrorCode.STREAM_CLOSED, "the request was at its end")
        return stream

    def _check_not_idle(self, number: int) -> None:
        if number > self.last_stream or not number & 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame of a stream that was never opened")

    def _close_remote(self, stream: Stream) -> None:
        stream.remote_closed = True
        if stream.local_closed:
            self._forget(stream)

    def _sent(self, stream: Stream) -> None:
        """The answer is complete. A client that is still sending is told to stop."""
        if stream.remote_closed:
            self._forget(stream)
        else:
            self._end_early(stream, ErrorCode.NO_ERROR)
        self._handler.sent(stream)

    def _end_early(self, stream: Stream, code: ErrorCode) -> None:
        self._remember(stream.id)
        self.sender.put(f.rst_stream(stream.id, code))
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        stream.local_closed = stream.remote_closed = True
        self.streams.pop(stream.id, None)
        self.sender.drop(stream)
        if self._payload_of is stream:
            self._payload_of = None

    def _remember(self, number: int) -> None:
        if len(self._ended_early) >= _REMEMBERED:
            del self._ended_early[next(iter(self._ended_early))]
        self._ended_early[number] = None

    def _fail_stream(self, fault: StreamFault) -> None:
        self._resets.spend(self._now)
        stream = self.streams.get(fault.stream)
        self._remember(fault.stream)
        self._answer_control(f.rst_stream(fault.stream, fault.code))
        if stream is not None:
            self._forget(stream)
            self._handler.reset(stream)

    def _fail(self, fault: ConnectionFault) -> None:
        self.closed = True
        self.fault = fault.text
        self.sender.put(f.goaway(self.last_stream, fault.code, fault.text))
