"""The server's side of one HTTP/2 connection, as gRPC needs it (RFC 9113). Pure: bytes in, calls and bytes out.

    receive ──▶ frames ──▶ checks ──▶ Handler.request, data, reset …       `filled`: the owner has received in place
    respond, send, refuse ──▶ Sender ──▶ take ──▶ the socket

What is legal and concerns nobody here (priorities, unknown frames, settings of pushes) is read and counted. A fault of
a stream ends that stream; a fault of the connection says GOAWAY, and `closed` is true. Nothing that a client sends
raises an exception.

DATA is handed on in pieces as it comes (`Bodies`); all other frames are read whole and are bounded
(`Limits.header_block_bytes`). A usual small call, a HEADERS frame with a block that is known and a DATA frame that ends
it, is read in one pass where both are there.
"""

from frontends.grpc.http2 import frames as f
from frontends.grpc.http2.bodies import Bodies
from frontends.grpc.http2.controls import apply_setting, check_control, unpadded
from frontends.grpc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from frontends.grpc.http2.handler import Handler, Request
from frontends.grpc.http2.header_blocks import BlockReader
from frontends.grpc.http2.limits import Limits
from frontends.grpc.http2.streams import Stream


class Connection(Bodies[Request]):
    """From the preface to the end."""

    def __init__(self, handler: Handler[Request], limits: Limits) -> None:
        greeting = {
            f.MAX_CONCURRENT_STREAMS: limits.streams,
            f.INITIAL_WINDOW_SIZE: limits.window,
            f.MAX_FRAME_SIZE: limits.frame_bytes,
            f.MAX_HEADER_LIST_SIZE: limits.header_list_bytes,
        }
        super().__init__(handler, limits, f.settings(greeting))
        self._blocks = BlockReader(handler.understand, limits.header_list_bytes)
        self.greeted = False
        """Whether the client's preface and settings have come."""
        self._preface = f.PREFACE
        self._partial = bytearray()
        """The beginning of a frame, of which `_wanted` bytes are wanted before it can be read."""
        self._wanted = 0
        self.unfinished_since = 0
        """When a frame or a header block began that is not at its end; 0 where there is none."""
        self._block = bytearray()
        self._block_of = 0
        """Stream of the header block that has begun; nothing else may come before its end."""
        self._block_ends = False
        self._block_frames = 0
        self._most_streams = limits.streams
        self._window = limits.window
        self._whole_bytes = min(limits.frame_bytes, limits.window)
        """Longest body that may come in one frame, unasked."""

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
            if self.payload_left:
                if position == end:
                    return position
                position = self._read_payload(view, position, end)
                continue
            if end - position < f.HEAD_BYTES:
                self._wanted = f.HEAD_BYTES
                return position
            high, low, kind, flags, number = unpack(view, position)
            length, number = high << 8 | low, number & 0x7FFFFFFF
            if kind == f.HEADERS and flags == f.END_HEADERS:
                used = self._read_call(view, position + f.HEAD_BYTES, length, end, number)
                if used:
                    position = used
                    continue
            self._check_head(length, kind, flags)
            if kind == f.DATA and not flags & f.PADDED:
                position += f.HEAD_BYTES
                self._begin_data(number, length, length, bool(flags & f.END_STREAM))
                continue
            if end - position < f.HEAD_BYTES + length:
                # Its head alone could have been wrong already.
                self._wanted = f.HEAD_BYTES + length
                return position
            position += f.HEAD_BYTES
            self._read_frame(kind, flags, number, view[position : position + length])
            position += length

    def _read_call(self, view: memoryview, start: int, length: int, end: int, number: int) -> int:
        """Nearly every small call: a header block that is known, and the whole body in the frame behind it.

        Where what was read ends; 0 where nothing was, because something is unusual, which is for others to judge.
        """
        position = start + length
        body = position + f.HEAD_BYTES
        if end < body:
            return 0
        high, low, kind, flags, same = f.HEAD.unpack_from(view, position)
        size: int = high << 8 | low
        most = self._most_streams
        if (
            kind != f.DATA
            or flags != f.END_STREAM
            or same & 0x7FFFFFFF != number
            or not self.last_stream < number <= self._accepts_up_to
            or not number & 1
            or not 0 < size <= self._whole_bytes
            or end - body < size
            or self._to_credit + size >= self._credit_at
            or len(self.streams) >= most
            or self.unanswered >= most
            or self._block_of
        ):
            return 0
        request = self._blocks.known(view[start:position].tobytes())
        if request is None:
            return 0
        self.last_stream = number
        stream = Stream(number, self.sender.initial_window, self._window)
        self.streams[number] = stream
        stream.remote_closed = True
        if self._handler.whole(stream, request, view[body : body + size]):
            self._to_credit += size
            return body + size
        stream.remote_closed = False
        self._handler.request(stream, request, ended=False)
        return position

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
