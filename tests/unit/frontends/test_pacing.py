"""frontends.pacing: many small and quick requests are gathered, all others go at once."""

import pytest

from frontends.pacing import AT_ONCE, QUICK_NS, Pacing


def paced(*inferring: int) -> Pacing:
    made = Pacing()
    for one in inferring:
        made.answered(one)
    return made


def test_nothing_is_kept_back_before_anything_is_known() -> None:
    assert not Pacing().gathers(1000)


@pytest.mark.parametrize(
    ("in_flight", "gathers"), [(0, False), (AT_ONCE - 1, False), (AT_ONCE, True), (64, True)]
)
def test_a_few_requests_go_at_once(in_flight: int, gathers: bool) -> None:
    assert paced(10_000).gathers(in_flight) is gathers


def test_slow_models_are_not_waited_for() -> None:
    made = paced(*[10_000] * 50)
    assert made.gathers(64)
    for _ in range(50):
        made.answered(100 * QUICK_NS)
    assert not made.gathers(64)
    for _ in range(100):
        made.answered(10_000)
    assert made.gathers(64)
