"""What goes to the client: frames, as its windows allow (RFC 9113, section 5.2). Pure.

    send ──fits──▶ output ──take──▶ the socket
      └──────────▶ the stream's queue ──window, drained──▶ output      streams take turns, a frame each

What has been put into the output has left the windows; what waits in a queue is at the client's mercy, and its owner
decides for how long.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from frontends.grpc.http2.frames import (
    DATA,
    DEFAULT_MAX_FRAME,
    DEFAULT_WINDOW,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    frame_head,
)
from frontends.grpc.http2.streams import Stream

Buffer: TypeAlias = bytes | memoryview

BURST = 1 << 20
"""Bytes of data that are put into the output before it is written: the connection is no queue of its own."""


class Sender:
    """The sending half of a connection."""

    __slots__ = (
        "_burst",
        "_drained",
        "_sent",
        "_waiting",
        "held_back",
        "initial_window",
        "max_frame",
        "now",
        "output",
        "window",
    )

    def __init__(self, sent: Callable[[Stream], None], drained: Callable[[Stream], None]) -> None:
        """`sent` is told of each stream whose last frame was put into the output; `drained` of each that has nothing
        waiting any more and is not at its end.
        """
        self.now = 0
        """Nanoseconds, set by the owner: streams note by it when they last moved."""
        self.held_back = 0
        """Bytes of frames beside data that were not taken yet."""
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = DEFAULT_MAX_FRAME
        self._sent = sent
        self._drained = drained
        self.output: list[Buffer] = []
        """Frames that wait to be written."""
        self._waiting: dict[int, Stream] = {}
        self._burst = BURST

    def put(self, frame: bytes) -> None:
        """Have a frame sent that no window holds back."""
        self.output.append(frame)
        self.held_back += len(frame)

    def take(self) -> list[Buffer]:
        """What is to be written now, in order."""
        taken, self.output = self.output, []
        self.held_back = 0
        return taken

    @property
    def waiting(self) -> bool:
        """Whether some stream has data that waits."""
        return bool(self._waiting)

    def send(self, stream: Stream, buffers: Sequence[Buffer], size: int, trailers: bytes | None) -> None:
        """Send `size` bytes of data; `trailers` are the frames that end the stream, None when more is to come."""
        if (
            not stream.queued_bytes
            and size <= stream.send_window
            and size <= self.window
            and size <= self.max_frame
        ):
            # Nearly always: all of it in one frame, now.
            stream.send_window -= size
            self.window -= size
            self.output.append(frame_head(size, DATA, 0, stream.id))
            self.output += buffers
            if trailers is not None:
                self._end(stream, trailers)
            return
        if stream.queue is None:
            stream.queue = deque()
        for buffer in buffers:
            if len(buffer):
                stream.queue.append(memoryview(buffer).cast("B"))
        if not stream.queued_bytes:
            stream.moved = self.now
        stream.queued_bytes += size
        stream.trailers = trailers
        self._waiting[stream.id] = stream
        self.pump()

    def finish(self, stream: Stream, trailers: bytes) -> None:
        """End the stream after what of it waits."""
        if stream.queued_bytes:
            stream.trailers = trailers
        else:
            self._end(stream, trailers)

    def stalled(self, before: int) -> list[Stream]:
        """Streams of which data waits and nothing was sent since `before`."""
        return [stream for stream in self._waiting.values() if stream.moved < before]

    def pump(self) -> None:
        """Put into the output what the windows allow, a frame of each stream in turn."""
        turns = [stream for stream in self._waiting.values() if stream.send_window > 0]
        while turns and self.window > 0 and self._burst > 0:
            stream = turns.pop(0)
            size = min(stream.send_window, self.window, self.max_frame, stream.queued_bytes, BURST)
            self._put_data(stream, size)
            if not stream.queued_bytes:
                del self._waiting[stream.id]
                if stream.trailers is not None:
                    self._end(stream, stream.trailers)
                else:
                    self._drained(stream)
            elif stream.send_window > 0:
                turns.append(stream)

    def written(self) -> None:
        """All of the output was written: there may be more."""
        self._burst = BURST
        if self._waiting:
            self.pump()

    def drop(self, stream: Stream) -> None:
        """The stream has ended: nothing of it is sent any more."""
        if stream.queue is not None:
            self._waiting.pop(stream.id, None)
            stream.queue = None
            stream.queued_bytes = 0

    def credit(self, increment: int) -> None:
        """The client takes more on the connection."""
        self.window += increment
        if self.window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
        self.pump()

    def credit_stream(self, stream: Stream, increment: int) -> None:
        """The client takes more of a stream."""
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is too large")
        if stream.queued_bytes:
            self.pump()

    def _put_data(self, stream: Stream, size: int) -> None:
        self.output.append(frame_head(size, DATA, 0, stream.id))
        stream.send_window -= size
        self.window -= size
        stream.queued_bytes -= size
        stream.moved = self.now
        self._burst -= size
        queue = stream.queue
        assert queue is not None
        while size:
            piece = queue[0]
            if len(piece) <= size:
                self.output.append(queue.popleft())
                size -= len(piece)
            else:
                self.output.append(piece[:size])
                queue[0] = piece[size:]
                size = 0

    def _end(self, stream: Stream, trailers: bytes) -> None:
        self.output.append(trailers)
        stream.trailers = None
        stream.local_closed = True
        self._sent(stream)
