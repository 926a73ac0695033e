"""broker.scheduler: turns, what a decision costs, cancelled requests, answers, draining."""

from collections import Counter, OrderedDict
from typing import Any

import pytest

from broker.work import Phase, Request
from common.messages import RequestKey, VersionId
from tests.support.work import lines_executed
from tests.unit.broker.scheduler_check import check as check_scheduler
from tests.unit.broker.scheduler_harness import (
    A,
    B,
    C,
    dispatched,
    finish,
    request,
    scheduler,
    submit,
)

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
