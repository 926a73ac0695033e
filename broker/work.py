"""What the scheduler keeps: requests, and what each worker has of each version. Pure.

Line (a version) ──▶ requests that wait for a worker
                 └─▶ Lane (in one Worker) ──▶ in hand: `nireq` run (requests, or batches), the others wait ready
                                          └─▶ deferred: their shapes are being compiled

A request knows its line, and its lane while it is in hand, so that a version is looked up by its name once a request.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Final

from common.messages import RequestKey, Submit, VersionId

READY_NS: Final = 1_000_000
"""What waits ready in a worker takes no longer than this, beyond the one request that may always wait there."""
SHORT_NS: Final = 4 * READY_NS
"""Inferences below this may be those that a worker runs on its loop, which takes READY_NS for the most by its quickest
ones: on a busy machine the average is longer."""

MAX_READY: Final = 15

MAX_DEFERRED: Final = 64
"""With so many requests of a version deferred a worker gets no more of it."""

_WEIGHT: Final = 8
"""The latest inference counts as one part in so many of the average."""


class Phase(Enum):
    """Where a request is."""

    HELD = "held"
    QUEUED = "queued"
    SUSPECT = "suspect"
    IN_HAND = "in hand"


# Names of this module: an enumeration's own are looked up as attributes, several times a request.
HELD: Final = Phase.HELD
QUEUED: Final = Phase.QUEUED
SUSPECT: Final = Phase.SUSPECT
IN_HAND: Final = Phase.IN_HAND


class Fate(Enum):
    """Of a request whose worker has died."""

    DROPPED = "dropped"
    CONVICTED = "convicted"
    SUSPECT = "suspect"
    INNOCENT = "innocent"


class Request:
    """A request from its Submit, or its adoption, until its answer."""

    # What is the same for all of them at first is left to the class: one is made for each message.
    phase: Phase = QUEUED
    worker: str = ""
    handed_at: int = 0
    running_since: int = 0
    """When it reached a slot of its worker; 0 while it waits ready there."""
    deferred_since: int = 0
    """When its worker began to wait for its shapes; 0 when it does not."""
    suspect: bool = False
    abandoned: bool = False
    """Nobody waits for the answer, but a worker may still write to the block."""
    timed_out: bool = False
    """Its worker was killed because of it."""
    batch: int = 0
    """In which it was handed over last, of a version whose requests are gathered."""
    single: bool = False
    """It was in a batch that failed: to be inferred by itself."""
    line: "Line | None" = None
    """Its version's, from its `submit` or `adopt` on."""
    lane: "Lane | None" = None
    """Where a worker has it in hand."""

    def __init__(self, key: RequestKey, version: VersionId, submit: Submit | None, queued_at: int) -> None:
        """`submit`: None for one that a worker was running when this broker started and that nobody has claimed yet."""
        self.key = key
        self.version = version
        self.submit = submit
        self.queued_at = queued_at


@dataclass(slots=True, eq=False)
class Line:
    """A version as the scheduler sees it."""

    version: VersionId
    lanes: "list[Lane]" = field(default_factory=list)
    """Of the workers that can run it, in the workers' order."""
    queue: "OrderedDict[Request, None]" = field(default_factory=OrderedDict)
    """What waits for a worker; of a version whose requests are gathered they wait in its BatchQueue."""
    is_gathered: bool = False
    open: int = 0
    """Requests that are not answered yet."""

    def free_lane(self) -> "Lane | None":
        """That of the worker with a free credit and the least in hand."""
        best: Lane | None = None
        for lane in self.lanes:
            worker = lane.worker
            if len(lane.in_hand) >= lane.nireq + lane.ready or worker.draining or worker.alone is not None:
                continue
            if len(lane.deferred) < MAX_DEFERRED and (best is None or worker.in_hand < best.worker.in_hand):
                best = lane
        return best

    def free_for_batch(self, ahead: int = 0) -> "Lane | None":
        """That of the worker with a free slot (or fewer than `ahead` batches that wait ready) and the least in hand."""
        best: Lane | None = None
        for lane in self.lanes:
            worker = lane.worker
            if lane.batches is None or worker.draining or worker.alone is not None:
                continue
            free = len(lane.batches) < lane.nireq + ahead
            if free and (best is None or worker.in_hand < best.worker.in_hand):
                best = lane
        return best


@dataclass(slots=True, eq=False)
class Lane:
    """A version loaded in a worker: what it has in hand, oldest first; the first `nireq` of them run."""

    worker: "Worker"
    line: Line
    nireq: int
    in_hand: dict[Request, None] = field(default_factory=dict)
    ready: int = 1
    """How many may wait ready."""
    average_ns: int = READY_NS
    """Of an inference, lately."""
    is_measured: bool = False
    """Whether `average_ns` is more than a guess."""
    deferred: dict[Request, None] = field(default_factory=dict)
    """In hand too, apart from the others: their shapes are being compiled."""
    batches: dict[int, int] | None = None
    """Of a version whose requests are gathered: batches in hand, oldest first, and how many of each are not answered.
    `nireq` of them run.
    """

    def add(self, request: Request, now: int) -> None:
        """The worker has one more in hand."""
        self.worker.in_hand += 1
        self.in_hand[request] = None
        occupied = len(self.in_hand) if self.batches is None else self._add_to_batch(request.batch)
        if occupied <= self.nireq:
            request.running_since = now

    def _add_to_batch(self, batch: int) -> int:
        assert self.batches is not None, "asked of a lane of batches"
        self.batches[batch] = self.batches.get(batch, 0) + 1
        return len(self.batches)

    @property
    def credits(self) -> int:
        """How many more requests may be handed over."""
        return self.nireq + self.ready - len(self.in_hand) if len(self.deferred) < MAX_DEFERRED else 0

    def everything(self) -> list[Request]:
        """All that the worker has of the version, the deferred ones last."""
        return [*self.in_hand, *self.deferred]

    def remove(self, request: Request) -> None:
        """The worker does not have it in hand any more."""
        if request in self.in_hand:
            del self.in_hand[request]
        elif request in self.deferred:
            del self.deferred[request]
        else:
            return
        self.worker.in_hand -= 1
        if self.batches is not None:
            self.batches[request.batch] -= 1
            if not self.batches[request.batch]:
                del self.batches[request.batch]

    def has_left(self, batch: int) -> bool:
        """Whether a slot may have come free by an answer to a request of this batch."""
        return self.batches is None or batch not in self.batches

    @property
    def is_short(self) -> bool:
        """Whether several of its requests may have been inferred before the first answer was sent."""
        return self.batches is None and self.is_measured and self.average_ns < SHORT_NS

    def inferred(self, took_ns: int) -> None:
        """An inference took this long."""
        self.is_measured = True
        average = self.average_ns = self.average_ns + (took_ns - self.average_ns) // _WEIGHT
        ready = READY_NS // average if average > 0 else MAX_READY
        self.ready = MAX_READY if ready > MAX_READY else ready or 1

    def fate(self, request: Request, *, blamed: bool, was_loading: bool) -> Fate:
        """What the worker's death means for a request that it had in hand here. See Scheduler.worker_lost.

        `blamed`: some request had exceeded the inference timeout. A worker that infers short requests one after the
        other keeps answers for a moment, so that of several nobody knows which one was running: each is tried alone.
        """
        if request.abandoned or request.submit is None:
            return Fate.DROPPED
        if self.batches is None and len(self.in_hand) > 1 and not request.deferred_since:
            if self.ready > 1:
                mine = any(one.timed_out for one in self.in_hand)
                return Fate.SUSPECT if mine or not blamed else Fate.INNOCENT
            if self.is_short and not blamed:
                return Fate.SUSPECT
        # A compilation may end the worker as an inference may.
        was_running = bool(request.deferred_since) or request in self.running()
        if request.timed_out or (was_running and request.suspect and not was_loading):
            # Who was in a batch with others may have suffered from one of them.
            is_alone = self.batches is None or self.batches[request.batch] == 1
            return Fate.CONVICTED if is_alone else Fate.SUSPECT
        return Fate.SUSPECT if was_running and not blamed else Fate.INNOCENT

    def running(self) -> Iterator[Request]:
        """Those that occupy a slot."""
        if self.batches is None:
            return islice(self.in_hand, self.nireq)
        running = frozenset(islice(self.batches, self.nireq))
        return (request for request in self.in_hand if request.batch in running)

    def mark_running(self, now: int) -> None:
        """Start the clocks of those that have just reached a slot."""
        if self.batches is not None:
            for request in self.running():
                request.running_since = request.running_since or now
            return
        slots = self.nireq
        for request in self.in_hand:
            if slots <= 0:
                break
            slots -= 1
            if not request.running_since:
                request.running_since = now


@dataclass(slots=True, eq=False)
class Worker:
    """A worker as the scheduler sees it."""

    slot: str
    lanes: dict[VersionId, Lane] = field(default_factory=dict)
    in_hand: int = 0
    draining: bool = False
    """Gets nothing new: it is about to be stopped."""
    alone: Request | None = None
    """The suspect that this worker is kept free for, or is running."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a worker's death means for the requests it had in hand."""

    convicted: tuple[Request, ...] = ()
    """Ran alone at a second death, or exceeded the inference timeout: to be answered with an error."""
    dropped: tuple[Request, ...] = ()
    """Nobody waits for them: their blocks are free now."""
