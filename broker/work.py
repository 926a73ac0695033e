"""What the scheduler keeps: requests, and what each worker has of each version. Pure.

Worker ──▶ Lane (a version) ──▶ in hand: `nireq` run (requests, or batches of them), the others wait ready
                            └─▶ deferred: their shapes are being compiled
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice

from common.messages import RequestKey, Submit, VersionId

READY_NS = 1_000_000
"""What waits ready in a worker takes no longer than this, beyond the one request that may always wait there."""

MAX_READY = 15

MAX_DEFERRED = 64
"""With so many requests of a version deferred a worker gets no more of it."""

_WEIGHT = 8
"""The latest inference counts as one part in so many of the average."""


class Phase(Enum):
    """Where a request is."""

    HELD = "held"
    QUEUED = "queued"
    SUSPECT = "suspect"
    IN_HAND = "in hand"


class Fate(Enum):
    """Of a request whose worker has died."""

    DROPPED = "dropped"
    CONVICTED = "convicted"
    SUSPECT = "suspect"
    INNOCENT = "innocent"


@dataclass(slots=True, eq=False)
class Request:
    """A request from its Submit, or its adoption, until its answer."""

    key: RequestKey
    version: VersionId
    submit: Submit | None
    """None for one that a worker was running when this broker started and that no frontend has claimed yet."""
    queued_at: int
    phase: Phase = Phase.QUEUED
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


@dataclass(slots=True, eq=False)
class Lane:
    """A version loaded in a worker: what it has in hand, oldest first; the first `nireq` of them run."""

    nireq: int
    in_hand: "OrderedDict[RequestKey, Request]" = field(default_factory=OrderedDict)
    ready: int = 1
    """How many may wait ready."""
    average_ns: int = READY_NS
    """Of an inference, lately."""
    deferred: "OrderedDict[RequestKey, Request]" = field(default_factory=OrderedDict)
    """In hand too, apart from the others: their shapes are being compiled."""
    batches: dict[int, int] | None = None
    """Of a version whose requests are gathered: batches in hand, oldest first, and how many of each are not answered.
    `nireq` of them run.
    """

    def add(self, request: Request, now: int) -> None:
        """One more is in hand."""
        self.in_hand[request.key] = request
        occupied = self.in_hand if self.batches is None else self._add_to_batch(request.batch)
        if len(occupied) <= self.nireq:
            request.running_since = now

    def _add_to_batch(self, batch: int) -> dict[int, int]:
        assert self.batches is not None, "asked of a lane of batches"
        self.batches[batch] = self.batches.get(batch, 0) + 1
        return self.batches

    @property
    def credits(self) -> int:
        """How many more requests may be handed over."""
        return self.nireq + self.ready - len(self.in_hand) if len(self.deferred) < MAX_DEFERRED else 0

    def everything(self) -> Iterator[Request]:
        """All that the worker has of the version, the deferred ones last."""
        yield from self.in_hand.values()
        yield from self.deferred.values()

    def remove(self, key: RequestKey) -> bool:
        """Whether it was there."""
        request = self.in_hand.pop(key, None) or self.deferred.pop(key, None)
        if request is None:
            return False
        if self.batches is None:
            return True
        self.batches[request.batch] -= 1
        if not self.batches[request.batch]:
            del self.batches[request.batch]
        return True

    def has_left(self, batch: int) -> bool:
        """Whether a slot may have come free by an answer to a request of this batch."""
        return self.batches is None or batch not in self.batches

    def inferred(self, took_ns: int) -> None:
        """An inference took this long."""
        self.average_ns += (took_ns - self.average_ns) // _WEIGHT
        self.ready = max(1, min(MAX_READY, READY_NS // max(1, self.average_ns)))

    def fate(self, request: Request, *, blamed: bool, was_loading: bool) -> Fate:
        """What the worker's death means for a request that it had in hand here. See Scheduler.worker_lost.

        `blamed`: some request had exceeded the inference timeout. With several ready nobody knows which one was
        running, as some may have been finished, their answers kept: then each is to be tried alone.
        """
        if request.abandoned or request.submit is None:
            return Fate.DROPPED
        if self.batches is None and self.ready > 1 and len(self.in_hand) > 1 and not request.deferred_since:
            mine = any(one.timed_out for one in self.in_hand.values())
            return Fate.SUSPECT if mine or not blamed else Fate.INNOCENT
        # A compilation may end the worker as an inference may.
        was_running = bool(request.deferred_since) or request in self.running()
        if request.timed_out or (was_running and request.suspect and not was_loading):
            # Who was in a batch with others may have suffered from one of them.
            is_alone = self.batches is None or self.batches[request.batch] == 1
            return Fate.CONVICTED if is_alone else Fate.SUSPECT
        return Fate.SUSPECT if was_running and not blamed else Fate.INNOCENT

    def check(self) -> None:
        """Raise AssertionError if the bookkeeping contradicts itself. For tests."""
        batches = [request.batch for request in self.everything()]
        if self.batches is None:
            assert not any(batches)
        else:
            assert {batch: batches.count(batch) for batch in batches} == self.batches

    def running(self) -> Iterator[Request]:
        """Those that occupy a slot."""
        if self.batches is None:
            return islice(self.in_hand.values(), self.nireq)
        running = frozenset(islice(self.batches, self.nireq))
        return (request for request in self.in_hand.values() if request.batch in running)

    def mark_running(self, now: int) -> None:
        """Start the clocks of those that have just reached a slot."""
        for request in self.running():
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
