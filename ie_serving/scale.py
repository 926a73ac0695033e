"""`ie_serving scale`: another number of workers for a device, and the wait until they serve."""

import sys
import time
from pathlib import Path

from ie_serving.control import PoolStatus, ask_scale, ask_status, read_status
from ie_serving.errors import CommandError

_WAIT_S = 60.0
_LOOK_S = 0.25


def scale(run_dir: Path, device: str, replicas: int, *, wait: bool) -> int:
    """Ask for `replicas` workers of `device` and wait until they serve; the exit code. Raises CommandError."""
    ask_scale(run_dir, device, replicas)
    if not wait:
        print(f"device {device} is to have {replicas} worker(s)", flush=True)
        return 0
    started = time.monotonic()
    progress = _Progress()
    while True:
        pool = _pool(run_dir, device)
        elapsed = time.monotonic() - started
        if is_reached(pool, replicas):
            progress.clear()
            print(f"device {device} is served by {replicas} worker(s), after {elapsed:.1f} s", flush=True)
            return 0
        if pool.wanted != replicas:
            progress.clear()
            raise CommandError(
                f"device {device} is to have {pool.wanted} worker(s) now: somebody else scaled it"
            )
        if elapsed >= _WAIT_S:
            progress.clear()
            raise CommandError(
                f"after {_WAIT_S:g} s device {device} is served by {pool.serving} of {replicas} worker(s); "
                "it goes on, `ie_serving status` shows how far"
            )
        progress.show(f"{pool.serving} of {replicas} worker(s) serve, {elapsed:.0f} s")
        time.sleep(_LOOK_S)


def is_reached(pool: PoolStatus, replicas: int) -> bool:
    """Whether as many as wanted serve."""
    return pool.wanted == pool.serving == replicas


def _pool(run_dir: Path, device: str) -> PoolStatus:
    for pool in read_status(ask_status(run_dir)).pools:
        if pool.device == device:
            return pool
    raise CommandError(f"device {device} is not used any more")


class _Progress:
    """A line that is written over, on a terminal only."""

    def __init__(self) -> None:
        self._shows = sys.stdout.isatty()

    def show(self, text: str) -> None:
        if self._shows:
            print(f"\r{text}\x1b[K", end="", flush=True)

    def clear(self) -> None:
        self.show("")
