"""Batches in a whole server in memory: formed, failed, adopted, refused."""

from typing import Any

from broker.commands import Configuration
from common.config import BatchingParameters, ModelConfig
from common.errors import Code
from common.messages import Completed, VersionId
from tests.unit.broker.simulated_peers import SECOND, SimWorker
from tests.unit.broker.simulation import World, settled

A = VersionId("a", 1)


def batching(workers: int = 1, **options: Any) -> World:
    return settled("a", workers=workers, batching={"a": BatchingParameters(max_batch_size=4, **options)})


def submit(world: World, count: int) -> list[int]:
    """So many requests that the broker sees in one round."""
    ids = [world.frontends["f1"].submit(A) for _ in range(count)]
    world.flow()
    return ids


def only_worker(world: World) -> SimWorker:
    (worker,) = world.workers()
    return worker


def in_hand(world: World) -> list[tuple[int, int]]:
    """Request and batch, of all that the only worker has in hand."""
    worker = only_worker(world)
    return [(one.key.id, worker.batches.get(one.key, 0)) for one in worker.in_hand]


def code(world: World, id_: int) -> Code:
    answer = world.frontends["f1"].answers[id_]
    assert isinstance(answer, Completed)
    return Code.OK if answer.error is None else answer.error.code


def test_what_comes_in_one_round_is_one_batch() -> None:
    world = batching()
    ids = submit(world, 3)
    assert in_hand(world) == [(id_, 1) for id_ in ids]
    (alone,) = submit(world, 1)
    for _ in ids:
        only_worker(world).finish()
    world.flow()
    assert in_hand(world) == [(alone, 0)]
    world.settle(2)
    assert {code(world, id_) for id_ in (*ids, alone)} == {Code.OK}


def test_a_batch_that_fails_is_run_again_one_by_one() -> None:
    world = batching()
    ids = submit(world, 3)
    only_worker(world).fail_batch()
    world.flow()
    assert in_hand(world)[0] == (ids[0], 0)
    world.settle(2)
    assert {code(world, id_) for id_ in ids} == {Code.OK}


def test_a_dead_worker_s_batch_runs_again_one_by_one() -> None:
    world = batching()
    ids = submit(world, 4)
    world.kill_worker(only_worker(world))
    for _ in range(20):
        world.flow()
        world.pass_time(SECOND // 10)
    assert in_hand(world) == [(ids[0], 0)], "alone"
    world.kill_worker(only_worker(world))
    world.settle()
    assert [code(world, id_) for id_ in ids] == [Code.INTERNAL, Code.OK, Code.OK, Code.OK]


def test_a_batch_is_adopted_by_the_next_broker() -> None:
    world = batching()
    ids = submit(world, 3)
    world.kill_broker()
    later = [world.frontends["f1"].submit(A) for _ in range(2)]
    world.flow()
    world.flow()
    assert in_hand(world) == [(id_, 1) for id_ in ids], "not run twice, and nothing beside it"
    requests = world.core.scheduler.in_hand_of("CPU-0")
    assert len({one.batch for one in requests}) == 1
    assert all(one.running_since for one in requests)
    for _ in ids:
        only_worker(world).finish()
    world.flow()
    assert in_hand(world) == [(id_, 2) for id_ in later]
    world.settle(2)
    assert {code(world, id_) for id_ in (*ids, *later)} == {Code.OK}


def test_past_max_enqueued_batches_requests_are_refused_at_once() -> None:
    world = batching(max_enqueued_batches=1)
    running = submit(world, 4)
    ready = submit(world, 4)
    queued = submit(world, 4)
    assert len(in_hand(world)) == 8
    (refused,) = submit(world, 1)
    answer = world.frontends["f1"].answers[refused]
    assert isinstance(answer, Completed)
    assert answer.error is not None
    assert answer.error.code is Code.RESOURCE_EXHAUSTED
    assert answer.error.message == "4 rows wait for model a, and max_enqueued_batches allows 4"
    world.settle(2)
    assert {code(world, id_) for id_ in (*running, *ready, *queued)} == {Code.OK}


def test_members_whose_deadline_has_passed_leave_their_place_to_others() -> None:
    world = batching()
    running = submit(world, 4)
    expired = submit(world, 4)
    assert len(in_hand(world)) == 8, "the second is full, and waits ready"
    also = [world.frontends["f1"].submit(A, SECOND) for _ in range(2)]
    fresh = submit(world, 3)
    world.pass_time(SECOND)
    for _ in running:
        only_worker(world).finish()
    world.flow()
    assert [code(world, id_) for id_ in also] == [Code.DEADLINE_EXCEEDED] * 2
    world.settle(2)
    assert {code(world, id_) for id_ in (*running, *expired, *fresh)} == {Code.OK}


def test_a_cancelled_member_is_released_when_its_batch_is_done() -> None:
    world = batching()
    ids = submit(world, 3)
    frontend = world.frontends["f1"]
    frontend.abandon(ids[1])
    world.flow()
    assert ids[1] not in frontend.freed
    only_worker(world).finish(1)
    world.flow()
    assert ids[1] in frontend.freed
    world.settle(2)
    assert {code(world, id_) for id_ in (ids[0], ids[2])} == {Code.OK}


def test_a_batch_waits_for_its_timeout_and_no_longer() -> None:
    world = batching(batch_timeout_micros=300_000)
    (one,) = submit(world, 1)
    assert in_hand(world) == []
    assert world.core.next_wake() <= world.now + 300_000_000
    world.pass_time(200_000_000)
    (two,) = submit(world, 1)
    assert in_hand(world) == []
    world.pass_time(100_000_000)
    world.flow()
    assert in_hand(world) == [(one, 1), (two, 1)]


def test_a_change_of_batching_loads_the_model_anew() -> None:
    world = settled("a")
    assert only_worker(world).loaded[A].batching is None
    parameters = BatchingParameters(max_batch_size=4)
    world.write_config(Configuration((ModelConfig("a", "/models/a", batching_parameters=parameters),)))
    world.settle()
    (record,) = only_worker(world).loaded.values()
    assert record.batching == parameters
    for _ in range(3):
        world.frontends["f1"].ask("a")
    world.flow()
    assert [batch for _, batch in in_hand(world)] == [1, 1, 1]
