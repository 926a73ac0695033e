"""`python -m perf.many`: what many models cost: start until all are served, an idle server's CPU, memory.

Every model is the tiny one, in a directory of its own; the figures are of one `ie_serving config` each.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tqdm import tqdm

from perf import procs
from perf.server import STOP_TIMEOUT_S, free_ports

COUNTS = (1, 10, 100)
IDLE_S = 20.0
_SETTLE_S = 3.0
_START_S = 180.0
_POLL_S = 0.02
_READY = b"gRPC server listens on port"
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Cost:
    """Of a server of so many models."""

    models: int
    start_s: float
    """From the command to the line that says that all are served."""
    idle_percent: dict[str, float]
    """Of one core, by kind of process, while nobody asks anything."""
    memory_mib: float
    """PSS of all processes."""


def configure(directory: Path, model: Path, count: int) -> Path:
    """A configuration file of so many copies of the model; where."""
    entries = []
    for number in range(count):
        base = directory / f"m{number:03}"
        shutil.copytree(model, base, ignore=shutil.ignore_patterns("*.npy"))
        entries.append({"config": {"name": base.name, "base_path": str(base)}})
    path = directory / "models.json"
    path.write_bytes(msgspec.json.encode({"model_config_list": entries}))
    return path


def _await_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while _READY not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(_POLL_S)


def measure(model: Path, count: int, idle_s: float) -> Cost:
    """Start, wait, leave alone, stop."""
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        directory = Path(name)
        path, log = configure(directory, model, count), directory / "server.log"
        ports = free_ports(2)
        line = [
            *(str(Path(sys.executable).parent / "ie_serving"), "config", f"--config_path={path}"),
            *(f"--port={ports[0]}", f"--rest_port={ports[1]}", f"--run_dir={directory / 'run'}"),
        ]
        with log.open("wb") as out:
            begun = time.monotonic()
            process = subprocess.Popen(line, stdout=out, stderr=out, start_new_session=True)
        try:
            _await_ready(process, log)
            start_s = time.monotonic() - begun
            time.sleep(_SETTLE_S)
            before = procs.tree(process.pid)
            time.sleep(idle_s)
            after = procs.tree(process.pid)
            spent = procs.cpu_spent(before, after)
            idle = {kind: 100 * seconds / idle_s for kind, seconds in spent.items()}
            return Cost(count, start_s, idle, sum(procs.memory(after).values()) / MEBIBYTE)
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


def line_of(cost: Cost) -> str:
    """A line of the table."""
    kinds = ", ".join(f"{kind} {share:.2f}" for kind, share in cost.idle_percent.items() if share >= 0.005)
    total = sum(cost.idle_percent.values())
    return f"{cost.models:6}  {cost.start_s:7.2f}  {total:6.2f} ({kinds})  {cost.memory_mib:7.0f}"


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m perf.many", description="What many models cost.")
    parser.add_argument(
        "--models", default=",".join(map(str, COUNTS)), metavar="N,…", help="numbers of models"
    )
    parser.add_argument("--idle-seconds", type=float, default=IDLE_S, help="how long nobody asks anything")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perf-") as name:
        subprocess.run([sys.executable, "-m", "perf.models", name, "tiny"], check=True, timeout=120)
        print("models  start s  idle % of a core (by kind)  PSS MiB")
        for count in tqdm([int(text) for text in arguments.models.split(",")], disable=None, leave=False):
            tqdm.write(line_of(measure(Path(name) / "tiny", count, arguments.idle_seconds)))


if __name__ == "__main__":
    main()
