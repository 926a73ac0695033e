"""Threads beside the loop, by events instead of time."""

import asyncio
import threading
import time

import pytest

from common.errors import DeadlineExceededError, InvalidArgumentError, ResourceExhaustedError
from frontends.rest.offload import Offload

NEVER = 1 << 62


def refuse() -> None:
    raise InvalidArgumentError("no")


def test_results_and_errors_come_back() -> None:
    async def run() -> None:
        offload = Offload(2)
        assert await offload.run(threading.get_ident, NEVER) != threading.get_ident()
        with pytest.raises(InvalidArgumentError):
            await offload.run(refuse, NEVER)
        offload.close()

    asyncio.run(run())


def test_the_loop_goes_on_meanwhile_and_what_waits_is_bounded() -> None:
    async def run() -> None:
        offload = Offload(3)
        go = threading.Event()
        running = [asyncio.ensure_future(offload.run(go.wait, NEVER)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhaustedError, match="3 long bodies"):
            await offload.run(go.wait, NEVER)
        go.set()
        assert await asyncio.gather(*running) == [True, True, True]
        assert await offload.run(lambda: 1, NEVER) == 1
        offload.close()

    asyncio.run(run())


def test_the_deadline_and_a_cancellation_end_the_wait_and_what_has_not_begun() -> None:
    async def run() -> None:
        offload = Offload(10)
        go = threading.Event()
        begun: list[int] = []
        busy = [asyncio.ensure_future(offload.run(go.wait, NEVER)) for _ in range(2)]
        gone = asyncio.ensure_future(offload.run(lambda: begun.append(1), NEVER))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceededError):
            await offload.run(lambda: begun.append(2), time.monotonic_ns())
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        go.set()
        await asyncio.gather(*busy)
        assert await offload.run(lambda: 3, NEVER) == 3
        assert begun == []
        offload.close()

    asyncio.run(run())
