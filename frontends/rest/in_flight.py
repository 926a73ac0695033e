"""How many requests are under way, for who waits for their end."""

import asyncio
import time


class InFlight:
    """Of one process."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        """Set whenever the last one ends."""

    def begin(self) -> None:
        """One more."""
        self._count += 1

    def end(self) -> None:
        """One less."""
        self._count -= 1
        if not self._count:
            self._idle.set()

    async def ended(self, timeout_s: float) -> bool:
        """Wait until there are none; whether that was so in time."""
        end = time.monotonic() + timeout_s
        while self._count and (left := end - time.monotonic()) > 0:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), left)
            except asyncio.TimeoutError:  # not the built-in one before Python 3.11
                break
        return not self._count
