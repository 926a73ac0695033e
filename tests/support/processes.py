"""A server's processes as /proc shows them, found by the run directory that all their command lines name."""

import re
from dataclasses import dataclass
from pathlib import Path

from common.process import start_ticks

SEGMENT = "/memfd:ie_serving (deleted)"
"""How the shared memory of the frontends is called in /proc/PID/maps."""

_MODULES = {
    "ie_serving": "command",
    "broker.app": "broker",
    "broker.storekeeper": "storekeeper",
    "frontends.grpc.service": "grpc",
    "frontends.rest.service": "rest",
    "workers.service": "worker",
}


@dataclass(frozen=True)
class Process:
    """A process at one moment."""

    pid: int
    parent: int
    kind: str
    """`command`, `broker`, `storekeeper`, `grpc`, `rest` (gunicorn's arbiter and its workers), `worker`."""


def of_run_dir(run_dir: Path) -> list[Process]:
    """Every live process of the instance, whoever its parent is now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            words = _read(entry / "cmdline").split("\0")
            kind = _kind(words, str(run_dir))
            if kind and start_ticks(int(entry.name)) is not None:
                found.append(Process(int(entry.name), parent_of(int(entry.name)), kind))
    return found


def _kind(words: list[str], run_dir: str) -> str:
    """Empty for a process that is not of this run directory."""
    if len(words) < 3 or words[1] != "-m":
        return ""
    named = f"--run_dir={run_dir}" in words[3:] or run_dir in words[3:]
    return _MODULES.get(words[2], "") if named else ""


def parent_of(pid: int) -> int:
    """0 for a process that is gone."""
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def exists(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    return start_ticks(pid) is not None


def segments(pid: int) -> list[int]:
    """The inodes of the frontends' shared memory that a process maps."""
    lines = [line.split(maxsplit=5) for line in _read(Path(f"/proc/{pid}/maps")).splitlines()]
    return sorted({int(fields[4]) for fields in lines if len(fields) == 6 and fields[5] == SEGMENT})


def segment_bytes(pid: int) -> int:
    """Address space that those mappings take."""
    total = 0
    for line in _read(Path(f"/proc/{pid}/maps")).splitlines():
        if line.endswith(SEGMENT):
            first, last = (int(end, 16) for end in line.split(maxsplit=1)[0].split("-"))
            total += last - first
    return total


def descriptors(pid: int) -> int:
    """Open file descriptors; 0 for a process that is gone."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def own_bytes(pid: int) -> int:
    """Anonymous memory: what a leak makes grow. Pages that a fork shares count in both processes."""
    found = re.search(r"^Anonymous:\s+(\d+) kB", _read(Path(f"/proc/{pid}/smaps_rollup")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def allowed_cores(pid: int) -> str:
    """Cpus_allowed_list, as proc(5) writes it."""
    found = re.search(r"^Cpus_allowed_list:\s+(\S+)", _read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return found[1] if found else ""


def _read(path: Path) -> str:
    """Empty when the process is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
