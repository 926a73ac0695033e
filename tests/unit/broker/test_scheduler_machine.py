"""broker.scheduler, all of it in any order."""

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.scheduler import Scheduler
from broker.work import Phase
from common.messages import RequestKey, VersionId
from tests.unit.broker.scheduler_check import check as check_scheduler
from tests.unit.broker.scheduler_harness import A, B, request


class Scheduling(RuleBasedStateMachine):
    """Requests, workers and deaths in any order."""

    @initialize(nireq=st.integers(1, 3))
    def start(self, nireq: int) -> None:
        self.scheduler = Scheduler()
        self.nireq = nireq
        self.now = 1
        self.next_id = 0
        self.deaths: Counter[RequestKey] = Counter()
        self.next_slot = 0

    def pick(self, items: list[Any], index: int) -> Any:
        return items[index % len(items)]

    @rule(version=st.sampled_from([A, B]), held=st.booleans())
    def submit(self, version: VersionId, held: bool) -> None:
        self.next_id += 1
        self.scheduler.submit(request(self.next_id, version, self.now), held=held)

    @rule()
    def join(self) -> None:
        if len(self.scheduler.workers) < 3:
            self.next_slot += 1
            self.scheduler.worker_joined(f"w{self.next_slot}")

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99), version=st.sampled_from([A, B]))
    def load(self, index: int, version: VersionId) -> None:
        self.scheduler.version_loaded(self.pick(sorted(self.scheduler.workers), index), version, self.nireq)

    @rule(step=st.integers(0, 5))
    def dispatch(self, step: int) -> None:
        self.now += step
        before = {one.key: one.phase for one in self.scheduler.requests.values()}
        for one in self.scheduler.dispatch(self.now):
            assert before[one.key] in (Phase.QUEUED, Phase.SUSPECT)
            worker = self.scheduler.workers[one.worker]
            assert not worker.draining
            if one.suspect:
                assert worker.in_hand == 1, "a suspect is not alone"
        self.nothing_waits_in_vain()

    def nothing_waits_in_vain(self) -> None:
        for version in self.scheduler.queued_versions():
            for worker in self.scheduler.workers.values():
                lane = worker.lanes.get(version)
                free = lane is not None and lane.credits > 0 and not worker.draining and worker.alone is None
                assert not free, f"{version} waits although {worker.slot} has a credit"

    @rule(index=st.integers(0, 99))
    def finish(self, index: int) -> None:
        running = [one for one in self.scheduler.requests.values() if one.phase is Phase.IN_HAND]
        if running:
            one = self.pick(running, index)
            assert self.scheduler.done(one.worker, one.key, self.now) is one

    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        if self.scheduler.requests:
            one = self.pick(list(self.scheduler.requests.values()), index)
            in_hand = one.phase is Phase.IN_HAND
            assert (self.scheduler.cancel(one.key) is None) == in_hand

    @rule(index=st.integers(0, 99))
    def release_held(self, index: int) -> None:
        held = self.scheduler.held()
        if held:
            self.scheduler.release_held(self.pick(held, index))

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99))
    def drain(self, index: int) -> None:
        self.scheduler.drain(self.pick(sorted(self.scheduler.workers), index))

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99), forgets=st.booleans())
    def greet_anew(self, index: int, forgets: bool) -> None:
        """A worker's Hello that lists all that it has in hand, or lacks one."""
        slot = self.pick(sorted(self.scheduler.workers), index)
        for one in self.scheduler.in_hand_of(slot)[: 1 if forgets else 0]:
            unwanted = one.abandoned
            assert self.scheduler.not_in_hand(one) is unwanted
        for one in self.scheduler.in_hand_of(slot):
            self.scheduler.adopt(one, slot, self.now)

    @precondition(lambda self: self.scheduler.workers)
    @rule(index=st.integers(0, 99), overdue=st.booleans())
    def die(self, index: int, overdue: bool) -> None:
        slot = self.pick(sorted(self.scheduler.workers), index)
        if overdue:
            self.scheduler.overdue(self.now, 3)
        had = self.scheduler.in_hand_of(slot)
        guilty = [one for one in had if one.timed_out]
        for one in had:
            self.deaths[one.key] += 1
        verdict = self.scheduler.worker_lost(slot)
        for one in verdict.convicted:
            assert one in guilty or self.deaths[one.key] >= 2
        for one in had:
            gone = one in verdict.convicted or one in verdict.dropped
            assert gone != (one.key in self.scheduler.requests)
            assert one.abandoned == (one in verdict.dropped)

    @invariant()
    def consistent(self) -> None:
        if hasattr(self, "scheduler"):
            check_scheduler(self.scheduler)
            for worker in self.scheduler.workers.values():
                for lane in worker.lanes.values():
                    assert len(lane.in_hand) <= lane.nireq + 1, "more than its credits"

    def teardown(self) -> None:
        """With a worker that lives, everything comes to its end."""
        if not hasattr(self, "scheduler"):
            return
        s = self.scheduler
        for slot in list(s.workers):
            s.worker_lost(slot)
        s.worker_joined("last")
        for version in (A, B):
            s.version_loaded("last", version, self.nireq)
        for one in s.held():
            s.release_held(one)
        for _ in range(3 * self.next_id + 3):
            s.dispatch(self.now)
            for one in s.in_hand_of("last")[:1]:
                s.done("last", one.key, self.now)
        assert not s.requests
        check_scheduler(s)


Scheduling.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestScheduling = Scheduling.TestCase
