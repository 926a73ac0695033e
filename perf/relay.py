"""The limit of the hops: a bare relay of one small message over the server's own ZeroMQ sockets, three processes.

    asker ──▶ broker ──▶ worker ──▶ broker ──▶ asker       one message under way at a time, nothing is looked at

What a request of one client costs beside gRPC and inference cannot be less: each of its four hops wakes up a thread of
ZeroMQ's and a process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from common.process import die_with_parent
from common.transport import Router, Transport, Waiter
from perf.stats import Figures, Samples, summarise
from perf.target import ROOT

MESSAGE = bytes(120)
"""About as long as a Submit."""
START_S = 30.0
_WAIT_NS = 100_000_000
_MIN_WARM_UP = 200
_ASKER, _WORKER = b"asker", b"worker"


class RelayFailedError(RuntimeError):
    """The processes did not come to relay anything."""


def _pass_on(router: Router, identity: bytes, frames: list[bytes]) -> None:
    router.send(_WORKER if identity == _ASKER else _ASKER, frames)


def broker(path: Path) -> None:
    """Hand the asker's messages to the worker and the worker's to the asker, until the parent ends."""
    waiter = Waiter()
    router = Transport().router(path)
    waiter.add(router)
    while True:
        waiter.wait(_WAIT_NS)
        for identity, *frames in router.drain():
            _pass_on(router, identity, frames)


def worker(path: Path) -> None:
    """Send back what comes, until the parent ends."""
    waiter = Waiter()
    dealer = Transport().dealer(path, _WORKER.decode())
    waiter.add(dealer)
    dealer.send([b"hello"])
    while True:
        waiter.wait(_WAIT_NS)
        for frames in dealer.drain():
            dealer.send(frames)


def _ask(path: Path, seconds: float) -> Samples:
    """Messages one after the other. The first ones, while the others start and warm up, do not count."""
    waiter = Waiter()
    transport = Transport()
    dealer = transport.dealer(path, _ASKER.decode())
    waiter.add(dealer)
    starts: list[float] = []
    ends: list[float] = []
    begun = time.perf_counter()
    try:
        while not starts or len(starts) < _MIN_WARM_UP or ends[-1] < starts[_MIN_WARM_UP - 1] + seconds:
            start = time.perf_counter()
            dealer.send([MESSAGE])
            answered = False
            while not answered and time.perf_counter() < start + 1:
                waiter.wait(_WAIT_NS)
                answered = [MESSAGE] in list(dealer.drain())
            if answered:
                starts.append(start)
                ends.append(time.perf_counter())
            elif starts or time.perf_counter() > begun + START_S:
                raise RelayFailedError("a message of the relay did not come back")
    finally:
        waiter.close()
        dealer.close()
        transport.close()
    taken = np.array(starts[_MIN_WARM_UP:])
    return Samples(taken, np.array(ends[_MIN_WARM_UP:]) - taken, np.ones(len(taken), np.bool_))


def run(seconds: float) -> Figures:
    """Relay for about `seconds`. Raises RelayFailedError."""
    with tempfile.TemporaryDirectory(prefix="relay-") as name:
        path = Path(name) / "relay.ipc"
        command = [sys.executable, "-m", "perf.relay", str(path)]
        children = [subprocess.Popen([*command, role], cwd=ROOT) for role in ("broker", "worker")]
        try:
            return summarise(_ask(path, seconds), 1)
        finally:
            for child in children:
                child.kill()
                child.wait()


def main() -> None:
    """One of the two processes that relay."""
    parser = argparse.ArgumentParser(description="bare relay over ZeroMQ")
    parser.add_argument("path", type=Path)
    parser.add_argument("role", choices=["broker", "worker"])
    arguments = parser.parse_args()
    die_with_parent(os.getppid())
    {"broker": broker, "worker": worker}[arguments.role](arguments.path)


if __name__ == "__main__":
    main()
