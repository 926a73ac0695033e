"""Which request runs next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import Execute, RequestKey, VersionId
from tests.support.work import lines_executed
from workers.queue import RunQueue

A, B = VersionId("a", 1), VersionId("b", 1)


def request(number: int, version: VersionId = A, frontend: str = "f", segment: int = 0) -> Execute:
    return Execute(RequestKey(frontend, number), version, segment, (), ())


@pytest.fixture
def queue() -> RunQueue:
    queue = RunQueue()
    queue.add(A, 2)
    queue.add(B, 1)
    return queue


def started(queue: RunQueue) -> list[int]:
    numbers = []
    while (chosen := queue.next()) is not None:
        numbers.append(chosen.key.id)
    return numbers


def keys(queue: RunQueue) -> list[int]:
    return [key.id for key, _ in queue.in_hand()]


def test_nireq_of_a_version_run_and_the_rest_wait_in_order(queue: RunQueue) -> None:
    for number in range(4):
        queue.push(request(number))
    assert started(queue) == [0, 1]
    queue.finish(RequestKey("f", 1))
    assert started(queue) == [2]
    assert keys(queue) == [0, 2, 3]


def test_the_longest_waiting_goes_first_between_versions(queue: RunQueue) -> None:
    for number, version in enumerate((A, B, A, B, A)):
        queue.push(request(number, version))
    assert started(queue) == [0, 1, 2]
    for number in (0, 1):
        queue.finish(RequestKey("f", number))
    assert started(queue) == [3, 4]


def test_a_full_version_does_not_hold_up_another(queue: RunQueue) -> None:
    for number in range(3):
        queue.push(request(number, B))
    queue.push(request(9, A))
    assert started(queue) == [0, 9]
    assert queue.running_versions() == {A, B}


def test_parked_requests_wait_for_their_memory_alone(queue: RunQueue) -> None:
    queue.park(request(1, segment=5))
    queue.push(request(2))
    assert started(queue) == [2]
    assert keys(queue) == [1, 2]
    assert queue.unpark("f", 0) == []
    (parked,) = queue.unpark("f", 5)
    assert queue.holds(parked.key)
    queue.push(parked)
    assert started(queue) == [1]
    assert keys(queue) == [1, 2], "oldest first, however long it was parked"


def test_what_is_dropped_is_in_hand_until_it_is_finished(queue: RunQueue) -> None:
    for number in range(3):
        queue.push(request(number, frontend="gone"))
    assert len(started(queue)) == 2
    queue.push(request(3, frontend="stays"))
    queue.park(request(4, frontend="gone", segment=1))
    dropped = queue.drop("gone")
    assert sorted(entry.key.id for entry in dropped) == [2, 4]
    for entry in dropped:
        assert queue.holds(entry.key)
        queue.finish(entry.key)
    assert queue.is_running("gone")
    queue.finish(RequestKey("gone", 0))
    assert queue.is_running("gone")
    queue.finish(RequestKey("gone", 1))
    assert not queue.is_running("gone")
    assert started(queue) == [3]


def test_a_version_is_idle_once_nothing_of_it_is_in_hand(queue: RunQueue) -> None:
    queue.park(request(1, B))
    assert not queue.is_idle(B)
    assert queue.is_idle(A)
    queue.unpark("f", 0)
    queue.finish(RequestKey("f", 1))
    assert queue.is_idle(B)
    queue.remove(B)
    assert not queue.knows(B)


@given(st.lists(st.tuples(st.sampled_from("apnfdu"), st.integers(0, 2)), max_size=80))
def test_never_more_than_nireq_and_nothing_is_lost(steps: list[tuple[str, int]]) -> None:
    queue = RunQueue()
    limits = {A: 2, B: 1}
    for version, limit in limits.items():
        queue.add(version, limit)
    number, expected = 0, dict[RequestKey, VersionId]()
    running: list[Execute] = []
    for step, pick in steps:
        frontend, version = f"f{pick}", (A, B)[pick % 2]
        if step in "ap":
            number += 1
            entry = request(number, version, frontend)
            expected[entry.key] = version
            (queue.push if step == "a" else queue.park)(entry)
        elif step == "n" and (chosen := queue.next()) is not None:
            running.append(chosen)
        elif step == "f" and running:
            entry = running.pop(pick % len(running))
            queue.finish(entry.key)
            del expected[entry.key]
        elif step == "d":
            for entry in queue.drop(frontend):
                queue.finish(entry.key)
                del expected[entry.key]
        elif step == "u":
            for entry in queue.unpark(frontend, 0):
                queue.push(entry)
        assert queue.in_hand() == list(expected.items())
        for version, limit in limits.items():
            assert sum(entry.version == version for entry in running) <= limit
        for name in ("f0", "f1", "f2"):
            assert queue.is_running(name) == any(entry.key.frontend == name for entry in running)


@given(st.lists(st.tuples(st.sampled_from("aaanfd"), st.integers(0, 2)), max_size=60))
def test_the_oldest_that_may_run_is_next(steps: list[tuple[str, int]]) -> None:
    queue = RunQueue()
    limits = {A: 2, B: 1}
    for version, limit in limits.items():
        queue.add(version, limit)
    running, waiting = list[Execute](), list[Execute]()
    for number, (step, pick) in enumerate(steps):
        if step == "a":
            waiting.append(request(number, (A, B)[pick % 2], f"f{pick}"))
            queue.push(waiting[-1])
        elif step == "n":
            full = {
                version for version in limits if sum(e.version == version for e in running) == limits[version]
            }
            due = [entry for entry in waiting if entry.version not in full][:1]
            running += due
            waiting = [entry for entry in waiting if entry not in due]
            assert queue.next() is (due[0] if due else None)
        elif step == "f" and running:
            queue.finish(running.pop(pick % len(running)).key)
        elif step == "d":
            for entry in queue.drop(f"f{pick}"):
                queue.finish(entry.key)
                waiting.remove(entry)
        assert queue.running_versions() == {entry.version for entry in running}


def work_among(versions: int) -> int:
    """Lines executed for a few requests of one version among so many."""
    queue = RunQueue()
    for number in range(versions):
        queue.add(VersionId("other", number + 1), 1)
    queue.add(A, 2)

    def serve() -> None:
        for number in range(4):
            queue.push(request(number))
        while started(queue):
            queue.running_versions()
            queue.finish(queue.in_hand()[0][0])

    return lines_executed(serve)


def test_the_versions_that_are_not_asked_cost_nothing() -> None:
    assert work_among(1000) == work_among(1)
