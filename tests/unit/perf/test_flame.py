"""perf.flame: which files, and what is said where processes may not be looked into."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perf import flame
from perf.flame import NOT_PERMITTED, NothingRecordedError, files_of, record, recorder
from perf.procs import Process
from perf.target import ROOT

BUSY = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: sum(range(1000))"


def test_every_process_has_a_file_by_its_kind(tmp_path: Path) -> None:
    kinds = ("grpc", "rest", "rest", "worker")
    processes = [Process(pid, 0, kind, 0.0) for pid, kind in enumerate(kinds)]
    found = files_of(processes, tmp_path, "speedscope")
    assert [path.name for path in found.values()] == [
        *("flame-grpc.json", "flame-rest.json", "flame-rest-1.json", "flame-worker.json")
    ]


def test_the_command_line_is_one_that_py_spy_takes(tmp_path: Path) -> None:
    line = recorder(1, 2.6, "raw", tmp_path / "out", native=True)
    assert Path(line[0]).is_file()
    shown = subprocess.run(
        [line[0], "record", "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    options = [word for word in line if word.startswith("--")]
    assert all(option in shown.stdout for option in options)
    assert line[line.index("--duration") + 1] == "3"


@pytest.mark.integration
def test_a_busy_process_is_recorded(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", BUSY])
    path = tmp_path / "flame.svg"
    try:
        (written,) = record({child.pid: path}, 1, "flamegraph", native=False)
    except NothingRecordedError as error:
        if str(error) != NOT_PERMITTED:
            raise
        pytest.skip("this environment permits no ptrace")
    else:
        assert written == path
        assert "<svg" in path.read_text()
    finally:
        child.kill()
        child.wait()


def test_a_process_that_is_gone_is_no_question_of_permission(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(NothingRecordedError, match=r"^(?!.*SYS_PTRACE)"):
        record({child.pid: tmp_path / "flame.svg"}, 1, "flamegraph", native=False)


def test_another_users_process_is_a_question_of_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody else, with setpriv (util-linux)")
    become = ["setpriv", "--reuid=65534", "--clear-groups"]
    real = flame.recorder
    monkeypatch.setattr(flame, "recorder", lambda *a, **k: [*become, *real(*a, **k)])
    with pytest.raises(NothingRecordedError, match="SYS_PTRACE"):
        record({os.getpid(): tmp_path / "flame.svg"}, 1, "flamegraph", native=False)


def test_nonsense_is_refused() -> None:
    line = [sys.executable, "-m", "perf.flame", "-o", "picture"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'picture'" in done.stderr
