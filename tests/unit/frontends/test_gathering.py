"""When what is gathered is sent."""

from frontends.gathering import LONGEST_NS, MOST, Gathering

NOW = 10**12


def play(gathering: Gathering, *counts: int, now: int = NOW, step: int = 1000) -> list[int]:
    """What is sent, as each round has so many messages waiting; a round takes `step`."""
    sent = []
    for number, count in enumerate(counts):
        if not gathering.waits(count, now + number * step):
            gathering.sent(count)
            sent.append(count)
    return sent


def test_one_that_is_alone_goes_at_once() -> None:
    gathering = Gathering()
    assert play(gathering, 1, 1, 1) == [1, 1, 1]


def test_what_comes_together_waits_until_a_round_brings_nothing() -> None:
    assert play(Gathering(), 2, 5, 9, 9) == [9]


def test_the_first_of_many_waits_for_the_others() -> None:
    gathering = Gathering()
    assert play(gathering, 4, 4) == [4]
    assert play(gathering, 1, 3, 4, 4) == [4]


def test_who_is_alone_again_has_waited_once() -> None:
    gathering = Gathering()
    assert play(gathering, 4, 4) == [4]
    assert play(gathering, 1, 1) == [1], "one further round"
    assert play(gathering, 1) == [1]


def test_many_go_at_once() -> None:
    assert play(Gathering(), MOST) == [MOST]
    assert play(Gathering(), MOST - 1, MOST) == [MOST]


def test_rounds_that_take_long_are_not_waited_for() -> None:
    assert play(Gathering(), 2, 3, step=LONGEST_NS) == [3]
    gathering = Gathering()
    assert play(gathering, *range(2, MOST), step=LONGEST_NS // 4) == [6, 11, 16, 21, 26, 31]


def test_what_was_sent_otherwise_begins_anew() -> None:
    gathering = Gathering()
    assert gathering.waits(3, NOW)
    gathering.sent(3)
    assert gathering.waits(1, NOW + 10 * LONGEST_NS), "three went together, and this is the first of others"
