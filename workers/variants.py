"""Which compiled shapes of a version are kept, which are compiled next, and which requests wait for that. Pure.

    admit ──▶ runs                 the shapes are compiled; the request uses them until `leave`
          ──▶ waits ──step──▶ compiling ──compiled──▶ runs
          │                            └──failed────▶ refused, and so are others of these shapes for a while
          ──▶ refused

One set of shapes is compiled at a time, in the order of the first request for each. `limit` sets are kept, and one more
while all of them are in use: the set whose last request came longest ago goes, but none that a request uses, and none
before its successor is compiled (else requests of shapes that the model cannot take would drive out those it can). If a
further set is wanted while there is one more, the one that is to go next takes no further requests, which wait for
their turn: a stream of requests for the shapes that are there cannot keep out all others.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from common.messages import Execute, RequestKey
from workers.ports import Shapes

REFUSAL_NS = 30_000_000_000
"""So long shapes that could not be compiled are refused without another attempt."""
MAX_REFUSALS = 64
"""So many such shapes are remembered."""


class Admission(NamedTuple):
    """What becomes of a request: it runs, it waits, or (`refusal` is not empty) it is refused."""

    runs: bool
    refusal: str = ""


class Step(NamedTuple):
    """What is to be done now."""

    evicted: tuple[Shapes, ...] = ()
    """Not kept any more."""
    resumed: tuple[Execute, ...] = ()
    """Requests that need not wait any longer."""
    compile: Shapes | None = None
    """To be compiled; `compiled` or `failed` is to follow."""


class _Refusal(NamedTuple):
    reason: str
    until: int


@dataclass(slots=True)
class _Kept:
    """Compiled shapes, and how many requests use them."""

    users: int = 0
    leaving: bool = False


@dataclass(slots=True)
class Variants:
    """The compiled shapes of one version. `step` is to be called after every event."""

    limit: int
    compiling: Shapes | None = None
    _kept: "OrderedDict[Shapes, _Kept]" = field(default_factory=OrderedDict)
    """The one whose last request came longest ago first."""
    _waiting: "OrderedDict[Shapes, list[Execute]]" = field(default_factory=OrderedDict)
    """By shapes, in the order of the first request; those being compiled among them."""
    _using: dict[RequestKey, Shapes] = field(default_factory=dict)
    _refused: "OrderedDict[Shapes, _Refusal]" = field(default_factory=OrderedDict)

    # ---- events

    def add(self, shapes: Shapes) -> None:
        """These are compiled already."""
        self._kept[shapes] = _Kept()

    def admit(self, request: Execute, now: int) -> Admission:
        """A request has come."""
        shapes = shapes_of(request)
        kept = self._kept.get(shapes)
        if kept is not None and not kept.leaving:
            self._use(request, shapes, kept)
            return Admission(runs=True)
        refusal = self._refused.get(shapes)
        if refusal is not None:
            if now < refusal.until:
                return Admission(runs=False, refusal=refusal.reason)
            del self._refused[shapes]
        self._waiting.setdefault(shapes, []).append(request)
        return Admission(runs=False)

    def step(self) -> Step:
        """What follows from the events until now."""
        resumed = self._resume()
        evicted = self._evict()
        shapes = next((shapes for shapes in self._waiting if shapes != self.compiling), None)
        if self.compiling is not None or shapes is None:
            return Step(evicted, resumed)
        if len(self._kept) > self.limit:
            if not any(kept.leaving for kept in self._kept.values()):
                next(iter(self._kept.values())).leaving = True
            return Step(evicted, resumed)
        self.compiling = shapes
        return Step(evicted, resumed, shapes)

    def compiled(self) -> list[Execute]:
        """What was being compiled is ready; the requests that waited for it run now."""
        shapes = self._end_compiling()
        kept = self._kept[shapes] = _Kept()
        requests = self._waiting.pop(shapes, [])
        for request in requests:
            self._use(request, shapes, kept)
        return requests

    def failed(self, reason: str, now: int) -> list[Execute]:
        """What was being compiled cannot be; the requests that waited for it are to be refused."""
        shapes = self._end_compiling()
        self._refused[shapes] = _Refusal(reason, now + REFUSAL_NS)
        self._refused.move_to_end(shapes)
        while len(self._refused) > MAX_REFUSALS:
            self._refused.popitem(last=False)
        return self._waiting.pop(shapes, [])

    def leave(self, key: RequestKey) -> None:
        """A request that ran, or was about to, is finished. Nothing where it only waited here."""
        shapes = self._using.pop(key, None)
        if shapes is not None:
            self._kept[shapes].users -= 1

    def drop(self, frontend: str) -> list[Execute]:
        """Take out what this frontend has waiting."""
        return self._take_out(lambda request: request.key.frontend == frontend)

    def expire(self, now: int) -> list[Execute]:
        """Take out what has waited past its deadline."""
        return self._take_out(lambda request: 0 < request.deadline <= now)

    # ---- facts

    def waiting(self) -> list[RequestKey]:
        """Requests that wait for their shapes."""
        return [request.key for requests in self._waiting.values() for request in requests]

    def check(self) -> None:
        """Raise AssertionError if the bookkeeping contradicts itself. For tests."""
        used = list(self._using.values())
        assert len(self._kept) + (self.compiling is not None) <= self.limit + 1
        assert self.compiling not in self._kept
        assert set(used) <= set(self._kept)
        for shapes, kept in self._kept.items():
            assert kept.users == used.count(shapes)
        for shapes, requests in self._waiting.items():
            assert requests or shapes == self.compiling
            kept_too = self._kept.get(shapes)
            assert kept_too is None or kept_too.leaving
        assert not set(self.waiting()) & set(self._using)

    # ---- bookkeeping

    def _use(self, request: Execute, shapes: Shapes, kept: _Kept) -> None:
        kept.users += 1
        self._using[request.key] = shapes
        self._kept.move_to_end(shapes)

    def _resume(self) -> tuple[Execute, ...]:
        """Let those run whose turn comes before their shapes have gone."""
        resumed: list[Execute] = []
        for shapes in [shapes for shapes in self._waiting if shapes != self.compiling]:
            kept = self._kept.get(shapes)
            if kept is None:
                break
            kept.leaving = False
            for request in self._waiting.pop(shapes):
                self._use(request, shapes, kept)
                resumed.append(request)
        return tuple(resumed)

    def _evict(self) -> tuple[Shapes, ...]:
        """Let go what nobody uses and the limit does not allow; first what takes no more requests."""
        evicted: list[Shapes] = []
        for shapes in sorted(self._kept, key=lambda one: not self._kept[one].leaving):
            if len(self._kept) <= self.limit:
                break
            if not self._kept[shapes].users:
                del self._kept[shapes]
                evicted.append(shapes)
        return tuple(evicted)

    def _end_compiling(self) -> Shapes:
        shapes, self.compiling = self.compiling, None
        assert shapes is not None, "nothing was being compiled"
        return shapes

    def _take_out(self, is_meant: Callable[[Execute], bool]) -> list[Execute]:
        taken = [one for requests in self._waiting.values() for one in requests if is_meant(one)]
        if taken:
            for shapes, requests in list(self._waiting.items()):
                left = [one for one in requests if not is_meant(one)]
                if left or shapes == self.compiling:
                    self._waiting[shapes] = left
                else:
                    del self._waiting[shapes]
        return taken


def shapes_of(request: Execute) -> Shapes:
    """The shapes that a request brings."""
    return tuple(reference.shape for reference in request.inputs)
