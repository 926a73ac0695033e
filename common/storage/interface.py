"""What every store says and does: pure data in and out.

    base path ──open_store──▶ Store ──list_versions──▶ Listing {version: StoredVersion (name, files)}
                                    ──fetch──▶ the files of one version in a directory of this machine

A store's own exceptions end here: each becomes a StorageError, whose text is one line and holds no secret.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StorageError(Exception):
    """Storage cannot be listed or read; the text says why, in one line, without secrets."""

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient
        """Whether the same call may succeed a moment later: no connection, a timeout, a server's own fault."""


class Cancelled(Exception):  # noqa: N818 - nothing has failed: nobody wants the version any more
    """The fetch was called off by its caller."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a version."""

    name: str
    """Relative to the version's directory, parts separated by `/`."""
    size: int
    """Bytes."""
    mark: str
    """Changes whenever the content is written anew: an ETag, a generation, times of a local file."""
    changed_ns: int = 0
    """Of a local file: when content or permissions last changed [ns since the epoch]."""


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A directory of storage that holds a model."""

    name: str
    """Of the directory: digits, perhaps with leading zeros."""
    location: str
    """The whole address, for people and, locally, for the file system."""
    files: tuple[StoredFile, ...]
    """Ascending by name."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change whenever a file comes, goes or is written anew."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.name}\0{file.size}\0{file.mark}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a base path holds now."""

    versions: dict[int, StoredVersion]
    warnings: tuple[str, ...] = ()
    """What an operator should know about directories that are no versions, and why."""
    refused: tuple[str, ...] = ()
    """Locations of those directories; a model may be on its way into one."""


class Store(Protocol):
    """A base path in a store that is not this machine's file system. Its methods block; one call at a time."""

    def list_versions(self) -> Listing:
        """All versions. Raises StorageError."""

    def fetch(self, version: StoredVersion, directory: Path, cancelled: Callable[[], bool]) -> None:
        """Write the version's files, complete, into an existing empty directory. Raises StorageError, Cancelled."""
