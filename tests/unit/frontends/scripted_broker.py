"""A broker that does what a test tells it to, on a real router, in the frontend's own process and event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from common.config import peers_socket
from common.link import Link, Verdict
from common.messages import (
    Catalogue,
    Completed,
    Envelope,
    FrontendHello,
    Message,
    ModelStatus,
    OutputResult,
    ProcessId,
    Submit,
    VersionStatus,
    Welcome,
    decode,
    encode,
)
from common.process import this_process
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from common.transport import Transport
from frontends.admission import Admission
from frontends.broker_client import BrokerClient
from frontends.dataplane import Dataplane
from frontends.memory import ARENA, Memory

Kind = TypeVar("Kind", bound=Message)

PATIENCE_S = 15.0
ARENA_BYTES = 1 << 20
LARGE_BYTES = 8 << 20

SIGNATURE = Signature(
    (TensorSpec("x", "float32", (-1, 4)),),
    (TensorSpec("y", "float32", (2, 4)), TensorSpec("z", "int64", (-1,))),
)


def status(
    version: int, state: VersionState = VersionState.AVAILABLE, signature: Signature = SIGNATURE
) -> VersionStatus:
    """A version as the catalogue shows it; servable when it is AVAILABLE."""
    return VersionStatus(version, int(state), None, signature, state is VersionState.AVAILABLE)


def catalogue(generation: int, *versions: VersionStatus, ready: bool = True) -> Catalogue:
    """Of the one model `m`."""
    return Catalogue(generation, ready, (ModelStatus("m", versions),))


FIRST = catalogue(1, status(1))


class ScriptedBroker:
    """The other end of one frontend's link."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport = Transport()
        self._router = self._transport.router(path)
        self._woken = asyncio.Event()
        self._epoch = 0
        self._identity = b""
        self._link = Link(0)
        self._pending: list[Message] = []
        self.envelopes: list[Envelope] = []
        """All that have come, of all links."""

    async def next(self, kind: type[Kind]) -> Kind:
        """The next message of this kind; those before it stay for later calls."""
        while True:
            for index, message in enumerate(self._pending):
                if isinstance(message, kind):
                    del self._pending[index]
                    return message
            await self._receive()

    def pending(self) -> list[Message]:
        """What has come and was not asked for."""
        while self._router.has_input():
            self._take()
        return self._pending

    async def greet(self, *messages: Message, process: ProcessId | None = None) -> FrontendHello:
        """As a new broker: wait for a Hello and welcome it. What an earlier one left unread is forgotten."""
        self._epoch += 1
        hello = await self.next(FrontendHello)
        self._link = Link.greeted(self._epoch)
        self.say(Welcome(process or this_process()), *messages)
        return hello

    def say(self, *messages: Message, frames: tuple[bytes, ...] = ()) -> None:
        """Send these as one ZeroMQ message."""
        assert self._router.send(self._identity, [encode(self._link.stamp(list(messages))), *frames])

    def lose(self, *messages: Message) -> None:
        """Send these into the void."""
        self._link.stamp(list(messages))

    def close(self) -> None:
        self._router.close()
        self._transport.close()

    async def _receive(self) -> None:
        while not self._router.has_input():
            self._loop.add_reader(self._router.descriptor, self._woken.set)
            try:
                self._woken.clear()
                await asyncio.wait_for(self._woken.wait(), PATIENCE_S)
            finally:
                self._loop.remove_reader(self._router.descriptor)
        self._take()

    def _take(self) -> None:
        for identity, head in self._router.drain():
            envelope = decode(head)
            self.envelopes.append(envelope)
            if envelope.epoch == 0:
                self._identity = identity
                self._pending.clear()
            elif identity != self._identity or self._link.judge(envelope) is not Verdict.ACCEPT:
                continue
            self._pending += envelope.messages


class Stage:
    """A frontend's data plane with everything below it, and the broker that it talks to."""

    def __init__(self, run_dir: Path, max_requests: int = 100) -> None:
        self.broker = ScriptedBroker(peers_socket(run_dir))
        self.memory = Memory(ARENA_BYTES, LARGE_BYTES)
        self.admission = Admission(max_requests)
        self.client = BrokerClient(run_dir, "f1", "grpc", self.memory, self.admission)
        self.dataplane = Dataplane(self.client, self.memory, self.admission)

    async def link(self, first: Catalogue = FIRST) -> None:
        """Greet, and wait for the first catalogue."""
        self.client.start()
        await self.broker.greet(first)
        await self.client.wait_for_catalogue(first.generation, 1 << 62)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until this is so; the end of every wait is on_stage's."""
        while not condition():  # noqa: ASYNC110 - what it waits for is no event, and is there within a few rounds
            await asyncio.sleep(0)

    def expire(self, submit: Submit) -> None:
        """What the loop does when the request's deadline passes."""
        self.client._expire(submit.id)

    def greet_again(self) -> None:
        """What the loop does when a Hello was not answered in time."""
        self.client._link.tick(1 << 62)

    def infer(self, submit: Submit, y: np.ndarray, z: bytes = b"") -> Completed:
        """What a worker makes of a request: y is written into the block, z comes in frame 1."""
        assert submit.segment == ARENA
        room = submit.outputs[0]
        target = np.ndarray(y.shape, y.dtype, self.memory._arena.buffer, room.offset)
        np.copyto(target, y)
        return Completed(submit.id, (OutputResult(y.shape), OutputResult((len(z) // 8,), 1)))

    def close(self) -> None:
        """Fails when anything still points into the arena."""
        self.client.close()
        self.broker.close()
        self.dataplane.close()
        gc.collect()  # what was raised holds its frames, and they their arrays
        self.memory._arena.close()


def on_stage(scenario: Callable[[Stage], Awaitable[None]]) -> Callable[[Path], None]:
    """Makes a test of a scenario: its own event loop, a new stage, and an end to every wait."""

    def test(tmp_path: Path) -> None:
        async def play() -> None:
            stage = Stage(tmp_path)
            try:
                await asyncio.wait_for(scenario(stage), PATIENCE_S)
            finally:
                stage.close()

        with pytest.MonkeyPatch.context() as patch:
            # A slow machine must not make a test greet twice where it expects once.
            patch.setattr("common.session.HELLO_TIMEOUT_NS", 1 << 61)
            asyncio.run(play())

    test.__doc__ = scenario.__doc__
    return test
