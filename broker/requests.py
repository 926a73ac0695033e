"""What becomes of requests: submitted, submitted again to a new broker, cancelled, handed out, done. Pure.

The scheduler decides which worker runs which request; here is what frontends are told, and what a broker that has just
started does about requests of which it does not know yet whether a worker is running them:

    a frontend lists it     and a worker has it in hand      ─▶ adopted: answered when that worker is done
                            and no worker unheard may have it ─▶ queued
                            and one may                       ─▶ held until that one has said Hello or is dead
    a worker has it in hand and no frontend has listed it yet ─▶ its answer is kept for a while
"""

from broker.fleet import Fleet
from broker.outbox import Outbox
from broker.peers import Frontend, Peers
from broker.registry import Registry
from broker.scheduler import Scheduler
from broker.work import Phase, Request
from common.errors import Code, WireError
from common.messages import (
    Completed,
    Done,
    Execute,
    ExecuteBatch,
    FrontendHello,
    RequestKey,
    Stale,
    Submit,
    Timing,
    VersionId,
    WorkerHello,
)

CLAIM_NS = 5_000_000_000
"""So long the answer to a request is kept whose frontend may still be on its way to a new broker."""

_CONVICTED = WireError(
    Code.INTERNAL, "Inference ended its worker process twice; the request will not be tried again"
)
_EXPIRED = WireError(Code.DEADLINE_EXCEEDED, "The deadline passed while the request waited for a worker")


class Requests:
    """The requests' part of the core."""

    def __init__(
        self,
        scheduler: Scheduler,
        registry: Registry,
        fleet: Fleet,
        peers: Peers,
        out: Outbox,
        timeout_s: float,
    ) -> None:
        self._scheduler = scheduler
        self._registry = registry
        self._fleet = fleet
        self._peers = peers
        self._out = out
        self._timeout_text = f"Inference took longer than {timeout_s:g} s and was stopped"
        self._unclaimed: dict[RequestKey, tuple[Done, tuple[bytes, ...], int]] = {}
        self._unreleased: list[RequestKey] = []

    # ---- from frontends

    def greeted(self, frontend: Frontend, hello: FrontendHello, now: int) -> None:
        """A frontend lists everything that it holds; what it does not list it does not want."""
        listed = {submit.id for submit in hello.requests} | set(hello.abandoned)
        for request in self._scheduler.of_frontend(hello.name):
            if request.key.id not in listed:
                self._scheduler.cancel(request.key)
        for submit in hello.requests:
            self._resubmit(frontend, submit, now)
        for id_ in hello.abandoned:
            self._abandoned_again(RequestKey(hello.name, id_))

    def submit(self, frontend: Frontend, submit: Submit, generation: int, now: int) -> None:
        """A new request; Stale at once if its version has left."""
        version = submit.version
        if not self._registry.accepts(version) and not self._may_appear(version):
            self._out.send(frontend.identity, Stale(submit.id, generation))
            return
        scheduler = self._scheduler
        key = RequestKey(frontend.name, submit.id)
        if key in scheduler.requests:
            return
        if scheduler.gathered and (refusal := scheduler.refuses(submit)):
            error = WireError(Code.RESOURCE_EXHAUSTED, refusal)
            self._out.send(frontend.identity, Completed(submit.id, (), error))
            return
        scheduler.submit(Request(key, version, submit, now))

    def cancel(self, key: RequestKey) -> None:
        """Nobody waits for it; released now, when its worker is done, or when every worker has said what it runs."""
        request = self._scheduler.requests.get(key)
        is_held = request is not None and request.phase is Phase.HELD
        if self._scheduler.cancel(key) is None:
            return
        if is_held:
            # A worker that has not said Hello yet may be running it.
            self._unreleased.append(key)
        else:
            self._out.release(key.frontend, key.id)

    def frontend_died(self, name: str) -> None:
        """Its queued requests go; running ones finish into memory that the workers still map."""
        for request in self._scheduler.of_frontend(name):
            self._scheduler.cancel(request.key)

    def may_wait(self, version: VersionId) -> bool:
        """Whether requests for the version may queue: it is served, or a new broker does not know it yet."""
        return self._registry.accepts(version) or self._may_appear(version)

    # ---- from workers

    def worker_greeted(self, hello: WorkerHello, now: int) -> None:
        """Credits for what is loaded; what it has in hand is adopted, what it was thought to have is queued again."""
        scheduler, slot = self._scheduler, hello.slot
        scheduler.worker_joined(slot)
        for record in hello.loaded:
            scheduler.version_loaded(slot, record.version, record.nireq, record.batching)
        stated = dict(zip(hello.running, hello.running_versions, strict=True))
        for request in scheduler.in_hand_of(slot):
            if request.key not in stated and scheduler.not_in_hand(request) and request.abandoned:
                self._out.release(request.key.frontend, request.key.id)
        theirs = dict(zip(hello.running, hello.running_batches, strict=False))
        batches: dict[int, int] = {}
        for key, version in stated.items():
            request = scheduler.requests.get(key) or Request(key, version, None, now)
            batch = theirs.get(key, 0)
            if batch:
                batch = batches.setdefault(batch, scheduler.new_batch())
            scheduler.adopt(request, slot, now, batch)

    def worker_died(self, slot: str, *, was_loading: bool) -> None:
        """Suspects, convicts and innocents are the scheduler's verdict; the rest is to tell their frontends."""
        verdict = self._scheduler.worker_lost(slot, was_loading=was_loading)
        for request in verdict.convicted:
            error = _CONVICTED
            if request.timed_out:
                error = WireError(Code.DEADLINE_EXCEEDED, self._timeout_text)
            self._out.to_frontend(request.key.frontend, Completed(request.key.id, (), error))
        for request in verdict.dropped:
            self._out.release(request.key.frontend, request.key.id)

    def done(self, slot: str, done: Done, frames: tuple[bytes, ...], now: int) -> None:
        """A worker's answer."""
        key = done.key
        request = self._scheduler.done(slot, key, now, done.inferring)
        if request is None:
            self._peers.unknown_done += 1
        elif request.abandoned:
            self._out.release(key.frontend, key.id)
        elif request.submit is None:
            self._unclaimed[key] = (done, frames, now + CLAIM_NS)
        else:
            frontend = self._peers.frontends.get(key.frontend)
            if frontend is not None:
                timing = Timing(request.handed_at - request.queued_at, done.inferring)
                answer = Completed(key.id, done.outputs, done.error, timing)
                if frames:
                    self._out.answer(frontend.identity, answer, frames)
                else:
                    self._out.send(frontend.identity, answer)

    def batch_failed(self, slot: str, keys: tuple[RequestKey, ...], now: int) -> None:
        """A worker could not infer these together: each is queued again, to be inferred by itself."""
        for request in self._scheduler.split(slot, keys, now):
            if request.abandoned:
                self._out.release(request.key.frontend, request.key.id)

    # ---- decisions

    def dispatch(self, now: int) -> None:
        """Hand out what can be handed out."""
        while handed := self._scheduler.dispatch(now):
            # What has expired has left its place to others.
            if self._hand_out(handed, now):
                break

    def settle(self, generation: int) -> None:
        """Let go what was held back for workers unheard, and send back what can never run any more."""
        silent = self._fleet.silent_devices()
        if silent is not None:
            for request in self._scheduler.held():
                if not self._may_be_in(request.version, silent):
                    self._scheduler.release_held(request)
        if silent is not None and not silent:
            pending, self._unreleased = self._unreleased, []
            for key in pending:
                self._abandoned_again(key)
        for version in self._scheduler.queued_versions():
            if self.may_wait(version):
                continue
            for key in self._scheduler.queued_keys(version):
                self._scheduler.cancel(key)
                self._out.to_frontend(key.frontend, Stale(key.id, generation))

    def tick(self, now: int) -> None:
        """Answers that nobody has claimed in time go."""
        for key in [key for key, (_, _, until) in self._unclaimed.items() if now >= until]:
            del self._unclaimed[key]

    def is_restless(self) -> bool:
        """Whether any request, or its answer, is kept here."""
        return bool(self._scheduler.requests or self._unclaimed or self._unreleased)

    # ---- helpers

    def _resubmit(self, frontend: Frontend, submit: Submit, now: int) -> None:
        key = RequestKey(frontend.name, submit.id)
        known = self._scheduler.requests.get(key)
        if known is not None:
            known.submit = submit
            known.abandoned = False
            return
        unclaimed = self._unclaimed.pop(key, None)
        if unclaimed is not None:
            done, frames, _ = unclaimed
            self._out.answer(frontend.identity, Completed(submit.id, done.outputs, done.error), frames)
            return
        silent = self._fleet.silent_devices()
        held = silent is None or self._may_be_in(submit.version, silent)
        self._scheduler.submit(Request(key, submit.version, submit, now), held=held)

    def _abandoned_again(self, key: RequestKey) -> None:
        """A lent block whose request nobody wants: released when no worker can be running it."""
        self._unclaimed.pop(key, None)
        if key in self._scheduler.requests:
            self.cancel(key)
        elif self._fleet.silent_devices() == frozenset():
            self._out.release(key.frontend, key.id)
        else:
            self._unreleased.append(key)

    def _hand_out(self, handed: list[Request], now: int) -> bool:
        """Send to the workers what was handed to them; whether that was all of it."""
        workers, send = self._peers.workers, self._out.send
        batches: dict[int, tuple[str, list[Execute]]] = {}
        expired = False
        for request in handed:
            submit = request.submit
            assert submit is not None, "only adopted requests lack their Submit, and those are in hand"
            deadline = submit.deadline
            if now >= deadline:
                # Seen only now: nobody looks through the queues for deadlines, the frontend has its own timer.
                expired = True
                self._scheduler.done(request.worker, request.key, now)
                self._out.to_frontend(request.key.frontend, Completed(submit.id, (), _EXPIRED))
                continue
            message = Execute(
                request.key, request.version, submit.segment, submit.inputs, submit.outputs, deadline
            )
            if request.batch:
                batches.setdefault(request.batch, (request.worker, []))[1].append(message)
            else:
                send(workers[request.worker].identity, message)
        for slot, members in batches.values():
            whole = members[0] if len(members) == 1 else ExecuteBatch(tuple(members))
            send(workers[slot].identity, whole)
        return not expired

    def _may_appear(self, version: VersionId) -> bool:
        """Whether it is not known and may become known yet: by its worker's Hello, or by a listing."""
        if self._registry.find(version) is not None:
            return False
        model = self._registry.models.get(version.model)
        silent = self._fleet.silent_devices()
        return model is not None and (silent is None or bool(silent) or not model.listed)

    def _may_be_in(self, version: VersionId, silent: frozenset[str]) -> bool:
        """Whether a worker of these devices may be running requests of the version."""
        known = self._registry.find(version)
        return bool(silent) if known is None else known.device in silent
