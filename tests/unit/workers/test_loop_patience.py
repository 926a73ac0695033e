"""How long the worker's loop waits for something to happen."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.messages import Execute, RequestKey, VersionId
from common.process import this_process
from workers.fake_engine import FakeEngine
from workers.loop import Loop

S = 1_000_000_000


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Loop]:
    """One that is not linked. A worker's own ends with its process."""
    loop = Loop("FAKE-0", tmp_path, FakeEngine(), this_process())
    yield loop
    loop._link.close()
    loop._link._transport.close()
    loop._waiter.close()
    loop._inbox.close()


@pytest.mark.parametrize(("ago_s", "at_most_s"), [(59, 1), (61, 0)])
def test_messages_do_not_put_off_the_next_look_at_runs(loop: Loop, ago_s: int, at_most_s: int) -> None:
    loop._running[0] = Execute(RequestKey("f", 1), VersionId("m", 1), 0, (), ())
    loop._poll_ns = 60 * S
    loop._polled_at = time.monotonic_ns() - ago_s * S
    assert 0 <= loop._patience() <= at_most_s * S
