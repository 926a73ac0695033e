"""A yardstick: the server's own parts in the places of its three processes, with nothing decided on the way.

    client ──gRPC──▶ front ──numbers──▶ broker ──▶ worker       native transport, four ZeroMQ hops, OpenVINO's infer()
           ◀──echo──       ◀───────────        ◀──

The front answers with the message that it was sent, after the worker has inferred once on memory of its own: no message
is read, no tensor moves, nothing is checked, queued, timed or remembered, and nobody may die. What comes together in a
round of a loop travels together, as in the server. What stands in this file is interpreted, so that a server whose
modules are compiled can be a little quicker: it tells what hops, sockets and wake-ups cost, and is no bound.
"""

import argparse
import array
import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import openvino
import uvloop

from common.process import die_with_parent
from common.transport import Transport, Waiter
from frontends.grpc.calls import Buffer, Call, Unary
from frontends.grpc.listening import Listening
from frontends.grpc.native_transport import NativeTransport
from perf import relay
from perf.calls import PREDICT
from perf.target import ROOT

_MESSAGE_BYTES = 1 << 20
_WAIT_NS = 100_000_000
_START_S = 30.0
_LOOK_S = 0.05
_ASKER, _WORKER = "asker", "worker"


class _Front:
    """Numbers the calls, sends the numbers of each round of the loop, answers those that come back."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._dealer = Transport().dealer(path, _ASKER)
        self._loop.add_reader(self._dealer.descriptor, self._receive)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._outgoing = array.array("I")
        self._last = 0
        self._met = asyncio.Event()

    async def ready(self) -> None:
        """Until the worker is there: what is sent to it before that is lost. Raises TimeoutError."""
        until = self._loop.time() + _START_S
        while not self._met.is_set():
            if self._loop.time() > until:
                raise TimeoutError("the worker did not come up")
            self._outgoing.append(0)
            self._flush()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._met.wait(), _LOOK_S)

    async def answer(self, message: memoryview, _call: Call) -> list[Buffer]:
        """A `Unary` handler."""
        answer = bytes(message)
        self._last = self._last + 1 & 0xFFFF_FFFF
        done = self._waiting[self._last] = self._loop.create_future()
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(self._last)
        await done
        return [answer]

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, array.array("I")
        self._dealer.send([outgoing.tobytes()])
        if self._dealer.has_input():
            self._receive()

    def _receive(self) -> None:
        for (numbers,) in self._dealer.drain():
            self._met.set()
            for number in array.array("I", numbers):
                waiting = self._waiting.pop(number, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)


async def front(path: Path) -> None:
    """Serve on a free port of 127.0.0.1, printed first, until the process is ended."""
    hops = _Front(path)
    await hops.ready()
    methods = {PREDICT: Unary(hops.answer)}
    transport = NativeTransport(methods, Listening("127.0.0.1", 0), _MESSAGE_BYTES)
    print(await transport.start(), flush=True)
    await asyncio.Event().wait()


def worker(path: Path, model: Path) -> None:
    """Infer once for each number of a message, then send it back, until the parent ends."""
    compiled = openvino.Core().compile_model(model, "CPU", {"NUM_STREAMS": "1"})
    request = compiled.create_infer_request()
    for index, port in enumerate(compiled.inputs):
        shape = [max(1, side.get_min_length()) for side in port.get_partial_shape()]
        request.set_input_tensor(index, openvino.Tensor(np.zeros(shape, port.get_element_type().to_dtype())))
    waiter = Waiter()
    dealer = Transport().dealer(path, _WORKER)
    waiter.add(dealer)
    dealer.send([b""])
    while True:
        waiter.wait(_WAIT_NS)
        for frames in dealer.drain():
            for _ in range(len(frames[0]) // array.array("I").itemsize):
                request.infer()
            dealer.send(frames)


def run(model: Path) -> None:
    """The front with the other two as its children."""
    with tempfile.TemporaryDirectory(prefix="bare-") as name:
        path = Path(name) / "bare.ipc"
        line = [sys.executable, "-m", "perf.bare", "--path", str(path), "--model", str(model)]
        for role in ("broker", "worker"):
            subprocess.Popen([*line, "--role", role], cwd=ROOT)
        uvloop.run(front(path))


def main() -> None:
    """One of the three processes."""
    parser = argparse.ArgumentParser(description="the server's parts, and nothing decided")
    parser.add_argument("--model", type=Path, required=True, help="its .xml")
    parser.add_argument("--path", type=Path, help="the broker's socket")
    parser.add_argument("--role", choices=["front", "broker", "worker"], default="front")
    arguments = parser.parse_args()
    die_with_parent(os.getppid())
    if arguments.role == "broker":
        relay.broker(arguments.path)
    elif arguments.role == "worker":
        worker(arguments.path, arguments.model)
    else:
        run(arguments.model)


if __name__ == "__main__":
    main()
