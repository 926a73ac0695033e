"""common.process: what can be told without starting a process. The rest is in tests/integration/test_processes.py."""

import os
import select
from pathlib import Path

import pytest

from common.messages import ProcessId
from common.process import (
    available_cores,
    available_memory,
    cgroup_cpus,
    cgroup_memory,
    open_pidfd,
    start_ticks,
    this_process,
)

NOBODY = (1 << 22) + 1
"""Larger than any process number that Linux gives out."""


def test_this_process_is_known() -> None:
    process = this_process()
    assert process.pid == os.getpid()
    assert start_ticks(process.pid) == process.start_ticks
    assert process.start_ticks > 0


def test_a_number_that_nobody_has() -> None:
    assert start_ticks(NOBODY) is None
    assert open_pidfd(ProcessId(NOBODY, 1)) is None


def test_a_number_that_belongs_to_another_now() -> None:
    process = this_process()
    assert open_pidfd(ProcessId(process.pid, process.start_ticks - 1)) is None


def test_a_living_process_is_not_readable() -> None:
    descriptor = open_pidfd(this_process())
    assert descriptor is not None
    assert select.select([descriptor], [], [], 0)[0] == []
    os.close(descriptor)


@pytest.mark.parametrize("name", [b"plain", b"with ) in it", b"a b (c) d", b"\xff\xfe not text"])
def test_the_name_of_a_process_does_not_matter(name: bytes) -> None:
    """/proc/PID/stat holds it in parentheses, unquoted."""
    comm = Path("/proc/self/comm")
    before, ticks = comm.read_bytes(), this_process().start_ticks
    comm.write_bytes(name)
    try:
        assert start_ticks(os.getpid()) == ticks
    finally:
        comm.write_bytes(before)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, None),
        ({"cpu.max": "nonsense\n"}, None),
        ({"cpu.max": "two 100000\n"}, None),
        ({"cpu.max": "100000 0\n"}, None),
    ],
)
def test_processors_of_a_cgroup(tmp_path: Path, files: dict[str, str], processors: int | None) -> None:
    write(tmp_path, files)
    assert cgroup_cpus(tmp_path) == processors


MB = 1 << 20


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, None),
        ({"memory.max": "max\n", "memory.current": "5\n", "memory.stat": "inactive_file 0\n"}, None),
        (
            {
                "memory.max": f"{100 * MB}\n",
                "memory.current": f"{60 * MB}\n",
                "memory.stat": f"anon 1\ninactive_file {10 * MB}\n",
            },
            50 * MB,
        ),
        ({"memory.max": f"{MB}\n", "memory.current": f"{2 * MB}\n", "memory.stat": "anon 1\n"}, 0),
        (
            {
                "memory/memory.limit_in_bytes": f"{100 * MB}\n",
                "memory/memory.usage_in_bytes": f"{60 * MB}\n",
                "memory/memory.stat": f"inactive_file 7\ntotal_inactive_file {20 * MB}\n",
            },
            60 * MB,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": f"{60 * MB}\n",
                "memory/memory.stat": "total_inactive_file 0\n",
            },
            None,
        ),
        ({"memory.max": "junk\n", "memory.current": "5\n", "memory.stat": "inactive_file 0\n"}, None),
    ],
)
def test_memory_of_a_cgroup(tmp_path: Path, files: dict[str, str], left: int | None) -> None:
    write(tmp_path, files)
    assert cgroup_memory(tmp_path) == left


def test_the_machines_own_figures_make_sense() -> None:
    cores = available_cores()
    assert cores
    assert set(cores) <= os.sched_getaffinity(0)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < available_memory() <= total
