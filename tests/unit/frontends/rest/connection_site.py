"""A server of one connection at a time: real sockets, gunicorn's protocol, the real data plane, a scripted broker."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers import gasgi

from common.config import ServerConfig
from common.messages import Completed, OutputResult, Submit
from common.tensors import Signature, TensorSpec
from frontends.rest import connection, heads
from frontends.rest.app import create_app
from frontends.rest.lifespan import LifespanApp
from frontends.rest.quick_predict import QuickPredict
from tests.unit.frontends.scripted_broker import Stage, catalogue, on_stage, status

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
