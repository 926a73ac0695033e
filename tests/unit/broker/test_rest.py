"""A broker with nothing to do wakes up rarely, and one with something to do soon enough."""

from broker.core import REST_NS, TICK_NS
from common.messages import VersionId
from tests.unit.broker.simulation import World, settled

SECOND = 1_000_000_000


def rested(*names: str) -> World:
    """A settled server, left alone until nothing new comes of it."""
    world = settled(*names)
    for _ in range(8):
        wait(world)
    return world


def wait(world: World) -> int:
    """Wait as the broker's loop does, and let it turn once; how long it waited [ns]."""
    waited = max(0, world.core.next_wake() - world.now)
    world.now += waited
    world.step_broker()
    while world.batches:
        world.run_batch()
        world.step_broker()
    return waited


def test_an_idle_broker_rests() -> None:
    world = rested("a", "b")
    turns = [wait(world) for _ in range(10)]
    assert sum(turns) >= 8 * REST_NS
    assert not world.core.next_wake() <= world.now


def test_a_request_in_hand_is_watched() -> None:
    world = rested("a")
    world.frontends["f1"].submit(VersionId("a", 1))
    world.deliver_to_broker(world.frontends["f1"])
    world.step_broker()
    for _ in range(20):
        assert wait(world) <= TICK_NS
    world.settle()
    assert max(wait(world) for _ in range(4)) > TICK_NS, "it is answered"


def test_a_worker_that_hangs_is_killed_in_time_after_a_rest() -> None:
    world = rested("a")
    limit = world.core._config.inference_timeout_s
    world.frontends["f1"].submit(VersionId("a", 1))
    world.deliver_to_broker(world.frontends["f1"])
    world.step_broker()
    began = world.now
    while not world.says("inferred one request for more than"):
        assert world.now - began <= limit * SECOND + 2 * TICK_NS
        wait(world)


def test_a_load_that_failed_is_tried_again_in_time() -> None:
    world = settled("a")
    world.fails = lambda _: True
    world.store("a", 1, 2)
    world.settle(4)
    loads = len(world.says("cannot be loaded"))
    for _ in range(10):
        assert wait(world) <= TICK_NS, "its time is near"
        world.settle(2)
    assert len(world.says("cannot be loaded")) > loads


def test_it_is_not_at_rest_before_a_worker_has_greeted() -> None:
    world = rested("a")
    (worker,) = world.workers()
    world.kill_worker(worker)
    for _ in range(20):
        assert wait(world) <= SECOND
