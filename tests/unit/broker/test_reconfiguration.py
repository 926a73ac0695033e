"""broker.reconfiguration and the core around it: a configuration comes from file or client, and takes effect."""

import pytest

from broker.commands import Configuration
from broker.reconfiguration import MAX_WAITING, RECONFIGURE_NS, merged, pool_sizes
from common.config import BatchingParameters, DeviceConfig, ModelConfig, ServerConfig, VersionPolicy
from common.errors import Code, WireError
from common.messages import Completed, Reconfigured, VersionId
from tests.unit.broker.simulated_peers import SECOND
from tests.unit.broker.simulation import World, settled

WARNING, ERROR = 30, 40
A, B, C = (ModelConfig(name, f"/models/{name}") for name in "abc")


def in_pool(world: World, device: str) -> list[str]:
    return sorted(worker.slot for worker in world.workers() if worker.slot.startswith(f"{device}-"))


def served(world: World) -> dict[str, list[int]]:
    return {
        model.name: [one.version for one in model.versions if one.servable]
        for model in world.core.registry.view.statuses
    }


# ---- pure parts


def test_a_pool_is_as_large_as_its_most_demanding_model_wants() -> None:
    models = (
        ModelConfig("a", "/a"),
        ModelConfig("b", "/b", workers=3),
        ModelConfig("c", "/c", workers=1),
        ModelConfig("g", "/g", target_device="GPU", workers=1),
    )
    assert pool_sizes(models, 2, {}) == {"CPU": 3, "GPU": 1}
    assert pool_sizes(models, 2, {"CPU": 1, "NPU": 9}) == {"CPU": 1, "GPU": 1}
    assert pool_sizes((), 2, {}) == {}


def test_a_client_s_model_keeps_the_options_that_the_client_does_not_name() -> None:
    present = ModelConfig(
        "a", "/a", batch_size=4, nireq=3, target_device="GPU", labels={"old": 1}, workers=2,
        version_policy=VersionPolicy("all"), batching_parameters=BatchingParameters(),
    )  # fmt: skip
    given = ModelConfig("a", "/a", nireq=5, labels={"new": 2})
    assert merged(given, present) == ModelConfig(
        "a", "/a", batch_size=4, nireq=5, target_device="GPU", labels={"new": 2}, workers=2,
        batching_parameters=BatchingParameters(),
    )  # fmt: skip
    assert merged(given, None) is given
    elsewhere = ModelConfig("a", "/elsewhere")
    assert merged(elsewhere, present) == elsewhere, "another model under the same name"


# ---- the file


def test_what_the_file_says_takes_effect_while_others_serve() -> None:
    world = settled("a", "b")
    world.storage["c"] = {3}
    world.write_config(Configuration((B, C)))
    for _ in range(8):
        world.frontends["f1"].ask("b")
        world.flow()
        for worker in world.workers():
            worker.finish()
    world.settle()
    assert served(world) == {"b": [1], "c": [3]}
    assert world.says("configuration 1 is in force: adds c; removes a")
    answers = world.frontends["f1"].answers.values()
    assert len(answers) == 8
    assert all(isinstance(one, Completed) and one.error is None for one in answers)
    assert [worker.loaded.keys() for worker in world.workers()] == [
        {VersionId("b", 1), VersionId("c", 3, 1)}
    ], "what has left is unloaded"


def test_a_file_that_cannot_be_used_changes_nothing_and_is_said_once() -> None:
    world = settled("a")
    for _ in range(3):
        world.write_config("models.json: not JSON")
        world.settle(1)
    assert served(world) == {"a": [1]}
    assert [one.level for one in world.says("not JSON")] == [ERROR]
    world.write_config("models.json: empty")
    world.settle(1)
    assert world.says("empty")
    world.write_config(Configuration((A,)))
    world.settle(1)
    assert world.core.reconfiguration.error == ""
    world.write_config("models.json: not JSON")
    world.settle(1)
    assert len(world.says("not JSON")) == 2, "it was mended in between"


def test_a_storekeeper_that_starts_anew_does_not_undo_what_a_client_has_set() -> None:
    world = settled("a")
    world.storage |= {"b": {1}, "c": {1}}
    world.write_config(Configuration((A, B)))
    world.settle(4)
    world.frontends["f1"].reconfigure((C,))
    world.settle(6)
    assert served(world) == {"c": [1]}
    world.kill_storekeeper()
    world.settle(2)
    world.storekeeper.say_config()
    world.settle(4)
    assert served(world) == {"c": [1]}, "the file has said nothing new"
    world.kill_broker()
    world.settle(4)
    world.storekeeper.say_config()
    world.settle(4)
    assert served(world) == {"c": [1]}
    world.write_config(Configuration((A, C)))
    world.settle(6)
    assert served(world) == {"a": [1], "c": [1]}


# ---- clients


def test_a_client_is_answered_when_everything_was_tried() -> None:
    world = settled("a")
    frontend = world.frontends["f1"]
    world.storage |= {"b": {1}}
    id_ = frontend.reconfigure((A, B))
    world.fails = lambda load: load.version.model == "b"
    world.settle(6)
    assert frontend.reconfigured == {
        id_: Reconfigured(id_, True, failures=("model b version 1: no such layer",))
    }
    world.fails = lambda _: False
    world.settle(8)
    id_ = frontend.reconfigure((A, B))
    world.settle(2)
    assert frontend.reconfigured[id_] == Reconfigured(id_, False)


def test_a_client_is_answered_after_every_frontend_knows_the_catalogue_that_shows_it() -> None:
    """Whichever frontend the client asks next knows the new model."""
    world = settled("a")
    world.storage |= {"b": {1}}
    asking, other = world.frontends["f1"], world.add_frontend("f2")
    world.settle(2)
    id_ = asking.reconfigure((A, B))
    acknowledgements: list[list[bytes]] = []
    for _ in range(12):
        world.flow()
        acknowledgements += other.outbound
        other.outbound.clear()
        world.pass_time(SECOND // 20)
    assert asking.default("b") is not None
    assert id_ not in asking.reconfigured
    other.outbound.extend(acknowledgements)
    world.flow()
    assert asking.reconfigured[id_] == Reconfigured(id_, True)


def test_a_frontend_that_does_not_acknowledge_holds_the_answer_up_for_a_second() -> None:
    world = settled("a")
    asking, other = world.frontends["f1"], world.add_frontend("f2")
    world.settle(2)
    id_ = asking.reconfigure((ModelConfig("a", "/models/a", nireq=2),))
    for _ in range(40):
        world.flow()
        other.outbound.clear()
        world.pass_time(SECOND // 20)
    assert asking.reconfigured[id_] == Reconfigured(id_, True)


def test_a_client_that_asks_for_the_file_is_answered_by_it() -> None:
    world = settled("a")
    frontend = world.frontends["f1"]
    same = frontend.reconfigure(None)
    world.settle(2)
    assert frontend.reconfigured[same] == Reconfigured(same, False)
    world.storage |= {"b": {1}}
    world.file = Configuration((A, B))
    other = frontend.reconfigure(None)
    world.settle(4)
    assert frontend.reconfigured[other] == Reconfigured(other, True)
    assert served(world) == {"a": [1], "b": [1]}
    world.file = "models.json: not JSON"
    bad = frontend.reconfigure(None)
    world.settle(2)
    error = WireError(Code.INVALID_ARGUMENT, "models.json: not JSON")
    assert frontend.reconfigured[bad] == Reconfigured(bad, error=error)
    assert world.core.reconfiguration.error == "models.json: not JSON"


def test_a_storekeeper_that_dies_before_it_answers_is_asked_again() -> None:
    world = settled("a")
    id_ = world.frontends["f1"].reconfigure(None)
    world.deliver_to_broker(world.frontends["f1"])
    world.step_broker()
    world.kill_storekeeper()
    world.settle(2)
    assert world.frontends["f1"].reconfigured[id_] == Reconfigured(id_, False)


def test_without_a_file_there_is_nothing_to_read() -> None:
    world = World(ServerConfig((A,), "/run/simulated"), {"a": {1}})
    frontend = world.add_frontend("f1")
    world.settle(4)
    id_ = frontend.reconfigure(None)
    world.settle(1)
    error = frontend.reconfigured[id_].error
    assert error == WireError(Code.FAILED_PRECONDITION, "no configuration file is watched")


def test_one_name_twice_is_refused() -> None:
    world = settled("a")
    id_ = world.frontends["f1"].reconfigure((A, B, A))
    world.settle(1)
    error = world.frontends["f1"].reconfigured[id_].error
    assert error == WireError(Code.INVALID_ARGUMENT, "configured more than once: a")
    assert served(world) == {"a": [1]}


def test_no_models_at_all_unloads_everything() -> None:
    world = settled("a")
    id_ = world.frontends["f1"].reconfigure(())
    world.settle()
    assert world.frontends["f1"].reconfigured[id_] == Reconfigured(id_, True)
    assert served(world) == {}
    assert world.workers() == [], "no device is in use"
    id_ = world.frontends["f1"].reconfigure((A,))
    world.settle()
    assert world.frontends["f1"].reconfigured[id_].error is None
    assert served(world) == {"a": [1]}


def test_a_client_is_answered_at_the_latest_after_the_deadline() -> None:
    world = settled("a")
    slow = ModelConfig("g", "/models/g", target_device="GPU")
    world.storage |= {"g": {1}}
    id_ = world.frontends["f1"].reconfigure((A, slow))
    for _ in range(12):
        for peer in list(world.peers):
            while peer.outbound:
                world.deliver_to_broker(peer)
        world.step_broker()
        for peer in list(world.peers):
            while peer.inbound:
                peer.deliver_inbound()
        world.pass_time(RECONFIGURE_NS // 9)
    (answer,) = world.frontends["f1"].reconfigured.values()
    assert answer == Reconfigured(id_, True, failures=("model g: is still being loaded",))


def test_calls_that_wait_are_bounded_and_forgotten_with_their_frontend() -> None:
    world = settled("a")
    world.storekeeper.inbound.clear()
    frontend = world.add_frontend("f2")
    world.settle(2)
    for _ in range(MAX_WAITING + 1):
        frontend.reconfigure(None)
    while frontend.outbound:
        world.deliver_to_broker(frontend)
    world.step_broker()
    while frontend.inbound:
        frontend.deliver_inbound()
    (refused,) = frontend.reconfigured.values()
    assert refused.error is not None
    assert refused.error.code is Code.RESOURCE_EXHAUSTED
    world.kill_frontend("f2")
    assert not world.core.reconfiguration.is_restless()


# ---- devices and pools


def test_a_model_moves_to_another_device_without_a_pause() -> None:
    world = settled("a", "b")
    frontend = world.frontends["f1"]
    world.write_config(Configuration((ModelConfig("a", "/models/a", target_device="GPU"), B)))
    for _ in range(60):
        frontend.ask("a")
        frontend.ask("b")
        world.flow()
        for worker in world.workers():
            while worker.in_hand:
                worker.finish()
        world.pass_time(SECOND // 20)
    world.settle()
    assert not frontend.unserved
    answers = frontend.answers.values()
    assert len(answers) == 120
    assert all(isinstance(one, Completed) and one.error is None for one in answers)
    (cpu,) = in_pool(world, "CPU")
    (gpu,) = in_pool(world, "GPU")
    loaded = {worker.slot: set(worker.loaded) for worker in world.workers()}
    assert loaded == {cpu: {VersionId("b", 1)}, gpu: {VersionId("a", 1, 1)}}


def test_a_device_that_nobody_names_any_more_loses_its_workers() -> None:
    world = settled("a")
    world.write_config(Configuration((ModelConfig("a", "/models/a", target_device="GPU"),)))
    world.settle()
    assert in_pool(world, "CPU") == []
    assert len(in_pool(world, "GPU")) == 1
    assert world.core.fleet.wanted == {"GPU": 1}


def test_workers_of_the_models_size_the_pool_unless_it_was_scaled() -> None:
    world = settled("a")
    world.write_config(Configuration((ModelConfig("a", "/models/a", workers=2),)))
    world.settle()
    assert len(in_pool(world, "CPU")) == 2
    world.scale("CPU", 1)
    world.settle()
    world.write_config(Configuration((ModelConfig("a", "/models/a", workers=3),)))
    world.settle()
    assert len(in_pool(world, "CPU")) == 1, "scaling wins"
    world.kill_broker()
    world.settle()
    assert len(in_pool(world, "CPU")) == 1, "under a new broker too"
    world.write_config(Configuration((ModelConfig("a", "/models/a", target_device="GPU", workers=2),)))
    world.settle()
    world.write_config(Configuration((ModelConfig("a", "/models/a", workers=3),)))
    world.settle()
    assert len(in_pool(world, "CPU")) == 3, "until the device disappears"


def test_a_device_that_is_run_otherwise_has_its_workers_replaced_one_by_one() -> None:
    world = settled("a", workers=2)
    frontend = world.frontends["f1"]
    before = in_pool(world, "CPU")
    world.write_config(Configuration((A,), {"CPU": DeviceConfig("/opt/python")}))
    for _ in range(80):
        frontend.ask("a")
        world.flow()
        assert sum(bool(worker.loaded) for worker in world.workers()) >= 2, "fewer than before and after"
        for worker in world.workers():
            while worker.in_hand:
                worker.finish()
        world.pass_time(SECOND // 20)
    world.settle()
    after = in_pool(world, "CPU")
    assert len(after) == 2
    assert not set(before) & set(after)
    assert {post.slot.python for post in world.core.fleet.posts.values()} == {"/opt/python"}
    assert all(isinstance(one, Completed) and one.error is None for one in frontend.answers.values())
    assert not world.says("loads anew")


def test_a_device_whose_new_interpreter_serves_nothing_keeps_its_old_workers() -> None:
    world = settled("a")
    (old,) = in_pool(world, "CPU")
    world.fails = lambda _: True
    world.write_config(Configuration((A,), {"CPU": DeviceConfig("/opt/python")}))
    world.settle()
    assert old in in_pool(world, "CPU")
    assert served(world) == {"a": [1]}


def test_emulation_is_said_loudly() -> None:
    how = {"MYRIAD": DeviceConfig(emulate_on="CPU"), "HDDL": DeviceConfig(emulate_on="CPU")}
    config = ServerConfig(
        (ModelConfig("a", "/models/a", target_device="MYRIAD"),), "/run/simulated", devices=how
    )
    world = World(config, {"a": {1}})
    world.settle(4)
    assert [one.level for one in world.says("EMULATED")] == [WARNING]
    assert "MYRIAD" in world.says("EMULATED")[0].text
    (post,) = world.core.fleet.posts.values()
    assert post.slot.emulate_on == "CPU"


def test_notes_of_workers_are_said_once() -> None:
    world = settled("a")
    world.notes = lambda _: ("MYRIAD is absent",)
    world.write_config(Configuration((ModelConfig("a", "/models/a", nireq=2),)))
    world.settle()
    world.kill_worker(world.workers()[0])
    world.settle()
    assert [one.level for one in world.says("MYRIAD is absent")] == [WARNING]


def test_a_device_whose_workers_end_at_once_leaves_the_others_alone() -> None:
    models = (A, ModelConfig("g", "/models/g", target_device="GPU"))
    world = World(ServerConfig(models, "/run/simulated"), {"a": {1}, "g": {1}})
    frontend = world.add_frontend("f1")
    for _ in range(100):
        world.flow()
        for worker in world.workers():
            if worker.slot.startswith("GPU"):
                world.kill_worker(worker)
        frontend.ask("a")
        world.pass_time(SECOND // 10)
    world.settle(2)
    assert world.says("will be serving models: ['a', 'g']"), "the start has come to its end"
    assert world.core.registry.view.is_ready
    (version,) = world.core.registry.view.statuses[1].versions
    assert version.error is not None
    world.settle()
    assert served(world) == {"a": [1], "g": [1]}, "and it is served as soon as a worker lives"


# ---- the storekeeper


def test_the_storekeeper_is_told_what_to_watch_and_what_to_keep() -> None:
    world = settled("a")
    assert world.storekeeper.paths == {"a": "/models/a"}
    assert list(world.storekeeper.kept) == ["/models/a/1"]
    world.store("a", 1, 2)
    world.flow()
    world.flow()
    assert list(world.storekeeper.kept) == ["/models/a/1", "/models/a/2"]
    world.settle()
    assert list(world.storekeeper.kept) == ["/models/a/2"]
    world.kill_storekeeper()
    world.settle(2)
    assert list(world.storekeeper.kept) == ["/models/a/2"]
    world.kill_broker()
    world.step_broker()
    for peer in list(world.peers):
        world.deliver_to_broker(peer)
    world.step_broker()
    assert list(world.storekeeper.kept) == ["/models/a/2"], "known before any worker was heard"


def test_a_successor_goes_on_with_the_configuration_in_force() -> None:
    world = settled("a")
    world.storage |= {"b": {1}}
    world.frontends["f1"].reconfigure((ModelConfig("a", "/models/a", nireq=2), B))
    world.flow()
    world.kill_broker()
    world.settle()
    assert served(world) == {"a": [1], "b": [1]}
    loads = [set(worker.loaded) for worker in world.workers()]
    revision = world.core.registry.models["b"].revision
    assert loads == [{VersionId("a", 1, 1), VersionId("b", 1, revision)}]
    world.kill_broker()
    world.settle()
    assert [set(worker.loaded) for worker in world.workers()] == loads, "nothing was loaded anew"


@pytest.mark.parametrize("seconds", [1, 9])
def test_an_idle_core_has_nothing_to_do(seconds: int) -> None:
    world = settled("a", "b")
    before = world.wanted
    for _ in range(seconds):
        world.pass_time(SECOND)
        assert not world.core.registry.is_restless(world.now)
        world.step_broker()
        world.run_batch()
    assert world.wanted is before


def test_a_version_on_trial_that_is_deleted_leaves_its_trial_worker() -> None:
    world = settled("a")
    world.storage["b"] = {1}
    world.write_config(Configuration((A, B)))
    kill = True
    for _ in range(40):
        for peer in list(world.peers):
            while peer.outbound:
                world.deliver_to_broker(peer)
        world.step_broker()
        if not world.says("trial has loaded"):
            # Supervisord is slow from then on: the worker is there when it is to unload.
            world.run_batch()
        world.step_broker()
        for peer in list(world.peers):
            while peer.inbound:
                peer.deliver_inbound()
        for worker in world.workers():
            if kill and any(load.version.model == "b" for load in worker.loading):
                world.kill_worker(worker)
                kill = False
            elif worker.slot.endswith("trial") and worker.loading:
                world.store("b")
                world.deliver_to_broker(world.storekeeper)
                world.step_broker()
                worker.finish_load()
            else:
                worker.finish_load()
        world.pass_time(SECOND // 10)
    assert world.says("trial unloads model b")
    world.settle()
    assert [set(worker.loaded) for worker in world.workers()] == [{VersionId("a", 1)}]


def test_a_request_of_an_unknown_version_waits_for_whoever_may_be_running_it() -> None:
    world = settled("a")
    frontend = world.frontends["f1"]
    frontend.submit(VersionId("a", 1, 77))
    world.kill_broker()
    world.step_broker()
    world.run_batch()
    world.deliver_to_broker(frontend)
    world.step_broker()
    assert [request.version for request in world.core.scheduler.held()] == [VersionId("a", 1, 77)]
    world.settle(4)
    assert frontend.stale == [1]
