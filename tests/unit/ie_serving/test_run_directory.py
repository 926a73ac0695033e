import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ie_serving import run_directory
from ie_serving.errors import CommandError, NoInstanceError
from ie_serving.run_directory import RunDirectory


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A path that leaves room for sockets, which also stands for the temporary directory."""
    with tempfile.TemporaryDirectory(prefix="rd") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def test_choice() -> None:
    default = run_directory.users_directory() / "9000"
    assert run_directory.choose(None, "", 9000) == default
    assert run_directory.choose(None, " ", 9000) == default
    assert run_directory.choose(None, "/run/x", 9000) == Path("/run/x")
    assert run_directory.choose("/given", "/run/x", 9000) == Path("/given")
    assert run_directory.choose("given", "", 9000) == Path.cwd() / "given"


def test_made_private_and_removed_with_all_it_holds(base: Path) -> None:
    directory = RunDirectory.acquire(base / "run")
    assert directory.path.stat().st_mode & 0o777 == 0o700
    (directory.path / "programs").mkdir()
    (directory.path / "programs" / "a.conf").write_text("x")
    outside = base / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (directory.path / "link").symlink_to(outside)
    directory.release()
    assert not directory.path.exists()
    assert (outside / "kept").exists()


def test_default_directory_is_private_too() -> None:
    directory = RunDirectory.acquire(run_directory.choose(None, "", 9000))
    assert run_directory.users_directory().stat().st_mode & 0o777 == 0o700
    directory.release()


def test_directory_that_was_there_stays_empty(base: Path) -> None:
    (base / "run").mkdir(mode=0o700)
    directory = RunDirectory.acquire(base / "run")
    (directory.path / "x").touch()
    directory.release()
    assert list((base / "run").iterdir()) == []


def test_live_instance_is_named(base: Path) -> None:
    directory = RunDirectory.acquire(base / "run")
    (directory.path / "config.json").touch()
    with pytest.raises(CommandError, match=f"belongs to a live instance, pid {os.getpid()}$"):
        RunDirectory.acquire(base / "run")
    assert (directory.path / "config.json").exists()
    directory.release()


def test_leftovers_of_a_dead_instance_are_removed(base: Path) -> None:
    run = base / "run"
    run.mkdir(mode=0o700)
    (run / "lock").write_text("ie_serving 4194304\n")
    (run / "config.json").touch()
    (run / "programs").mkdir()
    directory = RunDirectory.acquire(run)
    assert [entry.name for entry in run.iterdir()] == ["lock"]
    assert run_directory.live_pid(run) == os.getpid()
    directory.release()


def test_empty_lock_of_an_instance_that_died_at_once(base: Path) -> None:
    run = base / "run"
    run.mkdir(mode=0o700)
    (run / "lock").touch()
    RunDirectory.acquire(run).release()


@pytest.mark.parametrize("lock", [None, "", "something else", "ie_serving x\n"])
def test_directory_of_something_else_is_left_alone(base: Path, lock: str | None) -> None:
    (base / "home").mkdir(mode=0o700)
    (base / "home" / "thesis").write_text("years of work")
    if lock is not None:
        (base / "home" / "lock").write_text(lock)
    with pytest.raises(CommandError, match="is not empty and not a run directory"):
        RunDirectory.acquire(base / "home")
    assert (base / "home" / "thesis").read_text() == "years of work"


def test_symlink_is_refused(base: Path) -> None:
    (base / "real").mkdir(mode=0o700)
    (base / "run").symlink_to(base / "real")
    with pytest.raises(CommandError, match="is a symbolic link"):
        RunDirectory.acquire(base / "run")


def test_file_is_refused(base: Path) -> None:
    (base / "run").touch()
    with pytest.raises(CommandError, match="is not a directory"):
        RunDirectory.acquire(base / "run")


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_directory_that_others_can_write_is_refused(base: Path, mode: int) -> None:
    (base / "run").mkdir()
    (base / "run").chmod(mode)
    with pytest.raises(CommandError, match="can be written by others"):
        RunDirectory.acquire(base / "run")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(base: Path) -> None:
    (base / "run").mkdir(mode=0o700)
    os.chown(base / "run", 12345, -1)
    with pytest.raises(CommandError, match="belongs to user 12345"):
        RunDirectory.acquire(base / "run")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_default_directory_prepared_by_another_user_is_refused() -> None:
    run_directory.users_directory().mkdir()
    os.chown(run_directory.users_directory(), 12345, -1)
    with pytest.raises(CommandError, match="belongs to user 12345"):
        RunDirectory.acquire(run_directory.choose(None, "", 9000))


def test_missing_parent_is_one_line(base: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot use the run directory .*: No such file or directory"):
        RunDirectory.acquire(base / "missing" / "run")


def test_too_long_for_sockets(base: Path) -> None:
    with pytest.raises(CommandError, match="longer than 46 bytes"):
        RunDirectory.acquire(base / ("x" * (47 - len(str(base)) - 1)))


@pytest.mark.parametrize("character", "\n*?[];#")
def test_characters_that_supervisord_cannot_take(base: Path, character: str) -> None:
    with pytest.raises(CommandError, match="must not hold"):
        RunDirectory.acquire(base / f"a{character}b")


def test_live_pid(base: Path) -> None:
    run = base / "run"
    assert run_directory.live_pid(run) is None
    directory = RunDirectory.acquire(run)
    assert run_directory.live_pid(run) == os.getpid()
    directory.release()
    assert run_directory.live_pid(run) is None


def test_a_probe_does_not_take_the_lock_for_long(base: Path) -> None:
    run = base / "run"
    directory = RunDirectory.acquire(run)
    for _ in range(3):
        run_directory.live_pid(run)
    with (run / "lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    directory.release()


def test_the_only_instance_is_found(base: Path) -> None:
    with pytest.raises(NoInstanceError, match="no server of this user is running"):
        run_directory.find_any("")
    one = RunDirectory.acquire(run_directory.choose(None, "", 9000))
    assert run_directory.find_any("") == one.path
    elsewhere = RunDirectory.acquire(base / "env")
    with pytest.raises(NoInstanceError, match="2 servers of this user are running"):
        run_directory.find_any(str(elsewhere.path))
    one.release()
    assert run_directory.find_any(str(elsewhere.path)) == elsewhere.path
    elsewhere.release()
