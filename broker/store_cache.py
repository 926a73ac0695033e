"""The model cache: versions from stores, each complete in a directory of its own, within a bound.

    <cache>/lock                                flock'ed by the storekeeper as long as it lives
    <cache>/resnet-3f2a91c04b7d/                a model: its name, and a hash of name and base path
        7-5d41402abc4b2a76/                     version 7, and the fingerprint of its files in the store
        .7-5d41402abc4b2a76.part                being fetched; renamed once it is complete

A directory is never written to after it got its name, so a worker may read it as long as it is there. The bookkeeping
belongs to the thread of the storekeeper's loop; the functions that touch the disk run in its pool.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.storage.interface import StorageError, Store, StoredVersion

GRACE_NS = 5_000_000_000
"""A version that nobody wants or keeps is deleted after so long. Keep and Snapshot cross on the way."""

FREE_BYTES = 64 << 20
"""What a fetch leaves free on the disk."""

_LOCK = "lock"
_PARTIAL = ".part"
_VERSION_NAME = re.compile(r"([1-9][0-9]{0,18})-([0-9a-f]{16})")
_OTHERS = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(slots=True, eq=False)
class Entry:
    """A directory of the cache: complete, or with room taken for what is being fetched."""

    path: str
    size: int
    """Bytes."""
    complete: bool
    unwanted_since: int | None = None
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """What `open_directory` found."""

    lock: int
    """Descriptor; closing it, or the end of the process, gives the directory up."""
    sizes: dict[str, int]
    """Bytes of each complete version by its path."""


class Cache:
    """What the cache holds and may hold."""

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        """Bytes."""
        self.entries: dict[str, Entry] = {}
        self.problem = ""
        """Why the directory could not be opened."""
        self._lock: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the directory is this process's."""
        return self._lock is not None

    @property
    def used(self) -> int:
        """Bytes, with those of what is being fetched."""
        return sum(entry.size for entry in self.entries.values())

    def opened(self, found: Opened) -> None:
        """The directory is ours, and holds these versions."""
        self._lock = found.lock
        self.problem = ""
        self.entries = {path: Entry(path, size, complete=True) for path, size in found.sizes.items()}

    def path_of(self, model: str, base_path: str, number: int, version: StoredVersion) -> str:
        """The directory of a version of these very files."""
        return str(self.model_directory(model, base_path) / f"{number}-{version.fingerprint}")

    def model_directory(self, model: str, base_path: str) -> Path:
        """No two models have one, whatever their names."""
        digest = hashlib.sha256(f"{model}\0{base_path}".encode("utf-8", "surrogateescape")).hexdigest()
        return self.directory / f"{_OTHERS.sub('_', model)[:64]}-{digest[:12]}"

    def versions(self, model: str, base_path: str) -> dict[int, list[str]]:
        """The complete versions of a model, with each one's directories."""
        place = self.model_directory(model, base_path)
        found: dict[int, list[str]] = {}
        for entry in self.entries.values():
            path = Path(entry.path)
            name = _VERSION_NAME.fullmatch(path.name)
            if entry.complete and not entry.deleting and path.parent == place and name:
                found.setdefault(int(name[1]), []).append(entry.path)
        return found

    def has(self, path: str) -> bool:
        """Whether the version in this directory is complete and stays."""
        entry = self.entries.get(path)
        return entry is not None and entry.complete and not entry.deleting

    def take_room(self, path: str, size: int) -> str:
        """Take room for a version that is to be fetched; why there is none, or an empty text."""
        if path in self.entries:
            return "its last copy is still being deleted"
        free = self.limit - self.used
        if size > free:
            return (
                f"it takes {_megabytes(size)}, and of the model cache's {_megabytes(self.limit)} "
                f"only {_megabytes(max(0, free))} are free"
            )
        self.entries[path] = Entry(path, size, complete=False)
        return ""

    def fetched(self, path: str) -> None:
        """The version is complete."""
        self.entries[path].complete = True

    def dropped(self, path: str) -> None:
        """It could not be fetched, or has been deleted."""
        self.entries.pop(path, None)

    def mark_unwanted(self, path: str, now: int) -> bool:
        """Nobody wants or keeps this version; whether that has been so for long enough to delete it."""
        entry = self.entries[path]
        if entry.unwanted_since is None:
            entry.unwanted_since = now
        return now - entry.unwanted_since >= GRACE_NS

    def mark_wanted(self, path: str) -> None:
        """It is wanted or kept."""
        self.entries[path].unwanted_since = None

    def close(self) -> None:
        """Give the directory up."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


# ---- what touches the disk


def open_directory(directory: Path, owner: str) -> Opened:
    """Make the directory, take it for this process, and remove what an earlier one left half done. Raises StorageError.

    A server's cache is its own: it deletes what it does not know, and counts what is in it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(lock, 4096, 0).decode(errors="replace").strip()
            os.close(lock)
            text = f"the model cache {directory} is in use by another server ({other or 'unknown'})"
            raise StorageError(text) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{owner}\n".encode(), 0)
        return Opened(lock, _scan(directory))
    except OSError as error:
        raise StorageError(f"the model cache {directory} cannot be used: {error.strerror}") from error


def fetch(store: Store, version: StoredVersion, path: str, cancelled: Callable[[], bool]) -> None:
    """Fetch a version into its directory: complete, or not at all. Raises StorageError, Cancelled."""
    target = Path(path)
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_disk(target.parent, version.size)
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(mode=0o700)
        try:
            store.fetch(version, partial, cancelled)
            for place in partial.rglob("*"):
                if place.is_dir():
                    _flush(place)
            _flush(partial)
            partial.rename(target)
            _flush(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error


def delete(path: str) -> None:
    """Remove a version, and its model's directory with the last one. Half of it is never taken for all."""
    target = Path(path)
    partial = target.with_name(f".{target.name}{_PARTIAL}")
    with contextlib.suppress(OSError):
        target.rename(partial)
    shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):
        target.parent.rmdir()


def _scan(directory: Path) -> dict[str, int]:
    found = {}
    for model in directory.iterdir():
        if not model.is_dir() or model.is_symlink():
            continue
        for version in list(model.iterdir()):
            if version.name.startswith(".") and version.name.endswith(_PARTIAL):
                shutil.rmtree(version, ignore_errors=True)
            elif _VERSION_NAME.fullmatch(version.name) and version.is_dir():
                found[str(version)] = sum(
                    file.stat().st_size for file in version.rglob("*") if file.is_file()
                )
        with contextlib.suppress(OSError):
            model.rmdir()  # where it is empty
    return found


def _check_disk(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if size + FREE_BYTES > free:
        raise StorageError(
            f"it takes {_megabytes(size)}, and the disk of {directory} has {_megabytes(free)} free, "
            f"of which {_megabytes(FREE_BYTES)} are not used"
        )


def _flush(directory: Path) -> None:
    """Have the names in a directory on the disk: after a power cut a rename may otherwise outlive what it renamed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MB"
