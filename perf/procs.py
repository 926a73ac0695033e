"""What the server's processes cost: CPU and memory by kind, read from /proc."""

import os
import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

KINDS = ("grpc", "rest", "broker", "worker", "storekeeper", "supervisord", "other")

# By what stands in the command line; the first that matches. gunicorn's children keep their arbiter's.
_MARKS = (
    ("frontends.grpc.service", "grpc"),
    ("frontends.rest.service", "rest"),
    ("gunicorn", "rest"),
    ("broker.storekeeper", "storekeeper"),
    ("broker.app", "broker"),
    ("workers.service", "worker"),
    ("supervisord", "supervisord"),
    ("ie_serving", "supervisord"),  # the command runs it in its own process
)

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Process:
    """One process at one moment."""

    pid: int
    started_ticks: int
    """With the pid: which process it is, though numbers are used again."""
    kind: str
    cpu_s: float


def kind_of(command_line: str) -> str:
    """Which kind of process a command line (blanks between arguments) belongs to."""
    return next((kind for mark, kind in _MARKS if mark in command_line), "other")


def parse_stat(text: str) -> tuple[int, int, int]:
    """Parent, CPU ticks (user and system, all threads), start tick, of the text of /proc/PID/stat.

    proc(5): fields 4, 14, 15 and 22, counted behind the last parenthesis because the name may hold anything.
    """
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19])


def descendants(root: int, parents: Mapping[int, int]) -> set[int]:
    """`root` and all that it started, given each process's parent."""
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def tree(root: int) -> list[Process]:
    """`root` and its descendants as they are now."""
    texts = {int(each.name): _read(each / "stat") for each in Path("/proc").iterdir() if each.name.isdigit()}
    parents = {pid: parse_stat(text)[0] for pid, text in texts.items() if text}
    found = (look(pid) for pid in sorted(descendants(root, parents)))
    return [process for process in found if process is not None]


def look(pid: int) -> Process | None:
    """One process as it is now; None where there is none."""
    text = _read(Path(f"/proc/{pid}/stat"))
    if not text:
        return None
    _, ticks, started = parse_stat(text)
    command_line = _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")
    return Process(pid, started, kind_of(command_line), ticks * _TICK_S)


def cpu_spent(before: Iterable[Process], after: Iterable[Process]) -> dict[str, float]:
    """CPU seconds by kind between two looks. What ended in between is not seen."""
    known = {(process.pid, process.started_ticks): process.cpu_s for process in before}
    spent: defaultdict[str, float] = defaultdict(float)
    for process in after:
        spent[process.kind] += process.cpu_s - known.get((process.pid, process.started_ticks), 0.0)
    return dict(spent)


def parse_pss(text: str) -> int:
    """Proportional set size [bytes] from /proc/PID/smaps_rollup; 0 where there is none."""
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def memory(processes: Iterable[Process]) -> dict[str, int]:
    """PSS [bytes] by kind: shared pages, the arenas among them, count once, divided among those that map them."""
    used: Counter[str] = Counter()
    for process in processes:
        used[process.kind] += parse_pss(_read(Path(f"/proc/{process.pid}/smaps_rollup")))
    return dict(used)


def listens(port: int) -> bool:
    """Whether somebody accepts connections at this port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _read(path: Path) -> str:
    """The file's text; empty when its process is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
