"""Facts about processes that only the kernel knows: identity, death, parentage."""

import ctypes
import gc
import os
import select
import signal
from pathlib import Path

from common.messages import ProcessId

_PR_SET_PDEATHSIG = 1
_CGROUP = Path("/sys/fs/cgroup")


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none of that number.

    proc(5): field 22 of /proc/PID/stat, counted after the last parenthesis because the name may hold any bytes.
    A zombie counts as gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def this_process() -> ProcessId:
    """The calling process."""
    pid = os.getpid()
    ticks = start_ticks(pid)
    assert ticks is not None, "a running process is listed in /proc"
    return ProcessId(pid, ticks)


def open_pidfd(process: ProcessId) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it has ended already.

    The start time is compared after opening, so that a number that was used again is not mistaken for the process.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if start_ticks(process.pid) != process.start_ticks:
        os.close(descriptor)
        return None
    return descriptor


def has_ended(pidfd: int) -> bool:
    """Whether the process behind a pidfd has ended."""
    return bool(select.select([pidfd], [], [], 0)[0])


def kill(process: ProcessId) -> None:
    """SIGKILL, unless the process has ended already or its number belongs to another now."""
    pidfd = open_pidfd(process)
    if pidfd is None:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process `number` when its parent ends; at once when `parent` has ended already.

    prctl(2) PR_SET_PDEATHSIG. The parent is checked after the call: had it died before, the signal would never come.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def available_cores() -> list[int]:
    """The processors that this process may use, by affinity and by the cgroup's quota (rounded up)."""
    cores = sorted(os.sched_getaffinity(0))
    quota = cgroup_cpus()
    return cores if quota is None else cores[: max(1, min(len(cores), quota))]


def cgroup_cpus(root: Path = _CGROUP) -> int | None:
    """Whole processors that the cgroup's CPU quota is worth; None without a quota. Both cgroup versions."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None  # "max" or -1: no quota
    return -(-int(quota) // int(period))


def available_memory() -> int:
    """Bytes that can still be used: the machine's MemAvailable, or what the cgroup's limit leaves, if that is less."""
    machine = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable")
    )
    group = cgroup_memory()
    return machine if group is None else min(machine, group)


def cgroup_memory(root: Path = _CGROUP) -> int | None:
    """Bytes between the cgroup's usage (less its reclaimable file cache) and its limit; None without a limit."""
    for limit_file, usage_file, stat_file, key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        try:
            limit = (root / limit_file).read_text().strip()
            usage = int((root / usage_file).read_text())
            stat = dict(line.split() for line in (root / stat_file).read_text().splitlines())
        except (OSError, ValueError):
            continue
        if not limit.isdecimal() or int(limit) >= 1 << 60:
            return None
        return max(0, int(limit) - usage + int(stat.get(key, 0)))
    return None


def spare_heap() -> None:
    """What a process has made until now stays for its life: collect once, then leave it out of every collection."""
    gc.collect()
    gc.freeze()
