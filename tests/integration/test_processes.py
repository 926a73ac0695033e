"""common.process against real children: identity, death, signals, parentage."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.messages import ProcessId
from common.process import has_ended, kill, open_pidfd, start_ticks

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    child.kill()
    child.wait()


def identify(child: "subprocess.Popen[bytes]") -> ProcessId:
    ticks = start_ticks(child.pid)
    assert ticks is not None
    return ProcessId(child.pid, ticks)


def test_start_ticks_are_those_that_ps_computes_with(child: "subprocess.Popen[bytes]") -> None:
    own, later = start_ticks(os.getpid()), start_ticks(child.pid)
    assert own is not None
    assert later is not None
    assert later >= own
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(uptime - later / os.sysconf("SC_CLK_TCK")) < PATIENCE_S


def test_a_zombie_counts_as_gone(child: "subprocess.Popen[bytes]") -> None:
    process = identify(child)
    pidfd = open_pidfd(process)
    assert pidfd is not None
    child.kill()
    assert select.select([pidfd], [], [], PATIENCE_S)[0]
    # Not waited for: it is a zombie.
    assert Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    assert start_ticks(child.pid) is None
    assert open_pidfd(process) is None
    os.close(pidfd)


def test_the_end_of_a_process_shows_at_its_pidfd(child: "subprocess.Popen[bytes]") -> None:
    pidfd = open_pidfd(identify(child))
    assert pidfd is not None
    assert not has_ended(pidfd)
    child.kill()
    assert select.select([pidfd], [], [], PATIENCE_S)[0]
    assert has_ended(pidfd)
    child.wait()
    assert has_ended(pidfd)
    os.close(pidfd)


def test_a_pidfd_opened_after_the_wait_is_none(child: "subprocess.Popen[bytes]") -> None:
    process = identify(child)
    child.kill()
    child.wait()
    assert open_pidfd(process) is None


def test_kill(child: "subprocess.Popen[bytes]") -> None:
    kill(identify(child))
    assert child.wait(PATIENCE_S) == -signal.SIGKILL


def test_kill_spares_another_process_of_the_same_number(child: "subprocess.Popen[bytes]") -> None:
    process = identify(child)
    kill(ProcessId(process.pid, process.start_ticks + 1))
    pidfd = open_pidfd(process)
    assert pidfd is not None
    assert not select.select([pidfd], [], [], 0.1)[0]
    os.close(pidfd)


def test_killing_the_dead_does_nothing(child: "subprocess.Popen[bytes]") -> None:
    process = identify(child)
    child.kill()
    child.wait()
    kill(process)


def test_kill_leaves_no_descriptor(child: "subprocess.Popen[bytes]") -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    kill(identify(child))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


GRANDCHILD = """
import os, signal, sys
from common.process import die_with_parent
die_with_parent(int(sys.argv[1]) or os.getppid(), signal.SIGTERM)
print(os.getpid(), flush=True)
signal.pause()
"""

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], "0"])
child.wait()
"""


def test_a_child_ends_with_its_parent() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, GRANDCHILD], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    ticks = start_ticks(pid)
    assert ticks is not None
    pidfd = open_pidfd(ProcessId(pid, ticks))
    assert pidfd is not None
    parent.kill()
    parent.wait()
    assert select.select([pidfd], [], [], PATIENCE_S)[0], "an orphan was left"
    os.close(pidfd)
    parent.stdout.close()


def test_a_child_whose_parent_ended_before_it_asked_ends_at_once() -> None:
    """Process 1 is not its parent, which is how a child sees that it came too late."""
    child = subprocess.run(
        [sys.executable, "-c", GRANDCHILD, "1"],
        cwd=ROOT,
        timeout=PATIENCE_S,
        check=False,
        capture_output=True,
    )
    assert child.returncode == -signal.SIGTERM
    assert child.stdout == b""
