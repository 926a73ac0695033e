"""broker.batching, and what the scheduler makes of it: which requests make one batch, when, and how many wait."""

import pytest

from broker.scheduler import Scheduler
from common.config import BatchingParameters
from common.messages import RequestKey
from tests.unit.broker.batching_harness import DELAY_NS, A, B, C, batches, finish, request, scheduler, submit

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
