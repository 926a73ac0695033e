"""From requests to figures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.stats import Samples, busy_until, concatenate, median, median_ratio, summarise


def closed_loop(durations: list[list[float]]) -> Samples:
    """Clients that each send one request after the other, of the given durations."""
    starts = [sum(client[:i]) for client in durations for i in range(len(client))]
    latencies = [duration for client in durations for duration in client]
    return Samples(np.array(starts), np.array(latencies), np.ones(len(starts), np.bool_))


def test_rate_and_percentiles_of_even_clients() -> None:
    figures = summarise(closed_loop([[0.01] * 100] * 4), 4)
    assert (figures.requests, figures.errors) == (400, 0)
    assert figures.rate == pytest.approx(400, rel=0.02)
    assert figures.p50_ms == pytest.approx(10)
    assert figures.p99_ms == pytest.approx(10)


def test_the_fading_end_does_not_count() -> None:
    """One client is a third slower: alone at the end, it would pull the rate down."""
    samples = closed_loop([[0.01] * 300, [0.015] * 300])
    assert summarise(samples, 2).rate == pytest.approx(100 + 1 / 0.015, rel=0.02)


def test_the_99th_percentile_sees_the_tail() -> None:
    figures = summarise(closed_loop([[0.001] * 95 + [0.1] * 5]), 1)
    assert figures.p50_ms == pytest.approx(1)
    assert figures.p99_ms == pytest.approx(100)


def test_failures_have_no_latency_and_no_rate() -> None:
    even = closed_loop([[0.01] * 100])
    ok = np.arange(100) % 2 == 0
    latencies = np.where(ok, 0.01, 0.0001)
    figures = summarise(Samples(even.starts, latencies, ok), 1)
    assert figures.errors == 50
    assert figures.rate == pytest.approx(50, rel=0.05)
    assert figures.p50_ms == pytest.approx(10)


def test_a_run_that_is_all_beginning_has_a_rate() -> None:
    """Each client's only request begins later than the one before, and none ends before all have begun."""
    starts = np.array([0.0, 0.004, 0.008, 0.011])
    figures = summarise(Samples(starts, np.full(4, 0.012), np.ones(4, np.bool_)), 4)
    assert figures.rate == pytest.approx(4 / 0.023)


def test_nothing_succeeded() -> None:
    samples = Samples(np.zeros(3), np.zeros(3), np.zeros(3, np.bool_))
    figures = summarise(samples, 1)
    assert (figures.errors, figures.rate, figures.p50_ms, figures.p99_ms) == (3, 0.0, None, None)


def test_hidden_errors_lower_the_rate() -> None:
    even = closed_loop([[0.01] * 100])
    figures = summarise(Samples(even.starts, even.latencies, even.ok, hidden_errors=25), 1)
    assert figures.errors == 25
    assert figures.rate == pytest.approx(75, rel=0.03)


def test_parts_are_put_together() -> None:
    one, two = closed_loop([[0.01] * 100]), closed_loop([[0.01] * 100])
    assert summarise(concatenate([one, two]), 2) == summarise(closed_loop([[0.01] * 100] * 2), 2)


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=20), min_size=1, max_size=6))
def test_clients_are_busy_until_the_first_has_sent_its_last(durations: list[list[int]]) -> None:
    samples = closed_loop([[float(duration) for duration in client] for client in durations])
    last = busy_until(samples.starts, samples.starts + samples.latencies, len(durations))
    first_end = min(sum(client) for client in durations)
    assert last < first_end
    later = [s for s, d in zip(samples.starts, samples.latencies, strict=True) if last < s < first_end]
    assert later == []


@given(st.lists(st.lists(st.integers(1, 50), min_size=2, max_size=20), min_size=1, max_size=6))
def test_figures_are_always_sane(durations: list[list[int]]) -> None:
    figures = summarise(
        closed_loop([[float(each) for each in client] for client in durations]), len(durations)
    )
    shortest = min(min(client) for client in durations)
    assert 0 < figures.rate <= len(durations) / shortest * 1.0001
    assert figures.p50_ms is not None
    assert figures.p99_ms is not None
    assert shortest * 1e3 <= figures.p50_ms <= figures.p99_ms


def test_median_leaves_out_what_is_unknown() -> None:
    assert median([3.0, None, 1.0, 2.0]) == 2.0
    assert median([None]) is None
    assert median([]) is None


def test_ratios_are_taken_within_rounds() -> None:
    # The machine was twice as slow in the second round: the ratio stays.
    assert median_ratio([80, 40, 80], [100, 50, 100]) == pytest.approx(0.8)
    assert median_ratio([1.0], [0.0]) is None
    assert median_ratio([], []) is None
