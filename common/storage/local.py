"""Versions in a directory of this machine, where they are served from as they lie."""

import os
from collections.abc import Iterator
from pathlib import Path

from common.storage.interface import Listing, StorageError, StoredFile
from common.storage.layout import VARIABLES, Candidate, choose, is_number

MAX_FILES = 10_000
"""Files of a version that are looked at; a directory that holds more is no version."""

Stamp = tuple[tuple[str, int, int], ...]
"""Of each directory that a listing depends on: its path, its inode, and its last change [ns]; -1 where it is gone."""


def list_versions(base_path: str) -> Listing:
    """All versions under `base_path`. One that does not exist holds none, with a warning. Raises StorageError.

    A file's mark is made of its times and inode.
    """
    base = Path(base_path)
    try:
        with os.scandir(base) as entries:
            names = [entry.name for entry in entries if is_number(entry.name)]
    except FileNotFoundError:
        return Listing({}, (f"{base} does not exist; it is picked up when it appears",))
    except OSError as error:
        raise StorageError(f"{base} cannot be listed: {error.strerror}") from error
    return choose(str(base), [_candidate(base / name) for name in names])


def stamp(base_path: str, listing: Listing) -> Stamp:
    """Of the base path and the versions of a listing of it. While it stays, the listing need not be made again."""
    paths = [base_path]
    for version in listing.versions.values():
        paths.append(version.location)
        if any(file.name.startswith(f"{VARIABLES}/") for file in version.files):
            paths.append(f"{version.location}/{VARIABLES}")
    return stamp_paths(paths)


def stamp_paths(paths: list[str]) -> Stamp:
    """Of these directories. Not the time of modification, which does not tell when permissions change."""
    found = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - a third of the time of pathlib's, for every version at every poll
            found.append((path, status.st_ino, status.st_ctime_ns))
        except OSError:
            found.append((path, -1, -1))
    return tuple(found)


def nearest_directory(path: str) -> str:
    """The path itself, or the nearest directory above it that exists."""
    place = Path(path).absolute()
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return str(place)


def _candidate(directory: Path) -> Candidate:
    name, location = directory.name, str(directory)
    try:
        files = []
        for file in _files(str(directory), ""):
            files.append(file)
            if len(files) > MAX_FILES:
                return Candidate(name, location, problem=f" holds more than {MAX_FILES} files")
    except OSError as error:
        return Candidate(name, location, problem=f" cannot be read: {error.strerror}")
    return Candidate(name, location, tuple(files))


def _files(directory: str, prefix: str) -> Iterator[StoredFile]:
    """The files that count: those of the directory, and a SavedModel's weights one level below."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not prefix and entry.name == VARIABLES and entry.is_dir():
                yield from _files(entry.path, f"{VARIABLES}/")
            elif _is_file(entry):
                status = entry.stat()
                mark = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_ctime_ns}"
                changed = max(status.st_mtime_ns, status.st_ctime_ns)
                yield StoredFile(prefix + entry.name, status.st_size, mark, changed)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """A link into nowhere or in a circle is no file, and no reason not to look at the others."""
    try:
        return entry.is_file()
    except OSError:
        return False
