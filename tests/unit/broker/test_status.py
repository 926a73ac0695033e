"""broker.status: the document that `ie_serving status` shows."""

import json
from typing import Any

from broker.commands import Configuration
from broker.status import Whole, status_document
from common.config import DeviceConfig, ModelConfig
from common.messages import Refused, VersionId
from tests.unit.broker.simulation import World, config, settled


def document(world: World) -> dict[str, Any]:
    core = world.core
    whole = Whole(core.epoch, core.scheduler, core.registry, core.fleet, core.peers, core.reconfiguration)
    found = json.loads(status_document(whole))
    assert isinstance(found, dict)
    return found


def pools(found: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(pool["device"], pool["wanted"], pool["serving"]) for pool in found["pools"]]


def test_a_server_that_has_settled() -> None:
    world = settled("a", "b", workers=2)
    found = document(world)
    processes = {worker.slot: worker.process.pid for worker in world.workers()}
    assert found == {
        "ready": True,
        "epoch": 1,
        "configuration": 0,
        "config_error": "",
        "models": [
            {
                "name": name,
                "base_path": f"/models/{name}",
                "device": "CPU",
                "error": "",
                "leaving": False,
                "labels": {},
                "versions": [
                    {
                        "version": 1,
                        "state": "AVAILABLE",
                        "error": "",
                        "notes": [],
                        "revision": 0,
                        "workers": ["CPU-0", "CPU-1"],
                        "queued": 0,
                        "running": 0,
                    }
                ],
            }
            for name in ("a", "b")
        ],
        "pools": [{"device": "CPU", "wanted": 2, "serving": 2, "python": "", "emulated_on": ""}],
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
    (model,) = found["models"]
    assert (model["name"], model["error"], model["versions"]) == ("a", "", [])
    assert found["workers"] == []
    assert pools(found) == [("CPU", 1, 0)]


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
    world.scale("CPU", 2)
    assert pools(document(world)) == [("CPU", 2, 0)]
    world.settle()
    found = document(world)
    assert pools(found) == [("CPU", 2, 2)]
    assert len(found["workers"]) == 2


def test_a_new_configuration_that_fails_is_shown_beside_the_version_that_serves() -> None:
    world = settled("a")
    world.fails = lambda load: load.config.nireq == 7
    world.write_config(Configuration((ModelConfig("a", "/models/a", nireq=7, labels={"stable": 1}),)))
    world.settle(4)
    found = document(world)
    assert found["configuration"] == 1
    (model,) = found["models"]
    assert model["labels"] == {"stable": 1}
    (version,) = model["versions"]
    assert (version["state"], version["revision"], version["workers"]) == ("AVAILABLE", 0, ["CPU-0"])
    assert version["error"] == (
        "serves by an earlier configuration, because by the present one: no such layer"
    )


def test_a_model_that_leaves_says_so() -> None:
    world = settled("a", "b")
    world.frontends["f1"].submit(VersionId("a", 1))
    world.flow()
    world.write_config(Configuration((ModelConfig("b", "/models/b"),)))
    world.flow()
    found = document(world)
    assert [(model["name"], model["leaving"]) for model in found["models"]] == [("b", False), ("a", True)]
    assert found["models"][1]["versions"][0]["running"] == 1


def test_a_configuration_that_cannot_be_used_is_shown_until_it_can() -> None:
    world = settled("a")
    world.write_config("models.json: model a: unknown key 'nirek'")
    world.settle(2)
    assert document(world)["config_error"] == "models.json: model a: unknown key 'nirek'"
    world.kill_broker()
    world.settle(2)
    assert document(world)["config_error"] == "models.json: model a: unknown key 'nirek'"
    world.write_config(Configuration(world.config.models))
    world.settle(2)
    assert document(world)["config_error"] == ""


def test_an_emulated_device_and_its_notes_are_shown() -> None:
    world = settled("a")
    how = DeviceConfig("/opt/python", "CPU")
    world.notes = lambda load: ("MYRIAD is emulated on CPU",) if load.config.target_device == "MYRIAD" else ()
    world.write_config(
        Configuration((ModelConfig("a", "/models/a", target_device="MYRIAD"),), {"MYRIAD": how})
    )
    world.settle()
    found = document(world)
    (pool,) = found["pools"]
    assert pool == {
        "device": "MYRIAD",
        "wanted": 1,
        "serving": 1,
        "python": "/opt/python",
        "emulated_on": "CPU",
    }
    assert found["models"][0]["versions"][0]["notes"] == ["MYRIAD is emulated on CPU"]
