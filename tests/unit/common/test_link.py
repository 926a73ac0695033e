"""common.link: numbers on both directions, and the verdict on each envelope."""

import pytest

from common.link import Link, Verdict
from common.messages import PROTOCOL_VERSION, Acknowledge, Envelope

EPOCH = 7


def envelope(sequence: int, epoch: int = EPOCH, protocol: int = PROTOCOL_VERSION) -> Envelope:
    return Envelope(protocol, epoch, sequence, [Acknowledge(1)])


def test_stamps_count_up_and_carry_the_epoch() -> None:
    link = Link(EPOCH)
    stamped = [link.stamp([Acknowledge(number)]) for number in range(3)]
    assert [(one.protocol, one.epoch, one.sequence) for one in stamped] == [
        (PROTOCOL_VERSION, EPOCH, 0),
        (PROTOCOL_VERSION, EPOCH, 1),
        (PROTOCOL_VERSION, EPOCH, 2),
    ]
    assert stamped[2].messages == [Acknowledge(2)]


def test_two_directions_count_by_themselves() -> None:
    link = Link(EPOCH)
    link.stamp([])
    link.stamp([])
    assert link.judge(envelope(0)) is Verdict.ACCEPT
    assert link.stamp([]).sequence == 2


@pytest.mark.parametrize(
    ("arriving", "verdicts"),
    [
        ([0, 1, 2], "AAA"),
        ([0, 0, 1, 0, 1, 2], "ADADDA"),
        ([0, 2], "AG"),
        ([1], "G"),
        ([0, 2, 1, 2], "AGAA"),
        ([0, 5, 5, 1], "AGGA"),
    ],
)
def test_repeats_are_dropped_and_gaps_are_seen(arriving: list[int], verdicts: str) -> None:
    link = Link(EPOCH)
    letters = {Verdict.ACCEPT: "A", Verdict.DROP: "D", Verdict.GAP: "G"}
    assert "".join(letters[link.judge(envelope(number))] for number in arriving) == verdicts


@pytest.mark.parametrize("sequence", [0, 1, 5])
@pytest.mark.parametrize(
    ("epoch", "protocol"),
    [(EPOCH - 1, PROTOCOL_VERSION), (EPOCH + 1, PROTOCOL_VERSION), (0, PROTOCOL_VERSION), (EPOCH, 99)],
)
def test_foreign_envelopes_are_dropped_and_not_counted(sequence: int, epoch: int, protocol: int) -> None:
    link = Link(EPOCH)
    assert link.judge(envelope(sequence, epoch, protocol)) is Verdict.DROP
    assert link.judge(envelope(0)) is Verdict.ACCEPT


def test_the_brokers_end_has_read_the_hello() -> None:
    link = Link.greeted(EPOCH)
    assert link.judge(envelope(0)) is Verdict.DROP
    assert link.judge(envelope(1)) is Verdict.ACCEPT
    assert link.stamp([]).sequence == 0
