"""A real worker process against a broker played by the test, in memory owned by the test as a frontend would.

broker = Broker(run_dir); worker = Worker(run_dir, "CPU"); broker.hello(); broker.load(path); broker.send(request)
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from common import config
from common.allocator import Allocator
from common.arena import Segment
from common.descriptors import DescriptorServer, socket_path
from common.dtypes import STORAGE
from common.link import Link, Verdict
from common.messages import (
    Done,
    Execute,
    Load,
    Loaded,
    Message,
    OutputRef,
    ProcessId,
    RequestKey,
    TensorRef,
    VersionId,
    Welcome,
    WorkerHello,
    decode,
    encode,
)
from common.process import this_process
from common.tensors import Signature, TensorSpec
from common.transport import Router, Transport
from tests.unit.workers.models import model_config

Array: TypeAlias = npt.NDArray[Any]
Kind = TypeVar("Kind", bound=Message)
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
MODEL = VersionId("model", 1)


class Broker:
    """The broker's end of one worker's link, without any decisions."""

    def __init__(self, run_dir: Path) -> None:
        self._transport = Transport()
        self._run_dir = run_dir
        self.process = this_process()
        self.epoch = 1
        self.hellos: list[WorkerHello] = []
        self.messages: list[tuple[Message, list[bytes]]] = []
        self.envelopes = 0
        self._open()

    def _open(self) -> None:
        self._router: Router | None = self._transport.router(config.peers_socket(self._run_dir))
        self._identity = b""
        self._link = Link(0)

    def restart(self, process: ProcessId) -> None:
        """Come back as another process."""
        self.stop()
        self.process = process
        self.epoch += 1
        self._open()

    def stop(self) -> None:
        """Listen no more."""
        if self._router is not None:
            self._router.close()
            self._router = None

    def close(self) -> None:
        """End."""
        self.stop()
        self._transport.close()

    def send(self, *messages: Message) -> None:
        """To the worker that said Hello last."""
        assert self._router is not None
        assert self._router.send(self._identity, [encode(self._link.stamp(list(messages)))])

    def _pump(self) -> None:
        assert self._router is not None
        for identity, frame, *frames in self._router.drain():
            envelope = decode(frame)
            first = envelope.messages[0]
            if isinstance(first, WorkerHello):
                self.hellos.append(first)
                self._identity = identity
                self._link = Link.greeted(self.epoch)
                self.send(Welcome(self.process))
            elif identity == self._identity:
                assert self._link.judge(envelope) is Verdict.ACCEPT
                self.envelopes += 1
                self.messages += [(message, [frame, *frames]) for message in envelope.messages]

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE_S) -> None:
        """Take messages in until the condition holds."""
        end = time.monotonic() + patience
        while True:
            self._pump()
            if condition():
                return
            assert time.monotonic() < end, f"{self.hellos} {self.messages}"
            assert self._router is not None
            select.select([self._router.descriptor], [], [], 0.01)

    def hello(self) -> WorkerHello:
        """The next Hello."""
        self.until(lambda: bool(self.hellos))
        return self.hellos.pop(0)

    def expect(self, kind: type[Kind], matches: Callable[[Any], bool] = lambda _: True) -> Kind:
        """The next message of a kind."""
        return self.expect_frames(kind, matches)[0]

    def expect_frames(
        self, kind: type[Kind], matches: Callable[[Any], bool] = lambda _: True
    ) -> tuple[Kind, list[bytes]]:
        """Likewise, with all frames of its ZeroMQ message."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [i for i, (m, _) in enumerate(self.messages) if isinstance(m, kind) and matches(m)][:1]
            return bool(found)

        self.until(look)
        message, frames = self.messages.pop(found[0])
        assert isinstance(message, kind)
        return message, frames

    def load(self, path: Path, nireq: int = 1, version: VersionId = MODEL, **options: Any) -> Loaded:
        """Load a version."""
        self.send(Load(version, str(path), model_config(nireq, **options)))
        return self.expect(Loaded, lambda loaded: loaded.loaded.version == version)

    def done(self, key: RequestKey) -> Done:
        """The answer to a request."""
        return self.done_frames(key)[0]

    def done_frames(self, key: RequestKey) -> tuple[Done, list[bytes]]:
        """Likewise, with all frames of its ZeroMQ message."""
        return self.expect_frames(Done, lambda done: done.key == key)


class Frontend:
    """Owns memory and hands out its descriptors, in a thread."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self.name = name
        self.segments = {0: Segment.create(1 << 20)}
        self._allocator = Allocator(self.segments[0].size)
        self._number = 0
        self._wake, self._woken = socket.socketpair()
        self.delay = 0.0
        self._server = DescriptorServer(socket_path(run_dir, name), self._lookup)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _lookup(self, number: int) -> int | None:
        time.sleep(self.delay)
        segment = self.segments.get(number)
        return None if segment is None else segment.descriptor

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._server.listener, self._woken], [], [])
            if self._woken in ready:
                return
            connection = self._server.accept()
            if connection is not None:
                connection.setblocking(True)
                self._server.answer(connection)

    def request(
        self,
        signature: Signature,
        *inputs: Array,
        segment: int = 0,
        version: VersionId = MODEL,
        deadline: int = 0,
    ) -> Execute:
        """A request whose inputs lie in the memory, and which has room for outputs there."""
        self._number += 1
        if segment:
            self.segments[segment] = Segment.create(1 << 20)
        allocator = Allocator(1 << 20) if segment else self._allocator
        references = []
        for array in inputs:
            offset = allocator.allocate(array.nbytes)
            assert offset is not None
            view = np.ndarray(array.shape, array.dtype, self.segments[segment].buffer, offset)
            view[...] = array
            references.append(TensorRef(offset, array.shape))
        outputs = []
        for spec in signature.outputs:
            offset = allocator.allocate(spec.nbytes) if spec.is_static else 0
            assert offset is not None
            outputs.append(OutputRef(offset, spec.nbytes if spec.is_static else 0))
        key = RequestKey(self.name, self._number)
        return Execute(key, version, segment, tuple(references), tuple(outputs), deadline)

    def output(self, request: Execute, spec: TensorSpec, index: int = 0) -> Array:
        """What lies in an output's room."""
        buffer = self.segments[request.segment].buffer
        offset = request.outputs[index].offset
        copy: Array = np.ndarray(spec.shape, STORAGE[spec.dtype], buffer, offset).copy()
        return copy

    def close(self) -> None:
        """End, and with it the memory."""
        self._wake.send(b"x")
        self._thread.join()
        self._wake.close()
        self._woken.close()
        self._server.close()
        for segment in self.segments.values():
            segment.close()


class Worker:
    """A worker process."""

    def __init__(
        self,
        run_dir: Path,
        device: str,
        plan: str = "0/1",
        *,
        python: str = sys.executable,
        options: Sequence[str] = (),
        packages: Path = ROOT,
    ) -> None:
        """`packages` is where `python` finds ours."""
        words = [python, "-m", "workers.service", "--run-dir", str(run_dir)]
        self.log = run_dir / "worker.log"
        self._output = self.log.open("wb")
        self.process = subprocess.Popen(
            [*words, "--slot", f"{device}-0", "--device", device, "--plan", plan, *options],
            cwd=packages,
            env={**os.environ, "PYTHONPATH": str(packages)},
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def maps(self) -> int:
        """How many segments it has mapped."""
        lines = Path(f"/proc/{self.process.pid}/maps").read_text().splitlines()
        return sum("memfd:ie_serving" in line for line in lines)

    def descriptors(self) -> int:
        """How many segments it holds open; each by two descriptors, of which one is mmap's own."""
        names = []
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                names.append(str(entry.readlink()))
        return sum("memfd:ie_serving" in name for name in names) // 2

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._output.close()
