"""Stores of objects with names: S3, Google Cloud Storage, Azure. What they have in common, over what each can do.

    ObjectStore (list, fetch; retries, limits, refusal of bad names)
        └── Bucket: objects of a prefix, bytes of one object         s3.py, gcs.py, azure.py

A version is fetched object by object; an object that has been written anew since the listing is an error, so that a
version is never a mixture of two.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, TypeVar

from common.storage.interface import Cancelled, Listing, StorageError, StoredFile, StoredVersion
from common.storage.layout import Candidate, choose, is_number

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
"""Of each wait for bytes."""
ATTEMPTS = 3
"""Of each call, the first included; only what may pass is tried again."""
PAUSES_S = (0.2, 1.0)
"""Before the second attempt and the third."""

MAX_OBJECTS = 20_000
"""Under a base path. More are taken for an address that was not meant."""
MAX_NAME_BYTES = 1024
MAX_PART_BYTES = 255
"""Of a file's name, in the usual file systems."""

SLOWEST_BYTES_PER_S = 64 * 1024
SLOWEST_START_S = 60.0
"""An object that takes longer than this and its size at that rate is given up, however steadily it drips."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Address:
    """A base path in a store: `scheme://bucket/prefix`."""

    scheme: str
    bucket: str
    prefix: str
    """Without slashes at its ends; may be empty."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a store lists it."""

    key: str
    size: int
    mark: str


class Bucket(Protocol):
    """What each store does itself: one attempt a call, each wait bounded, errors as StorageError."""

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so."""

    def read(self, key: str, mark: str, sink: Callable[[bytes], None]) -> None:
        """Give `sink` the bytes of the object of this mark, piece by piece."""


class ObjectStore:
    """A base path in a bucket."""

    def __init__(self, address: Address, bucket: Bucket) -> None:
        self._address = address
        self._bucket = bucket
        self._prefix = f"{address.prefix}/" if address.prefix else ""

    def list_versions(self) -> Listing:
        """All versions. Raises StorageError."""
        return choose(str(self._address), candidates(self._address, attempt(self._objects)))

    def fetch(self, version: StoredVersion, directory: Path, cancelled: Callable[[], bool]) -> None:
        """Write the version's files, flushed to the disk. Raises StorageError, Cancelled."""
        for file in version.files:
            self._fetch_file(version, file, directory / file.name, cancelled)

    def _fetch_file(
        self, version: StoredVersion, file: StoredFile, target: Path, cancelled: Callable[[], bool]
    ) -> None:
        key = f"{self._prefix}{version.name}/{file.name}"
        attempt(lambda: self._read(key, file, target, cancelled))

    def _objects(self) -> list[StoredObject]:
        found: list[StoredObject] = []
        with _foreign_errors(str(self._address)):
            for item in self._bucket.objects(self._prefix):
                found.append(item)
                if len(found) > MAX_OBJECTS:
                    raise StorageError(f"{self._address} holds more than {MAX_OBJECTS} objects")
        return found

    def _read(self, key: str, file: StoredFile, target: Path, cancelled: Callable[[], bool]) -> None:
        """One attempt, from the first byte. Raises StorageError, Cancelled."""
        deadline = time.monotonic() + SLOWEST_START_S + file.size / SLOWEST_BYTES_PER_S
        written = 0

        def sink(piece: bytes) -> None:
            nonlocal written
            if cancelled():
                raise Cancelled
            if time.monotonic() > deadline:
                raise StorageError(f"{self._name(key)} comes too slowly", transient=True)
            written += len(piece)
            if written > file.size:
                raise StorageError(f"{self._name(key)} is longer than its listing says")
            with _disk_errors(target):
                _write_all(output, piece)

        with _disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            output = target.open("wb", buffering=0)
        with output:
            with _foreign_errors(self._name(key)):
                self._bucket.read(key, file.mark, sink)
            if written != file.size:
                text = f"{self._name(key)} broke off after {written} of {file.size} bytes"
                raise StorageError(text, transient=True)
            with _disk_errors(target):
                os.fsync(output.fileno())

    def _name(self, key: str) -> str:
        return f"{self._address.scheme}://{self._address.bucket}/{key}"


@contextlib.contextmanager
def _foreign_errors(name: str) -> Iterator[None]:
    """What a library raises that its documents do not tell of must not end the storekeeper, nor be printed."""
    try:
        yield
    except (StorageError, Cancelled):
        raise
    except Exception as error:
        raise StorageError(f"{name}: it cannot be read ({type(error).__name__})", transient=True) from error


def _write_all(output: FileIO, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[output.write(rest) :]


@contextlib.contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """The disk's errors as StorageError, here and not further out, where the libraries' own are OSErrors too."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error


def candidates(address: Address, objects: Iterable[StoredObject]) -> list[Candidate]:
    """The directories with a number for a name under the address, with the objects in each as files. Pure."""
    start = len(address.prefix) + 1 if address.prefix else 0
    files: dict[str, list[StoredFile]] = {}
    problems: dict[str, str] = {}
    for item in objects:
        name, slash, rest = item.key[start:].partition("/")
        if not slash or not is_number(name):
            continue
        held = files.setdefault(name, [])
        if (rest.endswith("/") and item.size == 0) or not rest:
            continue  # how consoles and mounted buckets write an empty directory down
        problem = refusal(rest)
        if problem:
            problems[name] = f" is refused: it holds an object whose name {problem}: {rest[:200]!a}"
        held.append(StoredFile(rest, item.size, item.mark))
    return [
        Candidate(name, f"{address}/{name}", tuple(held), problems.get(name, ""))
        for name, held in files.items()
    ]


def refusal(name: str) -> str:
    """Why an object may not become a file of this name under a version's directory; empty if it may. Pure."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "leads elsewhere"
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "has characters that are not taken"
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if sum(sizes) + len(sizes) > MAX_NAME_BYTES or max(sizes) > MAX_PART_BYTES:
        return "is too long"
    return ""


def attempt(call: Callable[[], _Result]) -> _Result:
    """What `call` returns, tried again after a StorageError that may pass. Raises the last one."""
    for pause in PAUSES_S[: ATTEMPTS - 1]:
        try:
            return call()
        except StorageError as error:
            if not error.transient:
                raise
        time.sleep(pause)
    return call()
