"""broker.scheduler: requests that wait in a worker for the shape of theirs to be compiled."""

from broker.scheduler import Scheduler
from broker.work import MAX_DEFERRED, Phase, Request
from tests.unit.broker.scheduler_check import check as check_scheduler
from tests.unit.broker.scheduler_harness import (
    LIMIT,
    A,
    dispatched,
    finish,
    ids,
    scheduler,
    submit,
)


def defer(s: Scheduler, *requests: Request, now: int = 5) -> None:
    s.defer("w", tuple(one.key for one in requests), now)
    check_scheduler(s)


def test_deferred_requests_need_no_credit_and_no_slot() -> None:
    s = scheduler("w")
    requests = submit(s, *range(6))
    assert dispatched(s) == [0, 1]
    defer(s, *requests[:2], now=7)
    assert dispatched(s, 8) == [2, 3]
    assert s.in_hand(A) == len(s.in_hand_of("w")) == 4
    assert (requests[0].running_since, requests[2].running_since) == (0, 8)
    finish(s, requests[2], 9)
    s.resume("w", (requests[0].key,), 10)
    check_scheduler(s)
    assert dispatched(s, 11) == []
    assert requests[0].running_since == 0, "it waits behind the one that runs"
    finish(s, requests[3], 12)
    assert requests[0].running_since == 12
    finish(s, requests[0], 13)
    finish(s, requests[1], 13)
    check_scheduler(s)


def test_deferred_requests_are_bounded() -> None:
    s = scheduler("w")
    requests = submit(s, *range(MAX_DEFERRED + 5))
    while handed := dispatched(s):
        defer(s, *(requests[number] for number in handed))
    assert s.in_hand(A) in (MAX_DEFERRED, MAX_DEFERRED + 1)


def test_compiling_has_a_clock_of_its_own() -> None:
    s = scheduler("w")
    compiling, running = submit(s, 1, 2)
    dispatched(s)
    defer(s, compiling, now=1)
    assert s.overdue(LIMIT, LIMIT, 5 * LIMIT) == []
    finish(s, running)
    assert s.overdue(5 * LIMIT, LIMIT, 5 * LIMIT) == []
    assert s.overdue(5 * LIMIT + 1, LIMIT, 5 * LIMIT) == [compiling]
    assert ids(s.worker_lost("w").convicted) == [1]


def test_a_deferred_request_is_a_suspect_when_its_worker_dies() -> None:
    s = scheduler("w")
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    defer(s, requests[0])
    dispatched(s)
    assert s.worker_lost("w").convicted == ()
    check_scheduler(s)
    assert [one.suspect for one in requests] == [True, True, False]
    s.worker_joined("w")
    s.version_loaded("w", A, 1)
    assert dispatched(s) == [2]
    finish(s, requests[1])
    assert dispatched(s) == [1]
    defer(s, requests[0])
    assert dispatched(s) == [], "it is to be alone"
    assert ids(s.worker_lost("w").convicted) == [1]


def test_what_is_not_in_hand_cannot_be_deferred() -> None:
    s = scheduler("w", "v")
    requests = submit(s, *range(6))
    dispatched(s)
    foreign = [one for one in requests if one.worker == "v"]
    queued = [one for one in requests if one.phase is Phase.QUEUED]
    defer(s, *foreign, *queued)
    s.resume("w", tuple(one.key for one in requests), 9)
    check_scheduler(s)
    s.defer("gone", (requests[0].key,), 9)
    assert s.in_hand(A) == 4


def test_a_cancelled_deferred_request_stays_lent_until_it_is_done() -> None:
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s)
    defer(s, one)
    assert s.cancel(one.key) is None
    assert s.done("w", one.key, 9) is one
    check_scheduler(s)


def test_the_clock_starts_when_a_request_reaches_a_slot() -> None:
    s = scheduler("w")
    running, waiting = submit(s, 1, 2)
    dispatched(s, now=10)
    assert (running.running_since, waiting.running_since) == (10, 0)
    finish(s, running, now=30)
    assert waiting.running_since == 30
