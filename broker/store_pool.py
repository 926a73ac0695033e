"""Threads for what may block, storage above all: the storekeeper's loop hands work over and is woken by its result.

    submit(lane, work, then) ─▶ lane: waiting ─▶ bundle, in a thread ─▶ results, eventfd ─▶ settle(): then(result)

A lane is a store, or this machine's file system: one that hangs fills its own lane and no other's. Quick work, looking
at a hundred local models, goes in one bundle to one thread, because waking a thread costs more than looking; what is
left of a bundle that hangs is taken back and given to another thread. The bookkeeping is all done by the loop's thread.
"""

import contextlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

_logger = logging.getLogger("storekeeper")

MAX_THREADS = 16
STUCK_S = 2.0
"""Quick work that takes longer hangs on something of its own, and no longer counts for its lane."""
MAX_STUCK = 6
"""Threads that a quick lane may lose that way."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Lane:
    """Where work queues up."""

    name: str
    limit: int
    """So many threads at once."""
    quick: bool = False
    """Its work takes milliseconds unless it hangs."""


LOCAL = Lane("local", 1, quick=True)


def remote_lane(bucket: str) -> Lane:
    """The lane of one bucket."""
    return Lane(bucket, 2)


@dataclass(slots=True, eq=False)
class _Task:
    work: Callable[[], Any]
    then: Callable[[Any], None]
    failed: Callable[[str], None]
    result: Any = None
    error: str = ""


@dataclass(slots=True, eq=False)
class _Bundle:
    """Tasks that one thread does one after the other. Both ends of a deque may be taken from by any thread."""

    lane: Lane
    tasks: deque[_Task]
    moved: float
    """When the last task was begun [CLOCK_MONOTONIC, s]."""


@dataclass(slots=True)
class _Queue:
    lane: Lane
    waiting: deque[_Task] = field(default_factory=deque)
    running: list[_Bundle] = field(default_factory=list)


class Pool:
    """The threads, started as they are needed. They are daemons: the process does not wait for them to end."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when `settle` has something to do."""
        self._lanes: dict[str, _Queue] = {}
        self._running = 0
        self._threads: list[threading.Thread] = []
        self._todo: queue.SimpleQueue[_Bundle | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Bundle, _Task | None]] = queue.SimpleQueue()

    def submit(
        self,
        lane: Lane,
        work: Callable[[], _Result],
        then: Callable[[_Result], None],
        failed: Callable[[str], None],
    ) -> None:
        """Run `work` in a thread from the next `start` on, and then, in a `settle`, `then` with what it returned.

        `failed` gets the name of an exception that `work` let out, which is an error of ours.
        """
        self._lanes.setdefault(lane.name, _Queue(lane)).waiting.append(_Task(work, then, failed))

    @property
    def is_busy(self) -> bool:
        """Whether anything waits or runs, which `start` is to look after."""
        return bool(self._lanes)

    def settle(self) -> None:
        """Deliver the results that have come."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        for bundle, task in self._results():
            if task is None:
                self._running -= 1
                self._lanes[bundle.lane.name].running.remove(bundle)
            elif task.error:
                task.failed(task.error)
            else:
                task.then(task.result)

    def start(self) -> None:
        """Start what waits and has room. To be called at every turn, after everything was submitted."""
        now = time.monotonic()
        for name, lane in list(self._lanes.items()):
            self._take_back(lane, now)
            while lane.waiting and self._has_room(lane, now):
                count = len(lane.waiting) if lane.lane.quick else 1
                tasks = deque(lane.waiting.popleft() for _ in range(count))
                bundle = _Bundle(lane.lane, tasks, now)
                lane.running.append(bundle)
                self._running += 1
                self._hand_over(bundle)
            if not lane.waiting and not lane.running:
                del self._lanes[name]

    def close(self) -> None:
        """End the idle threads; one that is in the middle of something ends after it."""
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join(timeout=1.0)
        # A thread that still runs would write to a descriptor that may be another's by then.
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self.descriptor)

    def _results(self) -> list[tuple[_Bundle, _Task | None]]:
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._done.get_nowait())
        return found

    def _take_back(self, lane: _Queue, now: float) -> None:
        for bundle in lane.running:
            if _is_stuck(bundle, now):
                with contextlib.suppress(IndexError):
                    while True:
                        lane.waiting.appendleft(bundle.tasks.pop())

    def _has_room(self, lane: _Queue, now: float) -> bool:
        stuck = sum(_is_stuck(bundle, now) for bundle in lane.running)
        counted = len(lane.running) - stuck
        return counted < lane.lane.limit and stuck < MAX_STUCK and self._running < MAX_THREADS

    def _hand_over(self, bundle: _Bundle) -> None:
        if len(self._threads) < self._running:
            thread = threading.Thread(target=self._work, name=f"store-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._todo.put(bundle)

    def _work(self) -> None:
        while True:
            bundle = self._todo.get()
            if bundle is None:
                return
            with contextlib.suppress(IndexError):
                while True:
                    task = bundle.tasks.popleft()
                    bundle.moved = time.monotonic()
                    _run(task)
                    self._done.put((bundle, task))
            self._done.put((bundle, None))
            os.eventfd_write(self.descriptor, 1)


def _is_stuck(bundle: _Bundle, now: float) -> bool:
    return bundle.lane.quick and now - bundle.moved >= STUCK_S


def _run(task: _Task) -> None:
    try:
        task.result = task.work()
    except Exception as error:  # noqa: BLE001 - one bad store must not end the thread of the others
        # Without its text, which may be a library's and hold a secret.
        task.error = type(error).__name__
        _logger.error("an unexpected %s in %s", task.error, _place(error))


def _place(error: BaseException) -> str:
    """File and line of the innermost frame."""
    trace = error.__traceback__
    if trace is None:
        return "an unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
