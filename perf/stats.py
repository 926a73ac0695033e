"""From single requests to figures. Pure: arrays in, numbers out."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CLOCK_STEP_S = 1e-6
"""What h2load's log resolves: nothing took less."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Requests of one run, in any order. All arrays have shape [requests]."""

    starts: Array
    """Seconds, on any one clock."""
    latencies: Array
    """Seconds."""
    ok: npt.NDArray[np.bool_]
    hidden_errors: int = 0
    """Of those that count as ok, known to have failed without being known which (a gRPC status behind HTTP 200)."""


@dataclass(frozen=True)
class Figures:
    """What a run says. Latencies are of successes, None where there was none."""

    requests: int
    errors: int
    rate: float
    """Successes a second while every client was busy."""
    p50_ms: float | None
    p99_ms: float | None


def concatenate(parts: Sequence[Samples]) -> Samples:
    """The requests of several generators that ran together, on one clock."""
    return Samples(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.latencies for part in parts]),
        np.concatenate([part.ok for part in parts]),
        sum(part.hidden_errors for part in parts),
    )


def busy_until(starts: Array, ends: Array, clients: int) -> float:
    """The last moment at which `clients` requests were in flight; the last end where they never were.

    Each client of a generator sends its share and then stops, so that behind this moment the load fades and says
    nothing of the server under `clients`.
    """
    times = np.concatenate([ends, starts])
    steps = np.concatenate([np.full(len(ends), -1), np.full(len(starts), 1)])
    order = np.argsort(times, kind="stable")  # of equal times the end comes first: clients reuse their turn
    full = np.flatnonzero(np.cumsum(steps[order]) >= clients)
    return float(times[order][full[-1]] if len(full) else ends.max())


def summarise(samples: Samples, clients: int) -> Figures:
    """Rate, median and 99th percentile of a run of `clients` clients."""
    requests = len(samples.starts)
    failed = int(requests - samples.ok.sum())
    if failed == requests:
        return Figures(requests, requests, 0.0, None, None)
    ends = samples.starts + samples.latencies
    begin, until = float(samples.starts.min()), busy_until(samples.starts, ends, clients)
    if (ends <= until).sum() < requests / 2:  # too few requests to have a steady part
        until = float(ends.max())
    done = int((samples.ok & (ends <= until)).sum())
    truly = 1 - samples.hidden_errors / (requests - failed)
    p50, p99 = np.percentile(samples.latencies[samples.ok], [50, 99]) * 1e3
    rate = done / max(until - begin, CLOCK_STEP_S) * truly
    return Figures(requests, failed + samples.hidden_errors, rate, float(p50), float(p99))


def median(values: Sequence[float | None]) -> float | None:
    """The median of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def median_ratio(upper: Sequence[float], lower: Sequence[float]) -> float | None:
    """The median over rounds of the ratio within a round: what slows a whole round down cancels out."""
    return median([a / b if b else None for a, b in zip(upper, lower, strict=False)])
