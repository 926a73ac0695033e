"""frontends.ledger: when a block is free, and what a Hello says."""

import pytest

from common.messages import Submit, VersionId
from frontends.ledger import MAX_BROKER_DEATHS, SUSPICIOUS_NS, Entry, Ledger

NOW = 10_000_000_000


def submit(id_: int) -> Submit:
    return Submit(id_, VersionId("m", 1), 1, 0, (), (), 1 << 60)


def ledger(*sent: int, unsent: tuple[int, ...] = ()) -> Ledger[Entry]:
    made: Ledger[Entry] = Ledger()
    for id_ in (*sent, *unsent):
        made.add(Entry(submit(id_)))
    for id_ in sent:
        assert made.sent(id_, NOW)
    return made


def test_numbers_are_never_used_twice() -> None:
    made: Ledger[Entry] = Ledger()
    numbers = [made.next_id() for _ in range(100)]
    assert numbers == sorted(set(numbers))
    assert 0 not in numbers


def test_an_answer_closes_the_entry_once() -> None:
    made = ledger(1)
    entry = made.close(1)
    assert entry is not None
    assert entry.submit.id == 1
    assert made.close(1) is None
    assert made.close(99) is None
    assert len(made) == 0


def test_a_request_that_no_broker_has_seen_is_free_at_once() -> None:
    made = ledger(unsent=(1,))
    assert made.abandon(1) is True
    assert len(made) == 0


def test_a_request_that_a_broker_has_seen_stays_lent() -> None:
    made = ledger(1)
    assert made.abandon(1) is False
    assert len(made) == 1
    assert made.abandoned() == (1,)
    assert made.close(1) is not None


def test_abandoning_what_is_gone_does_nothing() -> None:
    assert Ledger[Entry]().abandon(1) is False


def test_a_request_that_is_gone_must_not_be_sent() -> None:
    made = ledger(unsent=(1,))
    made.abandon(1)
    assert made.sent(1, NOW) is False


def test_a_hello_lists_what_is_wanted_and_what_is_not_and_leaves_out_what_was_never_sent() -> None:
    made = ledger(1, 2, 3, unsent=(4,))
    made.abandon(2)
    assert made.greet(NOW) == ((submit(1), submit(3)), (2,))
    assert made.unsent() == [submit(4)]


def test_unsent_ones_are_in_order() -> None:
    made = ledger(2, unsent=(1, 3, 5))
    assert [one.id for one in made.unsent()] == [1, 3, 5]


@pytest.mark.parametrize(
    ("after", "given_up"),
    [(0, [1]), (SUSPICIOUS_NS, [1]), (SUSPICIOUS_NS + 1, []), (100 * SUSPICIOUS_NS, [])],
)
def test_three_deaths_within_a_second_of_the_submit(after: int, given_up: list[int]) -> None:
    made = ledger(1)
    now = NOW
    for _ in range(MAX_BROKER_DEATHS - 1):
        now += after
        assert made.broker_died(now) == []
        made.greet(now)
    now += after
    assert made.broker_died(now) == given_up


def test_the_second_counts_from_the_last_hello() -> None:
    made = ledger(1)
    made.greet(NOW + 100 * SUSPICIOUS_NS)
    assert made.broker_died(NOW + 100 * SUSPICIOUS_NS) == []
    assert made.entries[1].broker_deaths == 1


def test_only_requests_that_every_one_of_the_dead_has_seen_are_given_up() -> None:
    made = ledger(1)
    made.broker_died(NOW)
    made.greet(NOW)
    made.add(Entry(submit(2)))
    made.sent(2, NOW)
    made.broker_died(NOW)
    made.greet(NOW)
    assert made.broker_died(NOW) == [1]
    made.greet(NOW)
    assert made.broker_died(NOW) == [2]


def test_a_given_up_request_stays_lent_and_is_given_up_once() -> None:
    made = ledger(1)
    assert [made.broker_died(NOW) for _ in range(5)] == [[], [], [1], [], []]
    assert made.greet(NOW) == ((), (1,))
    assert made.close(1) is not None


def test_what_nobody_waits_for_needs_no_failing() -> None:
    made = ledger(1)
    made.abandon(1)
    assert [made.broker_died(NOW) for _ in range(4)] == [[], [], [], []]


def test_unsent_requests_kill_no_broker() -> None:
    made = ledger(unsent=(1,))
    for _ in range(5):
        assert made.broker_died(NOW) == []
    assert made.unsent() == [submit(1)]
