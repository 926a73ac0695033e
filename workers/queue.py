"""Decides which request runs next. Pure: requests in, requests out.

    Execute ──park──▶ PARKED (its memory is being mapped) ──unpark──┐
       └──────push──────────────────────────────────────────────────┼▶ WAITING ──next──▶ RUNNING ──finish──▶ forgotten
       └──────hold──▶ HELD (by workers.shaped) ──push───────────────┘

Of a version, `nireq` requests run at once and the rest wait in the order in which they came; between versions, the
request that waits longest goes first. The worker's Hello lists what is in hand, so all four states count as "in hand".
"""

from collections import Counter, OrderedDict, deque

from common.messages import Execute, RequestKey, VersionId


class _Lane:
    """Waiting requests of a version, each with its number in the order of arrival."""

    __slots__ = ("nireq", "running", "waiting")

    def __init__(self, nireq: int) -> None:
        self.nireq = nireq
        self.running = 0
        self.waiting: deque[tuple[int, Execute]] = deque()


class RunQueue:
    """All requests that a worker has in hand."""

    def __init__(self) -> None:
        self._arrivals = 0
        self._lanes: dict[VersionId, _Lane] = {}
        self._in_hand: OrderedDict[RequestKey, VersionId] = OrderedDict()
        self._parked: dict[tuple[str, int], list[Execute]] = {}
        self._running: dict[RequestKey, Execute] = {}
        self._running_of_frontend: Counter[str] = Counter()

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
        return self._running_of_frontend[frontend] > 0

    def running_versions(self) -> set[VersionId]:
        """Versions of which something runs."""
        return {version for version, lane in self._lanes.items() if lane.running}

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
        self._lanes[request.version].waiting.append((self._arrivals, request))

    def next(self) -> Execute | None:
        """The request to start now, which counts as running from then on; None when none can."""
        chosen: _Lane | None = None
        for lane in self._lanes.values():
            if not lane.waiting or lane.running >= lane.nireq:
                continue
            if chosen is None or lane.waiting[0][0] < chosen.waiting[0][0]:
                chosen = lane
        if chosen is None:
            return None
        _, request = chosen.waiting.popleft()
        chosen.running += 1
        self._running[request.key] = request
        self._running_of_frontend[request.key.frontend] += 1
        return request

    def finish(self, key: RequestKey) -> None:
        """Forget a request, whether it ran or not. It is neither waiting nor parked."""
        version = self._in_hand.pop(key)
        if self._running.pop(key, None) is None:
            return
        self._lanes[version].running -= 1
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
        return dropped
