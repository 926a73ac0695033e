"""broker.batching, and what the scheduler makes of it: which requests make one batch, when, and its fate."""

from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.batching import BatchQueue
from broker.scheduler import Scheduler
from broker.work import Phase, Request
from common.config import BatchingParameters
from common.messages import RequestKey, Submit, TensorRef, VersionId
from tests.unit.broker.scheduler_check import check as check_scheduler

A, B, C = VersionId("a", 1), VersionId("b", 1), VersionId("c", 1)
DELAY_NS = 50_000
LIMIT = 1000


def request(number: int, rows: int = 1, width: int = 4, version: VersionId = A, at: int = 0) -> Request:
    inputs = (TensorRef(0, (rows, width)), TensorRef(64, (rows,)))
    return Request(RequestKey("f1", number), version, Submit(number, version, 1, 0, inputs, (), 1 << 60), at)


def scheduler(*slots: str, nireq: int = 1, delay: int = 0, most: int = 4, bound: int = 0) -> Scheduler:
    """Whose workers run A by batches and C without."""
    made = Scheduler()
    for slot in slots:
        made.worker_joined(slot)
        made.version_loaded(slot, A, nireq, BatchingParameters(most, delay, (), bound))
        made.version_loaded(slot, C, nireq)
    return made


def submit(s: Scheduler, *requests: Request) -> list[Request]:
    for one in requests:
        s.submit(one)
    return list(requests)


def batches(s: Scheduler, now: int = 1) -> list[list[int]]:
    """What is handed out now, by batch."""
    handed = s.dispatch(now)
    check_scheduler(s)
    groups = [list(members) for _, members in groupby(handed, key=lambda one: one.batch or one.key)]
    assert all(len({one.worker for one in members}) == 1 for members in groups)
    return [[one.key.id for one in members] for members in groups]


def finish(s: Scheduler, *requests: Request, now: int = 1) -> None:
    for one in requests:
        assert s.done(one.worker, one.key, now, 5) is one
        check_scheduler(s)


# ---- which requests make a batch


def test_what_waits_when_a_slot_frees_is_one_batch() -> None:
    s = scheduler("w")
    first = submit(s, request(0))
    assert batches(s) == [[0]], "a free worker waits for nobody"
    rest = submit(s, *(request(number) for number in (1, 2, 3)))
    assert batches(s) == [], "the batch that forms is not closed while it could only wait"
    finish(s, *first)
    assert batches(s) == [[1, 2, 3]]
    finish(s, *rest)
    assert not s.is_open(A)


def test_only_a_batch_that_is_full_waits_ready_in_the_worker() -> None:
    s = scheduler("w")
    running = submit(s, *(request(number) for number in range(3)))
    assert batches(s) == [[0, 1, 2]]
    submit(s, *(request(number) for number in range(3, 6)))
    assert batches(s) == []
    submit(s, *(request(number) for number in range(6, 12)))
    assert batches(s) == [[3, 4, 5, 6]]
    assert batches(s) == [], "one is enough"
    finish(s, *running)
    assert batches(s) == [[7, 8, 9, 10]]


@pytest.mark.parametrize("nireq", [1, 2, 3])
def test_as_many_batches_run_at_once_as_there_are_slots(nireq: int) -> None:
    s = scheduler("w", nireq=nireq)
    requests = submit(s, *(request(number) for number in range(4 * 10)))
    handed = batches(s, 7)
    assert handed == [[4 * number + one for one in range(4)] for number in range(nireq + 1)]
    running = [one.key.id for one in requests if one.running_since]
    assert running == list(range(4 * nireq)), "the clock of the last one does not run"
    finish(s, *requests[:3], now=8)
    assert batches(s, 8) == []
    assert not requests[4 * nireq].running_since, "a batch occupies its slot until all of it is done"
    finish(s, requests[3], now=9)
    assert all(one.running_since == 9 for one in requests[4 * nireq : 4 * nireq + 4])


def test_rows_are_counted_and_the_order_is_kept() -> None:
    s = scheduler("w", most=8)
    running = submit(s, request(0))
    batches(s)
    submit(s, request(1, rows=3), request(2, rows=3), request(3, rows=3), request(4, rows=1))
    assert batches(s) == [[1, 2]], "the third does not fit, and the fourth does not overtake it"
    finish(s, *running)
    assert batches(s) == []


def test_requests_of_different_shapes_share_no_batch() -> None:
    s = scheduler("w")
    running = submit(s, request(0))
    batches(s)
    submit(s, request(1, width=4), request(2, width=5), request(3, width=4), request(4, width=5))
    finish(s, *running)
    assert batches(s) == [[1, 3]], "the oldest, and those like it"
    finish(s, *s.in_hand_of("w"))
    assert batches(s) == [[2, 4]]


def test_a_full_batch_of_one_kind_does_not_overtake_an_older_request_of_another() -> None:
    s = scheduler("w")
    running = submit(s, request(0))
    batches(s)
    submit(s, request(1, width=9, at=1))
    for round_ in range(3):
        submit(s, *(request(100 * round_ + number, at=2) for number in range(10, 14)))
    assert batches(s) == [], "it would be run before the older one"
    finish(s, *running)
    assert batches(s)[0] == [1]


def test_one_of_more_rows_than_fit_is_not_kept_for_ever() -> None:
    s = scheduler("w")
    submit(s, request(0, rows=9), request(1))
    assert batches(s) == [[0]]
    finish(s, *s.in_hand_of("w"))
    assert batches(s) == [[1]]


# ---- when


def test_a_delay_lets_a_batch_fill_although_a_worker_is_free() -> None:
    s = scheduler("w", delay=50)
    submit(s, request(0, at=100))
    assert batches(s, 100) == []
    assert s.next_due() == 100 + DELAY_NS
    submit(s, request(1, at=200))
    assert batches(s, 99 + DELAY_NS) == []
    assert batches(s, 100 + DELAY_NS) == [[0, 1]]
    assert s.next_due() is None


def test_a_full_batch_waits_for_nothing() -> None:
    s = scheduler("w", delay=50)
    submit(s, *(request(number) for number in range(5)))
    assert batches(s, 1) == [[0, 1, 2, 3]]
    assert s.next_due() is None, "no slot is free that anybody would have to wake up for"
    finish(s, *s.in_hand_of("w"))
    assert batches(s, 2) == []
    assert s.next_due() == DELAY_NS


def test_while_one_kind_waits_a_full_batch_of_another_goes() -> None:
    s = scheduler("w", nireq=3, delay=50)
    submit(s, request(0, width=9))
    submit(s, *(request(number, at=5) for number in range(1, 5)))
    assert batches(s, 6) == [[1, 2, 3, 4]]
    assert batches(s, DELAY_NS) == [[0]]


def test_what_was_cancelled_is_waited_for_no_longer() -> None:
    s = scheduler("w", delay=50)
    submit(s, request(0, at=0), request(1, at=40_000))
    assert batches(s, 40_000) == []
    assert s.cancel(RequestKey("f1", 0)) is not None
    assert batches(s, DELAY_NS) == []
    assert s.next_due() == 40_000 + DELAY_NS
    assert s.cancel(RequestKey("f1", 1)) is not None
    assert batches(s, 40_000 + DELAY_NS) == []
    assert s.next_due() is None


def test_versions_take_turns_by_batches() -> None:
    s = scheduler("w", nireq=2)
    s.version_loaded("w", B, 2, BatchingParameters(4))
    submit(s, *(request(number, version=A) for number in range(8)))
    submit(s, *(request(number, version=B) for number in range(10, 18)))
    submit(s, *(request(number, version=C) for number in range(20, 22)))
    assert batches(s) == [[0, 1, 2, 3], [10, 11, 12, 13], [20], [4, 5, 6, 7], [14, 15, 16, 17], [21]]


def test_batches_go_to_the_worker_with_the_least_in_hand() -> None:
    s = scheduler("v", "w")
    requests = submit(s, *(request(number) for number in range(8)))
    assert batches(s) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [requests[0].worker, requests[4].worker] == ["v", "w"]


def test_what_was_queued_before_anybody_knew_of_batches_is_gathered() -> None:
    s = Scheduler()
    submit(s, request(0), request(1))
    s.worker_joined("w")
    s.version_loaded("w", A, 1, BatchingParameters(4))
    assert batches(s) == [[0, 1]]


# ---- bounds


def test_so_many_batches_may_wait() -> None:
    s = scheduler("w", bound=2)
    refused = request(99, rows=2).submit
    assert refused is not None
    submit(s, *(request(number) for number in range(4)))
    batches(s)
    submit(s, *(request(number) for number in range(4, 8)))
    batches(s)
    submit(s, *(request(number) for number in range(8, 15)))
    assert s.refuses(refused) == "7 rows wait for model a, and max_enqueued_batches allows 8"
    one = request(15).submit
    assert one is not None
    assert s.refuses(one) == ""
    other = request(16, version=C).submit
    assert other is not None
    assert s.refuses(other) == ""


def test_without_that_option_any_number_may() -> None:
    s = scheduler("w")
    submit(s, *(request(number) for number in range(1000)))
    one = request(1000, rows=4).submit
    assert one is not None
    assert s.refuses(one) == ""


# ---- what goes wrong


def lose(s: Scheduler, slot: str = "w", **options: bool) -> list[int]:
    """A worker dies and comes again; who was convicted."""
    verdict = s.worker_lost(slot, **options)
    check_scheduler(s)
    s.worker_joined(slot)
    s.version_loaded(slot, A, 1, BatchingParameters(4))
    return sorted(one.key.id for one in verdict.convicted)


def test_a_death_makes_suspects_of_the_whole_batch_and_each_runs_again_alone() -> None:
    s = scheduler("w")
    submit(s, *(request(number) for number in range(8)))
    assert batches(s) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert lose(s) == []
    alone = []
    for number in range(3):
        alone += batches(s)
        assert alone == [[one] for one in range(number + 1)], "in an empty worker"
        finish(s, *s.in_hand_of("w"))
    assert batches(s) == [[3]]
    assert lose(s) == [3], "alone at a second death"
    assert batches(s) == [[4, 5, 6, 7]], "what waited ready is no suspect"


def test_a_batch_that_hangs_convicts_nobody_but_who_hangs_alone() -> None:
    s = scheduler("w")
    submit(s, request(0), request(1), request(2))
    batches(s, 1)
    assert len(s.overdue(1 + LIMIT, LIMIT)) == 3
    assert lose(s) == []
    assert batches(s, 2000) == [[0]]
    finish(s, *s.in_hand_of("w"), now=2001)
    assert batches(s, 2002) == [[1]]
    assert [one.key.id for one in s.overdue(2002 + LIMIT, LIMIT)] == [1]
    assert lose(s) == [1]
    assert batches(s, 4000) == [[2]]


def test_one_that_runs_as_a_batch_of_its_own_is_convicted_by_its_timeout() -> None:
    s = scheduler("w")
    submit(s, request(0))
    batches(s, 1)
    s.overdue(1 + LIMIT, LIMIT)
    assert lose(s) == [0]


def test_a_batch_that_fails_is_run_again_one_by_one() -> None:
    s = scheduler("w")
    requests = submit(s, *(request(number) for number in range(3)))
    batches(s)
    assert s.split("w", tuple(one.key for one in requests), 2) == []
    later = submit(s, request(3), request(4))
    order: list[list[int]] = []
    while s.is_open(A):
        order += batches(s)
        finish(s, *(one for one in s.in_hand_of("w") if one.running_since))
    assert sorted(map(tuple, order)) == [(0,), (1,), (2,), (3, 4)]
    assert not any(one.suspect for one in requests + later)


def test_of_a_batch_that_fails_nobody_runs_again_for_whom_nobody_waits() -> None:
    s = scheduler("w")
    requests = submit(s, *(request(number) for number in range(3)))
    batches(s)
    assert s.cancel(requests[1].key) is None
    assert s.split("w", tuple(one.key for one in requests), 2) == [requests[1]]
    check_scheduler(s)
    assert batches(s)[0] == [0]


def test_what_is_not_in_hand_cannot_fail() -> None:
    s = scheduler("v", "w")
    requests = submit(s, *(request(number) for number in range(9)))
    batches(s)
    foreign = tuple(one.key for one in requests if one.worker != "w")
    assert s.split("w", (*foreign, RequestKey("f9", 1)), 2) == []
    check_scheduler(s)
    assert s.in_hand(A) == 8


def test_a_cancelled_member_stays_lent_until_its_batch_is_done() -> None:
    s = scheduler("w")
    requests = submit(s, *(request(number) for number in range(3)))
    batches(s)
    assert s.cancel(requests[1].key) is None
    assert requests[1].abandoned
    finish(s, *requests)
    assert not s.is_open(A)


def test_an_adopted_batch_is_one_again() -> None:
    s = scheduler("w")
    number = s.new_batch()
    adopted = [request(one) for one in range(3)]
    for one in adopted:
        s.adopt(one, "w", 5, number)
    submit(s, request(10))
    assert batches(s, 6) == []
    assert all(one.running_since == 5 for one in adopted), "all of it runs"
    finish(s, *adopted[:2])
    assert batches(s, 7) == []
    assert lose(s) == []
    assert adopted[2].phase is Phase.SUSPECT


def test_an_unloaded_version_leaves_nothing_behind() -> None:
    s = scheduler("w", delay=50)
    (one,) = submit(s, request(0))
    assert batches(s, 1) == []
    s.cancel(one.key)
    s.version_unloaded("w", A)
    s.version_loaded("w", A, 1)
    submit(s, request(1), request(2))
    assert batches(s, 2) == [[1], [2]], "loaded again without batching"


# ---- whatever comes


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
