"""Long work beside the event loop: threads that read big JSON and unpack and pack gzip.

A thread does not compute beside the loop while it holds the interpreter's lock. It gives the lock up, though, between
two steps of Python code when the loop asks for it, and zlib works without it. So the loop is held up for no longer than
the longest single step, which for JSON is the parser's own pass over the text. `share_fairly` makes the loop ask soon.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from common.errors import DeadlineExceededError, ResourceExhaustedError
from common.process import spare_heap

LONG_BYTES = 128 << 10
"""Texts from this length on are worth a thread; reading them takes some tenths of a millisecond."""

_THREADS = 2
"""One body that takes seconds leaves a way for the others."""
_SWITCH_S = 0.0005
"""How soon the loop gets the interpreter's lock back from Python code; Python's own value is ten times as long."""
_PAUSE_S = 0.00002
"""Long enough that the thread leaves its core; the system makes some 70 µs of it."""

_Result = TypeVar("_Result")


def share_fairly() -> None:
    """For the whole process, when everything is made that lives as long as it does: let the loop wait for the
    interpreter's lock no longer than it must, also when a thread makes so many objects that garbage is looked for."""
    sys.setswitchinterval(_SWITCH_S)
    spare_heap()


def give_way() -> None:
    """Called now and then by long work that is done in slices. Where the system has put this thread and the loop's on
    one core, giving up the interpreter's lock alone would leave the loop waiting for its share of that core, which
    comes after some milliseconds."""
    time.sleep(_PAUSE_S)


class Offload:
    """The threads of one process, and a bound on what waits for them."""

    def __init__(self, max_waiting: int) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rest")
        self._max_waiting = max_waiting
        self._waiting = 0

    def close(self) -> None:
        """What has not begun is not begun any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], _Result], deadline_ns: int) -> _Result:
        """What `work` returns or raises. `deadline_ns` is CLOCK_MONOTONIC.

        Raises DeadlineExceededError, ResourceExhaustedError. Work that nobody waits for any more is not begun; what has
        begun goes on, so it must not use memory that is given back meanwhile.
        """
        if self._waiting >= self._max_waiting:
            raise ResourceExhaustedError(
                f"{self._waiting} long bodies are being read on this frontend, the most that it takes"
            )
        self._waiting += 1
        try:
            running = asyncio.get_running_loop().run_in_executor(self._pool, work)
            return await asyncio.wait_for(running, max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            raise DeadlineExceededError("The deadline passed before the request was read") from None
        finally:
            self._waiting -= 1
