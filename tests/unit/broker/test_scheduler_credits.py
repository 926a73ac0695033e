"""broker.scheduler: how many requests a worker is given at once, and whose death is then to blame on which."""

from collections import Counter

import pytest

from tests.unit.broker.scheduler_harness import LIMIT, A, B, dispatched, finish, ids, quick, scheduler, submit

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
