"""Looking at a local base path again and again, cheaply, and telling what is being copied from what is there.

A version counts once its files have been the same at two looks, unless all of them are old. It goes on counting for as
long as its directory holds a model, whatever happens to the files: what is served is not taken away by a write.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.storage.interface import Listing, StorageError, StoredVersion
from common.storage.local import Stamp, list_versions, nearest_directory, stamp, stamp_paths

OLD_NS = 2_000_000_000
"""A file that has not changed for so long is taken to be complete."""

SETTLE_NS = 180_000_000
"""Between the two looks at a younger one."""

GRANULARITY_NS = 1_000_000_000
"""What changed so shortly before a listing may change after it without a new time in the file system."""

MAX_WATCHED = 8
"""Directories that are no versions yet, watched for a model that is on its way into them."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found."""

    versions: dict[int, str]
    warnings: tuple[str, ...] = ()
    error: str = ""
    unsettled: bool = False
    """Whether a version does not count yet and may a moment later."""


class Looker:
    """One base path. Called by one thread at a time."""

    def __init__(self, base_path: str, watch: Callable[[dict[str, str]], None] | None) -> None:
        """`watch` gets the directories in which something will happen next, and the one name that counts there."""
        self._base_path = base_path
        self._watch = watch
        self._stamp: Stamp = ()
        self._counted: dict[str, int] = {}
        """Location and inode of the versions that count."""
        self._seen: dict[str, tuple[str, int]] = {}
        """Location of those that do not: fingerprint, and when it was first seen [CLOCK_MONOTONIC, ns]."""

    def look(self) -> Look | None:
        """What the base path holds; None when it is what it was at the last look."""
        if self._stamp and stamp_paths([path for path, _, _ in self._stamp]) == self._stamp:
            return None
        self._stamp = ()
        began = time.time_ns()
        try:
            listing = list_versions(self._base_path)
        except StorageError as error:
            return Look({}, (), str(error))
        found = stamp(self._base_path, listing)
        versions = self._settle(listing, {path: inode for path, inode, _ in found}, began)
        unsettled = len(versions) < len(listing.versions)
        newest = max(changed for _, _, changed in found)
        if not unsettled and not listing.warnings and 0 <= newest < began - GRANULARITY_NS:
            self._stamp = found
        self._watch_directories(listing)
        return Look(versions, listing.warnings, "", unsettled)

    def forget(self) -> None:
        """Look at everything again."""
        self._stamp = ()

    def _settle(self, listing: Listing, inodes: dict[str, int], began: int) -> dict[int, str]:
        """The versions that count."""
        now = time.monotonic_ns()
        versions = {
            number: version.location
            for number, version in listing.versions.items()
            if self._counted.get(version.location) == inodes[version.location]
            or self._is_settled(version, began, now)
        }
        self._counted = {location: inodes[location] for location in versions.values()}
        known = {version.location for version in listing.versions.values()}
        self._seen = {location: seen for location, seen in self._seen.items() if location in known}
        return versions

    def _is_settled(self, version: StoredVersion, began: int, now: int) -> bool:
        if all(file.changed_ns < began - OLD_NS for file in version.files):
            return True
        fingerprint = version.fingerprint
        seen, at = self._seen.get(version.location, ("", 0))
        if seen != fingerprint:
            self._seen[version.location] = (fingerprint, now)
            return False
        return now - at >= SETTLE_NS

    def _watch_directories(self, listing: Listing) -> None:
        if self._watch is None:
            return
        base = str(Path(self._base_path).absolute())
        nearest = nearest_directory(base)
        if nearest == base:
            counted = set(self._counted)
            waiting = [version.location for version in listing.versions.values()]
            waiting = [location for location in (*waiting, *listing.refused) if location not in counted]
            directories = dict.fromkeys([base, *waiting[:MAX_WATCHED]], "")
        else:
            next_name = Path(base).relative_to(nearest).parts[0]
            directories = {nearest: str(Path(nearest) / next_name)}
        self._watch(directories)
