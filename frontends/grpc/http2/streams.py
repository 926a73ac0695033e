"""One request and its answer on a connection."""

from collections import deque
from typing import Any


class Stream:
    """What a connection keeps of it. `call` is the owner's."""

    __slots__ = (
        "call",
        "consumed",
        "content_left",
        "id",
        "local_closed",
        "moved",
        "queue",
        "queued_bytes",
        "receive_window",
        "remote_closed",
        "send_window",
        "trailers",
    )

    def __init__(self, id_: int, send_window: int, receive_window: int) -> None:
        self.id = id_
        self.call: Any = None
        self.send_window = send_window
        self.receive_window = receive_window
        self.consumed = 0
        """Bytes that may be given back to the client's window."""
        self.content_left: int | None = None
        """Bytes that the request's content-length still promises; None when it promised nothing."""
        self.remote_closed = False
        self.local_closed = False
        self.queue: deque[memoryview] = deque()
        """Data that waits for the client's windows."""
        self.queued_bytes = 0
        self.moved = 0
        """When some of them were last sent, in nanoseconds."""
        self.trailers: bytes | None = None
        """The frames that follow the queue, and end the stream."""
