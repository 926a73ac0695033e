"""What the owner of an HTTP/2 connection is told. Pure."""

from typing import Protocol, TypeVar

from frontends.grpc.http2.header_blocks import Headers
from frontends.grpc.http2.streams import Stream

Request = TypeVar("Request")


class Handler(Protocol[Request]):
    """The owner of a connection. `piece` and `body` are valid during the call alone."""

    def understand(self, headers: Headers) -> Request:
        """What a request's headers mean. Raises ValueError for those that are malformed (section 8.1.1)."""
        ...

    def whole(self, stream: Stream, request: Request, body: memoryview) -> bool:
        """A request has come with all of its body, which is not empty.

        False, and nothing done, where it is to be told by `request` and `data`.
        """
        ...

    def request(self, stream: Stream, request: Request, *, ended: bool) -> None:
        """A request has begun; `ended`: it has no body."""
        ...

    def data(self, stream: Stream, piece: memoryview, *, ended: bool) -> None:
        """A part of its body; `ended`: the last one, and perhaps empty."""
        ...

    def room(self, stream: Stream) -> memoryview | None:
        """Where the next bytes of its body belong. They are put there if they do not go beyond it."""
        ...

    def placed(self, stream: Stream, size: int, *, ended: bool) -> None:
        """So many bytes of its body were put into `room`, in place of `data`."""
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
