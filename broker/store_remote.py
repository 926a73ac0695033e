"""A model in a store: listed, and what its policy wants fetched into the cache, one version after the other.

    list ─▶ what is wanted and not in the cache? ─▶ fetch the highest ─▶ again, until nothing is left ─▶ round over

An object that is written anew changes its version's fingerprint, and with it the directory: the version is fetched anew
into another one, and the old copy is told of until the new one is complete.
"""

from collections.abc import Callable
from dataclasses import dataclass

from broker.policy import wanted_versions
from broker.store_cache import Cache, fetch
from broker.store_model import StoredModel, Surroundings
from broker.store_pool import Lane, remote_lane
from common.backoff import delay_ns
from common.config import VersionPolicy
from common.messages import Snapshot, Watched
from common.storage.interface import Cancelled, Listing, StorageError, Store, StoredVersion

MIN_POLL_NS = 1_000_000_000
"""Stores are not asked more often, whatever the interval for local paths."""


@dataclass(slots=True)
class _Failure:
    """Of fetching one version."""

    count: int
    reason: str
    retry_at: int


class RemoteModel(StoredModel):
    """In a store."""

    def __init__(
        self, watched: Watched, around: Surroundings, cache: Cache, lane: str, opener: Callable[[], Store]
    ) -> None:
        """`opener` may block. Models of the same `lane` share its threads."""
        super().__init__(watched, around)
        self._cache = cache
        self._lane: Lane = remote_lane(lane)
        self._opener = opener
        self._store: Store | None = None
        self._listing: Listing | None = None
        self._paths: dict[int, str] = {}
        """Of the versions of the listing: where each is, or is to be."""
        self._error = ""
        self._errors = 0
        self._earlier: dict[int, str] | None = None
        """Fingerprints by the listing before the last one; None at the first."""
        self._failures: dict[str, _Failure] = {}
        """By the directory."""
        self._tried: set[str] = set()
        """In this round."""
        self._published: dict[int, str] = {}
        self._fetching = ""
        self._held = True
        """Whether nothing is told, because what is wanted was not yet tried."""
        self._awaits_cache = False

    # ---- what is told

    def snapshot(self) -> Snapshot | None:
        """The versions that are in the cache; None before the first round is over."""
        if self._error:
            return Snapshot(self.name, {}, self._error, base_path=self.base_path)
        if self._held or self._listing is None:
            return None
        versions = self._publish(self._listing)
        failures, warnings = {}, list(self._listing.warnings)
        for number in sorted(self._wanted()):
            reason = self._reason(number)
            if reason and number not in versions:
                failures[number] = reason
            elif reason:
                location = self._listing.versions[number].location
                warnings.append(f"{location} has changed and cannot be fetched anew: {reason}")
        return Snapshot(self.name, versions, "", tuple(warnings), self.base_path, failures)

    def needs(self) -> set[str]:
        """Directories of the cache that must stay for this model, whoever else wants them."""
        if self._listing is None:
            copies = self._cache.versions(self.name, self.base_path)
            return {path for paths in copies.values() for path in paths}
        wanted = self._wanted()
        found = {self._paths[number] for number in wanted} | {self._fetching}
        return found | {path for number, path in self._published.items() if number in wanted}

    # ---- what happens

    def change_policy(self, policy: VersionPolicy) -> None:
        """Other versions are wanted; what is told waits until they have been tried."""
        if policy != self.policy:
            self.policy = policy
            self._held = True

    def cache_changed(self) -> None:
        """The cache was opened, or cannot be: go on if that was waited for."""
        if self._awaits_cache:
            self._awaits_cache = False
            self.wake(self._around.clock())

    # ---- listing

    def _begin(self, now: int) -> None:
        if self.due is not None:
            self.due = max(self.due, now + MIN_POLL_NS)
        self._tried.clear()
        self._around.pool.submit(self._lane, self._list, self._listed, self._list_failed)

    def _list(self) -> Listing | str:
        """In a thread: the listing, or why there is none."""
        try:
            if self._store is None:
                self._store = self._opener()
            return self._store.list_versions()
        except StorageError as error:
            return str(error)

    def _list_failed(self, error: str) -> None:
        self._listed(f"{self.base_path} cannot be listed ({error})")

    def _listed(self, found: Listing | str) -> None:
        if self.closed:
            return
        if isinstance(found, str):
            self._error = found
            self._errors += 1
            self.busy = False
            if self.due is not None:
                self.due = max(self.due, self._around.clock() + delay_ns(self._errors))
            self._around.on_change(self.name)
            return
        self._error, self._errors = "", 0
        last = self._listing
        self._earlier = None if last is None else _fingerprints(last)
        self._listing = found
        self._paths = {
            number: self._cache.path_of(self.name, self.base_path, number, version)
            for number, version in found.versions.items()
        }
        if not self._cache.is_open and not self._cache.problem:
            self.busy = False
            self._awaits_cache = True
            return
        self._go_on()

    # ---- fetching

    def _go_on(self) -> None:
        """Fetch the next version that is wanted and not there; the round is over when there is none."""
        if self.closed or self._listing is None:
            return
        now = self._around.clock()
        for number in sorted(self._wanted(), reverse=True):
            if self._is_due(number, now):
                version, path = self._listing.versions[number], self._paths[number]
                self._tried.add(path)
                problem = self._cache.problem or self._cache.take_room(path, version.size)
                if not problem:
                    self._begin_fetch(version, path)
                    return
                self._note_failure(path, problem)
        self._end_round(now)

    def _begin_fetch(self, version: StoredVersion, path: str) -> None:
        self._fetching = path
        self._around.pool.submit(
            self._lane,
            lambda: self._fetch(version, path),
            lambda problem: self._fetched(path, problem),
            lambda error: self._fetched(path, f"it cannot be fetched ({error})"),
        )

    def _is_due(self, number: int, now: int) -> bool:
        path = self._paths[number]
        if path in self._tried or self._cache.has(path) or not self._is_settled(number):
            return False
        failure = self._failures.get(path)
        return failure is None or now >= failure.retry_at

    def _is_settled(self, number: int) -> bool:
        """Whether the version was the same a listing ago. At the first one there is nothing to compare with."""
        if self._earlier is None or self._listing is None:
            return True
        return self._earlier.get(number) == self._listing.versions[number].fingerprint

    def _fetch(self, version: StoredVersion, path: str) -> str | None:
        """In a thread: an empty text, or why it failed; None when it was called off."""
        assert self._store is not None, "what was listed was opened"
        try:
            fetch(self._store, version, path, lambda: self.closed)
        except StorageError as error:
            return str(error)
        except Cancelled:
            return None
        return ""

    def _fetched(self, path: str, problem: str | None) -> None:
        self._fetching = ""
        if problem == "":
            self._cache.fetched(path)
            self._failures.pop(path, None)
            if not self.closed:
                self._around.on_change(self.name)
        else:
            self._cache.dropped(path)
            if problem:
                self._note_failure(path, problem)
        self._go_on()

    def _note_failure(self, path: str, reason: str) -> None:
        before = self._failures.get(path)
        count = before.count + 1 if before is not None else 1
        self._failures[path] = _Failure(count, reason, self._around.clock() + delay_ns(count))

    def _end_round(self, now: int) -> None:
        self.busy = False
        self._held = False
        wanted = self._wanted()
        current = {self._paths[number] for number in wanted}
        self._failures = {path: failure for path, failure in self._failures.items() if path in current}
        if not all(self._is_settled(number) for number in wanted):
            self.wake(now + MIN_POLL_NS)
        self._around.on_change(self.name)

    # ---- what follows from the listing

    def _wanted(self) -> frozenset[int]:
        return wanted_versions(self.policy, self._listing.versions) if self._listing else frozenset()

    def _reason(self, number: int) -> str:
        failure = self._failures.get(self._paths[number])
        return failure.reason if failure is not None else ""

    def _publish(self, listing: Listing) -> dict[int, str]:
        """Each version's directory: of its present files, else the one that was told before, else any."""
        copies = self._cache.versions(self.name, self.base_path)
        wanted = self._wanted()
        found = {}
        for number in listing.versions:
            path, held = self._paths[number], copies.get(number, [])
            if path in held:
                found[number] = path
            elif self._published.get(number) in held:
                found[number] = self._published[number]
            elif held and number in wanted:
                found[number] = held[-1]
        self._published = found
        return found


def _fingerprints(listing: Listing) -> dict[int, str]:
    return {number: version.fingerprint for number, version in listing.versions.items()}
