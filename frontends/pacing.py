"""When submits are sent: at once, or gathered until the next answers come. Pure.

Each message costs every process on its way a wake-up, which for a tiny model is several times what the inference costs.
With few requests in flight each goes at once. With several, of a model that answers within a fraction of a
millisecond, those that come meanwhile wait for the next answers (or GATHER_S) and travel together, as do in turn their
answers; each then waits a little, and all are served sooner.
"""

GATHER_S = 0.001
"""Longest time that a submit is kept back; uvloop's timers have whole milliseconds."""

AT_ONCE = 4
"""Requests in flight up to which nothing is kept back."""

QUICK_NS = 500_000
"""Inference time up to which answers come soon enough to be waited for."""

_WEIGHT = 8
"""The latest inference counts as one part in so many of the average."""


class Pacing:
    """Of one frontend: how long inference takes lately, over all models."""

    def __init__(self) -> None:
        self._average_ns = QUICK_NS

    def answered(self, inferring_ns: int) -> None:
        """An inference took this long."""
        self._average_ns += (inferring_ns - self._average_ns) // _WEIGHT

    def gathers(self, in_flight: int) -> bool:
        """Whether a submit should be kept back while this many requests are unanswered."""
        return in_flight >= AT_ONCE and self._average_ns < QUICK_NS
