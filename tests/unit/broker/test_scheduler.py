"""broker.scheduler: credits, turns, and what a worker's death means for what it had in hand."""

from collections import Counter, OrderedDict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.scheduler import Scheduler
from broker.work import MAX_DEFERRED, Phase, Request
from common.messages import RequestKey, Submit, VersionId
from tests.support.work import lines_executed
from tests.unit.broker.scheduler_check import check as check_scheduler

A, B, C = VersionId("a", 1), VersionId("b", 1), VersionId("c", 1)
LIMIT = 1000


def request(number: int, version: VersionId = A, at: int = 0, frontend: str = "f1") -> Request:
    submit = Submit(number, version, 1, 0, (), (), 1 << 60)
    return Request(RequestKey(frontend, number), version, submit, at)


def scheduler(*slots: str, nireq: int = 1, versions: tuple[VersionId, ...] = (A,)) -> Scheduler:
    made = Scheduler()
    for slot in slots:
        made.worker_joined(slot)
        for version in versions:
            made.version_loaded(slot, version, nireq)
    return made


def submit(scheduler: Scheduler, *numbers: int, version: VersionId = A, at: int = 0) -> list[Request]:
    requests = [request(number, version, at) for number in numbers]
    for one in requests:
        scheduler.submit(one)
    return requests


def ids(requests: list[Request] | tuple[Request, ...]) -> list[int]:
    return [one.key.id for one in requests]


def dispatched(scheduler: Scheduler, now: int = 1) -> list[int]:
    handed = scheduler.dispatch(now)
    check_scheduler(scheduler)
    return ids(handed)


def finish(scheduler: Scheduler, one: Request, now: int = 1) -> None:
    assert scheduler.done(one.worker, one.key, now) is one


# ---- what it costs


def work_among(versions: int) -> int:
    """Lines executed for a few requests of one version, where two workers have so many others loaded."""
    others = tuple(VersionId("other", number + 1) for number in range(versions))
    s = scheduler("v", "w", versions=(*others, A))

    def serve() -> None:
        submit(s, *range(6))
        while handed := s.dispatch(1):
            for one in handed:
                finish(s, one)
        s.queued_versions()

    return lines_executed(serve)


def test_the_versions_that_are_not_asked_cost_nothing() -> None:
    assert work_among(1000) == work_among(1)


# ---- credits


@pytest.mark.parametrize("nireq", [1, 2, 5])
def test_a_worker_has_one_credit_more_than_it_infers_at_once(nireq: int) -> None:
    s = scheduler("w", nireq=nireq)
    requests = submit(s, *range(10))
    assert dispatched(s) == list(range(nireq + 1))
    assert dispatched(s) == []
    finish(s, requests[0])
    assert dispatched(s) == [nireq + 1]
    assert s.in_hand(A) == nireq + 1
    assert s.queued(A) == 10 - nireq - 2


def test_credits_are_counted_for_each_version_and_worker() -> None:
    s = scheduler("w1", "w2", versions=(A, B))
    submit(s, *range(10), version=A)
    submit(s, *range(10, 20), version=B)
    dispatched(s)
    assert {(slot, version): 2 for slot in ("w1", "w2") for version in (A, B)} == dict(
        Counter((one.worker, one.version) for slot in ("w1", "w2") for one in s.in_hand_of(slot))
    )


def test_only_workers_that_have_loaded_the_version_get_it() -> None:
    s = scheduler("w1", "w2", versions=())
    (one,) = submit(s, 1)
    assert dispatched(s) == []
    s.version_loaded("w2", A, 1)
    assert dispatched(s) == [1]
    assert one.worker == "w2"


def test_an_unloaded_version_is_not_handed_out() -> None:
    s = scheduler("w")
    s.version_unloaded("w", A)
    submit(s, 1)
    assert dispatched(s) == []


def test_more_nireq_means_more_credits_at_once() -> None:
    s = scheduler("w", nireq=1)
    submit(s, *range(5))
    assert len(dispatched(s)) == 2
    s.version_loaded("w", A, 3)
    assert len(dispatched(s)) == 2


def quick(*slots: str, inferring: int) -> Scheduler:
    """Whose workers have answered many requests, each of which took this many nanoseconds."""
    s = scheduler(*slots)
    for number in range(1000, 1100):
        for slot in slots:
            (one,) = submit(s, number + 100 * slots.index(slot))
            dispatched(s)
            assert s.done(one.worker, one.key, 1, inferring) is one
    return s


@pytest.mark.parametrize(("inferring", "ready"), [(5_000_000, 1), (600_000, 1), (300_000, 3), (10_000, 15)])
def test_of_quick_requests_as_many_wait_ready_as_a_millisecond_takes(inferring: int, ready: int) -> None:
    s = quick("w", inferring=inferring)
    submit(s, *range(40))
    assert len(dispatched(s)) == 1 + ready


def test_a_version_that_becomes_slow_has_few_ready_again() -> None:
    s = quick("w", inferring=10_000)
    for number in range(50):
        (one,) = submit(s, number)
        dispatched(s)
        assert s.done("w", one.key, 1, 20_000_000) is one
    submit(s, *range(50, 90))
    assert len(dispatched(s)) == 2


def test_refusals_of_a_worker_say_nothing_about_its_speed() -> None:
    s = scheduler("w")
    for number in range(100):
        (one,) = submit(s, number)
        dispatched(s)
        finish(s, one)
    submit(s, *range(100, 140))
    assert len(dispatched(s)) == 2


@pytest.mark.parametrize(
    ("inferring", "suspects"), [(10_000, 16), (600_000, 2), (3_000_000, 2), (5_000_000, 1)]
)
def test_whose_answer_may_wait_in_the_worker_is_a_suspect_like_who_runs(
    inferring: int, suspects: int
) -> None:
    s = quick("w", inferring=inferring)
    submit(s, *range(16))
    dispatched(s)
    s.worker_lost("w")
    assert [request.suspect for request in s.requests.values()].count(True) == suspects


def test_all_quick_requests_in_hand_are_suspects() -> None:
    s = quick("w", inferring=10_000)
    submit(s, *range(6))
    dispatched(s)
    assert s.worker_lost("w").convicted == ()
    s.worker_joined("w")
    s.version_loaded("w", A, 1)
    for number in range(3):
        assert dispatched(s) == [number], "each alone"
        finish(s, s.in_hand_of("w")[0])
    assert dispatched(s) == [3]
    assert ids(s.worker_lost("w").convicted) == [3]


def test_nobody_is_blamed_for_a_timeout_that_another_may_have_caused() -> None:
    s = quick("w", "v", inferring=10_000)
    s.drain("v")
    submit(s, *range(3))
    dispatched(s)
    assert ids(s.overdue(10_000, LIMIT)) == [0]
    assert s.worker_lost("w").convicted == ()
    s.worker_joined("w")
    s.version_loaded("w", A, 1)
    assert dispatched(s, 20_000) == [0]
    finish(s, s.in_hand_of("w")[0], 20_000)
    assert dispatched(s, 20_000) == [1]
    assert ids(s.overdue(30_000, LIMIT)) == [1]
    assert ids(s.worker_lost("w").convicted) == [1], "the one that took so long alone"


# ---- deferred requests


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


# ---- turns


def test_versions_take_turns_in_one_round() -> None:
    s = scheduler("w", nireq=3, versions=(A, B, C))
    submit(s, *range(10), version=A)
    submit(s, *range(10, 12), version=B)
    submit(s, *range(20, 24), version=C)
    assert dispatched(s) == [0, 10, 20, 1, 11, 21, 2, 22, 3, 23]


def test_a_flood_of_one_version_does_not_starve_another() -> None:
    s = scheduler("w", versions=(A, B))
    submit(s, *range(1000), version=A)
    dispatched(s)
    submit(s, *range(1000, 1010), version=B)
    answered: list[Request] = []
    for now in range(1, 41):
        dispatched(s, now)
        for one in s.in_hand_of("w")[:]:
            if one.running_since:
                finish(s, one, now)
                answered.append(one)
    turns = Counter(one.version for one in answered[:20])
    assert turns[B] >= 9
    for version in (A, B):
        order = [one.key.id for one in answered if one.version == version]
        assert order == sorted(order)


def test_the_worker_with_the_least_in_hand_gets_the_next() -> None:
    s = scheduler("w1", "w2", "w3", nireq=4, versions=(A, B))
    requests = submit(s, *range(9))
    dispatched(s)
    assert Counter(one.worker for one in requests) == {"w1": 3, "w2": 3, "w3": 3}
    for one in requests:
        if one.worker == "w2":
            finish(s, one)
    more = submit(s, 20, 21, version=B)
    dispatched(s)
    assert [one.worker for one in more] == ["w2", "w2"]


# ---- the cost of a decision


class CountingQueue(OrderedDict[Any, Any]):
    """Counts every request that anybody looks at."""

    touched = 0

    def __iter__(self) -> Any:
        for key in super().__iter__():
            CountingQueue.touched += 1
            yield key

    def values(self) -> Any:
        CountingQueue.touched += len(self)
        return super().values()

    def items(self) -> Any:
        CountingQueue.touched += len(self)
        return super().items()

    def popitem(self, last: bool = True) -> tuple[Any, Any]:
        CountingQueue.touched += 1
        return super().popitem(last)


@pytest.mark.parametrize("queued", [10, 10_000])
def test_a_decision_costs_the_same_whatever_the_length_of_the_queue(queued: int) -> None:
    s = scheduler("w1", "w2")
    requests = submit(s, *range(queued))
    s.dispatch(0)
    line = s.lines.known[A]
    line.queue = CountingQueue(line.queue)
    s.requests = CountingQueue(s.requests)
    CountingQueue.touched = 0
    in_hand = s.in_hand_of("w1")[0]
    finish(s, in_hand)
    assert len(s.dispatch(0)) == 1
    assert s.cancel(requests[-1].key) is requests[-1]
    s.submit(request(queued))
    assert s.dispatch(0) == []
    s.overdue(1, 10)
    assert CountingQueue.touched == 1


# ---- cancelling


def test_cancelled_while_queued_it_is_gone() -> None:
    s = scheduler("w")
    requests = submit(s, 1, 2, 3, 4)
    dispatched(s)
    assert s.cancel(requests[2].key) is requests[2]
    check_scheduler(s)
    finish(s, requests[0])
    assert dispatched(s) == [4]


def test_cancelled_while_held_it_is_gone() -> None:
    s = scheduler("w")
    one = request(1)
    s.submit(one, held=True)
    assert s.cancel(one.key) is one
    check_scheduler(s)
    assert s.held() == []
    assert not s.is_open(A)


def test_cancelled_while_in_hand_it_is_abandoned_until_done() -> None:
    s = scheduler("w")
    (one,) = submit(s, 1)
    dispatched(s)
    assert s.cancel(one.key) is None
    assert one.abandoned
    assert s.is_open(A)
    finish(s, one)
    assert not s.is_open(A)
    check_scheduler(s)


def test_cancelled_while_suspect_it_frees_the_worker_that_was_kept_for_it() -> None:
    s = scheduler("w1", "w2")
    first = submit(s, 1, 2)
    dispatched(s)
    lost = first[0].worker
    s.worker_lost(lost)
    assert first[0].phase is Phase.SUSPECT
    submit(s, 3)
    assert dispatched(s) == [], "the last worker is kept for the suspect"
    assert s.cancel(first[0].key) is first[0]
    assert dispatched(s) == [3]


def test_cancelling_what_is_not_known_does_nothing() -> None:
    s = scheduler("w")
    assert s.cancel(RequestKey("f1", 9)) is None


# ---- answers


@pytest.mark.parametrize("slot", ["w2", "nobody"])
def test_an_answer_of_another_worker_does_not_count(slot: str) -> None:
    s = scheduler("w1", "w2")
    (one,) = submit(s, 1)
    dispatched(s)
    assert one.worker == "w1"
    assert s.done(slot, one.key, 0) is None
    check_scheduler(s)
    finish(s, one)


def test_an_answer_to_what_is_queued_or_gone_does_not_count() -> None:
    s = scheduler("w")
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    assert s.done("w", requests[2].key, 0) is None
    finish(s, requests[0])
    assert s.done("w", requests[0].key, 0) is None


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


# ---- draining


def test_a_draining_worker_finishes_and_gets_nothing_new() -> None:
    s = scheduler("w1", "w2")
    requests = submit(s, *range(4))
    dispatched(s)
    s.drain("w1")
    for one in requests:
        finish(s, one)
    more = submit(s, 10, 11, 12)
    dispatched(s)
    assert [one.worker for one in more] == ["w2", "w2", ""]


def test_a_draining_worker_is_not_kept_for_a_suspect() -> None:
    s = scheduler("w1", "w2", "w3")
    requests = submit(s, 1, 2, 3)
    dispatched(s)
    s.worker_lost("w1")
    dispatched(s)
    kept = next(worker for worker in s.workers.values() if worker.alone is requests[0])
    s.drain(kept.slot)
    finish(s, next(one for one in requests[1:] if one.worker == kept.slot))
    assert dispatched(s) == []
    finish(s, next(one for one in requests[1:] if one.worker != kept.slot and one.key in s.requests))
    assert dispatched(s) == [1]
    assert requests[0].worker != kept.slot


# ---- facts


def test_facts_about_frontends_and_versions() -> None:
    s = scheduler("w", versions=(A, B))
    for one in (request(1), request(2, B), request(1, frontend="f2")):
        s.submit(one)
    assert [one.version for one in s.of_frontend("f1")] == [A, B]
    assert sorted(s.queued_versions()) == [A, B]
    assert (s.queued(A), s.queued(B), s.queued(C), s.queued()) == (2, 1, 0, 3)
    dispatched(s)
    assert s.queued_versions() == []
    assert (s.in_hand(A), s.in_hand(C)) == (2, 0)
    assert (s.is_open(B), s.is_open(C)) == (True, False)
    assert s.in_hand_of("nobody") == []


# ---- all of it in any order


class Scheduling(RuleBasedStateMachine):
    """Requests, workers and deaths in any order."""

    @initialize(nireq=st.integers(1, 3))
    def start(self, nireq: int) -> None:
        self.scheduler = Scheduler()
        self.nireq = nireq
        self.now = 1
        self.next_id = 0
        self.deaths: Counter[RequestKey] = Counter()
        self.next_slot = 0

    def pick(self, items: list[Any], index: int) -> Any:
        return items[index % len(items)]

    @rule(version=st.sampled_from([A, B]), held=st.booleans())
    def submit(self, version: VersionId, held: bool) -> None:
        self.next_id += 1
        self.scheduler.submit(request(self.next_id, version, self.now), held=held)

    @rule()
    def join(self) -> None:
        if len(self.scheduler.workers) < 3:
            self.next_slot += 1
            self.scheduler.worker_joined(f"w{self.next_slot}")

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99), version=st.sampled_from([A, B]))
    def load(self, index: int, version: VersionId) -> None:
        self.scheduler.version_loaded(self.pick(sorted(self.scheduler.workers), index), version, self.nireq)

    @rule(step=st.integers(0, 5))
    def dispatch(self, step: int) -> None:
        self.now += step
        before = {one.key: one.phase for one in self.scheduler.requests.values()}
        for one in self.scheduler.dispatch(self.now):
            assert before[one.key] in (Phase.QUEUED, Phase.SUSPECT)
            worker = self.scheduler.workers[one.worker]
            assert not worker.draining
            if one.suspect:
                assert worker.in_hand == 1, "a suspect is not alone"
        self.nothing_waits_in_vain()

    def nothing_waits_in_vain(self) -> None:
        for version in self.scheduler.queued_versions():
            for worker in self.scheduler.workers.values():
                lane = worker.lanes.get(version)
                free = lane is not None and lane.credits > 0 and not worker.draining and worker.alone is None
                assert not free, f"{version} waits although {worker.slot} has a credit"

    @rule(index=st.integers(0, 99))
    def finish(self, index: int) -> None:
        running = [one for one in self.scheduler.requests.values() if one.phase is Phase.IN_HAND]
        if running:
            one = self.pick(running, index)
            assert self.scheduler.done(one.worker, one.key, self.now) is one

    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        if self.scheduler.requests:
            one = self.pick(list(self.scheduler.requests.values()), index)
            in_hand = one.phase is Phase.IN_HAND
            assert (self.scheduler.cancel(one.key) is None) == in_hand

    @rule(index=st.integers(0, 99))
    def release_held(self, index: int) -> None:
        held = self.scheduler.held()
        if held:
            self.scheduler.release_held(self.pick(held, index))

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99))
    def drain(self, index: int) -> None:
        self.scheduler.drain(self.pick(sorted(self.scheduler.workers), index))

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99), forgets=st.booleans())
    def greet_anew(self, index: int, forgets: bool) -> None:
        """A worker's Hello that lists all that it has in hand, or lacks one."""
        slot = self.pick(sorted(self.scheduler.workers), index)
        for one in self.scheduler.in_hand_of(slot)[: 1 if forgets else 0]:
            unwanted = one.abandoned
            assert self.scheduler.not_in_hand(one) is unwanted
        for one in self.scheduler.in_hand_of(slot):
            self.scheduler.adopt(one, slot, self.now)

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99), overdue=st.booleans())
    def die(self, index: int, overdue: bool) -> None:
        slot = self.pick(sorted(self.scheduler.workers), index)
        if overdue:
            self.scheduler.overdue(self.now, 3)
        had = self.scheduler.in_hand_of(slot)
        guilty = [one for one in had if one.timed_out]
        for one in had:
            self.deaths[one.key] += 1
        verdict = self.scheduler.worker_lost(slot)
        for one in verdict.convicted:
            assert one in guilty or self.deaths[one.key] >= 2
        for one in had:
            gone = one in verdict.convicted or one in verdict.dropped
            assert gone != (one.key in self.scheduler.requests)
            assert one.abandoned == (one in verdict.dropped)

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "scheduler"):
            check_scheduler(self.scheduler)
            for worker in self.scheduler.workers.values():
                for lane in worker.lanes.values():
                    assert len(lane.in_hand) <= lane.nireq + 1, "more than its credits"

    def teardown(self) -> None:
        """With a worker that lives, everything comes to its end."""
        if not hasattr(self, "scheduler"):
            return
        s = self.scheduler
        for slot in list(s.workers):
            s.worker_lost(slot)
        s.worker_joined("last")
        for version in (A, B):
            s.version_loaded("last", version, self.nireq)
        for one in s.held():
            s.release_held(one)
        for _ in range(3 * self.next_id + 3):
            s.dispatch(self.now)
            for one in s.in_hand_of("last")[:1]:
                s.done("last", one.key, self.now)
        assert not s.requests
        check_scheduler(s)


Scheduling.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestScheduling = Scheduling.TestCase
