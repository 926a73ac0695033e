"""Decides which request runs next. Pure: requests in, requests out.

    Execute ──park──▶ PARKED (its memory is being mapped) ──unpark──┐
       └──────push──────────────────────────────────────────────────┼▶ WAITING ──next──▶ RUNNING ──finish──▶ forgotten
       └──────hold──▶ HELD (by workers.shaped) ──push───────────────┘

Of a version, `nireq` requests run at once and the rest wait in the order in which they came; between versions, the
request that waits longest goes first. The worker's Hello lists what is in hand, so all four states count as "in hand".
What a step costs does not grow with the versions that are loaded.

Requests that the broker has made one batch of run together, in one slot: the batch waits from when the last of its
members is pushed. A member that is finished or dropped before that leaves the others to run without it.
"""

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush

from common.messages import Execute, RequestKey, VersionId


class Batch:
    """Requests of one version that run together."""

    __slots__ = ("absent", "members", "number", "runs")

    def __init__(self, number: int, members: Iterable[Execute]) -> None:
        self.number = number
        self.members = {request.key: request for request in members}
        """Those that are not finished, in the broker's order."""
        self.absent = set(self.members)
        """Those that were not pushed yet."""
        self.runs = False


class _Lane:
    """What waits of a version, each with its number in the order of arrival."""

    __slots__ = ("nireq", "running", "waiting")

    def __init__(self, nireq: int) -> None:
        self.nireq = nireq
        self.running = 0
        """Slots that are occupied, by a request or by a batch."""
        self.waiting: deque[tuple[int, Execute | Batch]] = deque()

    @property
    def first(self) -> int:
        """Number of the request that could start now; 0 for none."""
        return self.waiting[0][0] if self.waiting and self.running < self.nireq else 0


class RunQueue:
    """All requests that a worker has in hand."""

    def __init__(self) -> None:
        self._arrivals = 0
        self._lanes: dict[VersionId, _Lane] = {}
        self._ready: list[tuple[int, _Lane]] = []
        """A heap: `first` of every lane that has one. What is out of date in it is passed over."""
        self._in_hand: dict[RequestKey, VersionId] = {}
        """In the order of arrival."""
        self._parked: dict[tuple[str, int], list[Execute]] = {}
        self._running: dict[RequestKey, Execute] = {}
        self._batches = 0
        self._batch_of: dict[RequestKey, Batch] = {}

    def add(self, version: VersionId, nireq: int) -> None:
        """A version can run from now on."""
        self._lanes[version] = _Lane(nireq)

    def remove(self, version: VersionId) -> None:
        """A version has gone; nothing of it is in hand."""
        del self._lanes[version]

    def knows(self, version: VersionId) -> bool:
        """Whether requests of this version can be taken."""
        return version in self._lanes

    def holds(self, key: RequestKey) -> bool:
        """Whether this request is in hand."""
        return key in self._in_hand

    def is_idle(self, version: VersionId) -> bool:
        """Whether nothing of this version is in hand."""
        return version not in self._in_hand.values()

    def is_running(self, frontend: str) -> bool:
        """Whether anything runs in this frontend's memory."""
        return any(key.frontend == frontend for key in self._running)

    def running_versions(self) -> set[VersionId]:
        """Versions of which something runs."""
        return {request.version for request in self._running.values()}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand

    def in_hand(self) -> list[tuple[RequestKey, VersionId]]:
        """Every request that is not finished, oldest first."""
        return list(self._in_hand.items())

    def batch_numbers(self, keys: Iterable[RequestKey]) -> tuple[int, ...]:
        """The batch that each of these is in, 0 where there is none."""
        return tuple(self._batch_of[key].number if key in self._batch_of else 0 for key in keys)

    def gather(self, members: tuple[Execute, ...]) -> None:
        """These are to run together. Each is to be parked or pushed next."""
        self._batches += 1
        batch = Batch(self._batches, members)
        for request in members:
            self._in_hand[request.key] = request.version
            self._batch_of[request.key] = batch

    def park(self, request: Execute) -> None:
        """Take a request whose memory is not mapped yet."""
        self._in_hand[request.key] = request.version
        self._parked.setdefault((request.key.frontend, request.segment), []).append(request)

    def unpark(self, frontend: str, segment: int) -> list[Execute]:
        """The requests that were parked for this memory; they are in hand still, to be pushed or finished."""
        return self._parked.pop((frontend, segment), [])

    def hold(self, request: Execute) -> None:
        """Take a request that somebody else keeps, to be pushed or finished."""
        self._in_hand.setdefault(request.key, request.version)

    def push(self, request: Execute) -> None:
        """Take a request that may run as soon as its version has room. The version is known."""
        lane, key = self._lanes[request.version], request.key
        if self._batch_of and key in self._batch_of:
            batch = self._batch_of[key]
            batch.absent.discard(key)
            self._wait_if_whole(batch, lane)
            return
        self._in_hand.setdefault(key, request.version)
        self._wait(lane, request)

    def next(self) -> Execute | Batch | None:
        """What is to be started now, and counts as running from then on; None when nothing can."""
        while self._ready:
            arrival, lane = heappop(self._ready)
            waiting = lane.waiting
            if not waiting or waiting[0][0] != arrival or lane.running >= lane.nireq:
                continue
            due = waiting.popleft()[1]
            lane.running += 1
            if waiting and lane.running < lane.nireq:
                heappush(self._ready, (waiting[0][0], lane))
            if isinstance(due, Batch):
                due.runs = True
                self._running.update(due.members)
            else:
                self._running[due.key] = due
            return due
        return None

    def finish(self, key: RequestKey) -> None:
        """Forget a request, whether it ran or not. It is neither waiting nor parked."""
        lane = self._lanes[self._in_hand.pop(key)]
        ran = self._running.pop(key, None) is not None
        if self._batch_of and key in self._batch_of:
            self._leave_batch(key, lane)
        elif ran:
            self._free_slot(lane)

    def drop(self, frontend: str) -> list[Execute]:
        """Take out what this frontend has parked or waiting; in hand still, to be finished by the caller."""
        dropped: list[Execute] = []
        for place in [place for place in self._parked if place[0] == frontend]:
            dropped += self._parked.pop(place)
        parked = {request.key for request in dropped}
        for key, batch in self._batch_of.items():
            if key.frontend == frontend and not batch.runs and key not in parked:
                dropped.append(batch.members[key])
        for lane in self._lanes.values():
            gone = [
                one for _, one in lane.waiting if isinstance(one, Execute) and one.key.frontend == frontend
            ]
            if gone:
                dropped += gone
                names = {request.key for request in gone}
                lane.waiting = deque(
                    entry
                    for entry in lane.waiting
                    if isinstance(entry[1], Batch) or entry[1].key not in names
                )
                self._enter(lane)
        return dropped

    def _wait(self, lane: _Lane, due: Execute | Batch) -> None:
        self._arrivals += 1
        if not lane.waiting and lane.running < lane.nireq:
            heappush(self._ready, (self._arrivals, lane))
        lane.waiting.append((self._arrivals, due))

    def _enter(self, lane: _Lane) -> None:
        """Its first request may have become another, or free to start."""
        if first := lane.first:
            heappush(self._ready, (first, lane))

    def _free_slot(self, lane: _Lane) -> None:
        was_full = lane.running == lane.nireq
        lane.running -= 1
        if was_full and lane.waiting:
            heappush(self._ready, (lane.waiting[0][0], lane))

    # ---- batches

    def _wait_if_whole(self, batch: Batch, lane: _Lane) -> None:
        if not batch.absent and batch.members:
            self._wait(lane, batch)

    def _leave_batch(self, key: RequestKey, lane: _Lane) -> None:
        batch = self._batch_of.pop(key)
        del batch.members[key]
        if batch.runs:
            if not batch.members:
                self._free_slot(lane)
        elif key in batch.absent:
            batch.absent.discard(key)
            self._wait_if_whole(batch, lane)
        elif not batch.members:
            lane.waiting = deque(entry for entry in lane.waiting if entry[1] is not batch)
            self._enter(lane)
