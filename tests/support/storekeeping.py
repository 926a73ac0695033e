"""The broker's end of a storekeeper's link, for tests: a real router, and what came over it.

The storekeeper is either one in the same thread, taken step by step, or a process of its own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from broker.storekeeper import Storekeeper
from common import config
from common.config import ServerConfig, StoreEnvironment, VersionPolicy, peers_socket
from common.link import Link
from common.messages import Message, Snapshot, StorekeeperHello, Watch, Watched, Welcome, decode, encode
from common.process import this_process
from common.transport import Transport, Waiter

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 15.0

_Kind = TypeVar("_Kind")


class BrokerEnd:
    """Receives what a storekeeper says, and answers it."""

    def __init__(self, run_dir: Path, step: Callable[[], None] | None = None) -> None:
        """`step` takes a storekeeper of this thread one step further; without it, it is a process of its own."""
        self._transport = Transport()
        self.router = self._transport.router(peers_socket(run_dir))
        self._waiter = Waiter()
        self._waiter.add(self.router)
        self.step = step if step is not None else self._wait
        self.identity = b""
        self.link = Link(1)
        self.came: list[Message] = []

    def until(self, kind: type[_Kind], count: int = 1, patience_s: float = PATIENCE_S) -> list[_Kind]:
        """All messages of this kind, once there are so many; everything that has come is forgotten."""
        ends = time.monotonic() + patience_s
        while time.monotonic() < ends:
            self.receive()
            came: list[object] = list(self.came)
            found = [message for message in came if isinstance(message, kind)]
            if len(found) >= count:
                self.came = []
                return found
            self.step()
        raise AssertionError(f"no {kind.__name__} came in {patience_s:g} s, but {self.came}")

    def until_snapshot(
        self, model: str, condition: Callable[[Snapshot], object], patience_s: float = PATIENCE_S
    ) -> Snapshot:
        """The first one of a model that fits; everything that has come is forgotten."""
        ends = time.monotonic() + patience_s
        last: Snapshot | None = None
        while time.monotonic() < ends:
            self.receive()
            for message in self.came:
                if isinstance(message, Snapshot) and message.model == model:
                    last = message
                    if condition(message):
                        self.came = []
                        return message
            self.came = []
            self.step()
        raise AssertionError(f"no such Snapshot of {model} came in {patience_s:g} s; the last one was {last}")

    def during(self, seconds: float) -> list[Message]:
        """Everything that comes in this time."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.step()
            self.receive()
        found, self.came = self.came, []
        return found

    def receive(self) -> None:
        """Take what has come."""
        for identity, head in self.router.drain():
            self.identity = identity
            self.came += decode(head).messages

    def say(self, *messages: Message) -> None:
        """Send, as one envelope."""
        assert self.router.send(self.identity, [encode(self.link.stamp(list(messages)))])

    def welcome(self, *messages: Message) -> None:
        """Answer the next Hello, and say this with it."""
        self.until(StorekeeperHello)
        self.link = Link(1)
        self.say(Welcome(this_process()), *messages)

    def close(self) -> None:
        """Close the socket."""
        self._waiter.close()
        self.router.close()
        self._transport.close()

    def _wait(self) -> None:
        self._waiter.wait(20_000_000)


class Pair:
    """A storekeeper and the broker's end, in one thread."""

    def __init__(self, settings: ServerConfig, environment: StoreEnvironment | None = None) -> None:
        self.storekeeper = Storekeeper(settings, environment)
        self.broker = BrokerEnd(Path(settings.run_dir), self.storekeeper.step)
        self.storekeeper.start()

    def close(self) -> None:
        """End both."""
        self.storekeeper.close()
        self.broker.close()


def watch(paths: Mapping[str, str | Path], policy: VersionPolicy = VersionPolicy()) -> Watch:  # noqa: B008 - frozen
    """Models by name, all of one policy."""
    return Watch(tuple(Watched(model, str(path), policy) for model, path in paths.items()))


class StorekeeperProcess:
    """`python -m broker.storekeeper` in a run directory of the test's own."""

    def __init__(self, settings: ServerConfig, environment: Mapping[str, str], log: Path) -> None:
        config.save(settings)
        self._arguments = [sys.executable, "-m", "broker.storekeeper", "--run-dir", settings.run_dir]
        self._environment = {**os.environ, **environment}
        self.log = log
        self.process = self._start()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def start_again(self) -> None:
        """As supervisord would."""
        self.process = self._start()

    def cpu_s(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Of its memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._arguments,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
