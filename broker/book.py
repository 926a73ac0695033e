"""Where every request is, and how it gets from one place to another. Pure; the scheduler says when it does."""

from collections import OrderedDict
from collections.abc import Iterator

from broker.batching import Gathering
from broker.lines import Lines
from broker.suspects import Suspects
from broker.work import HELD, IN_HAND, QUEUED, SUSPECT, Lane, Line, Request, Worker
from common.messages import RequestKey, Submit, VersionId


class Book:
    """All requests that the broker knows, and what each worker has of them."""

    def __init__(self) -> None:
        self.requests: dict[RequestKey, Request] = {}
        self.workers: dict[str, Worker] = {}
        self._gathering = Gathering()
        self.gathered = self._gathering.queues
        """The queues of versions whose requests are gathered into batches."""
        self.lines = Lines(self.workers, self.gathered)
        self._active: OrderedDict[Line, None] = OrderedDict()
        """In which something waits that a worker may be free for; they take turns."""
        self._batches = 0
        self._suspects = Suspects()
        self._held = 0

    # ---- facts

    def refuses(self, submit: Submit) -> str:
        """Why a new request cannot be queued; empty: it can."""
        queue = self.gathered.get(submit.version)
        return "" if queue is None else queue.refuses(submit)

    def in_hand_of(self, slot: str) -> list[Request]:
        """What a worker has in hand, by lane, oldest first."""
        worker = self.workers.get(slot)
        if worker is None:
            return []
        return [request for lane in worker.lanes.values() for request in lane.everything()]

    def of_frontend(self, name: str) -> list[Request]:
        """Everything that a frontend has submitted and that is not answered."""
        return [request for key, request in self.requests.items() if key.frontend == name]

    def held(self) -> list[Request]:
        """Those that wait for workers to say what they are running."""
        if not self._held:
            return []
        return [request for request in self.requests.values() if request.phase is HELD]

    def queued_versions(self) -> list[VersionId]:
        """Versions with requests that wait for a worker."""
        return [version for version, line in self.lines.open.items() if self._waits(line)]

    def queued_keys(self, version: VersionId) -> list[RequestKey]:
        """A version's requests that wait for a worker, oldest first (of each kind, where they are gathered)."""
        if version in self.gathered:
            return [request.key for request in self.gathered[version].requests()]
        line = self.lines.known.get(version)
        return [] if line is None else [request.key for request in line.queue]

    def is_open(self, version: VersionId) -> bool:
        """Whether any request of the version is not answered yet."""
        return version in self.lines.open

    def queued(self, version: VersionId | None = None) -> int:
        """Requests that wait for a worker, of one version or of all (suspects and held ones count for all only)."""
        if version is not None:
            queue = self.gathered.get(version)
            if queue is not None:
                return len(queue)
            line = self.lines.known.get(version)
            return 0 if line is None else len(line.queue)
        return sum(1 for request in self.requests.values() if request.phase is not IN_HAND)

    def in_hand(self, version: VersionId) -> int:
        """Requests of a version that workers have in hand."""
        line = self.lines.known.get(version)
        return 0 if line is None else sum(len(lane.in_hand) + len(lane.deferred) for lane in line.lanes)

    # ---- bookkeeping

    def new_batch(self) -> int:
        """A number for a batch."""
        self._batches += 1
        return self._batches

    def _lane(self, worker: Worker, request: Request) -> Lane:
        """Where a worker has, or is about to have, a request in hand."""
        return worker.lanes.get(request.version) or self.lines.add_lane(worker, line_of(request), 1)

    def _remember(self, request: Request) -> None:
        self.requests[request.key] = request
        request.line = self.lines.opened(request.version)

    def _forget(self, request: Request) -> None:
        del self.requests[request.key]
        self.lines.closed(line_of(request))

    def _enqueue(self, request: Request, *, first: bool = False) -> None:
        line = line_of(request)
        request.phase = QUEUED
        request.lane = None
        request.worker = ""
        request.running_since = request.deferred_since = 0
        self._active[line] = None
        if line.is_gathered:
            self.gathered[line.version].put(request, first=first)
            return
        line.queue[request] = None
        if first:
            line.queue.move_to_end(request, last=False)

    def _unqueue(self, request: Request) -> None:
        if request.phase is QUEUED:
            line = line_of(request)
            if line.is_gathered:
                self.gathered[line.version].remove(request.key)
            else:
                line.queue.pop(request, None)
        elif request.phase is HELD:
            self._held -= 1
        elif request.phase is SUSPECT:
            self._suspects.remove(request)
            for worker in self.workers.values():
                if worker.alone is request:
                    self._release_reservation(worker)

    def _suspect(self, request: Request) -> None:
        request.phase = SUSPECT
        request.suspect = True
        request.timed_out = False
        request.lane = None
        request.worker = ""
        request.running_since = request.deferred_since = 0
        self._suspects.add(request)

    def _hand_over(self, request: Request, lane: Lane, now: int, batch: int = 0) -> None:
        request.phase = IN_HAND
        request.lane = lane
        request.worker = lane.worker.slot
        request.handed_at = now
        request.running_since = 0
        if lane.batches is not None:
            request.batch = batch or self.new_batch()
        lane.add(request, now)

    def _of_worker(self, slot: str, keys: tuple[RequestKey, ...]) -> Iterator[tuple[Request, Lane]]:
        """Those that this worker has in hand, and their lanes."""
        for key in keys:
            request = self.requests.get(key)
            if request is not None and request.phase is IN_HAND and request.worker == slot:
                yield request, lane_of(request)

    def _detach(self, request: Request, lane: Lane) -> None:
        lane.remove(request)
        request.deferred_since = 0
        if lane.worker.alone is request:
            self._release_reservation(lane.worker)

    def _waits(self, line: Line) -> bool:
        return bool(self.gathered[line.version] if line.is_gathered else line.queue)

    def _activate(self, line: Line) -> None:
        if line.queue or (line.is_gathered and self.gathered[line.version]):
            self._active[line] = None

    def _release_reservation(self, worker: Worker) -> None:
        """The worker may be given anything again: every version it has loaded may have been waiting for it."""
        worker.alone = None
        for lane in worker.lanes.values():
            self._activate(lane.line)


def line_of(request: Request) -> Line:
    """The line of a request that is in the book."""
    line = request.line
    assert line is not None, "what the scheduler knows was submitted or adopted"
    return line


def lane_of(request: Request) -> Lane:
    """The lane of a request that is in hand."""
    lane = request.lane
    assert lane is not None, "what is in hand is in a lane"
    return lane
