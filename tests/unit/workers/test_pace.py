"""When a model counts as quick, and when runs in progress are looked at."""

import pytest

from common.messages import VersionId
from workers.pace import Looks, Pace, look_after

MS = 1_000_000
SLOW, QUICK, NEW = (VersionId(name, 1) for name in ("slow", "quick", "new"))


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


def looks_of(slow_ms: int = 100, quick_ms: int = 4) -> Looks:
    """With a run of each of two versions behind it."""
    looks = Looks()
    for version, took_ms in ((SLOW, slow_ms), (QUICK, quick_ms)):
        looks.begun(version, 0)
        looks.ended(version, took_ms * MS, failed=False)
    return looks


def test_looks_are_counted_from_the_first_run_and_then_from_the_last_look() -> None:
    looks = looks_of()
    looks.begun(SLOW, 500 * MS)
    assert looks.wait(500 * MS) == 100 * MS
    looks.begun(SLOW, 560 * MS)
    assert looks.wait(560 * MS) == 40 * MS, "another run does not put the look off"
    assert looks.wait(700 * MS) == 0
    looks.looked(700 * MS)
    assert looks.wait(710 * MS) == 90 * MS


def test_the_version_with_the_shortest_runs_decides_while_it_runs() -> None:
    looks = looks_of()
    looks.begun(SLOW, 0)
    looks.begun(QUICK, 0)
    looks.begun(QUICK, 0)
    assert looks.wait(0) == 10 * MS
    looks.ended(QUICK, 4 * MS, failed=False)
    assert looks.wait(0) == 10 * MS
    looks.ended(QUICK, 4 * MS, failed=False)
    assert looks.wait(0) == 100 * MS


def test_a_version_of_which_nothing_is_known_is_looked_at_often() -> None:
    looks = looks_of()
    looks.begun(SLOW, 0)
    looks.begun(NEW, 0)
    assert looks.wait(0) == 10 * MS


def test_after_a_failure_its_version_is_looked_at_often() -> None:
    looks = looks_of()
    looks.begun(SLOW, 0)
    looks.ended(SLOW, 100 * MS, failed=True)
    looks.begun(SLOW, 0)
    assert looks.wait(0) == 10 * MS


def test_a_version_that_was_unloaded_begins_anew() -> None:
    looks = looks_of()
    looks.forget(SLOW)
    looks.forget(NEW)
    looks.begun(SLOW, 0)
    assert looks.wait(0) == 10 * MS
