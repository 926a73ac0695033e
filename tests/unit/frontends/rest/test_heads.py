"""The parser that knows heads again, against gunicorn's own: the same events for the same bytes, however they come."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.asgi import protocol
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol
from gunicorn.config import Config
from gunicorn.glogging import Logger

from frontends.rest import heads
from frontends.rest.heads import HeadParser, HeadRequest

POST = b"POST /v1/models/a%2Fb:predict?x=1 HTTP/1.1\r\nHost: h\r\nX-Y: 1\r\nContent-Length: 5\r\n\r\n"
GET = b"GET /v1/models/m HTTP/1.1\r\nHost: h\r\n\r\n"
STREAMS = [
    POST + b"hello",
    b"\r\n" + POST + b"hello",
    b"\r\n\r\n" + POST + b"hello",
    POST + b"hello" + GET,
    POST + b"hello" + POST + b"again" + POST,
    GET + POST + b"hello",
    POST.replace(b"5", b"0"),
    POST.replace(b"1.1", b"1.0") + b"hello",
    POST.replace(b"X-Y: 1", b"Connection: close") + b"hello",
    POST.replace(b"X-Y: 1", b"Connection: keep-alive\r\nExpect: 100-continue") + b"hello",
    POST.replace(b"X-Y: 1", b"Content-Length: 5") + b"hello",
    POST.replace(b"X-Y: 1", b"Host: other") + b"hello",
    POST.replace(b"X-Y: 1", b"Upgrade: websocket") + b"hello",
    POST.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    POST.replace(b"X-Y: 1", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    POST.replace(b"X-Y", b"X Y") + b"hello",
    POST.replace(b"\r\nX-Y", b"\nX-Y") + b"hello",
    POST.replace(b"h\r\n", b"h\x00\r\n") + b"hello",
    POST.replace(b"X-Y: 1", b"X-Y: " + b"y" * 3000) + b"hello",
]


class Listener:
    """What a connection of gunicorn's does with its parser: one request after another, each read to its end."""

    def __init__(self, parser_class: type[PythonProtocol], request_class: type[CallbackRequest]) -> None:
        self.events: list[Any] = []
        self._request_class = request_class
        self._parser = parser_class(
            on_headers_complete=self._on_head,
            on_body=lambda chunk: self.events.append(bytes(chunk)),
            on_message_complete=lambda: self.events.append("end"),
        )

    def _on_head(self) -> bool:
        request = self._request_class.from_parser(self._parser)
        answers = (request.should_close(), request.may_upgrade(), request.headers)
        fields = {name: getattr(request, name) for name in CallbackRequest.__slots__}
        self.events.append((fields, answers))
        request.scheme, request.headers = "spoilt", []  # as a policy may, and of this one alone
        return False

    def feed(self, pieces: Iterator[bytes]) -> list[Any]:
        """Events, pieces of bodies joined."""
        try:
            for piece in pieces:
                self._parser.feed(piece)
                while self._parser.is_complete:
                    left = self._parser.remaining()
                    self._parser.reset()
                    self._parser.feed(left)
        except Exception as error:  # noqa: BLE001  # which one is what is compared
            self.events.append((type(error), str(error)))
        return join(self.events)


def join(events: list[Any]) -> list[Any]:
    """Bodies whole, whatever the pieces were."""
    joined: list[Any] = []
    for event in events:
        if isinstance(event, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += event
        else:
            joined.append(event)
    return joined


def split(stream: bytes, at: int) -> Iterator[bytes]:
    yield from filter(None, (stream[:at], stream[at:]))


@pytest.fixture(autouse=True)
def forget() -> None:
    heads._heads.clear()


@pytest.mark.parametrize("stream", STREAMS)
def test_the_same_events_wherever_the_stream_is_cut(stream: bytes) -> None:
    for at in range(0, len(stream), 1 if len(stream) < 1000 else 97):
        expected = Listener(PythonProtocol, CallbackRequest).feed(split(stream, at))
        for _ in range(3):  # unknown, known, and after a known one was used
            assert Listener(HeadParser, HeadRequest).feed(split(stream, at)) == expected, at


def test_a_head_is_known_again_and_another_ones_is_not_taken_for_it() -> None:
    Listener(HeadParser, HeadRequest).feed(iter([POST + b"hello"]))
    assert set(heads._heads) == {POST}
    other = POST.replace(b"X-Y: 1", b"X-Y: 2")
    assert Listener(HeadParser, HeadRequest).feed(iter([other + b"hello"])) == Listener(
        PythonProtocol, CallbackRequest
    ).feed(iter([other + b"hello"]))


def test_few_and_short_heads_are_kept() -> None:
    for number in range(1000):
        Listener(HeadParser, HeadRequest).feed(iter([POST.replace(b"x=1", b"x=%d" % number) + b"hello"]))
    Listener(HeadParser, HeadRequest).feed(iter([POST.replace(b"x=1", b"x" * 3000) + b"hello"]))
    assert len(heads._heads) == 256
    assert max(map(len, heads._heads)) < 2048


class Transport:
    """Hands on what is written."""

    def __init__(self) -> None:
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name in ("peername", "sockname") else None

    def set_write_buffer_limits(self, **limits: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.written.put_nowait(data)

    def close(self) -> None: ...


def test_gunicorns_connections_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands where gunicorn looks for its own: a name of a module, which another release could have elsewhere."""
    monkeypatch.setattr(protocol, "PythonProtocol", PythonProtocol)
    monkeypatch.setattr(protocol, "CallbackRequest", CallbackRequest)
    heads.install()
    bodies: list[bytes] = []

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def exchange() -> None:
        config = Config()
        config.set("http_parser", "python")
        worker = SimpleNamespace(
            cfg=config,
            log=Logger(config),
            asgi=application,
            loop=asyncio.get_running_loop(),
            nr_conns=0,
            nr=0,
            max_requests=1 << 60,
            alive=True,
            state={},
        )
        connection, transport = protocol.ASGIProtocol(worker), Transport()
        connection.connection_made(transport)
        for _ in range(3):
            connection.data_received(POST + b"hello")
            assert (await transport.written.get()).startswith(b"HTTP/1.1 200 OK")
        connection.connection_lost(None)

    asyncio.run(asyncio.wait_for(exchange(), 30))
    assert bodies == [b"hello"] * 3
    assert heads._heads[POST].request is not None, (
        "gunicorn's requests were copied from the head that is known"
    )
