"""Connections that carry out short Predicts themselves: real sockets, gunicorn's protocol, the real data plane.

Each exchange is held against that of the same application without the quick way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gunicorn.asgi import protocol
from gunicorn.asgi.parser import CallbackRequest, PythonProtocol
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi

from common.config import ServerConfig
from common.errors import Code, WireError
from common.messages import Cancel, Completed, OutputResult, Released, Stale, Submit
from common.tensors import Signature, TensorSpec
from frontends.memory import ARENA
from frontends.rest import connection, heads
from frontends.rest.app import create_app
from frontends.rest.lifespan import LifespanApp
from frontends.rest.quick_predict import QuickPredict
from tests.unit.frontends.scripted_broker import ARENA_BYTES, Stage, catalogue, on_stage, status

X = TensorSpec("x", "float32", (1, 3))
PLAIN = Signature((X,), (TensorSpec("y", "float32", (1, 3)),))
LONG = Signature((X,), (TensorSpec("y", "float32", (1, 400)),))
LONGEST = Signature((X,), (TensorSpec("y", "float32", (1, 20_000)),))
TOTAL = Signature((X,), (TensorSpec("y", "float32", ()),))
PAIR = Signature((X,), (TensorSpec("y", "float32", (1, 3)), TensorSpec("n", "int64", (1,))))
UNKNOWN = Signature((X,), (TensorSpec("n", "int64", (-1,)),))
WHOLE = Signature((TensorSpec("x", "int64", (1, 3)),), (TensorSpec("y", "int64", (1, 3)),))
HALF = Signature((TensorSpec("x", "bfloat16", (1, 3)),), (TensorSpec("y", "bfloat16", (1, 3)),))
VERSIONS = (PLAIN, LONG, LONGEST, TOTAL, PAIR, UNKNOWN, WHOLE, HALF)
BODY = b'{"instances": [[1.5, 2, -3e2]]}'
DATE = re.compile(rb"(?<=\r\nDate: )\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT(?=\r\n)")
LIMIT = 5000


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    """gunicorn as the server has it, and no head known."""
    for module, name, own in (
        (gasgi, "ASGIProtocol", protocol.ASGIProtocol),
        (protocol, "PythonProtocol", PythonProtocol),
        (protocol, "CallbackRequest", CallbackRequest),
    ):
        monkeypatch.setattr(module, name, own)
    connection.install()
    heads._heads.clear()


def request(body: bytes = BODY, version: int = 1, *headers: bytes, start: bytes = b"") -> bytes:
    """As a client sends it."""
    line = start or b"POST /v1/models/m/versions/%d:predict HTTP/1.1" % version
    return b"\r\n".join([line, b"Host: h", *headers, b"Content-Length: %d" % len(body), b"", body])


def close(text: bytes) -> bytes:
    """The same request, with which the connection ends."""
    return text.replace(b"Host: h", b"Host: h\r\nConnection: close")


class Site:
    """A server on a port, with the scripted broker behind it."""

    def __init__(self, stage: Stage, quick: bool = True, **options: Any) -> None:
        self.stage = stage
        config = ServerConfig(models=(), run_dir="", message_bytes=LIMIT, **options)

        async def start(_: ServerConfig) -> Any:
            raise AssertionError("it is started")

        self.app = LifespanApp(config, start)
        self.app._app = create_app(stage.dataplane, config)
        if not quick:
            self.app._app.quick = None
        self.asked = 0
        """Requests that came to the application."""
        self.connections: list[connection.Connection] = []
        self.clients: list[Client] = []
        settings = Config()
        for name, value in (
            ("http_parser", "python"),
            ("asgi_disconnect_grace_period", 0),
            ("keepalive", 60),
        ):
            settings.set(name, value)
        self.worker = SimpleNamespace(
            cfg=settings,
            log=Logger(settings),
            asgi=self,
            loop=asyncio.get_running_loop(),
            nr_conns=0,
            nr=0,
            max_requests=1 << 60,
            alive=True,
            state={},
        )

    @property
    def quick(self) -> QuickPredict | None:
        return self.app.quick

    @property
    def in_flight(self) -> Any:
        return self.app.in_flight

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.app(scope, receive, send)

    def connect(self) -> connection.Connection:
        self.connections.append(gasgi.ASGIProtocol(self.worker))
        return self.connections[-1]

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Callable[[], Awaitable[Client]]]:
        """What connects a client."""
        server = await self.worker.loop.create_server(self.connect, "127.0.0.1", 0)

        async def connect() -> Client:
            self.clients.append(Client(*await asyncio.open_connection(*server.sockets[0].getsockname())))
            return self.clients[-1]

        try:
            yield connect
        finally:
            server.close()
            for client in self.clients:
                await client.close()
            await self.stage.until(lambda: self.worker.nr_conns == 0)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, text: bytes) -> None:
        self._writer.write(text)

    async def answer(self) -> bytes:
        """The next one, whole; all that there is until the end where its length is not said."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
        body = await (self._reader.readexactly(int(length[1])) if length else self._reader.read())
        return DATE.sub(b"DATE", head + body)

    async def ask(self, text: bytes) -> bytes:
        self.send(text)
        return await self.answer()

    async def ends(self) -> bool:
        """Whether nothing more comes."""
        return await self._reader.read() == b""

    async def close(self) -> None:
        self._writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def working(stage: Stage) -> AsyncIterator[None]:
    """Meanwhile all that is submitted is answered, in order."""

    async def work() -> None:
        while True:
            answer(stage, await stage.broker.next(Submit))

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def answer(stage: Stage, submit: Submit) -> None:
    """Each output is the input's numbers, plus one, as often as they fit; of unknown shape: 7, 8, 9 in a frame."""
    signature = VERSIONS[submit.version.version - 1]
    memory = stage.memory._arena.buffer
    spec, ref = signature.inputs[0], submit.inputs[0]
    storage = {"bfloat16": np.dtype(np.uint16)}.get(spec.dtype) or np.dtype(spec.dtype)
    given = np.ndarray(ref.shape, storage, memory, ref.offset).ravel() + storage.type(1)
    if signature is UNKNOWN:
        frame = np.array([7, 8, 9], np.int64).tobytes()
        stage.broker.say(Completed(submit.id, (OutputResult((3,), 1),)), frames=(frame,))
        return
    for out, room in zip(signature.outputs, submit.outputs, strict=True):
        dtype = {"bfloat16": np.dtype(np.uint16)}.get(out.dtype) or np.dtype(out.dtype)
        target: np.ndarray = np.ndarray(out.shape, dtype, memory, room.offset)
        target[...] = np.resize(given, out.shape)
    stage.broker.say(Completed(submit.id, tuple(OutputResult(out.shape) for out in signature.outputs)))


async def linked(stage: Stage) -> None:
    versions = [status(number, signature=one) for number, one in enumerate(VERSIONS, 1)]
    await stage.link(catalogue(1, *versions))


async def exchange(stage: Stage, quick: bool, texts: list[bytes], **options: Any) -> tuple[list[bytes], int]:
    """Every answer on one connection to a new server, and how many of them came from the application."""
    heads._heads.clear()
    site = Site(stage, quick, **options)
    async with site.serving() as connect:
        client = await connect()
        answers = [await client.ask(text) for text in texts]
    assert site.worker.nr == len(texts)
    return answers, site.asked


# ---- the same bytes


@pytest.mark.parametrize(
    ("text", "quick"),
    [
        (request(), True),
        (request(b'{"inputs": [[1, 2, 3]]}'), True),
        (request(b' {"inputs"\n:[[0.1,2e-3,\t3]]} '), True),
        (request(b'{"instances": [[1e39, -1e39, 5]]}'), True),
        (request(BODY, 5), True),
        (request(b'{"inputs": [[1, 2, 3]]}', 5), True),
        (request(BODY, 6), True),
        (request(BODY, 8), True),
        (request(BODY, 1, b"Accept-Encoding: gzip", b"Content-Type: application/json"), True),
        (request(start=b"POST http://proxy/v1/models/m:predict?x=1 HTTP/1.1"), True),
        (request(start=b"POST http://proxy/v1/models/m/versions/1:predict HTTP/1.1"), True),
        (request(start=b"POST /v1/models/m/versions/1:predict?x=1 HTTP/1.1"), True),
        (request(BODY, 2), False),
        (request(BODY, 2, b"Accept-Encoding: gzip"), False),
        (request(BODY, 3), False),
        (request(BODY, 3, b"Accept-Encoding: gzip"), False),
        (request(b'{"inputs": [[1, 2, 3]]}', 4), True),
        (request(BODY, 4), False),
        (request(BODY, 7), False),
        (request(BODY, 99), False),
        (request(b'{"instances": [[1.5, 2, "a"]]}'), False),
        (request(b'{"instances": [[1.5, 2, NaN]]}'), False),
        (request(b'{"instances": [[1.5, 2]]}'), False),
        (request(b'{"instances": [[1.5, 2, 3], [1]]}'), False),
        (request(b'{"instances": [[[[1.5, 2, 3]]]]}'), False),
        (request(b'{"instances": []}'), False),
        (request(b'{"instances": [[1, 2, 3]'), False),
        (request(b'{"instances": [[1, 2, 3]], "signature_name": "other"}'), False),
        (request(BODY, 1, b"Expect: 200-ok"), False),
        (request(BODY, 1, b"Content-Encoding: identity"), False),
        (request(BODY, 1, b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https"), True),
        (request(BODY, 1, b"X-Forwarded-Ssl: on", b"X-Forwarded-Proto: https"), False),
        (request(BODY, 1, b"X_Y: 1"), False),
        (request(BODY + b" " * 4096), False),
        (request(BODY + b" " * LIMIT), False),
        (request(BODY, start=b"PUT /v1/models/m/versions/1:predict HTTP/1.1"), False),
        (request(BODY, start=b"POST /v1/models/m/versions/1:classify HTTP/1.1"), False),
        (request(BODY, start=b"POST /v1/models/m/versions/x:predict HTTP/1.1"), False),
        (request(BODY, start=b"GET /v1/models/m/versions/1 HTTP/1.1"), False),
        (b"GET /v1/models/m/versions/1 HTTP/1.1\r\nHost: h\r\n\r\n", False),
    ],
)
def test_answers_are_those_of_the_application(tmp_path: Path, text: bytes, quick: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await linked(stage)
        async with working(stage):
            plain, asked = await exchange(stage, False, [text] * 5)
            assert asked == 5
            assert len(set(plain)) == 1
            found, asked = await exchange(stage, True, [text] * 5)
        assert found == plain
        assert asked == (2 if quick else 5), "the head is known when it comes a third time"
        assert stage.memory.used == 0

    on_stage(scenario)(tmp_path)


def test_the_last_request_of_a_connection(tmp_path: Path) -> None:
    texts = [
        close(request()),
        request().replace(b"1.1\r\n", b"1.0\r\n"),
        close(request(b"nonsense")),
        request().replace(b"Content-Length: 31", b"Content-Length: +31"),
        request(BODY, 1, b"Transfer-Encoding: chunked"),
    ]

    async def scenario(stage: Stage) -> None:
        await linked(stage)
        for text in texts:
            answers: dict[bool, list[bytes]] = {False: [], True: []}
            for quick, found in answers.items():
                site = Site(stage, quick)
                async with working(stage), site.serving() as connect:
                    for _ in range(4):
                        client = await connect()
                        found += [await client.ask(request()), await client.ask(text)]
                        assert await client.ends()
            assert answers[False] == answers[True]

    on_stage(scenario)(tmp_path)


# ---- what comes while a request is under way


async def learned(connect: Callable[[], Awaitable[Client]], *texts: bytes) -> Client:
    """A connection to a server that knows these heads."""
    client = await connect()
    for text in texts or (request(),):
        for _ in range(2):
            await client.ask(text)
    return client


def scene(play: Callable[[Stage, Site, Client], Awaitable[None]]) -> Callable[[Path], None]:
    """Makes a test of what is done with one connection whose requests are quick; nobody answers what is submitted."""

    async def scenario(stage: Stage) -> None:
        await linked(stage)
        site = Site(stage)
        async with site.serving() as connect:
            async with working(stage):
                client = await learned(connect)
            site.asked = 0
            await play(stage, site, client)
        await stage.until(lambda: stage.memory.used == 0)
        assert len(stage.client.ledger) == 0
        assert site.in_flight._count == 0

    test = on_stage(scenario)
    test.__doc__ = play.__doc__
    return test


GOOD = b'{"predictions":[[2.5,3.0,-299.0]]}'
OTHER = request(b'{"instances": [[0, 0, 0]]}')
GET = b"GET /v1/models/m/versions/1 HTTP/1.1\r\nHost: h\r\n\r\n"


@scene
async def test_requests_in_one_piece_are_answered_in_their_order(
    stage: Stage, site: Site, client: Client
) -> None:
    async with working(stage):
        client.send(request() + OTHER + GET + request())
        texts = [await client.answer() for _ in range(4)]
    assert [GOOD in text for text in texts] == [True, False, False, True]
    assert b"[[1.0,1.0,1.0]]" in texts[1]
    assert b"model_version_status" in texts[2]
    assert site.asked == 4


@scene
async def test_what_comes_meanwhile_waits(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    for text in (request(), OTHER, GET, request()[:100]):
        client.send(text)
        await asyncio.sleep(0.01)
    held = site.connections[0]._held
    await stage.until(lambda: len(held) == len(request() + OTHER + GET) + 100)
    assert not any(isinstance(message, Submit) for message in stage.broker.pending())
    answer(stage, submit)
    async with working(stage):
        client.send(request()[100:])
        texts = [await client.answer() for _ in range(5)]
    assert [GOOD in text for text in texts] == [True, True, False, False, True]
    assert b"model_version_status" in texts[3]


@scene
async def test_one_that_waited_alone_is_quick_again(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    client.send(request())
    await stage.until(lambda: bool(site.connections[0]._held))
    answer(stage, submit)
    assert GOOD in await client.answer()
    answer(stage, await stage.broker.next(Submit))
    assert GOOD in await client.answer()
    assert site.asked == 0


@scene
async def test_not_too_much_is_read_meanwhile(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    one = site.connections[0]
    many = (16 << 20) // len(GET)
    client.send(GET * many)
    await stage.until(lambda: one._reading_paused)
    assert len(one._held) < 1 << 20
    answer(stage, submit)
    assert GOOD in await client.answer()
    first = await client.answer()
    assert b"model_version_status" in first
    for _ in range(20):
        assert await client.answer() == first


@scene
async def test_whatever_the_pieces_are(stage: Stage, site: Site, client: Client) -> None:
    async with working(stage):
        for text in (request(), request()):
            for number in range(len(text)):
                client.send(text[number : number + 1])
                await asyncio.sleep(0)
            assert GOOD in await client.answer()
            assert GOOD in await client.ask(text)
        for at in range(1, len(request()), 7):
            client.send(request()[:at])
            await asyncio.sleep(0.001)
            client.send(request()[at:] + request()[:at])
            assert GOOD in await client.answer()
            client.send(request()[at:])
            assert GOOD in await client.answer()


@scene
async def test_a_body_that_comes_apart_from_its_head(stage: Stage, site: Site, client: Client) -> None:
    text = request()
    end = text.index(b"\r\n\r\n") + 4
    one = site.connections[0]
    for cuts in ((end,), (end, end + 5), (end, end + 5, len(text) - 1)):
        for start, stop in itertools.pairwise((0, *cuts)):
            client.send(text[start:stop])
            await stage.until(lambda: len(one._started) == stop)  # noqa: B023 - it is awaited here
        client.send(text[cuts[-1] :])
        answer(stage, await stage.broker.next(Submit))
        assert GOOD in await client.answer()
    assert site.asked == 0


@scene
async def test_a_body_that_is_late(stage: Stage, site: Site, client: Client) -> None:
    """It is waited for by the application, whose bounds hold, and its deadline counts from the head."""
    text = request()
    end = text.index(b"\r\n\r\n") + 4
    before = time.monotonic_ns()
    client.send(text[: end + 3])
    await stage.until(lambda: site.asked == 1)
    after = time.monotonic_ns() - int(connection._MORE_S * 1e9)
    client.send(text[end + 3 :] + request())
    for _ in range(2):
        submit = await stage.broker.next(Submit)
        if before:
            assert before <= submit.deadline - 60_000_000_000 <= after
        before = 0
        answer(stage, submit)
        assert GOOD in await client.answer()


@scene
async def test_more_than_a_body_after_its_head(stage: Stage, site: Site, client: Client) -> None:
    text = request()
    end = text.index(b"\r\n\r\n") + 4
    client.send(text[:end])
    await stage.until(lambda: bool(site.connections[0]._started))
    client.send(text[end:] + GET)
    async with working(stage):
        assert GOOD in await client.answer()
        assert b"model_version_status" in await client.answer()
    assert site.asked == 2


@scene
async def test_a_client_that_goes_before_its_body(stage: Stage, site: Site, client: Client) -> None:
    client.send(request()[:-4])
    await stage.until(lambda: bool(site.connections[0]._started))
    await client.close()
    await asyncio.sleep(2 * connection._MORE_S)
    assert site.asked == 0


# ---- however it ends


@scene
async def test_a_client_that_goes(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    await client.close()
    assert (await stage.broker.next(Cancel)).id == submit.id
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Released(submit.id))


@scene
async def test_a_client_that_goes_while_its_request_is_on_the_way(
    stage: Stage, site: Site, client: Client
) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    await client.close()
    answer(stage, submit)


@scene
async def test_a_client_that_goes_before_its_error_is_written(
    stage: Stage, site: Site, client: Client
) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.expire(submit)
    site.connections[0].transport.abort()
    await client.close()
    stage.broker.say(Released(submit.id))


@scene
async def test_an_error_of_the_broker(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.broker.say(Completed(submit.id, (), WireError(Code.RESOURCE_EXHAUSTED, "too many")))
    text = await client.answer()
    assert text.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 1\r\n".lower() in text.lower()
    assert text.endswith(b'{"error":"too many"}')
    assert site.asked == 1
    async with working(stage):
        assert GOOD in await client.ask(request())
    assert site.asked == 1, "the connection is as before"


@scene
async def test_the_deadline(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.expire(submit)
    assert b" 504 Gateway Timeout\r\n" in await client.answer()
    assert (await stage.broker.next(Cancel)).id == submit.id
    assert stage.memory.used, "a worker may still write there"
    stage.broker.say(Released(submit.id))


@scene
async def test_a_version_that_has_left(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    again = [status(number, signature=one) for number, one in enumerate(VERSIONS, 1)]
    stage.broker.say(Stale(submit.id, 2), catalogue(2, *again))
    second = await stage.broker.next(Submit)
    assert (second.generation, second.deadline) == (2, submit.deadline)
    answer(stage, second)
    assert GOOD in await client.answer()


@scene
async def test_another_broker_answers(stage: Stage, site: Site, client: Client) -> None:
    client.send(request())
    submit = await stage.broker.next(Submit)
    stage.client._on_death()
    hello = await stage.broker.greet(catalogue(2, status(1, signature=PLAIN)))
    assert hello.requests == (submit,)
    answer(stage, submit)
    assert GOOD in await client.answer()
    assert site.asked == 0


@scene
async def test_a_refusal_is_counted_once(stage: Stage, site: Site, client: Client) -> None:
    stage.admission.draining = True
    assert b" 503 Service Unavailable\r\n" in await client.ask(request())
    assert stage.admission.refused() == {"UNAVAILABLE": 1}


@scene
async def test_a_server_that_ends(stage: Stage, site: Site, client: Client) -> None:
    """What is under way is waited for, and its answer is the connection's last."""
    client.send(request())
    submit = await stage.broker.next(Submit)
    site.worker.alive = False
    waiting = asyncio.create_task(site.in_flight.ended(10.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    answer(stage, submit)
    text = await client.answer()
    assert GOOD in text
    assert b"\r\nConnection: close\r\n" in text
    assert await client.ends()
    assert await waiting


@scene
async def test_the_timer_of_idle_connections(stage: Stage, site: Site, client: Client) -> None:
    """It counts from the last answer, and not while a request is under way."""
    one = site.connections[0]
    armed = one._keepalive_handle
    assert armed is not None
    client.send(request())
    submit = await stage.broker.next(Submit)
    assert one._keepalive_handle is armed, "a timer a connection, not a request"
    one._keepalive_timeout()
    assert one._keepalive_handle is not armed
    answer(stage, submit)
    assert GOOD in await client.answer()
    one._keepalive_timeout()
    assert not one._closed
    assert one._keepalive_handle.when() > site.worker.loop.time() + 59
    one._answered_at -= 61
    one._keepalive_timeout()
    assert await client.ends()


@scene
async def test_a_client_that_does_not_read(stage: Stage, site: Site, client: Client) -> None:
    """It is gunicorn that waits until it does."""
    one = site.connections[0]
    one.pause_writing()
    async with working(stage):
        assert GOOD in await client.ask(request())
        assert site.asked == 1
        one.resume_writing()
        await stage.until(lambda: one._awaiting_request)
        assert GOOD in await client.ask(request())
    assert site.asked == 1


@scene
async def test_a_worker_that_has_answered_enough(stage: Stage, site: Site, client: Client) -> None:
    site.worker.max_requests = site.worker.nr + 2
    async with working(stage):
        assert b"Connection: close" not in await client.ask(request())
        last = await client.ask(request())
    assert GOOD in last
    assert b"\r\nConnection: close\r\n" in last
    assert await client.ends()
    assert not site.worker.alive


@scene
async def test_places_are_kept_and_made_anew(stage: Stage, site: Site, client: Client) -> None:
    offsets = set()
    for _ in range(3):
        client.send(request())
        submit = await stage.broker.next(Submit)
        offsets.add(submit.inputs[0].offset)
        answer(stage, submit)
        assert GOOD in await client.answer()
    assert len(offsets) == 1
    assert stage.memory.kept > 0
    stage.dataplane._plans.clear()
    async with working(stage):
        assert GOOD in await client.ask(request())
    assert site.asked == 0


@scene
async def test_no_room_in_the_arena(stage: Stage, site: Site, client: Client) -> None:
    whole = stage.memory.allocate(ARENA_BYTES)
    assert whole is not None
    client.send(request())
    submit = await stage.broker.next(Submit)
    assert submit.segment != ARENA
    assert site.asked == 1
    stage.broker.say(Completed(submit.id, (), WireError(Code.UNAVAILABLE, "later")))
    assert b" 503 " in await client.answer()
    stage.memory.free(whole)


def test_at_debug_each_request_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await linked(stage)
        async with working(stage):
            await exchange(stage, True, [request()] * 5)

    with caplog.at_level(logging.DEBUG, "frontends"):
        on_stage(scenario)(tmp_path)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert len([line for line in lines if line.startswith("model m version 1: deserialization")]) == 5


def test_a_server_of_cross_origin_pages_has_no_quick_way(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await linked(stage)
        async with working(stage):
            answers, asked = await exchange(stage, True, [request()] * 5, rest_cors_origins=("*",))
        assert asked == 5
        assert b"Access-Control-Allow-Origin" not in answers[4], "there was no Origin"

    on_stage(scenario)(tmp_path)
