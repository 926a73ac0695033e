"""`python -m perf.flame`: flame graphs of every process of a server under load, by py-spy, into perf/results/.

It starts a server of one model and sixteen gRPC clients, records all of the server's processes at once, and writes one
file a process. It wants to be allowed to trace processes (ptrace): root, or CAP_SYS_PTRACE in a container.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from perf import generate, procs
from perf.calls import WrongAnswerError, grpc_target, load_sample, rest_target
from perf.models import BUILDERS
from perf.plan import Setup
from perf.server import Server, StartFailedError, model_options
from perf.target import ROOT, LoadFailedError

CLIENTS = 16
SECONDS = 5.0
ENDINGS = {"flamegraph": "svg", "speedscope": "json", "raw": "txt"}
_RATE = 200
"""Samples a second."""
_END_S = 30.0
_START_S = 2.0
_NO_SAMPLES = "No stack counts found"
NOT_PERMITTED = (
    "py-spy may not look into processes: it needs ptrace. Run this as root, or in a container started with "
    "--cap-add SYS_PTRACE; where /proc/sys/kernel/yama/ptrace_scope is not 0, root is needed"
)


class NothingRecordedError(RuntimeError):
    """py-spy recorded no process; the text says why."""


def recorder(pid: int, seconds: float, format_: str, path: Path, *, native: bool) -> list[str]:
    """py-spy's command line for one process."""
    program = str(Path(sys.executable).parent / "py-spy")
    line = [program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds)))]
    line += ["--rate", str(_RATE), "--threads", "--nonblocking", "--format", format_, "--output", str(path)]
    return [*line, "--native"] if native else line


def files_of(processes: Sequence[procs.Process], directory: Path, format_: str) -> dict[int, Path]:
    """Where each process's graph goes, by pid: named by its kind."""
    seen: Counter[str] = Counter()
    found = {}
    for process in processes:
        number = seen[process.kind]
        seen[process.kind] += 1
        name = process.kind if not number else f"{process.kind}-{number}"
        found[process.pid] = directory / f"flame-{name}.{ENDINGS[format_]}"
    return found


def record(files: dict[int, Path], seconds: float, format_: str, *, native: bool) -> list[Path]:
    """Record all at once; the files that were written. Raises NothingRecordedError, where none could be."""
    children = {
        pid: subprocess.Popen(
            recorder(pid, seconds, format_, path, native=native),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for pid, path in files.items()
    }
    written = []
    refused = ""
    for pid, child in children.items():
        try:
            text, _ = child.communicate(timeout=seconds + _END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            text, _ = child.communicate()
        if child.returncode == 0 and files[pid].exists():
            written.append(files[pid])
        elif _NO_SAMPLES in text:
            files[pid].unlink(missing_ok=True)
            print(f"{files[pid].name}: idle all the time, nothing to draw", file=sys.stderr)
        else:
            refused = text.strip()
            print(f"{files[pid].name}: {refused[-300:]}", file=sys.stderr)
    if not written:
        raise NothingRecordedError(NOT_PERMITTED if _about_permission(refused) else refused)
    return written


def _about_permission(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in ("permission", "not permitted", "ptrace", "root"))


def run(arguments: argparse.Namespace, directory: Path) -> list[Path]:
    """Serve, load, record. Raises NothingRecordedError, StartFailedError, WrongAnswerError, LoadFailedError."""
    subprocess.run(
        [sys.executable, "-m", "perf.models", str(directory), arguments.model],
        cwd=ROOT,
        timeout=120,
        check=True,
    )
    sample = load_sample(directory, arguments.model)
    options = model_options(arguments.model, directory / arguments.model, Setup(arguments.transport))
    name = generate.choose()
    with Server(options, directory) as server:
        grpc, rest = server.wait_ready(sample)
        if arguments.rest:
            target = rest_target(server.rest_port, sample, directory, rest)
        else:
            target = grpc_target(server.grpc_port, sample, directory, grpc)
        rate = generate.pilot(name, target, CLIENTS, SECONDS, directory)
        # Long enough for py-spy to start in each process, and slower under its eyes than before.
        requests = generate.requests_for(rate, arguments.seconds + _START_S, CLIENTS)
        load = threading.Thread(
            target=generate.measure, args=(name, target, CLIENTS, requests, arguments.seconds, directory)
        )
        load.start()
        try:
            files = files_of(server.processes(), arguments.output, arguments.format)
            return record(files, arguments.seconds, arguments.format, native=arguments.native)
        finally:
            load.join()


def main() -> int:
    """The process. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m perf.flame", description=__doc__)
    parser.add_argument("--model", choices=list(BUILDERS), default="tiny", help="what is served (tiny)")
    parser.add_argument("--rest", action="store_true", help="load over REST (gRPC)")
    parser.add_argument(
        "--transport", choices=["native", "grpcio"], default="", help="of gRPC (the server's own)"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"how long to record ({SECONDS:g})")
    parser.add_argument("--native", action="store_true", help="frames of C and C++ too (x86-64)")
    parser.add_argument(
        "-o", "--format", choices=list(ENDINGS), default="flamegraph", help="of the files (flamegraph)"
    )
    parser.add_argument("--output", type=Path, default=Path("perf/results"), metavar="DIR")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="perf-") as directory:
        try:
            for path in run(arguments, Path(directory)):
                print(path)
        except (NothingRecordedError, StartFailedError, WrongAnswerError, LoadFailedError) as error:
            print(f"perf.flame: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
