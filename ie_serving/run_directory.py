"""The run directory: sockets and state of one instance, for one user, and the lock that says who lives in it.

    <tmp>/ie_serving-<uid>/<gRPC port>/     0700, also the directory above it
        lock            flock'ed by `ie_serving` as long as it lives; holds its pid
        config.json, supervisord.conf, programs/, sockets, state ...

What a dead instance left is removed, but only from a directory that its lock file shows to be one of ours.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path

from ie_serving.errors import CommandError, NoInstanceError

_LOCK = "lock"
_LOCK_TEXT = re.compile(rb"ie_serving ([0-9]+)\n")
_LOCK_TRIES = 10
_LOCK_PAUSE_S = 0.05
"""A probe by `ie_serving status`, or the last moments of an instance that ends, are not a live instance."""

_SOCKET_PATH_BYTES = 107
"""unix(7): sun_path has 108, the last of which ends it."""
_NAME_BYTES = 60
"""Left for the names of the sockets."""
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f*?\[\];#]")
"""supervisord's configuration has no quoting for these."""


def users_directory() -> Path:
    """Where the default run directories of this user are. Raises CommandError when no temporary directory is there."""
    try:
        return Path(tempfile.gettempdir()) / f"ie_serving-{os.getuid()}"
    except FileNotFoundError:
        raise CommandError("no temporary directory can be written; name a directory with --run_dir") from None


def choose(given: str | None, from_environment: str, port: int) -> Path:
    """The run directory of an instance: as given, else by IE_SERVING_RUN_DIR, else by user and gRPC port."""
    named = given or from_environment.strip()
    return Path(named).absolute() if named else users_directory() / str(port)


class RunDirectory:
    """A run directory that belongs to this process."""

    def __init__(self, path: Path, lock: int, created: bool) -> None:
        self.path = path
        self._lock = lock
        self._created = created

    @classmethod
    def acquire(cls, path: Path) -> "RunDirectory":
        """Make or take over the directory, empty. Raises CommandError when it is not fit or another instance's."""
        _check_name(path)
        try:
            for _ in range(_LOCK_TRIES):
                created = _make(path)
                lock = _lock(path)
                if lock is not None:
                    directory = cls(path, lock, created)
                    directory._clear()
                    return directory
                time.sleep(_LOCK_PAUSE_S)
        except OSError as error:
            raise CommandError(f"cannot use the run directory {path}: {error.strerror}") from error
        pid = _pid(path)
        raise CommandError(f"the run directory {path} belongs to a live instance, pid {pid or 'unknown'}")

    def release(self) -> None:
        """Remove the content, and the directory if it was made here; then let go of the lock."""
        try:
            self._clear()
            (self.path / _LOCK).unlink(missing_ok=True)
            if self._created:
                self.path.rmdir()
        except OSError:
            pass  # what stays is removed at the next start
        os.close(self._lock)

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name == _LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _check_name(path: Path) -> None:
    found = _UNUSABLE.search(str(path))
    if found:
        raise CommandError(f"the run directory's path must not hold {found[0]!r}: {str(path)!a}")
    if len(os.fsencode(path)) + 1 + _NAME_BYTES > _SOCKET_PATH_BYTES:
        limit = _SOCKET_PATH_BYTES - _NAME_BYTES - 1
        raise CommandError(
            f"the run directory's path is longer than {limit} bytes, too long for sockets: {path}"
        )


def _make(path: Path) -> bool:
    """Make the directory and, if it is a default one, the one above it; whether it was not there before."""
    if path.parent.name == f"ie_serving-{os.getuid()}" and path.parent == users_directory():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _check_owner(path.parent)
    try:
        path.mkdir(mode=0o700)
        created = True
    except FileExistsError:
        created = False
    _check_owner(path)
    return created


def _check_owner(path: Path) -> None:
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        raise CommandError(f"the run directory {path} is {kind}")
    if status.st_uid != os.getuid():
        raise CommandError(f"the run directory {path} belongs to user {status.st_uid}, not to this one")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CommandError(f"the run directory {path} can be written by others; `chmod 700` it")


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None when another has it just now."""
    strangers = [entry.name for entry in path.iterdir()]
    lock = path / _LOCK
    if strangers and _LOCK not in strangers:
        raise CommandError(f"the directory {path} is not empty and not a run directory")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        text = os.pread(descriptor, 64, 0)
        if not _LOCK_TEXT.fullmatch(text) and (text or strangers not in ([], [_LOCK])):
            raise CommandError(f"the directory {path} is not empty and not a run directory")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The instance that had it may have removed the file meanwhile: then this lock is on nothing.
        if not os.path.samestat(os.fstat(descriptor), lock.stat()):
            raise FileNotFoundError
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    text = f"ie_serving {os.getpid()}\n".encode()
    os.pwrite(descriptor, text, 0)
    os.ftruncate(descriptor, len(text))
    return descriptor


def _pid(path: Path) -> int | None:
    """Of the instance that wrote the lock file."""
    try:
        found = _LOCK_TEXT.fullmatch((path / _LOCK).read_bytes())
    except OSError:
        return None
    return int(found[1]) if found else None


def live_pid(path: Path) -> int | None:
    """The pid of the instance that lives in a run directory; None when none does, or it is not this user's to see."""
    try:
        descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(path)
    finally:
        os.close(descriptor)
    return None


def find_any(from_environment: str) -> Path:
    """The run directory of the only live instance of this user. Raises NoInstanceError when there is not just one."""
    candidates = {choose(None, from_environment, 0)} if from_environment.strip() else set()
    candidates.update(users_directory().glob("*/"))
    live = sorted(path for path in candidates if live_pid(path) is not None)
    if not live:
        raise NoInstanceError("no server of this user is running")
    if len(live) > 1:
        raise NoInstanceError(
            f"{len(live)} servers of this user are running ({', '.join(map(str, live))}): choose one with --run_dir"
        )
    return live[0]
