"""Batches in the queue of a worker: they run together, in one slot, without those that have left before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import Execute, RequestKey, VersionId
from workers.queue import Batch, RunQueue

A, B = VersionId("a", 1), VersionId("b", 1)


def request(number: int, version: VersionId = A, frontend: str = "f", segment: int = 0) -> Execute:
    return Execute(RequestKey(frontend, number), version, segment, (), ())


@pytest.fixture
def queue() -> RunQueue:
    queue = RunQueue()
    queue.add(A, 1)
    queue.add(B, 1)
    return queue


def gather(queue: RunQueue, *requests: Execute) -> None:
    """All of them are there."""
    queue.gather(requests)
    for one in requests:
        queue.push(one)


def started(queue: RunQueue) -> list[list[int]]:
    found = []
    while (chosen := queue.next()) is not None:
        found.append([key.id for key in chosen.members] if isinstance(chosen, Batch) else [chosen.key.id])
    return found


def test_a_batch_occupies_one_slot_until_all_of_it_is_finished(queue: RunQueue) -> None:
    first = [request(number) for number in (1, 2, 3)]
    gather(queue, *first)
    queue.push(request(4))
    assert started(queue) == [[1, 2, 3]]
    for one in first[:2]:
        queue.finish(one.key)
        assert started(queue) == []
    queue.finish(first[2].key)
    assert started(queue) == [[4]]


def test_a_batch_waits_until_the_memory_of_all_is_there(queue: RunQueue) -> None:
    near, far = request(1), request(2, frontend="g", segment=3)
    queue.gather((near, far))
    queue.push(near)
    queue.park(far)
    queue.push(request(9, B))
    assert started(queue) == [[9]]
    (arrived,) = queue.unpark("g", 3)
    queue.push(arrived)
    assert started(queue) == [[1, 2]]


@pytest.mark.parametrize("order", ["near first", "far first"])
def test_one_whose_memory_cannot_be_had_leaves_the_others_to_run(queue: RunQueue, order: str) -> None:
    near, far = request(1), request(2, frontend="g")
    queue.gather((near, far))
    queue.park(far)
    if order == "near first":
        queue.push(near)
        queue.finish(far.key)
    else:
        queue.finish(far.key)
        queue.push(near)
    assert started(queue) == [[1]]
    queue.finish(near.key)
    assert queue.is_idle(A)


@pytest.mark.parametrize("absent", [True, False])
def test_the_members_of_a_dead_frontend_are_taken_out(queue: RunQueue, absent: bool) -> None:
    ours, theirs, parked = request(1), request(2, frontend="g"), request(3, frontend="g", segment=1)
    queue.gather((ours, theirs, parked))
    queue.push(theirs)
    queue.park(parked)
    if not absent:
        for one in (ours, *queue.unpark("g", 1)):
            queue.push(one)
    gone = queue.drop("g")
    assert sorted(one.key.id for one in gone) == [2, 3]
    for one in gone:
        queue.finish(one.key)
    if absent:
        assert started(queue) == []
        queue.push(ours)
    assert started(queue) == [[1]]


def test_a_batch_of_which_all_have_left_is_no_more(queue: RunQueue) -> None:
    gather(queue, request(1, frontend="g"), request(2, frontend="g"))
    for one in queue.drop("g"):
        queue.finish(one.key)
    assert started(queue) == []
    assert queue.is_idle(A)


def test_what_runs_of_a_frontend_is_not_dropped(queue: RunQueue) -> None:
    gather(queue, request(1, frontend="g"), request(2))
    assert started(queue) == [[1, 2]]
    assert queue.drop("g") == []
    assert queue.is_running("g")
    queue.finish(RequestKey("g", 1))
    assert not queue.is_running("g")
    assert queue.running_versions() == {A}
    queue.finish(RequestKey("f", 2))
    assert queue.running_versions() == set()


def test_what_is_in_hand_says_its_batch(queue: RunQueue) -> None:
    gather(queue, request(1), request(2))
    gather(queue, request(3), request(4))
    queue.push(request(5, B))
    keys = [key for key, _ in queue.in_hand()]
    assert [key.id for key in keys] == [1, 2, 3, 4, 5]
    assert queue.batch_numbers(keys) == (1, 1, 2, 2, 0)


@given(
    sizes=st.lists(st.integers(1, 4), max_size=6),
    picks=st.lists(st.tuples(st.integers(0, 99), st.booleans())),
)
@settings(max_examples=200, deadline=None)
def test_whatever_happens_each_slot_is_given_back(sizes: list[int], picks: list[tuple[int, bool]]) -> None:
    queue = RunQueue()
    queue.add(A, 2)
    number = 0
    absent: list[Execute] = []
    for size in sizes:
        members = tuple(request(number + index, frontend="fg"[index % 2]) for index in range(size))
        number += size
        queue.gather(members)
        absent += members
    running: set[RequestKey] = set()

    def start() -> None:
        while (chosen := queue.next()) is not None:
            assert isinstance(chosen, Batch)
            assert not set(chosen.members) & ({one.key for one in absent} | running)
            running.update(chosen.members)

    for pick, arrives in picks:
        if arrives and absent:
            queue.push(absent.pop(pick % len(absent)))
        elif in_hand := queue.in_hand():
            key, _ = in_hand[pick % len(in_hand)]
            absent = [one for one in absent if one.key != key]
            queue.finish(key)
            running.discard(key)
        start()
    while absent:
        queue.push(absent.pop())
    start()
    while in_hand := queue.in_hand():
        assert running, "the slots are lost"
        for key, _ in in_hand:
            if key in running:
                queue.finish(key)
                running.discard(key)
        start()
    assert queue.is_idle(A)
    assert queue.running_versions() == set()
