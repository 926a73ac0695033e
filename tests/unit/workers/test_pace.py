"""When a model counts as quick."""

import pytest

from workers.pace import Pace, look_after


def test_a_quick_model_is_quick_from_the_first_run() -> None:
    pace = Pace(1000)
    assert not pace.is_quick
    pace.record(900)
    assert pace.is_quick


def test_a_slow_model_is_not() -> None:
    pace = Pace(1000)
    for _ in range(50):
        pace.record(1001)
    assert not pace.is_quick


def test_limit_zero_means_never() -> None:
    pace = Pace(0)
    for _ in range(50):
        pace.record(0)
    assert not pace.is_quick


def test_waits_that_are_not_the_models_do_not_count() -> None:
    pace = Pace(1000)
    for number in range(64):
        pace.record(500 if number % 3 == 0 else 20_000)
    assert pace.is_quick


def test_a_model_that_becomes_slow_is_found_out_within_two_windows() -> None:
    pace = Pace(1000)
    for _ in range(40):
        pace.record(500)
    for _ in range(32):
        pace.record(5000)
    assert not pace.is_quick
    for _ in range(32):
        pace.record(500)
    assert pace.is_quick


def test_the_quickest_of_the_latest_runs() -> None:
    pace = Pace(0)
    assert pace.quickest == 0
    for nanoseconds in (900, 700, 800):
        pace.record(nanoseconds)
    assert pace.quickest == 700


@pytest.mark.parametrize(
    ("took_ms", "failed", "expected_ms"),
    [(0, False, 10), (9, False, 10), (60, False, 60), (10_000, False, 250), (60, True, 10), (0, True, 10)],
)
def test_runs_are_looked_at_as_often_as_they_end(took_ms: int, failed: bool, expected_ms: int) -> None:
    assert look_after(took_ms * 1_000_000, failed=failed) == expected_ms * 1_000_000
