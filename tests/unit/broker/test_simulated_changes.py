"""Models, versions and devices change while everything may fail: no request for a default version is ever lost.

The machine of test_simulated_failures.py, with an operator: configurations by file and by client, versions that come
and go, loads that fail, storekeepers that die. Model `a` is always configured and always stored, so it is served
throughout, whatever else happens; `b` comes and goes.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from broker.commands import Configuration
from common.config import DeviceConfig, ModelConfig, VersionPolicy
from common.errors import Code
from common.messages import Completed, RequestKey
from common.states import VersionState
from tests.unit.broker.simulation import settled
from tests.unit.broker.test_simulated_failures import MODELS, FailingServer, picks

POLICIES = [VersionPolicy(), VersionPolicy("latest", 2), VersionPolicy("all")]


def variants(name: str) -> st.SearchStrategy[ModelConfig]:
    """A model's configurations: what is loaded anew for, and what is not."""
    return st.builds(
        ModelConfig,
        name=st.just(name),
        base_path=st.just(f"/models/{name}"),
        nireq=st.integers(1, 2),
        target_device=st.sampled_from(["CPU", "GPU"]),
        version_policy=st.sampled_from(POLICIES),
        plugin_config=st.sampled_from([{}, {}, {"BAD": "YES"}]),
        workers=st.sampled_from([None, 1, 2]),
    )


devices = st.dictionaries(
    st.sampled_from(["CPU", "GPU"]), st.builds(DeviceConfig, st.sampled_from(["", "/opt/python"]))
)
configurations = st.builds(
    Configuration,
    st.tuples(variants("a")) | st.tuples(variants("a"), variants("b")),
    devices,
)


class ChangingServer(FailingServer):
    """The failing server, with an operator."""

    @initialize(workers=st.integers(1, 2), nireq=st.integers(1, 2))
    def start(self, workers: int, nireq: int) -> None:
        self.world = settled(*MODELS, workers=workers, nireq=nireq)
        self.world.add_frontend("f2")
        self.world.settle(2)
        self.submitted = {"f1": set(), "f2": set()}
        self.born = 2
        self.world.fails = lambda load: "BAD" in load.config.plugin_config

    # ---- what clients do

    @rule(pick=picks, model=st.sampled_from(MODELS))
    def submit(self, pick: int, model: str) -> None:
        frontend = self.frontend(pick)
        if frontend.catalogue is None:
            return
        before = len(frontend.unserved)
        frontend.ask(model)
        assert model != "a" or len(frontend.unserved) == before, "there was nothing to choose"

    @rule(pick=picks, which=picks)
    def abandon(self, pick: int, which: int) -> None:
        """Clients that give up are the other machine's."""

    # ---- what the operator does

    @rule(file=configurations)
    def file_changes(self, file: Configuration) -> None:
        self.world.write_config(file)

    @rule()
    def file_is_spoilt(self) -> None:
        self.world.write_config("not JSON")

    @rule(pick=picks, said=configurations)
    def client_reconfigures(self, pick: int, said: Configuration) -> None:
        self.frontend(pick).reconfigure(said.models)

    @rule(pick=picks)
    def client_asks_for_the_file(self, pick: int) -> None:
        self.frontend(pick).reconfigure(None)

    @rule(model=st.sampled_from(MODELS), numbers=st.sets(st.integers(2, 4)))
    def storage_changes(self, model: str, numbers: set[int]) -> None:
        self.world.store(model, 1, *numbers)

    @rule()
    def what_failed_to_load_is_mended(self) -> None:
        """Not the other way round: what is served can be loaded again after its worker's death."""
        self.world.fails = lambda _: False

    @rule()
    def kill_storekeeper(self) -> None:
        self.world.kill_storekeeper()

    # ---- what must hold

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for frontend in world.frontends.values():
            if frontend.catalogue is not None:
                frontend.ask("a")
        for _ in range(3):
            for peer in world.peers:
                peer.send()
            world.settle(40)
        for name in MODELS:
            world.storekeeper.tell(name)
        world.settle(80)
        world.check()
        assert not world.core.scheduler.requests
        assert not world.core.reconfiguration.is_restless(), "somebody is still to be answered"
        for name in world.frontends:
            self.check_answers(name)
        self.check_versions()
        self.check_workers()

    def check_answers(self, name: str) -> None:
        frontend = self.world.frontends[name]
        assert not frontend.ledger.entries, "blocks that never came back"
        for id_ in frontend.asked.keys() - frontend.given_up:
            answer = frontend.answers[id_]
            assert isinstance(answer, Completed)
            if answer.error is not None:
                assert answer.error.code is Code.INTERNAL
                deaths = self.world.deaths_in_hand.get(RequestKey(name, id_), 0)
                assert deaths >= 2, "convicted without two deaths"

    def check_versions(self) -> None:
        core = self.world.core
        configs = core.reconfiguration.in_force.models
        assert [one.config for one in core.registry.models.values()] == list(configs)
        assert self.world.storekeeper.paths == {one.name: one.base_path for one in configs}
        for model in core.registry.models.values():
            assert model.is_tried()
            failing = [one for one in model.wanted() if one.state is not VersionState.AVAILABLE]
            assert all(one.error is not None for one in failing)
            for version in model.versions.values():
                if not (version.wanted or failing):
                    assert version.state is VersionState.END, f"{version.id} is {version.state.name}"

    def check_workers(self) -> None:
        """The pools are what they are to be, but where nothing new can be loaded; what has ended is in no worker."""
        core = self.world.core
        assert {post.slot.device for post in core.fleet.posts.values()} == core.fleet.wanted.keys()
        ended = {
            version.id
            for model in core.registry.models.values()
            for version in model.versions.values()
            if version.state is VersionState.END
        }
        for device, replicas in core.fleet.wanted.items():
            posts = [post for post in core.fleet.posts.values() if post.slot.device == device]
            good = [
                post for post in posts if post.slot.of == replicas and core.fleet.is_run_as_wanted(post.slot)
            ]
            if not core.registry.view.failures:
                assert len(good) == len(posts) == replicas, "the fleet has not become what is wanted"
        for worker in self.world.workers():
            assert not ended & worker.loaded.keys()


ChangingServer.TestCase.settings = settings(
    max_examples=settings().max_examples * 3 // 5,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestChangingServer = ChangingServer.TestCase
