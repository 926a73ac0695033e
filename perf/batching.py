"""`python -m perf.batching`: what batching_parameters gain for a model of dense layers.

Two servers, one with them and one without, are asked in turn by h2load over gRPC: while one is asked, the other is
idle. Printed are the rates, their ratio in each round, and the CPU time of a request by kind of process.
"""

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from perf import load_h2, procs
from perf.calls import PREDICT, Sample, check_grpc, grpc_message, load_sample
from perf.dense import NAME
from perf.many import _await_ready
from perf.server import STOP_TIMEOUT_S, free_ports
from perf.stats import summarise
from perf.target import Target, frame

CLIENTS = 16
ROUNDS = 5
SECONDS = 3.0
_TIMEOUT_S = 120.0
_PROBE = 200
"""Requests by which the length of a round is guessed."""


@dataclass
class Variant:
    """A server, and what was measured of it."""

    name: str
    pid: int
    target: Target
    sample: Sample
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    cpu_ms: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    errors: int = 0

    def measure(self, clients: int, seconds: float, directory: Path) -> float:
        """Ask for about so long; requests a second."""
        check_grpc(self.target.port, self.sample)
        guess = self.rates[-1] if self.rates else self._run(clients, _PROBE, directory)
        before = procs.tree(self.pid)
        count = max(clients, int(guess * seconds))
        rate = self._run(clients, count, directory, note=True)
        for kind, spent in procs.cpu_spent(before, procs.tree(self.pid)).items():
            self.cpu_ms[kind] = self.cpu_ms.get(kind, 0.0) + spent * 1e3
        self.requests += count
        self.rates.append(rate)
        return rate

    def _run(self, clients: int, requests: int, directory: Path, *, note: bool = False) -> float:
        found = summarise(load_h2.run(self.target, clients, requests, _TIMEOUT_S, directory), clients)
        if note:
            self.errors += found.errors
            self.p50_ms.append(found.p50_ms or 0.0)
        return found.rate


@contextlib.contextmanager
def server(name: str, models: Path, directory: Path, options: dict[str, Any]) -> Iterator[Variant]:
    """`ie_serving config` with the dense model under these options."""
    home = directory / name
    home.mkdir()
    entry = {"name": NAME, "base_path": str(models / NAME), **options}
    path, log = home / "models.json", home / "server.log"
    path.write_bytes(msgspec.json.encode({"model_config_list": [{"config": entry}]}))
    (port,) = free_ports(1)
    line = [
        *(str(Path(sys.executable).parent / "ie_serving"), "config", f"--config_path={path}"),
        *(f"--port={port}", f"--run_dir={home / 'run'}"),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(line, stdout=out, stderr=out, start_new_session=True)
    try:
        _await_ready(process, log)
        sample = load_sample(models, NAME)
        body = home / "body"
        body.write_bytes(frame(grpc_message(sample)))
        yield Variant(
            name, process.pid, Target("grpc", port, PREDICT, body, check_grpc(port, sample)), sample
        )
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)


def report(off: Variant, on: Variant) -> str:
    """What came out, for people."""
    ratios = [one / other for one, other in zip(on.rates, off.rates, strict=True)]
    lines = []
    for each in (off, on):
        cpu = {kind: spent / each.requests for kind, spent in each.cpu_ms.items() if spent}
        kinds = ", ".join(f"{kind} {spent:.3f}" for kind, spent in sorted(cpu.items()))
        lines.append(
            f"{each.name:>8}: {statistics.median(each.rates):7.0f} req/s, p50 {statistics.median(each.p50_ms):.2f} ms, "
            f"{each.errors} errors, CPU ms a request: {sum(cpu.values()):.3f} ({kinds})"
        )
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return "\n".join(
        [*lines, f"batching ÷ without, by round: {listed}; median {statistics.median(ratios):.2f}"]
    )


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.batching", description="What batching_parameters gain."
    )
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each server in each round")
    parser.add_argument(
        "--batching-parameters", type=msgspec.json.decode, default={"max_batch_size": 16}, metavar="JSON"
    )
    parser.add_argument("--nireq", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perf-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        subprocess.run([sys.executable, "-m", "perf.dense", name], check=True, timeout=120)
        common = {"nireq": arguments.nireq}
        off = stack.enter_context(server("without", directory, directory, common))
        options = {**common, "batching_parameters": arguments.batching_parameters}
        on = stack.enter_context(server("batching", directory, directory, options))
        for number in range(arguments.rounds):
            turn = (off, on) if number % 2 == 0 else (on, off)
            for each in turn:
                each.measure(arguments.clients, arguments.seconds, directory)
        print(report(off, on))


if __name__ == "__main__":
    main()
