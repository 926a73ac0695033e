"""Which worker runs which request, and when. Pure: every method is an event, `dispatch` returns what to hand out.

    submit ─▶ QUEUED ──dispatch──▶ IN_HAND ──done──▶ (gone)
                ▲  ▲                  │ worker dies
                │  └── waited ready ──┤
                │                     └── was running ─▶ SUSPECT ──dispatch, alone──▶ IN_HAND ──dies again──▶ convicted
              HELD (resubmitted after a broker's death, until every worker of its pool has said what it is running)

A worker has `nireq + 1` credits a version: `nireq` requests run, one waits ready. Of a version that answers within a
fraction of a millisecond more may wait ready, as many as READY_NS take, so that they travel as one message and their
answers too. A worker defers requests whose shapes it compiles: they occupy no slot, need no credit, and no clock of
inference runs for them. Versions take turns.

Of a version with `batching_parameters` what is handed out is a batch (broker.batching), and slots and credits count
batches. One goes when a slot is free for it; the one that waits ready is handed out only when nothing can be added to
it, because what comes meanwhile would rather be with it. Each event costs the same whatever the number of queued
requests.
"""

from collections import OrderedDict, deque
from collections.abc import Iterator

from broker.batching import Gathering
from broker.work import Fate, Lane, Phase, Request, Verdict, Worker
from common.config import BatchingParameters
from common.messages import RequestKey, Submit, VersionId


class Scheduler:
    """All requests that the broker knows, and the credits of all workers."""

    def __init__(self) -> None:
        self.requests: dict[RequestKey, Request] = {}
        self.workers: dict[str, Worker] = {}
        self._queues: dict[VersionId, OrderedDict[RequestKey, Request]] = {}
        self._active: OrderedDict[VersionId, None] = OrderedDict()
        self._gathering = Gathering()
        self._gathered = self._gathering.queues
        """The queues of versions whose requests are gathered into batches."""
        self._batches = 0
        self._suspects: deque[Request] = deque()
        self._open: dict[VersionId, int] = {}
        self._held = 0

    # ---- events about requests

    def submit(self, request: Request, *, held: bool = False) -> None:
        """A request has come."""
        self.requests[request.key] = request
        self._open[request.version] = self._open.get(request.version, 0) + 1
        if held:
            request.phase = Phase.HELD
            self._held += 1
        else:
            self._enqueue(request)

    def release_held(self, request: Request) -> None:
        """No worker that could be running it is left unheard: queue it."""
        if request.phase is Phase.HELD:
            self._held -= 1
            self._enqueue(request)

    def adopt(self, request: Request, slot: str, now: int, batch: int = 0) -> None:
        """A worker says that it has this request in hand, whatever was thought of it before.

        `batch`: one of `new_batch` where it is in the same batch as others.
        """
        if request.key not in self.requests:
            self.requests[request.key] = request
            self._open[request.version] = self._open.get(request.version, 0) + 1
        elif request.phase is Phase.IN_HAND:
            return
        else:
            self._unqueue(request)
        self._hand_over(request, self.workers[slot], now, batch)

    def new_batch(self) -> int:
        """A number for a batch."""
        self._batches += 1
        return self._batches

    def split(self, slot: str, keys: tuple[RequestKey, ...], now: int) -> list[Request]:
        """A worker could not infer these as one batch: each is to be inferred by itself.

        Those are returned that are gone with that, because nobody waits for them (or nobody has claimed them yet).
        """
        gone: list[Request] = []
        for request, lane in list(self._of_worker(slot, keys)):
            request.single = True
            if self.not_in_hand(request):
                gone.append(request)
            if lane.has_left(request.batch):
                lane.mark_running(now)
        return gone

    def done(self, slot: str, key: RequestKey, now: int, inferring: int = 0) -> Request | None:
        """A worker has finished a request; None when it is not one that it had in hand.

        `inferring`: nanoseconds that the inference took, 0 where there was none.
        """
        request = self.requests.get(key)
        if request is None or request.phase is not Phase.IN_HAND or request.worker != slot:
            return None
        if inferring:
            self._note(request, inferring)
        self._take_back(request, now)
        self._forget(request)
        return request

    def defer(self, slot: str, keys: tuple[RequestKey, ...], now: int) -> None:
        """A worker compiles the shapes of these requests, which it has in hand."""
        for request, lane in self._of_worker(slot, keys):
            if lane.in_hand.pop(request.key, None) is not None:
                lane.deferred[request.key] = request
                request.deferred_since, request.running_since = now, 0
                lane.mark_running(now)
                self._activate(request.version)

    def resume(self, slot: str, keys: tuple[RequestKey, ...], now: int) -> None:
        """These deferred requests can run now."""
        for request, lane in self._of_worker(slot, keys):
            if lane.deferred.pop(request.key, None) is not None:
                lane.in_hand[request.key] = request
                request.deferred_since = 0
                lane.mark_running(now)

    def cancel(self, key: RequestKey) -> Request | None:
        """Nobody waits any more. The request if it is gone with that; None while a worker may still write."""
        request = self.requests.get(key)
        if request is None:
            return None
        if request.phase is Phase.IN_HAND:
            request.abandoned = True
            return None
        self._unqueue(request)
        self._forget(request)
        return request

    # ---- events about workers

    def worker_joined(self, slot: str) -> None:
        """A worker has said Hello; it has no lanes yet."""
        self.workers.setdefault(slot, Worker(slot))

    def version_loaded(
        self, slot: str, version: VersionId, nireq: int, batching: BatchingParameters | None = None
    ) -> None:
        """A worker can run this version, by batches if `batching` says so."""
        lanes = self.workers[slot].lanes
        lanes.setdefault(version, Lane(nireq, batches=None if batching is None else {})).nireq = nireq
        if batching is not None and version not in self._gathered:
            self._gathering.add(version, batching, self._queues.pop(version, {}).values())
        self._activate(version)

    def version_unloaded(self, slot: str, version: VersionId) -> None:
        """A worker cannot run this version any more."""
        self.workers[slot].lanes.pop(version, None)
        if not any(version in one.lanes for one in self.workers.values()):
            self._gathering.forget(version)

    def drain(self, slot: str) -> None:
        """Give this worker nothing new."""
        worker = self.workers[slot]
        worker.draining = True
        if worker.alone is not None and worker.alone.phase is not Phase.IN_HAND:
            self._release_reservation(worker)

    def worker_lost(self, slot: str, *, was_loading: bool = False) -> Verdict:
        """The worker is dead (confirmed). Everything it had in hand is decided here.

        `was_loading`: it died in the middle of a load, which is as likely to have killed it as what it ran. Nothing is
        convicted by such a death; a version goes into quarantine by it, so there are not many of them.
        """
        worker = self.workers.pop(slot, None)
        if worker is None:
            return Verdict()
        if worker.alone is not None and worker.alone.phase is not Phase.IN_HAND:
            self._release_reservation(worker)
        in_hand = [(lane, request) for lane in worker.lanes.values() for request in lane.everything()]
        blamed = any(request.timed_out for _, request in in_hand)
        fates: dict[Fate, list[Request]] = {fate: [] for fate in Fate}
        for lane, request in in_hand:
            fates[lane.fate(request, blamed=blamed, was_loading=was_loading)].append(request)
        for request in fates[Fate.DROPPED] + fates[Fate.CONVICTED]:
            self._forget(request)
        for request in fates[Fate.SUSPECT]:
            self._suspect(request)
        # Back to the head of their queues, oldest first, so that a death does not cost them their turn.
        # (Those of one round of the broker's loop came at one time: the sort keeps their order.)
        innocent = fates[Fate.INNOCENT]
        innocent.sort(key=lambda one: one.queued_at)
        for request in reversed(innocent):
            self._enqueue(request, first=True)
        return Verdict(tuple(fates[Fate.CONVICTED]), tuple(fates[Fate.DROPPED]))

    def not_in_hand(self, request: Request) -> bool:
        """A worker that was thought to have it does not (its Hello does not list it).

        Whether the request is gone with that, because nobody waits for it (or nobody has claimed it yet).
        """
        if request.phase is not Phase.IN_HAND:
            return False
        self._detach(request, self.workers[request.worker])
        if request.abandoned or request.submit is None:
            self._activate(request.version)
            self._forget(request)
            return True
        self._enqueue(request, first=True)
        return False

    # ---- decisions

    def dispatch(self, now: int) -> list[Request]:
        """Hand out all that can be handed out now; each returned request's `worker` says to whom.

        Those of one batch follow each other and have its number.
        """
        handed = self._dispatch_suspects(now)
        active = self._active
        if self._gathering.due:
            self._active.update(dict.fromkeys(self._gathering.wake(now)))
        while active:
            version, _ = active.popitem(last=False)
            if self._gathered and version in self._gathered:
                batch = self._dispatch_batch(version, now)
                handed += batch
                if batch and self._gathered[version]:
                    active[version] = None
                continue
            queue = self._queues.get(version)
            if not queue:
                continue
            worker = self._free_worker(version)
            if worker is None:
                continue
            _, request = queue.popitem(last=False)
            self._hand_over(request, worker, now)
            handed.append(request)
            if queue:
                active[version] = None
        return handed

    def overdue(self, now: int, limit_ns: int, compile_limit_ns: int = 1 << 62) -> list[Request]:
        """Requests that have occupied a slot for `limit_ns`, or waited for their shapes for `compile_limit_ns`; marked,
        so that they are convicted.
        """
        found = []
        for worker in self.workers.values():
            for lane in worker.lanes.values():
                if not lane.in_hand and not lane.deferred:
                    continue
                # A slot may also have come free by a Hello that did not list what was thought to occupy it.
                lane.mark_running(now)
                for request in lane.running():
                    if now - request.running_since >= limit_ns:
                        request.timed_out = True
                        found.append(request)
                for request in lane.deferred.values():
                    if now - request.deferred_since >= compile_limit_ns:
                        request.timed_out = True
                        found.append(request)
        return found

    def next_due(self) -> int | None:
        """When `dispatch` is to be called even if nothing happens; None: not at all."""
        return min(self._gathering.due.values(), default=None)

    # ---- facts

    def refuses(self, submit: Submit) -> str:
        """Why a new request cannot be queued; empty: it can."""
        queue = self._gathered.get(submit.version)
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
        return [request for request in self.requests.values() if request.phase is Phase.HELD]

    def queued_versions(self) -> list[VersionId]:
        """Versions with requests that wait for a worker."""
        return [
            version for queues in (self._queues, self._gathered) for version, queue in queues.items() if queue
        ]

    def queued_keys(self, version: VersionId) -> list[RequestKey]:
        """A version's requests that wait for a worker, oldest first (of each kind, where they are gathered)."""
        if version in self._gathered:
            return [request.key for request in self._gathered[version].requests()]
        return list(self._queues.get(version, ()))

    def is_open(self, version: VersionId) -> bool:
        """Whether any request of the version is not answered yet."""
        return version in self._open

    def queued(self, version: VersionId | None = None) -> int:
        """Requests that wait for a worker, of one version or of all (suspects and held ones count for all only)."""
        if version is not None:
            queue = self._gathered.get(version)
            return len(self._queues.get(version, ()) if queue is None else queue)
        return sum(1 for request in self.requests.values() if request.phase is not Phase.IN_HAND)

    def in_hand(self, version: VersionId) -> int:
        """Requests of a version that workers have in hand."""
        lanes = [worker.lanes[version] for worker in self.workers.values() if version in worker.lanes]
        return sum(len(lane.in_hand) + len(lane.deferred) for lane in lanes)

    def check(self) -> None:
        """Raise AssertionError if the bookkeeping contradicts itself. For tests."""
        seen: dict[RequestKey, str] = {}
        for worker in self.workers.values():
            held = self.in_hand_of(worker.slot)
            assert worker.in_hand == len(held), f"{worker.slot}: counts {worker.in_hand}, has {len(held)}"
            for version, lane in worker.lanes.items():
                lane.check()
                assert not any(request.deferred_since for request in lane.in_hand.values())
                assert all(request.deferred_since for request in lane.deferred.values())
                for request in lane.everything():
                    assert request.phase is Phase.IN_HAND
                    assert request.worker == worker.slot
                    assert request.version == version
                    assert seen.setdefault(request.key, worker.slot) == worker.slot, "in two hands"
        queues = {version: list(queue.values()) for version, queue in self._queues.items()}
        for version, gathered in self._gathered.items():
            assert not queues.get(version), "queued in two places"
            gathered.check()
            queues[version] = gathered.requests()
        for version, queue in queues.items():
            for request in queue:
                assert request.phase is Phase.QUEUED
                assert request.version == version
                assert seen.setdefault(request.key, "queue") == "queue", "queued and in hand"
        counted: dict[VersionId, int] = {}
        for request in self.requests.values():
            counted[request.version] = counted.get(request.version, 0) + 1
            located = request.key in seen or request.phase in (Phase.HELD, Phase.SUSPECT)
            assert located, f"{request.key} is {request.phase} but nowhere"
        assert counted == self._open
        assert self._held == sum(request.phase is Phase.HELD for request in self.requests.values())

    # ---- bookkeeping

    def _enqueue(self, request: Request, *, first: bool = False) -> None:
        request.phase = Phase.QUEUED
        request.worker = ""
        request.running_since = request.deferred_since = 0
        self._active[request.version] = None
        if self._gathered and request.version in self._gathered:
            self._gathered[request.version].put(request, first=first)
            return
        queue = self._queues.setdefault(request.version, OrderedDict())
        queue[request.key] = request
        if first:
            queue.move_to_end(request.key, last=False)

    def _unqueue(self, request: Request) -> None:
        if request.phase is Phase.QUEUED:
            if request.version in self._gathered:
                self._gathered[request.version].remove(request.key)
            else:
                self._queues[request.version].pop(request.key, None)
        elif request.phase is Phase.HELD:
            self._held -= 1
        elif request.phase is Phase.SUSPECT:
            self._suspects.remove(request)
            for worker in self.workers.values():
                if worker.alone is request:
                    self._release_reservation(worker)

    def _suspect(self, request: Request) -> None:
        request.phase = Phase.SUSPECT
        request.suspect = True
        request.timed_out = False
        request.worker = ""
        request.running_since = request.deferred_since = 0
        self._suspects.append(request)

    def _hand_over(self, request: Request, worker: Worker, now: int, batch: int = 0) -> None:
        request.phase = Phase.IN_HAND
        request.worker = worker.slot
        request.handed_at = now
        request.running_since = 0
        lane = worker.lanes.setdefault(request.version, Lane(1))
        if lane.batches is not None:
            request.batch = batch or self.new_batch()
        lane.add(request, now)
        worker.in_hand += 1

    def _of_worker(self, slot: str, keys: tuple[RequestKey, ...]) -> Iterator[tuple[Request, Lane]]:
        """Those that this worker has in hand, and their lanes."""
        for key in keys:
            request = self.requests.get(key)
            if request is not None and request.phase is Phase.IN_HAND and request.worker == slot:
                yield request, self.workers[slot].lanes[request.version]

    def _note(self, request: Request, inferring: int) -> None:
        lane = self.workers[request.worker].lanes.get(request.version)
        if lane is not None:
            lane.inferred(inferring)

    def _detach(self, request: Request, worker: Worker) -> Lane | None:
        lane = worker.lanes.get(request.version)
        if lane is not None and lane.remove(request.key):
            worker.in_hand -= 1
        request.deferred_since = 0
        if worker.alone is request:
            self._release_reservation(worker)
        return lane

    def _take_back(self, request: Request, now: int) -> None:
        worker = self.workers[request.worker]
        lane = self._detach(request, worker)
        if lane is not None and (lane.batches is None or lane.has_left(request.batch)):
            lane.mark_running(now)
        self._activate(request.version)

    def _forget(self, request: Request) -> None:
        del self.requests[request.key]
        left = self._open[request.version] - 1
        if left:
            self._open[request.version] = left
            return
        del self._open[request.version]
        self._queues.pop(request.version, None)

    def _activate(self, version: VersionId) -> None:
        if self._queues.get(version) or (self._gathered and self._gathered.get(version)):
            self._active[version] = None

    def _release_reservation(self, worker: Worker) -> None:
        """The worker may be given anything again: every version it has loaded may have been waiting for it."""
        worker.alone = None
        for version in worker.lanes:
            self._activate(version)

    def _free_worker(self, version: VersionId) -> Worker | None:
        """The worker with a free credit and the least in hand."""
        best: Worker | None = None
        for worker in self.workers.values():
            lane = worker.lanes.get(version)
            if lane is None or lane.credits <= 0 or worker.draining or worker.alone is not None:
                continue
            if best is None or worker.in_hand < best.in_hand:
                best = worker
        return best

    def _dispatch_batch(self, version: VersionId, now: int) -> list[Request]:
        """Hand over the next batch of a version, if there is a worker for it and it need not wait for more."""
        worker = self._free_for_batch(version)
        ahead = worker is None
        worker = worker or self._free_for_batch(version, ahead=1)
        if worker is None:
            return []
        batch = self._gathering.take(version, now, ahead=ahead)
        number = self.new_batch()
        for request in batch:
            self._hand_over(request, worker, now, number)
        return batch

    def _free_for_batch(self, version: VersionId, ahead: int = 0) -> Worker | None:
        """The worker with a free slot (or with fewer than `ahead` batches that wait ready) and the least in hand."""
        best: Worker | None = None
        for worker in self.workers.values():
            lane = worker.lanes.get(version)
            if lane is None or lane.batches is None or worker.draining or worker.alone is not None:
                continue
            if len(lane.batches) < lane.nireq + ahead and (best is None or worker.in_hand < best.in_hand):
                best = worker
        return best

    def _dispatch_suspects(self, now: int) -> list[Request]:
        """Each suspect gets a worker of its own: reserved at once, handed over when that worker is empty."""
        if not self._suspects:
            return []
        handed: list[Request] = []
        reserved = {id(worker.alone): worker for worker in self.workers.values() if worker.alone is not None}
        for request in list(self._suspects):
            worker = reserved.get(id(request)) or self._reserve(request)
            if worker is None or worker.in_hand:
                continue
            self._suspects.remove(request)
            self._hand_over(request, worker, now)
            handed.append(request)
        return handed

    def _reserve(self, request: Request) -> Worker | None:
        able = [
            worker
            for worker in self.workers.values()
            if request.version in worker.lanes and worker.alone is None and not worker.draining
        ]
        if not able:
            return None
        worker = min(able, key=lambda one: one.in_hand)
        worker.alone = request
        return worker
