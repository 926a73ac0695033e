"""Of the tests of broker.scheduler: schedulers, requests, and what becomes of them."""

from broker.scheduler import Scheduler
from broker.work import Request
from common.messages import RequestKey, Submit, VersionId
from tests.unit.broker.scheduler_check import check as check_scheduler

A, B, C = VersionId("a", 1), VersionId("b", 1), VersionId("c", 1)
LIMIT = 1000
"""What a request may take in its slot [ns]."""


def request(number: int, version: VersionId = A, at: int = 0, frontend: str = "f1") -> Request:
    """One of a frontend, which arrived `at` then [ns]."""
    submit = Submit(number, version, 1, 0, (), (), 1 << 60)
    return Request(RequestKey(frontend, number), version, submit, at)


def scheduler(*slots: str, nireq: int = 1, versions: tuple[VersionId, ...] = (A,)) -> Scheduler:
    """With workers in these slots, each of which has loaded all these versions."""
    made = Scheduler()
    for slot in slots:
        made.worker_joined(slot)
        for version in versions:
            made.version_loaded(slot, version, nireq)
    return made


def submit(scheduler: Scheduler, *numbers: int, version: VersionId = A, at: int = 0) -> list[Request]:
    """Requests of these ids; they are queued."""
    requests = [request(number, version, at) for number in numbers]
    for one in requests:
        scheduler.submit(one)
    return requests


def ids(requests: list[Request] | tuple[Request, ...]) -> list[int]:
    """Of what a scheduler returned."""
    return [one.key.id for one in requests]


def dispatched(scheduler: Scheduler, now: int = 1) -> list[int]:
    """Ids of what is handed out now; the scheduler is consistent after it."""
    handed = scheduler.dispatch(now)
    check_scheduler(scheduler)
    return ids(handed)


def finish(scheduler: Scheduler, one: Request, now: int = 1) -> None:
    """Its worker has answered it."""
    assert scheduler.done(one.worker, one.key, now) is one


def quick(*slots: str, inferring: int) -> Scheduler:
    """Whose workers have answered many requests, each of which took this many nanoseconds."""
    s = scheduler(*slots)
    for number in range(1000, 1100):
        for slot in slots:
            (one,) = submit(s, number + 100 * slots.index(slot))
            dispatched(s)
            assert s.done(one.worker, one.key, 1, inferring) is one
    return s
