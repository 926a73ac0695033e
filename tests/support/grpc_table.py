"""A gRPC server of a few small methods, by either transport, in a thread with a loop of its own."""

import asyncio
import importlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import uvloop

from common.errors import NotFoundError
from frontends.grpc.calls import Call, Reply, Stream, Table, Unary
from frontends.grpc.listening import Listening, Tls
from frontends.memory import Memory
from tests.support.server import HOST

MESSAGE_BYTES = 1 << 20
TIMEOUT_S = 20.0
_ARENA_BYTES = 8 << 20

Result = TypeVar("Result")


class Methods:
    """What the methods do, and what has happened to them."""

    def __init__(self) -> None:
        self.waiting = self.cancelled = self.lent = self.yielded = self.begun = 0
        self.gate = asyncio.Event()
        """Slow waits for it."""

    def table(self) -> Table:
        """Paths: /test.Test/NAME."""
        unary = {
            "Echo": self._echo,
            "Slow": self._slow,
            "Fail": self._fail,
            "Seen": self._seen,
            "Big": self._big,
        }
        streams = {
            "Stream": self._stream,
            "Many": self._many,
            "FailLater": self._fail_later,
            "Ignore": self._ignore,
        }
        return {
            **{f"/test.Test/{name}": Unary(handler) for name, handler in unary.items()},
            **{f"/test.Test/{name}": Stream(handler) for name, handler in streams.items()},
        }

    async def _echo(self, message: memoryview, call: Call) -> Reply:
        self.begun += 1
        self._lend(call)
        return [bytes(message)]

    def _lend(self, call: Call) -> None:
        self.lent += 1
        call.after_reply(self._release)

    def _release(self) -> None:
        self.lent -= 1

    async def _slow(self, message: memoryview, _call: Call) -> Reply:
        """The message, when the gate opens."""
        answer = bytes(message)
        self.begun += 1
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
        return [answer]

    async def _fail(self, message: memoryview, _call: Call) -> Reply:
        """NOT_FOUND, with the message for its text."""
        raise NotFoundError(bytes(message).decode())

    async def _seen(self, _message: memoryview, call: Call) -> Reply:
        """As JSON: the metadata, bytes as lists of numbers, and the seconds until the deadline."""
        left = None if call.deadline_ns is None else (call.deadline_ns - time.monotonic_ns()) / 1e9
        metadata = [[key, value if isinstance(value, str) else list(value)] for key, value in call.metadata]
        return [json.dumps({"metadata": metadata, "left_s": left}).encode()]

    async def _big(self, message: memoryview, call: Call) -> Reply:
        """As many bytes as the message says, counting up, in two parts."""
        data = bytes(index & 0xFF for index in range(256)) * (int(bytes(message)) // 256 + 1)
        half = int(bytes(message)) // 2
        self._lend(call)
        return [memoryview(data)[:half], memoryview(data)[half : int(bytes(message))]]

    async def _stream(self, messages: AsyncIterator[memoryview], _call: Call) -> AsyncIterator[Reply]:
        async for message in messages:
            yield [bytes(message)]

    async def _many(self, messages: AsyncIterator[memoryview], _call: Call) -> AsyncIterator[Reply]:
        """64 KiB after 64 KiB, without end."""
        async for _ in messages:
            break
        self.waiting += 1
        try:
            while True:
                yield [bytes(65536)]
                self.yielded += 1
        finally:
            self.waiting -= 1
            self.cancelled += 1

    async def _fail_later(self, messages: AsyncIterator[memoryview], _call: Call) -> AsyncIterator[Reply]:
        """The first message, then NOT_FOUND."""
        async for message in messages:
            yield [bytes(message)]
            raise NotFoundError("later")

    async def _ignore(self, messages: AsyncIterator[memoryview], _call: Call) -> AsyncIterator[Reply]:
        """One answer when the gate opens, without a look at what comes."""
        await self.gate.wait()
        yield [b"ignored"]


class TableServer:
    """Runs it; `make` is given to the transport beside what all of them take."""

    def __init__(
        self,
        transport: str = "native",
        message_bytes: int = MESSAGE_BYTES,
        tls: Tls | None = None,
        run: Callable[[Any], object] = uvloop.run,
        **make: Any,
    ) -> None:
        self._make = (transport, message_bytes, make)
        self._tls = tls
        self.memory = Memory(_ARENA_BYTES, _ARENA_BYTES)
        """Where the native transport receives large messages."""
        if transport == "native":
            make.setdefault("room", self.memory)
        self.port = 0
        self.methods: Methods
        self.transport: Any
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=run, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._ready.result(TIMEOUT_S)

    async def _serve(self) -> None:
        name, message_bytes, make = self._make
        try:
            self._loop = asyncio.get_running_loop()
            self._end = asyncio.Event()
            self.methods = Methods()
            module = importlib.import_module(f"frontends.grpc.{name}_transport")
            transport = getattr(module, f"{name.capitalize()}Transport")
            self.transport = transport(
                self.methods.table(), Listening(HOST, 0, "", self._tls), message_bytes, **make
            )
            self.port = await self.transport.start()
        except BaseException as error:
            self._ready.set_exception(error)
            raise
        self._ready.set_result(None)
        await self._end.wait()
        await self.transport.stop(0)

    def await_(self, function: Callable[[], Awaitable[Result]]) -> "Future[Result]":
        """Start in the server's loop."""

        async def call() -> Result:
            return await function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop)

    def open_gate(self) -> None:
        """Slow calls go on; later ones wait again."""

        async def open_and_shut() -> None:
            self.methods.gate.set()
            self.methods.gate.clear()

        self.await_(open_and_shut).result(TIMEOUT_S)

    def close(self) -> None:
        """End the server and its thread."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
