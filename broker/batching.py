"""Which requests of a version make one batch, and when. Pure.

    put ──▶ with its kind, in the order in which they came ──take──▶ one batch: one kind, max_batch_size rows at most

Requests are of one kind if their shapes agree but for the first dimension. Of several kinds the one whose oldest
request waits longest goes first: when that has waited for `batch_timeout_micros`, however few there are of it; until
then only a kind that fills a batch goes. One whose batch has failed is of a kind of its own: it is inferred by itself.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from broker.work import Request
from common.config import BatchingParameters
from common.messages import RequestKey, Submit, VersionId

Kind: TypeAlias = RequestKey | tuple[tuple[int, ...], ...]

_SPARE_HEADS = 16


def rows_of(submit: Submit) -> int:
    """How many rows a request brings: the first dimension of its inputs."""
    shape = submit.inputs[0].shape if submit.inputs else ()
    return shape[0] if shape else 1


def _kind_of(request: Request) -> Kind:
    assert request.submit is not None, "what waits for a worker has been submitted"
    return request.key if request.single else tuple([one.shape[1:] for one in request.submit.inputs])


@dataclass(slots=True, eq=False)
class _Line:
    """Requests of one kind, oldest first."""

    kind: Kind
    requests: "OrderedDict[RequestKey, Request]" = field(default_factory=OrderedDict)
    rows: int = 0

    @property
    def since(self) -> int:
        """When the oldest one came."""
        return next(iter(self.requests.values())).queued_at


class BatchQueue:
    """The requests of one version that wait for a worker."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self._most = parameters.max_batch_size
        self._delay_ns = parameters.batch_timeout_micros * 1000
        self._bound = parameters.max_enqueued_batches * parameters.max_batch_size
        self._lines: dict[Kind, _Line] = {}
        self._line_of: dict[RequestKey, _Line] = {}
        self._heads: list[tuple[int, int, _Line]] = []
        """A heap of lines by the time of their oldest request; entries that are not true any more are skipped."""
        self._entries = 0
        self._full: OrderedDict[Kind, None] = OrderedDict()
        """Kinds that fill a batch, in the order in which they came to that."""
        self.rows = 0

    def __len__(self) -> int:
        return len(self._line_of)

    # ---- events

    def put(self, request: Request, *, first: bool = False) -> None:
        """A request waits from now on; `first`: again, before all others of its kind."""
        kind = _kind_of(request)
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = _Line(kind)
        line.requests[request.key] = request
        if first:
            line.requests.move_to_end(request.key, last=False)
        self._line_of[request.key] = line
        self._count(line, _rows(request))
        if first or len(line.requests) == 1:
            self._note_head(line)

    def remove(self, key: RequestKey) -> None:
        """A request does not wait any more, if it did."""
        line = self._line_of.pop(key, None)
        if line is None:
            return
        was_first = next(iter(line.requests)) == key
        request = line.requests.pop(key)
        self._count(line, -_rows(request))
        self._left(line, was_first=was_first)

    def take(self, now: int, *, ahead: bool = False) -> list[Request]:
        """The next batch; nothing while it should rather wait for more.

        `ahead`: no slot is free yet, so only a batch that nothing can be added to goes, and none out of its turn.
        """
        line = self._oldest()
        if line is None:
            return []
        if line.kind not in self._full and (ahead or now - line.since < self._delay_ns):
            if ahead or not self._full:
                return []
            line = self._lines[next(iter(self._full))]
        return self._cut(line)

    # ---- facts

    def refuses(self, submit: Submit) -> str:
        """Why one more request cannot wait; empty: it can."""
        if not self._bound or self.rows + rows_of(submit) <= self._bound:
            return ""
        return f"{self.rows} rows wait for model {submit.version.model}, and max_enqueued_batches allows {self._bound}"

    def due(self) -> int:
        """When the oldest request will have waited for long enough. Only while any waits."""
        line = self._oldest()
        assert line is not None, "something waits"
        return line.since + self._delay_ns

    def requests(self) -> list[Request]:
        """All that wait, by kind, oldest first."""
        return [request for line in self._lines.values() for request in line.requests.values()]

    def check(self) -> None:
        """Raise AssertionError if the bookkeeping contradicts itself. For tests."""
        assert self.rows == sum(line.rows for line in self._lines.values())
        assert len(self._line_of) == len(self.requests())
        for kind, line in self._lines.items():
            assert line.requests, "an empty line is forgotten"
            assert line.rows == sum(_rows(one) for one in line.requests.values())
            assert (kind in self._full) == self._is_full(line)
            assert any(entry[0] == line.since and entry[2] is line for entry in self._heads), (
                "it would be missed"
            )
            assert all(_kind_of(one) == kind for one in line.requests.values())
        assert set(self._full) <= set(self._lines)

    # ---- bookkeeping

    def _cut(self, line: _Line) -> list[Request]:
        """As many of a line's oldest as fit; the first one in any case."""
        taken: list[Request] = []
        room = self._most
        for request in line.requests.values():
            room -= _rows(request)
            if taken and room < 0:
                break
            taken.append(request)
        for request in taken:
            del line.requests[request.key]
            del self._line_of[request.key]
        self._count(line, -sum(_rows(request) for request in taken))
        self._left(line, was_first=True)
        return taken

    def _count(self, line: _Line, rows: int) -> None:
        line.rows += rows
        self.rows += rows
        if self._is_full(line):
            self._full[line.kind] = None
        else:
            self._full.pop(line.kind, None)

    def _is_full(self, line: _Line) -> bool:
        return bool(line.requests) and (line.rows >= self._most or isinstance(line.kind, RequestKey))

    def _left(self, line: _Line, *, was_first: bool) -> None:
        if not line.requests:
            del self._lines[line.kind]
        elif was_first:
            self._note_head(line)

    def _note_head(self, line: _Line) -> None:
        self._entries += 1
        heappush(self._heads, (line.since, self._entries, line))
        if len(self._heads) > 2 * len(self._lines) + _SPARE_HEADS:
            self._heads = [(one.since, number, one) for number, one in enumerate(self._lines.values())]
            heapify(self._heads)

    def _oldest(self) -> _Line | None:
        """The line whose first request came first."""
        while self._heads:
            since, _, line = self._heads[0]
            if line.requests and line.since == since:
                return line
            heappop(self._heads)
        return None


class Gathering:
    """The queues of all versions whose requests are gathered."""

    def __init__(self) -> None:
        self.queues: dict[VersionId, BatchQueue] = {}
        self.due: dict[VersionId, int] = {}
        """When a batch that a worker is free for goes even if it is not full."""

    def add(self, version: VersionId, parameters: BatchingParameters, waiting: Iterable[Request]) -> None:
        """A version's requests are gathered from now on, those that wait already too."""
        queue = self.queues[version] = BatchQueue(parameters)
        for request in waiting:
            queue.put(request)

    def forget(self, version: VersionId) -> None:
        """No worker has the version any more: its queue goes, if nothing waits in it."""
        if not self.queues.get(version, True):
            del self.queues[version]
            self.due.pop(version, None)

    def take(self, version: VersionId, now: int, *, ahead: bool) -> list[Request]:
        """See BatchQueue.take. What rather waits for more is noted as due."""
        queue = self.queues[version]
        self.due.pop(version, None)
        batch = queue.take(now, ahead=ahead)
        if queue and not batch and not ahead:
            self.due[version] = queue.due()
        return batch

    def wake(self, now: int) -> list[VersionId]:
        """The versions of which a batch has waited for long enough now."""
        ripe = [version for version, due in self.due.items() if now >= due]
        for version in ripe:
            del self.due[version]
        return ripe


def _rows(request: Request) -> int:
    assert request.submit is not None, "what waits for a worker has been submitted"
    return rows_of(request.submit)
