"""One model's storage, as the storekeeper's loop sees it: when it is to be looked at, and what is to be told of it.

    wake, step(now) ─▶ [pool: list, fetch] ─▶ on_change ─▶ snapshot() ─▶ broker

Two kinds: `LocalModel` here, and `RemoteModel` in `store_remote.py`.
"""

import abc
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from broker.store_events import DirectoryEvents
from broker.store_local import Look, Looker
from broker.store_pool import LOCAL, Pool
from common.config import VersionPolicy
from common.messages import Snapshot, Watched

AGAIN_NS = 200_000_000
"""Until a version that is being copied is looked at again."""

DEBOUNCE_NS = 50_000_000
"""After an event: several usually come together."""

PATIENCE_NS = 2_000_000_000
"""The first snapshot waits for versions that are being copied, but not for longer."""


_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every model works with."""

    pool: Pool
    poll_ns: int | None
    """None: storage is listed once."""
    on_change: Callable[[str], None]
    """Called with the model's name when its snapshot may have changed."""
    clock: Callable[[], int]
    """CLOCK_MONOTONIC [ns]."""


class StoredModel(abc.ABC):
    """A model whose storage is watched."""

    def __init__(self, watched: Watched, around: Surroundings) -> None:
        self.name = watched.model
        self.owner = f"{watched.model}#{next(_numbers)}"
        """Of directories that are watched; another one for every model that has had this name."""
        self.base_path = watched.base_path
        self.policy: VersionPolicy = watched.policy
        self.due: int | None = around.clock()
        """When storage is to be looked at; None: not before it is woken."""
        self.closed = False
        self.busy = False
        self._around = around

    def wake(self, when: int) -> None:
        """Look at `when`, if not before."""
        self.due = when if self.due is None else min(self.due, when)

    def step(self, now: int) -> None:
        """Begin what is due."""
        if self.busy or self.closed or self.due is None or now < self.due:
            return
        self.busy = True
        poll_ns = self._around.poll_ns
        # Within one interval, and all models at the same moments: one wake-up for all of them, whenever each began.
        self.due = None if poll_ns is None else (now // poll_ns + 1) * poll_ns
        self._begin(now)

    @abc.abstractmethod
    def snapshot(self) -> Snapshot | None:
        """What is to be told now; None while too little is known."""

    @abc.abstractmethod
    def change_policy(self, policy: VersionPolicy) -> None:
        """Other versions are wanted from now on."""

    @abc.abstractmethod
    def _begin(self, now: int) -> None:
        """Start looking; `busy` is to be taken back when that has ended."""

    def close(self) -> None:
        """Nobody wants to know any more."""
        self.closed = True


class LocalModel(StoredModel):
    """In a directory of this machine; every version that is there is told of, and the policy is the registry's."""

    def __init__(self, watched: Watched, around: Surroundings, events: DirectoryEvents | None) -> None:
        super().__init__(watched, around)
        self._events = events
        self._looker = Looker(watched.base_path, self._watch if events is not None else None)
        self._began = around.clock()
        self._look: Look | None = None

    def snapshot(self) -> Snapshot | None:
        """All versions that are complete; the first one waits a little for those that are being copied."""
        look = self._look
        if look is None:
            return None
        if look.error:
            return Snapshot(self.name, {}, look.error, base_path=self.base_path)
        return Snapshot(self.name, look.versions, "", look.warnings, self.base_path)

    def change_policy(self, policy: VersionPolicy) -> None:
        """Nothing is fetched here."""
        self.policy = policy

    def close(self) -> None:
        """Nobody wants to know any more."""
        super().close()
        if not self.busy:
            self._forget()

    def _begin(self, now: int) -> None:
        self._around.pool.submit(LOCAL, self._looker.look, self._looked, self._failed)

    def _looked(self, look: Look | None) -> None:
        self.busy = False
        if self.closed:
            self._forget()
            return
        if look is None:
            return
        now = self._around.clock()
        if look.unsettled:
            self.wake(now + AGAIN_NS)
            if self._look is None and now - self._began < PATIENCE_NS:
                return
        if look != self._look:
            self._look = look
            self._around.on_change(self.name)

    def _failed(self, error: str) -> None:
        self._looker.forget()
        self._looked(Look({}, (), f"{self.base_path} cannot be listed: {error}"))

    def _forget(self) -> None:
        """Only when no look is under way that would begin to watch again."""
        if self._events is not None:
            events, owner = self._events, self.owner
            self._around.pool.submit(LOCAL, lambda: events.forget(owner), lambda _: None, lambda _: None)

    def _watch(self, directories: dict[str, str]) -> None:
        """Called by a thread of the pool."""
        if self._events is not None and not self.closed:
            self._events.watch(self.owner, directories)
