"""Of the tests of batching: schedulers that make batches, requests of given rows, and what is handed out."""

from itertools import groupby

from broker.scheduler import Scheduler
from broker.work import Request
from common.config import BatchingParameters
from common.messages import RequestKey, Submit, TensorRef, VersionId
from tests.unit.broker.scheduler_check import check as check_scheduler

A, B, C = VersionId("a", 1), VersionId("b", 1), VersionId("c", 1)
DELAY_NS = 50_000
LIMIT = 1000
"""What a request may take in its slot [ns]."""


def request(number: int, rows: int = 1, width: int = 4, version: VersionId = A, at: int = 0) -> Request:
    """Of so many rows; those of one width are of one kind."""
    inputs = (TensorRef(0, (rows, width)), TensorRef(64, (rows,)))
    return Request(RequestKey("f1", number), version, Submit(number, version, 1, 0, inputs, (), 1 << 60), at)


def scheduler(*slots: str, nireq: int = 1, delay: int = 0, most: int = 4, bound: int = 0) -> Scheduler:
    """Whose workers run A by batches and C without."""
    made = Scheduler()
    for slot in slots:
        made.worker_joined(slot)
        made.version_loaded(slot, A, nireq, BatchingParameters(most, delay, (), bound))
        made.version_loaded(slot, C, nireq)
    return made


def submit(s: Scheduler, *requests: Request) -> list[Request]:
    """They are queued."""
    for one in requests:
        s.submit(one)
    return list(requests)


def batches(s: Scheduler, now: int = 1) -> list[list[int]]:
    """What is handed out now, by batch."""
    handed = s.dispatch(now)
    check_scheduler(s)
    groups = [list(members) for _, members in groupby(handed, key=lambda one: one.batch or one.key)]
    assert all(len({one.worker for one in members}) == 1 for members in groups)
    return [[one.key.id for one in members] for members in groups]


def finish(s: Scheduler, *requests: Request, now: int = 1) -> None:
    """Their workers have answered them, one after the other."""
    for one in requests:
        assert s.done(one.worker, one.key, now, 5) is one
        check_scheduler(s)
