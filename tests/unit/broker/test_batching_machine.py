"""broker.batching, and the scheduler that makes batches, whatever comes."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.batching import BatchQueue
from broker.scheduler import Scheduler
from broker.work import Phase, Request
from common.config import BatchingParameters
from common.messages import RequestKey
from tests.unit.broker.batching_harness import (
    A,
    C,
    request,
)
from tests.unit.broker.scheduler_check import check as check_scheduler

kinds = st.integers(1, 3)


@given(
    entries=st.lists(
        st.tuples(st.integers(1, 5), kinds, st.sampled_from(["put", "take", "ahead", "remove", "again"]))
    ),
    delay=st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_a_queue_loses_nothing_and_makes_only_batches(
    entries: list[tuple[int, int, str]], delay: int
) -> None:
    queue = BatchQueue(BatchingParameters(4, delay))
    waiting: dict[RequestKey, Request] = {}
    taken: list[Request] = []
    for number, (rows, width, action) in enumerate(entries):
        now = number * 1000
        if action == "put" or (action == "again" and not taken):
            one = request(number, rows, width, at=now)
            queue.put(one)
            waiting[one.key] = one
        elif action == "again":
            one = taken.pop()
            one.single = rows == 5
            queue.put(one, first=True)
            waiting[one.key] = one
        elif action == "remove":
            if waiting:
                key = sorted(waiting)[rows % len(waiting)]
                queue.remove(key)
                del waiting[key]
        else:
            taken += checked(queue, waiting, now, delay * 1000, ahead=action == "ahead")
        queue.check()
        assert {one.key for one in queue.requests()} == set(waiting)
        assert len(queue) == len(waiting)
    while waiting:
        assert checked(queue, waiting, 1 << 50, delay * 1000, ahead=False)


def checked(
    queue: BatchQueue, waiting: dict[RequestKey, Request], now: int, delay: int, *, ahead: bool
) -> list[Request]:
    """Take a batch and see that it is one."""
    oldest = min((one.queued_at for one in waiting.values()), default=now)
    batch = queue.take(now, ahead=ahead)
    if not batch:
        assert ahead or not waiting or now - oldest < delay
        return []
    rows = [one.submit.inputs[0].shape[0] for one in batch if one.submit is not None]
    shapes = {one.submit.inputs[0].shape[1:] for one in batch if one.submit is not None}
    assert len(shapes) == 1
    assert len(batch) == 1 or (sum(rows) <= 4 and not any(one.single for one in batch))
    for one in batch:
        del waiting[one.key]
    return batch


class Machine(RuleBasedStateMachine):
    """A scheduler of two versions, one of which is inferred by batches, and all that may happen to them."""

    @initialize(nireq=st.integers(1, 2), delay=st.sampled_from([0, 1]))
    def start(self, nireq: int, delay: int) -> None:
        self.nireq, self.delay = nireq, delay
        self.s = Scheduler()
        self.now = 0
        self.numbers = 0
        self.answered: set[int] = set()
        self.gone: set[int] = set()
        self.deaths: Counter[int] = Counter()
        for slot in ("v", "w"):
            self.join(slot)

    def join(self, slot: str) -> None:
        self.s.worker_joined(slot)
        self.s.version_loaded(slot, A, self.nireq, BatchingParameters(4, self.delay))
        self.s.version_loaded(slot, C, self.nireq)

    def in_hand(self) -> list[Request]:
        return [one for slot in ("v", "w") for one in self.s.in_hand_of(slot)]

    @rule(rows=st.integers(1, 4), width=kinds, batched=st.booleans())
    def submit(self, rows: int, width: int, batched: bool) -> None:
        self.numbers += 1
        self.s.submit(request(self.numbers, rows, width, A if batched else C, self.now))

    @rule()
    def dispatch(self) -> None:
        for one in self.s.dispatch(self.now):
            assert one.phase is Phase.IN_HAND
        for slot, worker in self.s.workers.items():
            lane = worker.lanes[A]
            assert lane.batches is not None
            assert len(lane.batches) <= self.nireq + 1, "bounded"
            for batch in lane.batches:
                members = [one for one in self.s.in_hand_of(slot) if one.batch == batch]
                rows = sum(one.submit.inputs[0].shape[0] for one in members if one.submit is not None)
                assert rows <= 4
                assert len(members) == 1 or not any(one.single or one.suspect for one in members)

    @rule(ns=st.sampled_from([1, 500, 1000, 5000]))
    def time_passes(self, ns: int) -> None:
        self.now += ns

    @rule(pick=st.integers(0, 99))
    def finish(self, pick: int) -> None:
        if found := self.in_hand():
            one = found[pick % len(found)]
            assert self.s.done(one.worker, one.key, self.now, 7) is one
            self.answered.add(one.key.id)

    @rule(pick=st.integers(0, 99))
    def batch_fails(self, pick: int) -> None:
        if found := [one for one in self.in_hand() if one.running_since and one.version == A]:
            one = found[pick % len(found)]
            members = tuple(other.key for other in self.s.in_hand_of(one.worker) if other.batch == one.batch)
            if len(members) > 1:
                self.gone.update(each.key.id for each in self.s.split(one.worker, members, self.now))

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        if found := sorted(self.s.requests):
            key = found[pick % len(found)]
            if self.s.cancel(key) is not None:
                self.gone.add(key.id)

    @rule(slot=st.sampled_from(["v", "w"]), was_loading=st.booleans(), hangs=st.booleans())
    def die(self, slot: str, was_loading: bool, hangs: bool) -> None:
        if hangs:
            self.s.overdue(self.now, 2000)
        self.deaths.update(one.key.id for one in self.s.in_hand_of(slot))
        alone = {one.key.id for one in self.s.in_hand_of(slot) if self.is_alone(one)}
        verdict = self.s.worker_lost(slot, was_loading=was_loading)
        for one in verdict.convicted:
            assert one.timed_out or self.deaths[one.key.id] > 1
            assert one.key.id in alone or one.version != A
        self.gone.update(one.key.id for one in (*verdict.convicted, *verdict.dropped))
        self.join(slot)

    def is_alone(self, one: Request) -> bool:
        return [other.batch for other in self.s.in_hand_of(one.worker)].count(one.batch) == 1

    @precondition(lambda self: hasattr(self, "s"))
    @invariant()
    def consistent(self) -> None:
        check_scheduler(self.s)
        assert set(range(1, self.numbers + 1)) == self.answered | self.gone | {
            key.id for key in self.s.requests
        }

    def teardown(self) -> None:
        if not hasattr(self, "s"):
            return
        for _ in range(3 * self.numbers + 10):
            self.now += 1_000_000
            self.dispatch()
            for one in self.in_hand():
                self.s.done(one.worker, one.key, self.now)
                self.answered.add(one.key.id)
        assert not self.s.requests, "all are answered in the end"


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase
