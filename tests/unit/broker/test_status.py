"""broker.status: the document that `ie_serving status` shows."""

import json
from typing import Any

from broker.status import Whole, status_document
from common.messages import Refused, VersionId
from tests.unit.broker.simulation import World, config, settled


def document(world: World) -> dict[str, Any]:
    core = world.core
    whole = Whole(core.epoch, core.scheduler, core.registry, core.fleet, core.peers)
    found = json.loads(status_document(whole))
    assert isinstance(found, dict)
    return found


def test_a_server_that_has_settled() -> None:
    world = settled("a", "b", workers=2)
    found = document(world)
    processes = {worker.slot: worker.process.pid for worker in world.workers()}
    assert found == {
        "ready": True,
        "epoch": 1,
        "config_error": "",
        "models": [
            {
                "name": name,
                "error": "",
                "versions": [
                    {
                        "version": 1,
                        "state": "AVAILABLE",
                        "error": "",
                        "workers": ["CPU-0", "CPU-1"],
                        "queued": 0,
                        "running": 0,
                    }
                ],
            }
            for name in ("a", "b")
        ],
        "pools": [{"device": "CPU", "wanted": 2, "serving": 2}],
        "workers": [
            {
                "slot": slot,
                "device": "CPU",
                "pid": processes[slot],
                "state": "serving",
                "loaded": [["a", 1], ["b", 1]],
                "in_hand": 0,
                "restarts": 0,
            }
            for slot in ("CPU-0", "CPU-1")
        ],
        "frontends": [
            {
                "name": "f1",
                "kind": "grpc",
                "pid": world.frontends["f1"].process.pid,
                "listening": True,
                "requests": 0,
            }
        ],
        "queued": 0,
        "refused": {},
    }


def test_requests_are_counted_where_they_are() -> None:
    world = settled("a")
    for _ in range(5):
        world.frontends["f1"].submit(VersionId("a", 1))
    world.deliver_to_broker(world.frontends["f1"])
    while world.frontends["f1"].outbound:
        world.deliver_to_broker(world.frontends["f1"])
    world.step_broker()
    found = document(world)
    assert found["models"][0]["versions"][0]["running"] == 2
    assert found["models"][0]["versions"][0]["queued"] == 3
    assert found["queued"] == 3
    assert found["workers"][0]["in_hand"] == 2
    assert found["frontends"][0]["requests"] == 5


def test_a_server_that_has_just_started() -> None:
    world = World(config("a"), {"a": {1}})
    found = document(world)
    assert found["ready"] is False
    assert found["models"] == [{"name": "a", "error": "", "versions": []}]
    assert found["workers"] == []
    assert found["pools"] == [{"device": "CPU", "wanted": 1, "serving": 0}]


def test_a_dead_worker_is_in_back_off() -> None:
    world = settled("a")
    (worker,) = world.workers()
    world.kill_worker(worker)
    found = document(world)
    assert found["ready"] is False
    assert found["pools"][0]["serving"] == 0
    assert found["workers"][0] == {
        "slot": "CPU-0",
        "device": "CPU",
        "pid": None,
        "state": "backoff",
        "loaded": [],
        "in_hand": 0,
        "restarts": 1,
    }


def test_reasons_are_shown() -> None:
    world = settled("a")
    world.core.registry.load_failed("CPU-0", VersionId("a", 1), "no such layer", world.now)
    assert document(world)["models"][0]["versions"][0]["error"] == "no such layer"


def test_refusals_are_shown() -> None:
    world = settled("a")
    world.frontends["f1"].send(Refused({"RESOURCE_EXHAUSTED": 2}))
    world.settle(1)
    assert document(world)["refused"] == {"RESOURCE_EXHAUSTED": 2}


def test_while_scaling_only_workers_of_the_new_size_count() -> None:
    world = settled("a", workers=1)
    world.core.fleet.scale("CPU", 2, world.now)
    assert document(world)["pools"] == [{"device": "CPU", "wanted": 2, "serving": 0}]
    world.settle()
    found = document(world)
    assert found["pools"] == [{"device": "CPU", "wanted": 2, "serving": 2}]
    assert len(found["workers"]) == 2
