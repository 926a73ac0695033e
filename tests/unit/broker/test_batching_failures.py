"""broker.batching, and what the scheduler makes of it: the fate of a batch in which something goes wrong."""

from broker.scheduler import Scheduler
from broker.work import Phase
from common.config import BatchingParameters
from common.messages import RequestKey
from tests.unit.broker.batching_harness import LIMIT, A, batches, finish, request, scheduler, submit
from tests.unit.broker.scheduler_check import check as check_scheduler


def lose(s: Scheduler, slot: str = "w", **options: bool) -> list[int]:
    """A worker dies and comes again; who was convicted."""
    verdict = s.worker_lost(slot, **options)
    check_scheduler(s)
    s.worker_joined(slot)
    s.version_loaded(slot, A, 1, BatchingParameters(4))
    return sorted(one.key.id for one in verdict.convicted)


def test_a_death_makes_suspects_of_the_whole_batch_and_each_runs_again_alone() -> None:
    s = scheduler("w")
    submit(s, *(request(number) for number in range(8)))
    assert batches(s) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert lose(s) == []
    alone = []
    for number in range(3):
        alone += batches(s)
        assert alone == [[one] for one in range(number + 1)], "in an empty worker"
        finish(s, *s.in_hand_of("w"))
    assert batches(s) == [[3]]
    assert lose(s) == [3], "alone at a second death"
    assert batches(s) == [[4, 5, 6, 7]], "what waited ready is no suspect"


def test_a_batch_that_hangs_convicts_nobody_but_who_hangs_alone() -> None:
    s = scheduler("w")
    submit(s, request(0), request(1), request(2))
    batches(s, 1)
    assert len(s.overdue(1 + LIMIT, LIMIT)) == 3
    assert lose(s) == []
    assert batches(s, 2000) == [[0]]
    finish(s, *s.in_hand_of("w"), now=2001)
    assert batches(s, 2002) == [[1]]
    assert [one.key.id for one in s.overdue(2002 + LIMIT, LIMIT)] == [1]
    assert lose(s) == [1]
    assert batches(s, 4000) == [[2]]


def test_one_that_runs_as_a_batch_of_its_own_is_convicted_by_its_timeout() -> None:
    s = scheduler("w")
    submit(s, request(0))
    batches(s, 1)
    s.overdue(1 + LIMIT, LIMIT)
    assert lose(s) == [0]


def test_a_batch_that_fails_is_run_again_one_by_one() -> None:
    s = scheduler("w")
    requests = submit(s, *(request(number) for number in range(3)))
    batches(s)
    assert s.split("w", tuple(one.key for one in requests), 2) == []
    later = submit(s, request(3), request(4))
    order: list[list[int]] = []
    while s.is_open(A):
        order += batches(s)
        finish(s, *(one for one in s.in_hand_of("w") if one.running_since))
    assert sorted(map(tuple, order)) == [(0,), (1,), (2,), (3, 4)]
    assert not any(one.suspect for one in requests + later)


def test_of_a_batch_that_fails_nobody_runs_again_for_whom_nobody_waits() -> None:
    s = scheduler("w")
    requests = submit(s, *(request(number) for number in range(3)))
    batches(s)
    assert s.cancel(requests[1].key) is None
    assert s.split("w", tuple(one.key for one in requests), 2) == [requests[1]]
    check_scheduler(s)
    assert batches(s)[0] == [0]


def test_what_is_not_in_hand_cannot_fail() -> None:
    s = scheduler("v", "w")
    requests = submit(s, *(request(number) for number in range(9)))
    batches(s)
    foreign = tuple(one.key for one in requests if one.worker != "w")
    assert s.split("w", (*foreign, RequestKey("f9", 1)), 2) == []
    check_scheduler(s)
    assert s.in_hand(A) == 8


def test_a_cancelled_member_stays_lent_until_its_batch_is_done() -> None:
    s = scheduler("w")
    requests = submit(s, *(request(number) for number in range(3)))
    batches(s)
    assert s.cancel(requests[1].key) is None
    assert requests[1].abandoned
    finish(s, *requests)
    assert not s.is_open(A)


def test_an_adopted_batch_is_one_again() -> None:
    s = scheduler("w")
    number = s.new_batch()
    adopted = [request(one) for one in range(3)]
    for one in adopted:
        s.adopt(one, "w", 5, number)
    submit(s, request(10))
    assert batches(s, 6) == []
    assert all(one.running_since == 5 for one in adopted), "all of it runs"
    finish(s, *adopted[:2])
    assert batches(s, 7) == []
    assert lose(s) == []
    assert adopted[2].phase is Phase.SUSPECT


def test_an_unloaded_version_leaves_nothing_behind() -> None:
    s = scheduler("w", delay=50)
    (one,) = submit(s, request(0))
    assert batches(s, 1) == []
    s.cancel(one.key)
    s.version_unloaded("w", A)
    s.version_loaded("w", A, 1)
    submit(s, request(1), request(2))
    assert batches(s, 2) == [[1], [2]], "loaded again without batching"
