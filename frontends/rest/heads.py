"""gunicorn's parser of HTTP/1.1, made cheaper for what clients of a model server send: again and again the same head.

A head that was parsed once is known by its bytes from then on, and the parser's state after it is put back instead of
being computed anew. What gunicorn makes of a head depends on nothing else, so the answer is the same. Only heads of
bodies with a Content-Length are kept, and only if they came in one piece; all others take gunicorn's way. A body's
bytes are handed on as they came from the socket, where gunicorn copies them twice.

The price is that this knows gunicorn's parser from inside; tests/unit/frontends/rest/test_heads.py holds both against
each other. gunicorn's own parser in C (`gunicorn_h1c`) gains about the same and is not on the index as a wheel.
"""

from typing import Any

from gunicorn.asgi import protocol
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol

KEPT_HEADS = 256
KEPT_BYTES = 2048
"""Longer heads are rare and take gunicorn's way."""
END_OF_HEAD = b"\r\n\r\n"

_REQUEST_FIELDS = tuple(name for name in CallbackRequest.__slots__ if name != "_headers")


class _Head:
    """What a head comes to."""

    __slots__ = (
        "content_length",
        "headers",
        "http_version",
        "method",
        "path",
        "request",
        "should_keep_alive",
    )

    def __init__(self, parser: Any) -> None:
        self.method: bytes = parser.method
        self.path: bytes = parser.path
        self.http_version: tuple[int, int] = parser.http_version
        self.headers: list[tuple[bytes, bytes]] = parser.headers
        self.content_length: int = parser.content_length
        self.should_keep_alive: bool = parser.should_keep_alive
        self.request: CallbackRequest | None = None
        """As gunicorn made it, before its policy of forwarded headers was applied."""


_heads: dict[bytes, _Head] = {}
"""The oldest goes when there are too many; one process has one configuration of the parser."""


_Base: Any = PythonProtocol


class HeadParser(_Base):  # type: ignore[misc]
    """Of one connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.content_length: int | None
        self._body_remaining: int
        self.head: _Head | None = None
        """Of the request that is being read, if it was known."""

    def is_idle(self) -> bool:
        """Whether nothing of a next request has come."""
        return self._state == "request_line" and not self._buffer and not self._empty_line_skipped

    def feed(self, data: bytes) -> None:
        """Parse what came; see gunicorn."""
        if self._buffer:
            super().feed(data)
        elif self._state == "body":
            self._take_body(data)
        elif self._state == "request_line" and not self._empty_line_skipped:
            self._take_head(data)
        else:
            super().feed(data)

    def _take_body(self, data: bytes) -> None:
        left = self._body_remaining - len(data)
        if left < 0:
            super().feed(data)
            return
        self._body_remaining = left
        self._on_body(data)
        if not left:
            self._state = "complete"
            self.is_complete = True
            self._on_message_complete()

    def _take_head(self, data: bytes) -> None:
        self.head = None
        end = data.find(END_OF_HEAD, 0, KEPT_BYTES) + len(END_OF_HEAD)
        if end < len(END_OF_HEAD) or data.startswith(b"\r"):
            super().feed(data)
            return
        text = data[:end]
        head = _heads.get(text)
        if head is None:
            super().feed(data)
            if self.content_length and not self.is_chunked:
                _remember(text, _Head(self))
            return
        self.head = head
        self.method = head.method
        self.path = head.path
        self.http_version = head.http_version
        self.headers = head.headers
        self.content_length = self._body_remaining = head.content_length
        self.should_keep_alive = head.should_keep_alive
        self._empty_line_skipped = True
        self._on_headers_complete()
        self._state = "body"
        if len(data) > end:
            self._take_body(data[end:])


def _remember(text: bytes, head: _Head) -> None:
    if len(_heads) >= KEPT_HEADS:
        del _heads[next(iter(_heads))]
    _heads[text] = head


def known_request(text: bytes) -> CallbackRequest | None:
    """What gunicorn has made of a head, before its policy of forwarded headers; None for one that is not known, or has
    not come a second time."""
    head = _heads.get(text)
    return None if head is None else head.request


class HeadRequest(CallbackRequest):  # type: ignore[misc]
    """gunicorn's request, copied where its head is known."""

    __slots__ = ()

    @classmethod
    def from_parser(cls, parser: HeadParser, is_ssl: bool = False) -> "HeadRequest":
        """See gunicorn."""
        head = parser.head
        if head is None or is_ssl:
            made: HeadRequest = super().from_parser(parser, is_ssl)
            return made
        if head.request is None:
            head.request = super().from_parser(parser, is_ssl)
        copied = cls.__new__(cls)
        for name in _REQUEST_FIELDS:
            setattr(copied, name, getattr(head.request, name))
        copied.headers = None
        return copied


def install() -> None:
    """Have gunicorn's connections use this parser; its own is looked up by name for each connection."""
    protocol.PythonProtocol = HeadParser
    protocol.CallbackRequest = HeadRequest
