"""When a frontend sends to the broker what its clients ask for. Pure.

What comes in one round of the event loop is sent together. When many clients ask at once their requests do not come in
one round but in several that follow each other closely, and a message of its own for each wakes up the broker and a
worker for a request or two. So what is to be sent waits as long as every further round brings more. A client that is
alone does not wait: the time before, there was nothing to wait for.
"""

MOST = 32
"""Messages that are sent at once when they are there."""

LONGEST_NS = 200_000
"""That the first of them waits. Rounds in which large tensors come may take longer than what is to be saved."""


class Gathering:
    """Asked at the end of each round of the loop while something is to be sent."""

    def __init__(self) -> None:
        self._seen = 0
        """Messages that there were one round before."""
        self._since = 0
        self._last = 0
        """Messages that went together the last time."""

    def waits(self, count: int, now: int) -> bool:
        """Whether `count` messages, at least one, wait for one more round. `now` is CLOCK_MONOTONIC [ns]."""
        if not self._seen:
            self._since = now
        if self._seen < count < MOST and now - self._since < LONGEST_NS and (count > 1 or self._last > 1):
            self._seen = count
            return True
        return False

    def sent(self, count: int) -> None:
        """So many went together, whether they had waited or not."""
        self._last, self._seen = count, 0
