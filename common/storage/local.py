"""Versions in a directory of this machine.

A version is a directory whose name is all digits and that holds a model: an `.xml` and a `.bin` of one basename.
"""

from dataclasses import dataclass
from pathlib import Path

MAX_VERSION = (1 << 63) - 1
"""ModelSpec.version is an int64."""


class StorageError(Exception):
    """The base path cannot be listed; the text says why."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a base path holds now."""

    versions: dict[int, str]
    """Version → its directory."""
    warnings: tuple[str, ...] = ()
    """What an operator should know about directories that are no versions, and why."""


def list_versions(base_path: str) -> Listing:
    """All versions under `base_path`. One that does not exist holds none, with a warning. Raises StorageError."""
    base = Path(base_path)
    try:
        entries = sorted(base.iterdir())
    except FileNotFoundError:
        return Listing({}, (f"{base} does not exist; it is picked up when it appears",))
    except OSError as error:
        raise StorageError(f"{base} cannot be listed: {error.strerror}") from error
    versions: dict[int, str] = {}
    warnings: list[str] = []
    for entry in entries:
        if not (entry.name.isascii() and entry.name.isdigit()):
            continue
        complaint = _complaint(entry, versions)
        if complaint:
            warnings.append(complaint)
        else:
            versions[int(entry.name)] = str(entry)
    if not versions and not warnings:
        warnings.append(f"{base} holds no version; versions are picked up when they appear")
    return Listing(versions, tuple(warnings))


def _complaint(entry: Path, known: dict[int, str]) -> str:
    """Why a directory with a number for a name is no version; empty if it is one."""
    number = int(entry.name)
    if number == 0:
        return f"{entry}: version 0 is not served, because 0 stands for an unspecified version in the API"
    if number > MAX_VERSION:
        return f"{entry}: the version number is larger than {MAX_VERSION}"
    try:
        if not _holds_model(entry):
            return f"{entry} holds no model: an .xml and a .bin file of one name are needed"
    except OSError as error:
        return f"{entry} cannot be read: {error.strerror}"
    if number in known:
        return f"{entry} has the same number as {known[number]}, which is served"
    return ""


def _holds_model(directory: Path) -> bool:
    """Whether the directory has a pair of IR files."""
    names = {file.name for file in directory.iterdir() if file.is_file()}
    return any(name.endswith(".xml") and f"{name[:-4]}.bin" in names for name in names)
