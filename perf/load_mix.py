"""Load over several models at once: each client goes through the messages of all of them in turn.

A process of its own, told by arguments; it writes its samples to a file. `perf.many` measures with it.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
import uvloop

from common.process import die_with_parent
from perf.calls import PREDICT
from perf.http2_client import Connection, connect
from perf.stats import Samples
from perf.target import ROOT, LoadFailedError


def run(
    port: int, bodies: Path, answer_bytes: int, clients: int, requests: int, timeout_s: float, file: Path
) -> Samples:
    """Send `requests` by `clients`, of the frames in the directory `bodies`. Raises LoadFailedError."""
    file.unlink(missing_ok=True)
    line = [sys.executable, "-m", "perf.load_mix", str(port), str(bodies), str(answer_bytes)]
    line += [str(clients), str(requests), str(file)]
    try:
        subprocess.run(line, cwd=ROOT, timeout=timeout_s, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        raise LoadFailedError(f"load over many models: {error}") from error
    rows = np.load(file)
    return Samples(rows[:, 0], rows[:, 1], rows[:, 2] > 0)


@dataclass
class _Run:
    """The requests of one run."""

    bodies: list[bytes]
    answer_bytes: int
    left: int
    rows: list[tuple[float, float, bool]] = field(default_factory=list)
    begun: dict[Connection, float] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._next = cycle(self.bodies)

    def start(self, connection: Connection) -> None:
        """The next request, if there is one left."""
        if self.left:
            self.left -= 1
            self.begun[connection] = time.monotonic()
            connection.send(next(self._next))
        elif not self.begun:
            self.ended.set()

    def answered(self, connection: Connection, received: int) -> None:
        """One is finished; a connection that failed is used no more."""
        start = self.begun.pop(connection)
        right = received == self.answer_bytes
        self.rows.append((start, time.monotonic() - start, right))
        if received >= 0:
            self.start(connection)
        elif not self.begun:
            self.ended.set()


async def _generate(run_: _Run, port: int, clients: int, file: Path) -> None:
    connections = await connect(port, PREDICT, clients, run_.answered)
    for connection in connections:
        run_.start(connection)
    await run_.ended.wait()
    # What was never sent, because all connections had failed, has failed too.
    now = time.monotonic()
    run_.rows += [(now, 0.0, False)] * run_.left
    np.save(file, np.array(run_.rows, np.float64).reshape(-1, 3))


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description="load over several models")
    parser.add_argument("port", type=int)
    parser.add_argument("bodies", type=Path)
    parser.add_argument("answer_bytes", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("requests", type=int)
    parser.add_argument("file", type=Path)
    a = parser.parse_args()
    die_with_parent(os.getppid())
    bodies = [each.read_bytes() for each in sorted(a.bodies.iterdir())]
    uvloop.run(_generate(_Run(bodies, a.answer_bytes, a.requests), a.port, a.clients, a.file))


if __name__ == "__main__":
    main()
