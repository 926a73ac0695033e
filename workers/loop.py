"""The worker's message loop: one thread that takes requests in, has them inferred, and sends the answers.

    broker ──Load, Unload, Execute, ArenaGone──▶ ┌──────┐ ──start──▶ Model      (inline, or the runtime's threads)
           ◀──Loaded, Unloaded, Done, Hello───── │ Loop │ ──load───▶ Loader     (a thread)
                                                 └──────┘ ──fetch──▶ Memory     (a thread a question)
                                                     ▲ └───compile─▶ Shaping    (a thread)
                                                     └──────Inbox (deque, eventfd)──────┘

Nothing here waits but `Waiter.wait`. Which request runs next is decided in workers.queue, when to greet the broker in
common.session. An answer that is finished while there is no link is kept, and counts as in hand, until it is sent.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from common import config
from common.errors import Code
from common.messages import (
    ArenaGone,
    BatchFailed,
    Deferred,
    Execute,
    ExecuteBatch,
    Load,
    LoadFailed,
    Message,
    ProcessId,
    Unload,
    Unloaded,
    WorkerHello,
)
from common.peer import PeerLink
from common.process import has_ended
from common.session import LinkUp
from common.transport import Transport, Waiter
from workers.answers import Answer, to_done
from workers.batched import BatchedModel
from workers.binding import BadReferenceError, Binder, Bound
from workers.engine import Engine, MemoryId, Run, RunResult, failure
from workers.inbox import Inbox
from workers.loader import CloseEnded, CompileEnded, LoadEnded, Loader
from workers.memory import ARENA, Fetched, Memory
from workers.pace import Looks
from workers.queue import Batch, RunQueue
from workers.shaped import Shaping
from workers.versions import Version, Versions

IDLE_NS = 250_000_000
"""Between two looks at what nobody reports: an unanswered Hello, a mapping that could not be closed, a deadline."""
REST_NS = 2_000_000_000
"""The wait while there is nothing of all that. It need not end at all; but a wait that cannot end by itself would make
any wake-up that is lost the last one."""
FLUSH_NS = 500_000
"""Answers wait no longer than this for further runs on the loop to share their envelope."""

_log = logging.getLogger("workers")


class _Finished(NamedTuple):
    """Reported by an engine's thread."""

    run: Run
    result: RunResult
    ended: int


class _BatchFinished(NamedTuple):
    """Likewise, of a batch."""

    runs: Sequence[Run]
    results: Sequence[RunResult]
    ended: int


_Report: TypeAlias = _Finished | _BatchFinished | LoadEnded | CompileEnded | CloseEnded | Fetched


class Loop:
    """A worker, once its engine is there."""

    def __init__(self, slot: str, run_dir: Path, engine: Engine, process: ProcessId) -> None:
        self._slot = slot
        self._process = process
        self._inbox: Inbox[_Report] = Inbox()
        self._waiter = Waiter()
        self._waiter.add(self._inbox.descriptor)
        name = f"{slot}.{process.pid}.{process.start_ticks}"
        self._link = PeerLink(Transport(), config.peers_socket(run_dir), name, self._hello, self._waiter)
        self._memory = Memory(run_dir, self._inbox.post)
        self._queue = RunQueue()
        compiler = Loader(engine, self._inbox.post, "compiler")
        self._shaping = Shaping(compiler, self._queue, self._finish, self._tell)
        self._shaped = self._shaping.versions
        loader = Loader(engine, self._inbox.post)
        self._versions = Versions(loader, self._queue, self._shaping, self._tell)
        self._loaded, self._leaving = self._versions.loaded, self._versions.leaving
        self._gone: set[str] = set()
        """Frontends that have died and in whose memory something still runs."""
        self._running: dict[int, Execute] = {}
        """By the identity of the run."""
        self._answers: list[Answer] = []
        self._news: list[Message] = []
        self._looks = Looks()
        self._idle_at = 0

    def run(self) -> None:
        """Serve until the process is ended."""
        self._link.start(time.monotonic_ns())
        while True:
            self.step()

    def step(self) -> None:
        """Wait for something to happen, and do what follows from it."""
        ready = self._waiter.wait(self._patience())
        for message, _ in self._link.drain(time.monotonic_ns()):
            self._obey(message)
        for report in self._inbox.drain(woken=self._inbox.descriptor in ready):
            self._hear(report)
        self._look_around(ready)
        self._start_runs()
        self._flush()

    # ---- waiting

    def _patience(self) -> int:
        """Nanoseconds to wait at most."""
        if self._running:
            return self._looks.wait(time.monotonic_ns())
        restless = not self._link.linked or self._memory.is_restless or not self._queue.is_empty
        return IDLE_NS if restless else REST_NS

    def _look_around(self, ready: set[int]) -> None:
        now = time.monotonic_ns()
        pidfd = self._link.pidfd
        if pidfd is not None and pidfd in ready and has_ended(pidfd):
            self._link.broker_ended(now)
        if self._running and not self._looks.wait(now):
            self._looks.looked(now)
            for version in self._queue.running_versions():
                self._loaded[version].model.poll()
        if now - self._idle_at >= IDLE_NS:
            self._idle_at = now
            self._link.tick(now)
            self._memory.retry()
            self._shaping.expire()
        for change in self._link.changes():
            _log.info("%s", "linked to the broker" if isinstance(change, LinkUp) else "the link is down")

    # ---- what the broker says

    def _hello(self) -> WorkerHello:
        """Where this worker stands. What it says is not said again."""
        self._news = [message for message in self._news if isinstance(message, LoadFailed)]
        if waiting := self._shaping.waiting():
            self._news.append(Deferred(waiting))
        in_hand = [(request.key, request.version) for request, _, _ in self._answers]
        in_hand += self._queue.in_hand()
        return WorkerHello(
            slot=self._slot,
            process=self._process,
            loaded=self._versions.staying(),
            loading=tuple(self._versions.loading),
            running=tuple(key for key, _ in in_hand),
            running_versions=tuple(version for _, version in in_hand),
            running_batches=self._queue.batch_numbers(key for key, _ in in_hand),
            arenas=self._memory.frontends(),
        )

    def _obey(self, message: Message) -> None:
        if isinstance(message, Execute):
            self._execute(message)
        elif isinstance(message, ExecuteBatch):
            self._execute_batch(message)
        elif isinstance(message, Load):
            self._versions.load(message)
        elif isinstance(message, Unload):
            self._versions.unload(message.version)
        elif isinstance(message, ArenaGone):
            self._arena_gone(message.frontend)
        else:
            _log.error("a worker has no use for %s", type(message).__name__)

    def _execute(self, request: Execute) -> None:
        key = request.key
        if self._queue.holds(key) or self._is_refused(request):
            return
        if not self._memory.maps(key.frontend, request.segment):
            self._queue.park(request)
            self._memory.fetch(MemoryId(key.frontend, request.segment))
        elif self._shaped and request.version in self._shaped:
            self._shaping.admit(request)
        else:
            self._queue.push(request)

    def _execute_batch(self, message: ExecuteBatch) -> None:
        members = tuple(
            one for one in message.requests if not self._queue.holds(one.key) and not self._is_refused(one)
        )
        self._queue.gather(members)
        for request in members:
            frontend, segment = request.key.frontend, request.segment
            if not self._memory.maps(frontend, segment):
                self._queue.park(request)
                self._memory.fetch(MemoryId(frontend, segment))
            else:
                self._queue.push(request)

    def _is_refused(self, request: Execute) -> bool:
        """Whether nothing can be done for a request, which is then answered."""
        version = request.version
        if not self._queue.knows(version) or (self._leaving and version in self._leaving):
            name = f"{version.model}, version {version.version}"
            self._answer(request, failure(Code.UNAVAILABLE, f"Model {name} is not loaded in the worker"))
        elif self._gone and request.key.frontend in self._gone:
            self._answer(request, failure(Code.CANCELLED, "The frontend has ended"))
        else:
            return False
        return True

    def _arena_gone(self, frontend: str) -> None:
        self._memory.forget_fetches(frontend)
        for request in [*self._queue.drop(frontend), *self._shaping.drop(frontend)]:
            self._finish(request, failure(Code.CANCELLED, "The frontend has ended"))
        self._gone.add(frontend)
        self._release_if_idle(frontend)

    # ---- what other threads say

    def _hear(self, report: _Report) -> None:
        if isinstance(report, _Finished):
            self._ended(report.run, report.result, report.ended)
        elif isinstance(report, _BatchFinished):
            self._batch_ended(report.runs, report.results, report.ended)
        elif isinstance(report, Fetched):
            self._fetched(report)
        elif isinstance(report, LoadEnded):
            self._versions.load_ended(report)
        elif isinstance(report, CompileEnded):
            self._shaping.ended(report)
            if report.version in self._leaving:
                self._versions.close_if_idle(report.version)
        else:
            self._looks.forget(report.version)
            self._news.append(Unloaded(report.version))

    def _fetched(self, answer: Fetched) -> None:
        if not self._memory.fetched(answer):
            return
        for request in self._queue.unpark(*answer.memory):
            if answer.segment is None:
                _log.error("no memory for a request: %s", answer.reason)
                self._finish(request, failure(Code.UNAVAILABLE, "The request's memory cannot be reached"))
            elif request.version in self._shaped:
                self._shaping.admit(request)
            else:
                self._queue.push(request)

    # ---- inference

    def _start_runs(self) -> None:
        begun = now = time.monotonic_ns()
        while (due := self._queue.next()) is not None:
            now = self._start_batch(due, now) if isinstance(due, Batch) else self._start(due, now)
            if now - begun >= FLUSH_NS and self._answers:
                self._flush()
                begun = now = time.monotonic_ns()

    def _start(self, request: Execute, now: int) -> int:
        """Have it inferred; the time, for which the clock is read once a request."""
        version = self._loaded[request.version]
        run = self._prepare(request, version.binder, now)
        if run is None:
            return now
        result = version.model.start(run, self._done)
        if result is None:
            self._begun(run, request, now)
            return time.monotonic_ns()
        ended = run.ended or time.monotonic_ns()
        run.forget()
        self._finish(request, result, ended - run.started)
        return ended

    def _start_batch(self, batch: Batch, now: int) -> int:
        """Likewise."""
        members = list(batch.members.values())
        version = self._loaded[members[0].version]
        runs: list[Run] = []
        for one in members:
            run = self._prepare(one, version.binder, now)
            if run is not None:
                self._begun(run, one, now)
                runs.append(run)
        if not runs:
            return now
        model = version.model
        assert isinstance(model, BatchedModel), "batches are made of versions that were loaded for it"
        results = model.start_batch(runs, self._batch_done)
        ended = time.monotonic_ns()
        if results is not None:
            self._batch_ended(runs, results, ended)
        return ended

    def _begun(self, run: Run, request: Execute, now: int) -> None:
        self._running[id(run)] = request
        self._looks.begun(request.version, now)

    def _prepare(self, request: Execute, binder: Binder, now: int) -> Run | None:
        """The run of a request; None where it cannot be run, and is answered."""
        if 0 < request.deadline <= now:
            reason = "The deadline passed before the inference began"
            self._finish(request, failure(Code.DEADLINE_EXCEEDED, reason))
            return None
        try:
            memory, binding = self._places(request, binder)
        except BadReferenceError as error:
            _log.error("request %d of %s: %s", request.key.id, request.key.frontend, error)
            self._finish(request, failure(Code.INTERNAL, "The request's references to memory are wrong"))
            return None
        return Run(request.key, memory, binding, now)

    def _places(self, request: Execute, binder: Binder) -> Bound:
        """Raises BadReferenceError. Only the run refers to the views: they must go before their memory can."""
        frontend = request.key.frontend
        if request.segment == ARENA:
            known = binder.known(frontend, request.inputs, request.outputs)
            if known is not None:
                return known
        memory = MemoryId(frontend, request.segment)
        segment = self._memory.get(memory)
        if segment is None:
            raise BadReferenceError("the segment is not mapped any more")
        return memory, binder.bind(memory, segment, request.inputs, request.outputs)

    def _done(self, run: Run, result: RunResult) -> None:
        """Called by threads of the engine."""
        self._inbox.post(_Finished(run, result, time.monotonic_ns()))

    def _batch_done(self, runs: Sequence[Run], results: Sequence[RunResult]) -> None:
        """Called by threads of the engine."""
        self._inbox.post(_BatchFinished(runs, results, time.monotonic_ns()))

    def _batch_ended(self, runs: Sequence[Run], results: Sequence[RunResult], ended: int) -> None:
        if len(runs) > 1 and any(result.error is not None for result in results):
            # Whose fault it is shows when each is inferred by itself, which the broker sees to.
            self._news.append(BatchFailed(tuple(run.key for run in runs)))
            for run in runs:
                request = self._running.pop(id(run))
                run.forget()
                self._looks.ended(request.version, 0, failed=True)
                self._let_go(request)
            return
        for run, result in zip(runs, results, strict=True):
            self._ended(run, result, ended)

    def _ended(self, run: Run, result: RunResult, ended: int) -> None:
        request = self._running.pop(id(run))
        run.forget()
        took = ended - run.started
        self._looks.ended(request.version, took, failed=result.error is not None)
        self._finish(request, result, took)

    def _finish(self, request: Execute, result: RunResult, inferring: int = 0) -> None:
        """A request that was in hand is answered; what only it needed is given back first."""
        self._let_go(request)
        self._answers.append((request, result, inferring))

    def _let_go(self, request: Execute) -> None:
        """A request is not in hand any more."""
        key = request.key
        self._queue.finish(key)
        frontend = key.frontend
        if request.segment != ARENA:
            # It served this request alone, so no other version has ever seen it.
            known = self._loaded.get(request.version)
            self._release(MemoryId(frontend, request.segment), () if known is None else (known,))
        if self._gone and frontend in self._gone:
            self._release_if_idle(frontend)
        if self._shaped and request.version in self._shaped:
            self._shaping.leave(request)
        if self._leaving and request.version in self._leaving:
            self._versions.close_if_idle(request.version)

    def _answer(self, request: Execute, result: RunResult, inferring: int = 0) -> None:
        self._answers.append((request, result, inferring))

    def _tell(self, message: Message) -> None:
        self._news.append(message)

    # ---- giving back

    def _release(self, memory: MemoryId, versions: Iterable[Version]) -> None:
        """Unmap; first these versions let go of it."""
        if self._memory.get(memory) is not None:
            for version in versions:
                version.model.release(memory)
                if memory.segment == ARENA:
                    version.binder.release(memory.frontend)
        self._memory.forget(memory)

    def _release_if_idle(self, frontend: str) -> None:
        if self._queue.is_running(frontend):
            return
        self._gone.discard(frontend)
        for memory in self._memory.of_frontend(frontend):
            self._release(memory, self._loaded.values())

    # ---- sending

    def _flush(self) -> None:
        """Send what is pending in one envelope. Answers keep until there is a link, news until the next Hello."""
        if not self._link.linked or not (self._news or self._answers):
            return
        frames: list[bytes] = []
        messages = self._news + [to_done(answer, frames) for answer in self._answers]
        # What is not taken leaves a gap: the broker begins the link anew, and the next Hello lists these answers.
        if self._link.send(messages, tuple(frames)):
            self._news, self._answers = [], []
