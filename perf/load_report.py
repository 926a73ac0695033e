"""What `perf.load` prints and writes: latencies in a histogram of bounded size, errors by code. Pure."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_LEAST_S = 1e-6
_GROWTH = 1.01
"""Each bin is so much longer than the one before: percentiles err by less than one in a hundred."""
_LOG_GROWTH = math.log(_GROWTH)
_BINS = 2400
"""Up to more than six hours."""
_ROWS = 12
_WIDTH = 50


class Latencies:
    """As many latencies as come, in bins; the greatest exactly."""

    def __init__(self) -> None:
        self._counts: npt.NDArray[np.int64] = np.zeros(_BINS, np.int64)
        self.most_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        place = int(math.log(seconds / _LEAST_S) / _LOG_GROWTH) if seconds > _LEAST_S else 0
        self._counts[min(place, _BINS - 1)] += 1
        self.most_s = max(self.most_s, seconds)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._counts.sum())

    def percentile_s(self, percent: float) -> float:
        """The latency that so many percent do not exceed; 0 where there is none."""
        total = self.count
        if not total:
            return 0.0
        rank = max(1, math.ceil(total * percent / 100))
        place = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(min(_edge(place + 1), self.most_s))

    def rows(self, most: int = _ROWS) -> list[tuple[float, float, int]]:
        """From, to [s] and how many, for up to `most` ranges of one ratio that hold all of them."""
        used = np.flatnonzero(self._counts)
        if not used.size:
            return []
        first, last = int(used[0]), int(used[-1])
        width = math.ceil((last - first + 1) / most)
        starts = range(first, last + 1, width)
        return [(_edge(at), _edge(at + width), int(self._counts[at : at + width].sum())) for at in starts]


def _edge(place: int) -> float:
    return float(_LEAST_S * _GROWTH**place)


@dataclass
class Outcome:
    """What a run has found, also while it is under way."""

    latencies: Latencies = field(default_factory=Latencies)
    """Of successes; of a fixed rate from the moment at which they were to be sent."""
    errors: Counter[str] = field(default_factory=Counter)
    """By code."""
    texts: dict[str, str] = field(default_factory=dict)
    """The first error's text of each code."""
    seconds: float = 0.0
    unsent: int = 0
    """Of a fixed rate: due, and not sent until the end, because all clients were busy."""
    latest_s: float = 0.0
    """Of a fixed rate: the longest time by which a request was sent too late."""

    def failed(self, code: str, text: str) -> None:
        """One more error."""
        self.errors[code] += 1
        self.texts.setdefault(code, text)

    @property
    def requests(self) -> int:
        """All that were answered or refused."""
        return self.latencies.count + self.errors.total()

    @property
    def rate(self) -> float:
        """Successes a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0


def text_of(outcome: Outcome) -> str:
    """What is printed."""
    latencies = outcome.latencies
    lines = [
        f"{outcome.requests} requests in {outcome.seconds:.1f} s: {latencies.count} answered "
        f"({outcome.rate:.1f}/s), {outcome.errors.total()} errors",
    ]
    if latencies.count:
        found = [f"p{percent:g} {1e3 * latencies.percentile_s(percent):.3f}" for percent in PERCENTILES]
        lines += [f"latency ms: {'  '.join(found)}  max {1e3 * latencies.most_s:.3f}", *_histogram(latencies)]
    for code, count in outcome.errors.most_common():
        lines.append(f"{count} × {code}: {outcome.texts[code]}")
    if outcome.unsent:
        lines.append(
            f"{outcome.unsent} requests were due and never sent, because all clients were busy: the latencies above "
            "are too good. Lower --rate, or raise --clients"
        )
    return "\n".join(lines)


def _histogram(latencies: Latencies) -> Sequence[str]:
    rows = latencies.rows()
    greatest = max(count for _, _, count in rows)
    return [
        f"{1e3 * begin:12.3f} – {1e3 * end:12.3f} ms |{'#' * math.ceil(_WIDTH * count / greatest):{_WIDTH}}| {count}"
        for begin, end, count in rows
    ]


def document(outcome: Outcome, options: dict[str, Any]) -> dict[str, Any]:
    """For --json."""
    latencies = outcome.latencies
    percentiles = {f"p{percent:g}": 1e3 * latencies.percentile_s(percent) for percent in PERCENTILES}
    return {
        "options": options,
        "seconds": outcome.seconds,
        "requests": outcome.requests,
        "answered": latencies.count,
        "rate": outcome.rate,
        "latency_ms": {**percentiles, "max": 1e3 * latencies.most_s},
        "histogram_ms": [[1e3 * begin, 1e3 * end, count] for begin, end, count in latencies.rows(most=100)],
        "errors": dict(outcome.errors),
        "error_texts": outcome.texts,
        "unsent": outcome.unsent,
        "latest_ms": 1e3 * outcome.latest_s,
    }
