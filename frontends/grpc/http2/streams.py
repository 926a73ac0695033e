"""One request and its answer on a connection."""

from collections import deque
from typing import Any


class Stream:
    """What a connection keeps of it. `call` is the owner's.

    What most streams never need stands at its default in the class, so that a new one costs little.
    """

    call: Any = None
    consumed: int = 0
    """Bytes that may be given back to the client's window."""
    content_left: int | None = None
    """Bytes that the request's content-length still promises; None when it promised nothing."""
    remote_closed: bool = False
    local_closed: bool = False
    queue: deque[memoryview] | None = None
    """Data that waits for the client's windows."""
    queued_bytes: int = 0
    moved: int = 0
    """When some of them were last sent, in nanoseconds."""
    trailers: bytes | None = None
    """The frames that follow the queue, and end the stream."""

    def __init__(self, id_: int, send_window: int, receive_window: int) -> None:
        self.id = id_
        self.send_window = send_window
        self.receive_window = receive_window
