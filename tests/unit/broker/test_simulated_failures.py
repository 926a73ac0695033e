"""The protocol under failure, through every order of events: nothing lost, in two hands, or freed early.

`make test-deep` runs many times as many courses of events as `make test` does.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.config import BatchingParameters
from common.errors import Code
from common.messages import Completed, RequestKey, Stale, VersionId
from tests.unit.broker.simulated_peers import SECOND, SimFrontend
from tests.unit.broker.simulation import World, settled

MODELS = ("a", "b")
BATCHING: tuple[dict[str, BatchingParameters], ...] = (
    {},
    {"a": BatchingParameters(3)},
    {"a": BatchingParameters(4, 100_000), "b": BatchingParameters(2)},
)
picks = st.integers(0, 1 << 16)


class FailingServer(RuleBasedStateMachine):
    """Two models, two workers, two frontends, and whatever may happen to them."""

    world: World
    submitted: dict[str, set[int]]

    @initialize(workers=st.integers(1, 2), nireq=st.integers(1, 2), batching=st.sampled_from(BATCHING))
    def start(self, workers: int, nireq: int, batching: dict[str, BatchingParameters]) -> None:
        self.world = settled(*MODELS, workers=workers, nireq=nireq, batching=batching)
        self.world.add_frontend("f2")
        self.world.settle(2)
        self.submitted = {"f1": set(), "f2": set()}
        self.born = 2

    def frontend(self, pick: int) -> SimFrontend:
        names = sorted(self.world.frontends)
        return self.world.frontends[names[pick % len(names)]]

    # ---- what clients do

    @rule(pick=picks, model=st.sampled_from(MODELS))
    def submit(self, pick: int, model: str) -> None:
        frontend = self.frontend(pick)
        self.submitted[frontend.name].add(frontend.submit(VersionId(model, 1)))

    @rule(pick=picks, which=picks)
    def abandon(self, pick: int, which: int) -> None:
        frontend = self.frontend(pick)
        wanted = sorted(id_ for id_, entry in frontend.ledger.entries.items() if not entry.abandoned)
        if wanted:
            frontend.abandon(wanted[which % len(wanted)])

    # ---- what the network and the processes do

    @rule(pick=picks)
    def deliver_one_to_broker(self, pick: int) -> None:
        sending = [peer for peer in self.world.peers if peer.outbound]
        if sending:
            self.world.deliver_to_broker(sending[pick % len(sending)])

    @rule()
    def broker_round(self) -> None:
        self.world.step_broker()

    @rule(pick=picks)
    def deliver_one_from_broker(self, pick: int) -> None:
        receiving = [peer for peer in self.world.peers if peer.inbound]
        if receiving:
            receiving[pick % len(receiving)].deliver_inbound()

    @rule(pick=picks, index=picks)
    def worker_finishes(self, pick: int, index: int) -> None:
        busy = [worker for worker in self.world.workers() if worker.in_hand]
        if busy:
            busy[pick % len(busy)].finish(index)

    @rule(pick=picks, index=picks)
    def a_batch_fails(self, pick: int, index: int) -> None:
        busy = [worker for worker in self.world.workers() if worker.batches]
        if busy:
            busy[pick % len(busy)].fail_batch(index)

    @rule(pick=picks)
    def worker_loads(self, pick: int) -> None:
        loading = [worker for worker in self.world.workers() if worker.loading and worker.linked]
        if loading:
            loading[pick % len(loading)].finish_load()

    @rule()
    def supervisord_works(self) -> None:
        self.world.run_batch()

    @rule(ns=st.sampled_from([SECOND // 20, SECOND // 2, 2 * SECOND, 6 * SECOND]))
    def time_passes(self, ns: int) -> None:
        self.world.pass_time(ns)

    @rule(count=st.integers(1, 4), pick=picks, model=st.sampled_from(MODELS))
    def burst(self, count: int, pick: int, model: str) -> None:
        """Requests that reach workers, which keep them in hand."""
        for step in range(count):
            self.submit(pick + step, model)
        self.flow(3)

    @rule(rounds=st.integers(1, 6))
    def flow(self, rounds: int) -> None:
        for _ in range(rounds):
            self.world.flow()
            self.world.pass_time(SECOND // 20)

    # ---- what goes wrong

    @rule(pick=picks)
    def kill_worker(self, pick: int) -> None:
        workers = self.world.workers()
        if workers:
            self.world.kill_worker(workers[pick % len(workers)])

    @rule()
    def kill_broker(self) -> None:
        self.world.kill_broker()

    @precondition(lambda self: len(self.world.frontends) > 1)
    @rule(pick=picks)
    def kill_frontend(self, pick: int) -> None:
        name = self.frontend(pick).name
        self.world.kill_frontend(name)
        self.born += 1
        self.world.add_frontend(f"f{self.born}")
        self.submitted[f"f{self.born}"] = set()

    @rule(pick=picks)
    def lose_a_message(self, pick: int) -> None:
        """No transport of ours does this; the sequence numbers are there for the day one does."""
        sending = [peer for peer in self.world.peers if peer.outbound and peer.linked]
        if sending:
            sending[pick % len(sending)].outbound.popleft()

    @rule(replicas=st.integers(1, 3))
    def scale(self, replicas: int) -> None:
        self.world.scale("CPU", replicas)

    # ---- what must hold

    @invariant()
    def nothing_in_two_hands_nothing_freed_early(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        for _ in range(3):
            # A lost message shows itself by the next one on its link.
            for peer in world.peers:
                peer.send()
            for frontend in world.frontends.values():
                self.submitted[frontend.name].add(frontend.submit(VersionId("a", 1)))
            world.settle(30)
        world.check()
        for frontend in world.frontends.values():
            left = {id_: entry.abandoned for id_, entry in frontend.ledger.entries.items()}
            assert not left, f"{frontend.name} never got its blocks back: {left}"
            for id_ in self.submitted[frontend.name] - frontend.abandoned - frontend.given_up:
                self.check_answer(frontend, id_)
        assert not world.core.scheduler.requests
        replicas = world.core.fleet.wanted["CPU"]
        assert len(world.workers()) == replicas, "the fleet has not become what is wanted"

    def check_answer(self, frontend: SimFrontend, id_: int) -> None:
        answer = frontend.answers[id_]
        assert not isinstance(answer, Stale), "version 1 never left"
        assert isinstance(answer, Completed)
        if answer.error is not None:
            assert answer.error.code is Code.INTERNAL
            deaths = self.world.deaths_in_hand.get(RequestKey(frontend.name, id_), 0)
            assert deaths >= 2, "convicted without two deaths"


FailingServer.TestCase.settings = settings(
    max_examples=settings().max_examples,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestFailingServer = FailingServer.TestCase


def test_a_request_is_answered() -> None:
    world = settled("a")
    frontend = world.frontends["f1"]
    id_ = frontend.submit(VersionId("a", 1))
    world.settle(2)
    answer = frontend.answers[id_]
    assert isinstance(answer, Completed)
    assert answer == Completed(id_, timing=answer.timing)


def test_what_is_cancelled_before_its_worker_says_hello_is_not_released_before_it_is_done() -> None:
    world = settled("a")
    frontend = world.frontends["f1"]
    (worker,) = world.workers()
    id_ = frontend.submit(VersionId("a", 1))
    world.flow()
    world.kill_broker()
    world.deliver_to_broker(frontend)
    world.step_broker()
    while frontend.inbound:
        frontend.deliver_inbound()
    frontend.abandon(id_)
    world.deliver_to_broker(frontend)
    world.flow()
    world.flow()
    assert [execute.key.id for execute in worker.in_hand] == [id_]
    assert id_ not in frontend.freed
    worker.finish()
    world.flow()
    assert id_ in frontend.freed
    assert not world.core.scheduler.requests
