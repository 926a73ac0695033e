"""broker.scheduler: what the death of a worker or of the broker, or a timeout, means for what was in hand."""

import pytest

from broker.scheduler import Scheduler
from broker.work import Phase
from tests.unit.broker.scheduler_check import check as check_scheduler
from tests.unit.broker.scheduler_harness import (
    LIMIT,
    A,
    B,
    dispatched,
    finish,
    ids,
    request,
    scheduler,
    submit,
)

# ---- death


def test_what_ran_is_suspect_and_what_waited_keeps_its_place() -> None:
    s = scheduler("w", nireq=2)
    requests = submit(s, 1, 2, 3, 4, 5)
    assert dispatched(s) == [1, 2, 3]
    verdict = s.worker_lost("w")
    check_scheduler(s)
    assert verdict.convicted == verdict.dropped == ()
    assert [one.phase for one in requests] == [Phase.SUSPECT, Phase.SUSPECT, *[Phase.QUEUED] * 3]
    assert [key.id for key in s.queued_keys(A)] == [3, 4, 5]


@pytest.mark.parametrize("at", [(0, 0, 0, 0, 0), (0, 1, 2, 3, 4), (0, 0, 1, 1, 1)])
def test_innocent_ones_keep_their_order(at: tuple[int, ...]) -> None:
    """Requests that came in one round of the broker's loop have the same time."""
    s = scheduler("w", nireq=4)
    requests = [request(number, at=time) for number, time in enumerate(at)]
    for one in requests:
        s.submit(one)
    dispatched(s)
    requests[0].timed_out = True
    submit(s, 9)
    assert ids(s.worker_lost("w").convicted) == [0]
    assert [key.id for key in s.queued_keys(A)] == [1, 2, 3, 4, 9]


def test_a_suspect_runs_alone() -> None:
    s = scheduler("w", versions=(A, B))
    suspect, waited = submit(s, 1, 2)
    dispatched(s)
    s.worker_lost("w")
    s.worker_joined("w")
    for version in (A, B):
        s.version_loaded("w", version, 1)
    submit(s, 3, version=B)
    assert dispatched(s) == [1]
    assert dispatched(s) == []
    finish(s, suspect)
    assert sorted(dispatched(s)) == [2, 3]
    assert waited.worker == "w"


def test_a_suspect_waits_until_the_worker_that_is_kept_for_it_is_empty() -> None:
    s = scheduler("w1", "w2")
    first, second = submit(s, 1, 2)
    dispatched(s)
    assert (first.worker, second.worker) == ("w1", "w2")
    s.worker_lost("w1")
    submit(s, 3)
    assert dispatched(s) == []
    finish(s, second)
    assert dispatched(s) == [1]
    finish(s, first)
    assert dispatched(s) == [3]


def test_several_suspects_run_one_after_another_and_others_go_on_elsewhere() -> None:
    s = scheduler("w1", nireq=2)
    requests = submit(s, 1, 2)
    dispatched(s)
    s.worker_lost("w1")
    for slot in ("w1", "w2"):
        s.worker_joined(slot)
        s.version_loaded(slot, A, 2)
    assert sorted(dispatched(s)) == [1, 2]
    assert {one.worker for one in requests} == {"w1", "w2"}
    submit(s, 3)
    assert dispatched(s) == []
    finish(s, requests[0])
    assert dispatched(s) == [3]


def test_the_second_death_alone_convicts() -> None:
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s)
    assert s.worker_lost("w").convicted == ()
    s.worker_joined("w")
    s.version_loaded("w", A, 1)
    assert dispatched(s) == [1]
    assert s.worker_lost("w").convicted == (one,)
    check_scheduler(s)
    assert not s.requests


def test_the_death_of_a_worker_that_was_loading_convicts_nobody() -> None:
    """The load may have killed it; the request stays suspect, and the next death is the second."""
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s)
    s.worker_lost("w")
    for was_loading, convicted in ((True, ()), (True, ()), (False, (one,))):
        s.worker_joined("w")
        s.version_loaded("w", A, 1)
        assert dispatched(s) == [1]
        assert s.worker_lost("w", was_loading=was_loading).convicted == convicted
        check_scheduler(s)


def test_a_timeout_convicts_also_while_the_worker_was_loading() -> None:
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s)
    s.overdue(1 + LIMIT, LIMIT)
    assert s.worker_lost("w", was_loading=True).convicted == (one,)


def test_a_suspect_that_is_answered_is_no_suspect() -> None:
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s)
    s.worker_lost("w")
    s.worker_joined("w")
    s.version_loaded("w", A, 1)
    dispatched(s)
    finish(s, one)
    assert s.worker_lost("w").convicted == ()


def test_a_worker_that_dies_empty_before_its_suspect_came_convicts_nobody() -> None:
    s = scheduler("w1", "w2")
    first, second = submit(s, 1, 2)
    dispatched(s)
    s.worker_lost("w1")
    dispatched(s)
    assert s.workers["w2"].alone is first
    verdict = s.worker_lost("w2")
    assert verdict.convicted == ()
    assert (first.phase, second.phase) == (Phase.SUSPECT, Phase.SUSPECT)


def test_nobody_waits_for_it_so_its_block_is_free() -> None:
    s = scheduler("w", nireq=2)
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    s.cancel(requests[0].key)
    s.cancel(requests[2].key)
    verdict = s.worker_lost("w")
    assert ids(verdict.dropped) == [1, 3]
    assert requests[1].phase is Phase.SUSPECT
    check_scheduler(s)


def test_the_death_of_an_unknown_worker_means_nothing() -> None:
    verdict = Scheduler().worker_lost("nobody")
    assert verdict.convicted == verdict.dropped == ()


# ---- timeouts


def test_a_request_is_overdue_by_the_time_in_its_slot_alone() -> None:
    s = scheduler("w")
    running, waiting = submit(s, 1, 2)
    dispatched(s, now=100)
    assert s.overdue(100 + LIMIT - 1, LIMIT) == []
    assert s.overdue(100 + LIMIT, LIMIT) == [running]
    finish(s, running, now=5000)
    assert s.overdue(5000 + LIMIT - 1, LIMIT) == []
    assert s.overdue(5000 + LIMIT, LIMIT) == [waiting]


def test_a_request_that_timed_out_is_convicted_and_the_others_are_innocent() -> None:
    s = scheduler("w", nireq=2)
    first = submit(s, 1)[0]
    dispatched(s)
    submit(s, 2, 3)
    dispatched(s, now=500)
    assert s.overdue(1 + LIMIT, LIMIT) == [first]
    assert ids(s.worker_lost("w").convicted) == [1]
    assert [key.id for key in s.queued_keys(A)] == [2, 3]


def test_what_has_reached_its_slot_unseen_has_a_clock_too() -> None:
    """A worker's Hello may not list the request that ran before it; a greater `nireq` makes new slots."""
    s = scheduler("w")
    lost, waiting = submit(s, 1, 2)
    dispatched(s)
    s.not_in_hand(lost)
    s.overdue(100, LIMIT)
    assert s.overdue(100 + LIMIT, LIMIT) == [waiting]


# ---- after a broker's death


def test_held_ones_wait_until_they_are_released() -> None:
    s = scheduler("w")
    one = request(1)
    s.submit(one, held=True)
    assert dispatched(s) == []
    assert s.held() == [one]
    s.release_held(one)
    s.release_held(one)
    assert s.held() == []
    assert dispatched(s) == [1]


@pytest.mark.parametrize("phase", ["unknown", "held", "queued", "suspect"])
def test_what_a_worker_says_it_has_is_adopted(phase: str) -> None:
    s = scheduler("w1")
    one = request(1)
    if phase == "unknown":
        one.submit = None
    elif phase == "held":
        s.submit(one, held=True)
    elif phase == "queued":
        s.submit(one)
    else:
        s.submit(one)
        dispatched(s)
        s.worker_lost("w1")
        s.worker_joined("w1")
    s.worker_joined("w2")
    s.adopt(one, "w2", 7)
    check_scheduler(s)
    assert (one.phase, one.worker, one.running_since) == (Phase.IN_HAND, "w2", 7)
    assert dispatched(s) == [], "not handed out a second time"
    assert s.done("w2", one.key, 9) is one
    assert not s.is_open(A)


def test_adopting_what_is_in_hand_changes_nothing() -> None:
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s, now=3)
    s.adopt(one, "w", 50)
    check_scheduler(s)
    assert one.running_since == 3


def test_adopted_ones_take_credits() -> None:
    s = scheduler("w", nireq=1)
    for number in (1, 2):
        s.adopt(request(number), "w", 0)
    submit(s, 3)
    assert dispatched(s) == []


def test_an_adopted_request_that_nobody_claims_is_dropped_with_its_worker() -> None:
    s = scheduler("w")
    one = request(1)
    one.submit = None
    s.adopt(one, "w", 0)
    assert s.worker_lost("w").dropped == (one,)


def test_what_a_worker_does_not_list_is_queued_again_at_the_head() -> None:
    s = scheduler("w")
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    assert s.not_in_hand(requests[0]) is False
    check_scheduler(s)
    assert [key.id for key in s.queued_keys(A)] == [1, 3]
    assert dispatched(s) == [1]


def test_what_a_worker_does_not_list_and_nobody_wants_is_gone_and_leaves_its_credit() -> None:
    s = scheduler("w")
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    for one in requests[:2]:
        s.cancel(one.key)
        assert s.not_in_hand(one) is True
    check_scheduler(s)
    assert dispatched(s) == [3]


def test_only_what_is_in_hand_can_turn_out_not_to_be() -> None:
    s = scheduler("w")
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    assert s.not_in_hand(requests[2]) is False
    assert [key.id for key in s.queued_keys(A)] == [3]
