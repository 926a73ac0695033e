"""Decides which request runs next. Pure: requests in, requests out.

    Execute ──park──▶ PARKED (its memory is being mapped) ──unpark──┐
       └──────push──────────────────────────────────────────────────┼▶ WAITING ──next──▶ RUNNING ──finish──▶ forgotten
       └──────hold──▶ HELD (by workers.shaped) ──push───────────────┘

Of a version, `nireq` requests run at once and the rest wait in the order in which they came; between versions, the
request that waits longest goes first. The worker's Hello lists what is in hand, so all four states count as "in hand".
What a step costs does not grow with the versions that are loaded.
"""

from collections import Counter, OrderedDict, deque
from heapq import heappop, heappush

from common.messages import Execute, RequestKey, VersionId


class _Lane:
    """Waiting requests of a version, each with its number in the order of arrival."""

    __slots__ = ("nireq", "running", "version", "waiting")

    def __init__(self, version: VersionId, nireq: int) -> None:
        self.version = version
        self.nireq = nireq
        self.running = 0
        self.waiting: deque[tuple[int, Execute]] = deque()

    @property
    def first(self) -> int:
        """Number of the request that could start now; 0 for none."""
        return self.waiting[0][0] if self.waiting and self.running < self.nireq else 0


class RunQueue:
    """All requests that a worker has in hand."""

    def __init__(self) -> None:
        self._arrivals = 0
        self._lanes: dict[VersionId, _Lane] = {}
        self._ready: list[tuple[int, VersionId]] = []
        """A heap: `first` of every lane that has one. What is out of date in it is passed over."""
        self._busy: dict[VersionId, None] = {}
        """Versions of which something runs."""
        self._in_hand: OrderedDict[RequestKey, VersionId] = OrderedDict()
        self._parked: dict[tuple[str, int], list[Execute]] = {}
        self._running: dict[RequestKey, Execute] = {}
        self._running_of_frontend: Counter[str] = Counter()

    def add(self, version: VersionId, nireq: int) -> None:
        """A version can run from now on."""
        self._lanes[version] = _Lane(version, nireq)

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
        return self._running_of_frontend[frontend] > 0

    def running_versions(self) -> set[VersionId]:
        """Versions of which something runs."""
        return set(self._busy)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in hand."""
        return not self._in_hand

    def in_hand(self) -> list[tuple[RequestKey, VersionId]]:
        """Every request that is not finished, oldest first."""
        return list(self._in_hand.items())

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
        self._in_hand.setdefault(request.key, request.version)
        self._arrivals += 1
        lane = self._lanes[request.version]
        lane.waiting.append((self._arrivals, request))
        if len(lane.waiting) == 1:
            self._enter(lane)

    def next(self) -> Execute | None:
        """The request to start now, which counts as running from then on; None when none can."""
        while self._ready:
            arrival, version = heappop(self._ready)
            lane = self._lanes.get(version)
            if lane is not None and lane.first == arrival:
                return self._start(lane)
        return None

    def finish(self, key: RequestKey) -> None:
        """Forget a request, whether it ran or not. It is neither waiting nor parked."""
        version = self._in_hand.pop(key)
        if self._running.pop(key, None) is None:
            return
        lane = self._lanes[version]
        was_full = lane.running == lane.nireq
        lane.running -= 1
        if was_full:
            self._enter(lane)
        if not lane.running:
            del self._busy[version]
        left = self._running_of_frontend[key.frontend] - 1
        if left:
            self._running_of_frontend[key.frontend] = left
        else:
            del self._running_of_frontend[key.frontend]

    def drop(self, frontend: str) -> list[Execute]:
        """Take out what this frontend has parked or waiting; in hand still, to be finished by the caller."""
        dropped: list[Execute] = []
        for place in [place for place in self._parked if place[0] == frontend]:
            dropped += self._parked.pop(place)
        for lane in self._lanes.values():
            gone = [request for _, request in lane.waiting if request.key.frontend == frontend]
            if gone:
                dropped += gone
                lane.waiting = deque(entry for entry in lane.waiting if entry[1].key.frontend != frontend)
                self._enter(lane)
        return dropped

    def _enter(self, lane: _Lane) -> None:
        """Its first request may have become another, or free to start."""
        if first := lane.first:
            heappush(self._ready, (first, lane.version))

    def _start(self, lane: _Lane) -> Execute:
        _, request = lane.waiting.popleft()
        lane.running += 1
        self._busy[lane.version] = None
        self._enter(lane)
        self._running[request.key] = request
        self._running_of_frontend[request.key.frontend] += 1
        return request
