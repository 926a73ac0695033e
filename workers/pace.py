"""What follows from how long a model's runs take: whether it is quick enough to be inferred on the message loop itself,
and how often runs in progress are looked at. Pure.

Handing a run to another thread and back costs some 80 microseconds, several times what a tiny model takes; a run on the
loop costs nothing extra but delays every other message for as long as it takes.
"""

from collections import deque

from common.messages import VersionId

INLINE_NS = 1_000_000
"""Below this, where the runs of a model could not overlap anyway."""
INLINE_PARALLEL_NS = 100_000
"""Below this, where they could: one that takes longer gains more from overlapping than it loses on the way."""
POLL_NS = 10_000_000
"""Between two looks at runs in progress, at least; see workers.engine.Model.poll."""
MOST_POLL_NS = 250_000_000
"""Likewise, at most."""
_WINDOW = 16


class Pace:
    """Times of the latest runs of one model."""

    def __init__(self, limit_ns: int) -> None:
        self._limit = limit_ns
        self._times: deque[int] = deque(maxlen=_WINDOW)
        self._until_review = 1
        self.is_quick = False

    @property
    def quickest(self) -> int:
        """Nanoseconds of the quickest of them; 0 where there was none."""
        return min(self._times, default=0)

    def record(self, nanoseconds: int) -> None:
        """A run took this long, from start to result.

        The lower quartile decides: times measured across threads hold waits that are not the model's, and only ever
        too much. It is looked at once in a window, since sorting costs a part of what is to be saved.
        """
        self._times.append(nanoseconds)
        self._until_review -= 1
        if self._until_review > 0:
            return
        self._until_review = _WINDOW if len(self._times) == _WINDOW else 1
        self.is_quick = sorted(self._times)[len(self._times) // 4] < self._limit


def look_after(took: int, *, failed: bool) -> int:
    """Nanoseconds from one look at runs in progress to the next, by the last run that has ended.

    A look takes long beside a large inference, as nothing that it needs is in the caches; and who waits for a failure
    can wait for as long as an answer takes. Failures come in series, and quickly.
    """
    return POLL_NS if failed else min(max(POLL_NS, took), MOST_POLL_NS)


class Looks:
    """When a worker looks at its runs in progress: as often as the version with the shortest ones among them wants."""

    def __init__(self) -> None:
        self._after: dict[VersionId, int] = {}
        """By the last run of each version that has ended; see `look_after`."""
        self._running: dict[VersionId, int] = {}
        """Runs in progress of each version that has any."""
        self._interval = POLL_NS
        self._looked_at = 0

    def begun(self, version: VersionId, now: int) -> None:
        """A run is in progress from now on."""
        if not self._running:
            # There was nothing to look at before.
            self._looked_at = now
        self._running[version] = self._running.get(version, 0) + 1
        self._choose()

    def ended(self, version: VersionId, took: int, *, failed: bool) -> None:
        """It is not any more."""
        self._after[version] = look_after(took, failed=failed)
        left = self._running[version] - 1
        if left:
            self._running[version] = left
        else:
            del self._running[version]
        self._choose()

    def forget(self, version: VersionId) -> None:
        """It was unloaded."""
        self._after.pop(version, None)

    def wait(self, now: int) -> int:
        """Nanoseconds until the next look is due; counted from the last one, whatever else wakes the worker up."""
        return max(0, self._looked_at + self._interval - now)

    def looked(self, now: int) -> None:
        """A look was had."""
        self._looked_at = now

    def _choose(self) -> None:
        self._interval = min([self._after.get(one, POLL_NS) for one in self._running], default=POLL_NS)
