"""Scenario: 16 busy clients beside 1 and beside 512 other connections, half of them idle, half of them slow.

An idle connection says nothing after its first frames; a slow one has begun a request and sends one byte of it a
second, and never its end. They are held by a process of its own (`python -m perf.crowd`).
"""

import argparse
import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import uvloop

from common.process import die_with_parent
from perf.bench import Bench, Load, run_load
from perf.calls import PREDICT, WrongAnswerError, grpc_target, load_sample
from perf.http2_client import Connection, connect
from perf.plan import Setup
from perf.results import Reading, Record
from perf.server import Server, StartFailedError, model_options
from perf.target import ROOT

SIZES = (1, 512)
BUSY = 16
LINE = "crowd"
CONNECT_S = 60.0
_MESSAGE_BYTES = 1 << 20
"""What a slow client says that its message has."""
_DESCRIPTORS = 64
"""Of a process beside its connections."""


def run(bench: Bench) -> None:
    """Measure; what goes wrong is written down."""
    sample = load_sample(bench.models, "tiny")
    options = model_options("tiny", bench.models / "tiny", Setup())
    try:
        with Server(options, bench.directory, bench.program) as server:
            length, _ = server.wait_ready(sample)
            target = grpc_target(server.grpc_port, sample, bench.directory, length)
            for number in range(bench.settings.rounds):
                found = {}
                for size in SIZES:
                    load = Load("tiny", f"beside {size}", target, BUSY, server.pid, server.setup())
                    with _crowd(server.grpc_port, size):
                        found[size] = run_load(bench, load, number)
                bench.results.readings.extend(_reading(found[SIZES[0]], found[SIZES[1]]))
            server.wait_ready(sample)
    except (StartFailedError, WrongAnswerError) as error:
        bench.results.problems.append(f"{LINE}: {error}")


def steps(bench: Bench) -> int:
    """How many measurements it takes."""
    return bench.settings.rounds * len(SIZES)


def _reading(few: Record | None, many: Record | None) -> Iterator[Reading]:
    if few is None or many is None:
        return
    if few.figures.p99_ms and many.figures.p99_ms is not None:
        errors = few.figures.errors + many.figures.errors
        yield Reading(LINE, many.round, many.figures.p99_ms / few.figures.p99_ms, many.setup, errors)


@contextlib.contextmanager
def _crowd(port: int, size: int) -> Iterator[None]:
    """So many connections, there while the context is. Raises StartFailedError."""
    line = [sys.executable, "-m", "perf.crowd", str(port), str(size)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "connected":
            raise StartFailedError(f"{size} connections could not be opened")
        yield
    finally:
        process.kill()
        process.communicate()


async def _hold(port: int, size: int) -> None:
    """Connect, say so, and stay until killed; a connection that the server has closed stays closed."""
    begun = b"\0" + _MESSAGE_BYTES.to_bytes(4, "big")

    def again(connection: Connection, _: int) -> None:
        """The server has given up on a slow request: begin another, where the connection lives."""
        if connection.connected:
            connection.send(begun, whole=False)

    connections = await asyncio.wait_for(connect(port, PREDICT, size, again), CONNECT_S)
    slow = connections[1::2]
    for connection in slow:
        connection.send(begun, whole=False)
    print("connected", flush=True)
    while True:
        for connection in slow:
            connection.send_more(b"\0")
            await asyncio.sleep(1 / len(slow))
        if not slow:
            await asyncio.sleep(1)


def main() -> None:
    """The process of the crowd."""
    parser = argparse.ArgumentParser(description="idle and slow connections")
    parser.add_argument("port", type=int)
    parser.add_argument("size", type=int)
    arguments = parser.parse_args()
    die_with_parent(os.getppid())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = arguments.size + _DESCRIPTORS
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    uvloop.run(_hold(arguments.port, arguments.size))


if __name__ == "__main__":
    main()
