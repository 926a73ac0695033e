"""Whether a scheduler's bookkeeping contradicts itself."""

from broker.scheduler import Scheduler
from broker.work import Lane, Phase, Worker
from common.messages import RequestKey, VersionId


def check(scheduler: Scheduler) -> None:
    """Raise AssertionError if it does."""
    seen: dict[RequestKey, str] = {}
    for worker in scheduler.workers.values():
        _check_worker(scheduler, worker, seen)
    _check_queues(scheduler, seen)
    _check_lines(scheduler)
    for request in scheduler.requests.values():
        located = request.key in seen or request.phase in (Phase.HELD, Phase.SUSPECT)
        assert located, f"{request.key} is {request.phase} but nowhere"
    assert scheduler._held == sum(request.phase is Phase.HELD for request in scheduler.requests.values())
    suspects = [request for request in scheduler.requests.values() if request.phase is Phase.SUSPECT]
    assert set(map(id, scheduler._suspects.waiting)) == set(map(id, suspects))


def _check_worker(scheduler: Scheduler, worker: Worker, seen: dict[RequestKey, str]) -> None:
    held = scheduler.in_hand_of(worker.slot)
    assert worker.in_hand == len(held), f"{worker.slot}: counts {worker.in_hand}, has {len(held)}"
    for version, lane in worker.lanes.items():
        assert lane.worker is worker
        _check_lane(lane)
        assert not any(request.deferred_since for request in lane.in_hand)
        assert all(request.deferred_since for request in lane.deferred)
        for request in lane.everything():
            assert request.phase is Phase.IN_HAND
            assert request.worker == worker.slot
            assert request.lane is lane
            assert request.version == version
            assert seen.setdefault(request.key, worker.slot) == worker.slot, "in two hands"


def _check_lane(lane: Lane) -> None:
    batches = [request.batch for request in lane.everything()]
    if lane.batches is None:
        assert not any(batches)
    else:
        assert {batch: batches.count(batch) for batch in batches} == lane.batches


def _check_queues(scheduler: Scheduler, seen: dict[RequestKey, str]) -> None:
    queues = {version: list(line.queue) for version, line in scheduler.lines.known.items()}
    for version, gathered in scheduler.gathered.items():
        assert not queues.get(version), "queued in two places"
        gathered.check()
        queues[version] = gathered.requests()
    for version, queue in queues.items():
        for request in queue:
            assert request.phase is Phase.QUEUED
            assert request.lane is None
            assert request.version == version
            assert seen.setdefault(request.key, "queue") == "queue", "queued and in hand"


def _check_lines(scheduler: Scheduler) -> None:
    known = scheduler.lines.known
    counted: dict[VersionId, int] = {}
    for request in scheduler.requests.values():
        assert request.line is known[request.version]
        counted[request.version] = counted.get(request.version, 0) + 1
    assert counted == {version: line.open for version, line in scheduler.lines.open.items()}
    for version, line in known.items():
        assert line.version == version
        assert line.is_gathered == (version in scheduler.gathered)
        assert line.open == counted.get(version, 0)
        lanes = [one.lanes[version] for one in scheduler.workers.values() if version in one.lanes]
        assert line.lanes == lanes, "not the workers that have it, in their order"
        assert line.open or line.lanes, "nothing is left of it"
