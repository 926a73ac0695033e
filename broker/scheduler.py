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

from collections import OrderedDict

from broker.book import Book, lane_of, line_of
from broker.work import (
    HELD,
    IN_HAND,
    Fate,
    Line,
    Request,
    Verdict,
    Worker,
)
from common.config import BatchingParameters
from common.messages import RequestKey, VersionId


class Scheduler(Book):
    """All requests that the broker knows, and the credits of all workers."""

    # ---- events about requests

    def submit(self, request: Request, *, held: bool = False) -> None:
        """A request has come."""
        self.requests[request.key] = request
        line = self.lines.known.get(request.version)
        if line is None or not line.open:
            line = self.lines.opened(request.version)
        else:
            line.open += 1
        request.line = line
        if held:
            request.phase = HELD
            self._held += 1
        elif line.is_gathered:
            self._enqueue(request)
        else:
            line.queue[request] = None
            self._active[line] = None

    def release_held(self, request: Request) -> None:
        """No worker that could be running it is left unheard: queue it."""
        if request.phase is HELD:
            self._held -= 1
            self._enqueue(request)

    def adopt(self, request: Request, slot: str, now: int, batch: int = 0) -> None:
        """A worker says that it has this request in hand, whatever was thought of it before.

        `batch`: one of `new_batch` where it is in the same batch as others.
        """
        if request.key not in self.requests:
            self._remember(request)
        elif request.phase is IN_HAND:
            return
        else:
            self._unqueue(request)
        self._hand_over(request, self._lane(self.workers[slot], request), now, batch)

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
        if request is None or request.phase is not IN_HAND or request.worker != slot:
            return None
        lane = lane_of(request)
        if inferring:
            lane.inferred(inferring)
        self._detach(request, lane)
        if lane.in_hand and (lane.batches is None or lane.has_left(request.batch)):
            lane.mark_running(now)
        line = lane.line
        if line.queue or line.is_gathered:
            self._activate(line)
        del self.requests[key]
        if line.open > 1:
            line.open -= 1
        else:
            self.lines.closed(line)
        return request

    def defer(self, slot: str, keys: tuple[RequestKey, ...], now: int) -> None:
        """A worker compiles the shapes of these requests, which it has in hand."""
        for request, lane in self._of_worker(slot, keys):
            if request in lane.in_hand:
                del lane.in_hand[request]
                lane.deferred[request] = None
                request.deferred_since, request.running_since = now, 0
                lane.mark_running(now)
                self._activate(lane.line)

    def resume(self, slot: str, keys: tuple[RequestKey, ...], now: int) -> None:
        """These deferred requests can run now."""
        for request, lane in self._of_worker(slot, keys):
            if request in lane.deferred:
                del lane.deferred[request]
                lane.in_hand[request] = None
                request.deferred_since = 0
                lane.mark_running(now)

    def cancel(self, key: RequestKey) -> Request | None:
        """Nobody waits any more. The request if it is gone with that; None while a worker may still write."""
        request = self.requests.get(key)
        if request is None:
            return None
        if request.phase is IN_HAND:
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
        worker, line = self.workers[slot], self.lines.of(version)
        lane = worker.lanes.get(version)
        if lane is None:
            lane = self.lines.add_lane(worker, line, nireq)
            lane.batches = None if batching is None else {}
        lane.nireq = nireq
        if batching is not None and version not in self.gathered:
            waiting, line.queue = line.queue, OrderedDict()
            line.is_gathered = True
            self._gathering.add(version, batching, waiting)
        self._activate(line)

    def version_unloaded(self, slot: str, version: VersionId) -> None:
        """A worker cannot run this version any more."""
        line = self.lines.remove_lane(self.workers[slot], version)
        if line is None or not line.lanes:
            self._gathering.forget(version)
        if line is not None:
            line.is_gathered = version in self.gathered
            self.lines.prune(line)

    def drain(self, slot: str) -> None:
        """Give this worker nothing new."""
        worker = self.workers[slot]
        worker.draining = True
        if worker.alone is not None and worker.alone.phase is not IN_HAND:
            self._release_reservation(worker)

    def worker_lost(self, slot: str, *, was_loading: bool = False) -> Verdict:
        """The worker is dead (confirmed). Everything it had in hand is decided here.

        `was_loading`: it died in the middle of a load, which is as likely to have killed it as what it ran. Nothing is
        convicted by such a death; a version goes into quarantine by it, so there are not many of them.
        """
        worker = self.workers.pop(slot, None)
        if worker is None:
            return Verdict()
        if worker.alone is not None and worker.alone.phase is not IN_HAND:
            self._release_reservation(worker)
        in_hand = [(lane, request) for lane in worker.lanes.values() for request in lane.everything()]
        blamed = any(request.timed_out for _, request in in_hand)
        fates: dict[Fate, list[Request]] = {fate: [] for fate in Fate}
        for lane, request in in_hand:
            fates[lane.fate(request, blamed=blamed, was_loading=was_loading)].append(request)
        self.lines.remove_lanes(worker)
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
        if request.phase is not IN_HAND:
            return False
        self._detach(request, lane_of(request))
        if request.abandoned or request.submit is None:
            self._activate(line_of(request))
            self._forget(request)
            return True
        self._enqueue(request, first=True)
        return False

    # ---- decisions

    def dispatch(self, now: int) -> list[Request]:
        """Hand out all that can be handed out now; each returned request's `worker` says to whom.

        Those of one batch follow each other and have its number.
        """
        handed = self._dispatch_suspects(now) if self._suspects.waiting else []
        if self._gathering.due:
            self._wake(now)
        active = self._active
        while active:
            line, _ = active.popitem(last=False)
            if line.is_gathered:
                batch = self._dispatch_batch(line, now)
                handed += batch
                if batch and self.gathered[line.version]:
                    active[line] = None
                continue
            queue = line.queue
            while queue:
                lane = line.free_lane()
                if lane is None:
                    break
                request, _ = queue.popitem(last=False)
                self._hand_over(request, lane, now)
                handed.append(request)
                if active:
                    # It is another's turn.
                    if queue:
                        active[line] = None
                    break
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
                for request in lane.deferred:
                    if now - request.deferred_since >= compile_limit_ns:
                        request.timed_out = True
                        found.append(request)
        return found

    def next_due(self) -> int | None:
        """When `dispatch` is to be called even if nothing happens; None: not at all."""
        due = self._gathering.due
        return min(due.values()) if due else None

    def _wake(self, now: int) -> None:
        """Look again at those of which a batch has waited for long enough."""
        for version in self._gathering.wake(now):
            line = self.lines.known.get(version)
            if line is not None:
                self._active[line] = None

    def _dispatch_batch(self, line: Line, now: int) -> list[Request]:
        """Hand over the next batch of a version, if there is a worker for it and it need not wait for more."""
        lane = line.free_for_batch()
        ahead = lane is None
        lane = lane or line.free_for_batch(ahead=1)
        if lane is None:
            return []
        batch = self._gathering.take(line.version, now, ahead=ahead)
        number = self.new_batch()
        for request in batch:
            self._hand_over(request, lane, now, number)
        return batch

    def _dispatch_suspects(self, now: int) -> list[Request]:
        """Each suspect gets a worker of its own: reserved at once, handed over when that worker is empty."""
        handed: list[Request] = []
        for request, worker in self._suspects.due(self.workers.values()):
            self._hand_over(request, self._lane(worker, request), now)
            handed.append(request)
        return handed
