"""perf.relay: a message goes round through three processes."""

from perf.relay import run


def test_a_relay_is_measured_after_its_start() -> None:
    figures = run(0.2)
    assert figures.errors == 0
    assert figures.requests > 10
    assert figures.p50_ms is not None
    # One message at a time: the rate follows from the latencies.
    assert 0 < figures.p50_ms < 1000
    assert figures.rate < 1.2e3 / (figures.p50_ms / 2)
