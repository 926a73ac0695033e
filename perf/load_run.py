"""The clients' work in `perf.load`: one request after the other, or at a fixed rate.

A fixed rate is a timetable, and a latency counts from the moment at which the request was due. A server that stands
still for a second then costs every request that was due in that second its wait, also those that could be sent only
afterwards because all clients were busy; to count from the moment of sending would leave exactly these waits out
("coordinated omission").
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from perf.load_calls import Send
from perf.load_report import Outcome

RETRY_S = 0.05
"""Before the next request where nobody answered, so that a server that is gone is not asked in a busy loop."""
_END_S = 1.0
"""How much longer than its own bound a last request is waited for."""


async def _all(tasks: Sequence["asyncio.Future[None]"]) -> bool:
    await asyncio.gather(*tasks)
    return True


@dataclass
class Run:
    """A run under way."""

    seconds: float
    rate: float | None
    """Requests a second of all clients; None: each client sends again when it is answered."""
    timeout_s: float
    outcome: Outcome = field(default_factory=Outcome)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: no further request, and none that is under way is waited for."""
    _begun: float = 0.0
    _next: int = 0

    async def go(self, clients: Sequence[Send]) -> None:
        """Until the time is over and what was sent then is answered, or until stopped."""
        self._begun = time.monotonic()
        tasks = [asyncio.ensure_future(self._client(send)) for send in clients]
        stopped = asyncio.ensure_future(self.stop.wait())
        work = asyncio.ensure_future(_all(tasks))
        try:
            limit = self.seconds + self.timeout_s + _END_S
            await asyncio.wait([work, stopped], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            self.note_time()
            for task in (stopped, work, *tasks):
                task.cancel()
            await asyncio.gather(stopped, work, *tasks, return_exceptions=True)
        self.outcome.unsent = self._due() - self._next if self.rate else 0

    def note_time(self) -> None:
        """How long it has taken until now."""
        self.outcome.seconds = time.monotonic() - self._begun

    def _due(self) -> int:
        """Requests of the timetable up to now."""
        passed = min(time.monotonic() - self._begun, self.seconds)
        return max(self._next, int(passed * (self.rate or 0)))

    async def _client(self, send: Send) -> None:
        while True:
            due = await self._turn()
            if due is None:
                return
            failure = await send()
            if failure is None:
                self.outcome.latencies.add(time.monotonic() - due)
                continue
            self.outcome.failed(failure.code, failure.text)
            if failure.connection:
                await asyncio.sleep(RETRY_S)

    async def _turn(self) -> float | None:
        """When the request that is to be sent now counts from; None when the time is over."""
        now = time.monotonic()
        if now >= self._begun + self.seconds:
            return None
        if self.rate is None:
            return now
        due = self._begun + self._next / self.rate
        if due >= self._begun + self.seconds:
            return None
        self._next += 1
        if due > now:
            await asyncio.sleep(due - now)
        self.outcome.latest_s = max(self.outcome.latest_s, time.monotonic() - due)
        return due
