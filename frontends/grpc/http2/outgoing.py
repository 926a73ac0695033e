"""The server's half of a connection: what it says of its streams, and how they end. Pure."""

from typing import Generic

from frontends.grpc.http2 import frames as f
from frontends.grpc.http2.frames import ConnectionFault, ErrorCode, StreamFault
from frontends.grpc.http2.handler import Handler, Request
from frontends.grpc.http2.limits import CONTROL_FRAMES_A_SECOND, RESETS_A_SECOND, Bucket, Limits
from frontends.grpc.http2.sending import Buffer, Sender
from frontends.grpc.http2.streams import Stream

_REMEMBERED = 256
"""Streams that the server has ended early: what was under way for them is not the client's fault."""


class Outgoing(Generic[Request]):
    """The streams of a connection, and answers to them."""

    def __init__(self, handler: Handler[Request], limits: Limits, greeting: bytes) -> None:
        """`greeting`: the server's first frame."""
        self._handler = handler
        self._limits = limits
        self.sender = Sender(self._sent, handler.drained)
        self.streams: dict[int, Stream] = {}
        self.closed = False
        """Nothing that comes counts any more; what is in the output is to be sent still."""
        self.over = False
        """Whether no further streams are taken; so it is when it is closed."""
        self.last_stream = 0
        self.unanswered = 0
        """Calls whose handlers have not ended. The owner counts them."""
        self.fault = ""
        """Why the server has closed it, for the log."""
        self._accepts_up_to = f.MAX_WINDOW
        self._ended_early: dict[int, None] = {}
        self._payload_of: Stream | None = None
        """Of which there is a DATA frame that has not come whole."""
        self._resets = Bucket(limits.resets, RESETS_A_SECOND, "calls were given up")
        self._control = Bucket(limits.control_frames, CONTROL_FRAMES_A_SECOND, "frames that move nothing")
        self._now = 0
        self.sender.put(greeting)

    # ---- answers

    def lets_out(self, stream: Stream, size: int) -> bool:
        """Whether so much data of a stream, of which nothing waits, can be sent in one frame now."""
        sender = self.sender
        return (
            size <= stream.send_window
            and size <= sender.window
            and size <= sender.max_frame
            and not stream.queued_bytes
        )

    def answer(self, stream: Stream, frames: list[Buffer], size: int, beside: int) -> None:
        """Send all of an answer, which `lets_out` has allowed; `sent` is not told.

        `size`: of the payload of its DATA frame; `beside`: of what stands in front of that frame.
        """
        sender = self.sender
        sender.window -= size
        sender.held_back += beside
        sender.output += frames
        if stream.remote_closed:
            stream.local_closed = True
            del self.streams[stream.id]
        else:
            self._end_early(stream, ErrorCode.NO_ERROR)

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
            self.over = True
            self._accepts_up_to = self.last_stream
            self.sender.put(f.goaway(self.last_stream, code, text))

    def lose(self) -> list[Stream]:
        """The client has gone: the streams that were open."""
        self.closed = self.over = True
        lost = list(self.streams.values())
        for stream in lost:
            self._forget(stream)
        return lost

    def take(self) -> list[Buffer]:
        """What is to be written now."""
        return self.sender.take()

    def _answer_control(self, frame: bytes) -> None:
        if self.sender.held_back > self._limits.control_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "answers are not read")
        self.sender.put(frame)

    # ---- ends

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
        self.closed = self.over = True
        self.fault = fault.text
        self.sender.put(f.goaway(self.last_stream, fault.code, fault.text))
