"""The bodies of requests: DATA frames and their windows (RFC 9113, sections 5.2 and 6.1). Pure.

DATA is handed on in pieces as it comes, so that a frame may be longer than any buffer. Large bodies come in many
frames; where the owner says at which place they belong, all frames of one that are there together are put there in one
pass, and are counted once.
"""

from typing import Any

from frontends.grpc.http2 import frames as f
from frontends.grpc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from frontends.grpc.http2.handler import Handler, Request
from frontends.grpc.http2.limits import Limits
from frontends.grpc.http2.outgoing import Outgoing
from frontends.grpc.http2.streams import Stream


class Bodies(Outgoing[Request]):
    """The part of a connection that reads them."""

    def __init__(self, handler: Handler[Request], limits: Limits, greeting: bytes) -> None:
        super().__init__(handler, limits, greeting)
        self.payload_left = 0
        """Bytes of a DATA frame that have not come yet. They are the next."""
        self._payload_ends = False
        self._to_credit = 0
        """What has come since the connection's window was last opened again."""
        self._credit_at = limits.connection_window // 2
        self.sender.put(f.window_update(0, limits.connection_window - f.DEFAULT_WINDOW))

    def receiving(self) -> Stream | None:
        """Of whose body `payload_left` bytes are next, for owners that receive them in place; None where they count
        for nothing.
        """
        return self._payload_of

    def filled(self, size: int, now: int) -> None:
        """The owner has received so much of `payload_left` where it belongs."""
        self._now = self.sender.now = now
        self.payload_left -= size
        stream = self._payload_of
        if stream is not None:
            self._placed(stream, size)

    def _begin_data(self, number: int, flow: int, length: int, ends: bool) -> None:
        """The head of a DATA frame: `flow` bytes leave the windows, `length` of them are data."""
        self._spend_window(flow)
        self.payload_left, self._payload_ends, self._payload_of = length, ends, None
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

    def _spend_window(self, flow: int) -> None:
        self._to_credit += flow
        if self._to_credit > self._limits.connection_window:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        if self._to_credit >= self._credit_at:
            self.sender.put(f.window_update(0, self._to_credit))
            self._to_credit = 0

    def _check_data(self, stream: Stream, length: int, ends: bool) -> None:
        if stream.receive_window < 0:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        if stream.content_left is not None:
            stream.content_left -= length
            if stream.content_left < 0 or (ends and stream.content_left):
                raise StreamFault(
                    stream.id, ErrorCode.PROTOCOL_ERROR, "the body is not as long as it should be"
                )

    def _read_payload(self, view: memoryview, position: int, end: int) -> int:
        """What is there of the DATA frame that has begun, and of those of the same body that follow; where they end."""
        stream = self._payload_of
        if stream is not None:
            room = self._handler.room(stream)
            if room is not None:
                read = self._place(stream, room, view, position, end)
                if read > position:
                    return read
        piece = view[position : min(end, position + self.payload_left)]
        self._take_payload(piece)
        return position + len(piece)

    def _place(self, stream: Stream, room: memoryview, view: memoryview, position: int, end: int) -> int:
        """Put into `room` what belongs there, and nothing else; where it ends."""
        size = min(self.payload_left, end - position)
        if size > len(room):
            return position
        room[:size] = view[position : position + size]
        position, placed, flow = position + size, size, 0
        self.payload_left -= size
        if not self.payload_left and not self._payload_ends:
            position, placed, flow = self._place_frames(stream, room, placed, view, position, end)
        stream.receive_window -= flow
        if stream.content_left is not None:
            stream.content_left -= flow
        self._spend_window(flow)
        self._placed(stream, placed)
        return position

    def _place_frames(
        self, stream: Stream, room: memoryview, placed: int, view: memoryview, position: int, end: int
    ) -> tuple[int, int, int]:
        """The frames that follow: where they end, to where the room is filled then, what they take of the windows.

        A frame that is not DATA of this stream, that breaks a rule, or goes beyond the room, is left to others.
        """
        flow, whole, most = 0, len(room), self._most_data(stream)
        while end - position >= f.HEAD_BYTES:
            head = f.HEAD.unpack_from(view, position)
            length = self._length_of_next(stream, head, flow)
            if not length or length > most - flow or length > whole - placed:
                break
            ends = bool(head[3] & f.END_STREAM)
            if ends or end - position < f.HEAD_BYTES + length:
                # The last one here: the body ends with it, or the rest of it has not come.
                position += f.HEAD_BYTES
                size = min(length, end - position)
                room[placed : placed + size] = view[position : position + size]
                self.payload_left, self._payload_ends = length - size, ends
                return position + size, placed + size, flow + length
            # Those that are like it in all.
            there = (end - position) // (f.HEAD_BYTES + length)
            for _ in range(min(there, (whole - placed) // length, (most - flow) // length)):
                if f.HEAD.unpack_from(view, position) != head:
                    break
                begin = position + f.HEAD_BYTES
                position = begin + length
                room[placed : placed + length] = view[begin:position]
                placed += length
                flow += length
        return position, placed, flow

    def _most_data(self, stream: Stream) -> int:
        """How much more data of a stream its windows and its content-length allow."""
        most = min(stream.receive_window, self._limits.connection_window - self._to_credit)
        return most if stream.content_left is None else min(most, stream.content_left)

    def _length_of_next(self, stream: Stream, head: tuple[Any, ...], flow: int) -> int:
        """Of the frame with this head, if it is plain DATA of the stream and not empty; else 0. `flow`: see above."""
        high, low, kind, flags, number = head
        length: int = high << 8 | low
        if (
            kind != f.DATA
            or flags & f.PADDED
            or number & 0x7FFFFFFF != stream.id
            or length > self._limits.frame_bytes
            or (flags & f.END_STREAM and stream.content_left not in (None, flow + length))
        ):
            return 0
        return length

    def _placed(self, stream: Stream, size: int) -> None:
        ended = self._end_payload(stream)
        if not stream.local_closed:
            self._handler.placed(stream, size, ended=ended)

    def _take_payload(self, piece: memoryview) -> None:
        self.payload_left -= len(piece)
        stream = self._payload_of
        if stream is None:
            return
        ended = self._end_payload(stream)
        if not stream.local_closed:
            self._handler.data(stream, piece, ended=ended)

    def _end_payload(self, stream: Stream) -> bool:
        """Whether the body is at its end now."""
        if self.payload_left or not self._payload_ends:
            return False
        self._payload_of = None
        self._close_remote(stream)
        return True

    # ---- which streams are open

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
