"""The storekeeper's process: lists model storage and tells the broker, so that a slow disk delays no request.

It polls, because polling is the truth for every kind of storage; it sends a model's whole list when that has changed,
and again on every new link.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from common.config import ServerConfig, load, peers_socket
from common.log import Logging
from common.messages import Message, Snapshot, StorekeeperHello, Watch
from common.peer import PeerLink
from common.process import die_with_parent, this_process
from common.session import LinkUp
from common.storage.local import StorageError, list_versions
from common.transport import Transport, Waiter

_logger = logging.getLogger("storekeeper")

_TICK_NS = 250_000_000


def look(model: str, base_path: str) -> Snapshot:
    """A model's storage as it is now."""
    try:
        listing = list_versions(base_path)
    except StorageError as error:
        return Snapshot(model, {}, str(error), base_path=base_path)
    return Snapshot(model, listing.versions, "", listing.warnings, base_path)


class Storekeeper:
    """The loop and what it last told the broker."""

    def __init__(self, config: ServerConfig) -> None:
        self._poll_ns = int(config.poll_wait_s * 1e9) if config.poll_wait_s > 0 else None
        self._transport = Transport()
        self._waiter = Waiter()
        process = this_process()
        self._link = PeerLink(
            self._transport,
            peers_socket(Path(config.run_dir)),
            f"storekeeper-{process.pid}",
            lambda: StorekeeperHello(process),
            self._waiter,
        )
        self._paths: dict[str, str] = {}
        self._told: dict[str, Snapshot] = {}
        self._next_poll: int | None = None

    def run(self) -> None:
        """For ever; SIGTERM ends the process as it is, because it owns nothing."""
        self.start()
        while True:
            self.step()

    def start(self) -> None:
        """Greet the broker."""
        self._link.start(time.monotonic_ns())

    def step(self) -> None:
        """Wait for something to do, or for a moment, and do it."""
        link = self._link
        ready = self._waiter.wait(self._wait_ns())
        now = time.monotonic_ns()
        if link.pidfd in ready:
            link.broker_ended(now)
        link.tick(now)
        for message, _ in link.drain(now):
            self._receive(message, now)
        if any(isinstance(change, LinkUp) for change in link.changes()):
            self._told.clear()
        if self._next_poll is not None and now >= self._next_poll:
            self._poll(now)

    def close(self) -> None:
        """Close what the loop owns."""
        self._link.close()
        self._transport.close()

    def _wait_ns(self) -> int:
        if self._next_poll is None:
            return _TICK_NS
        return min(_TICK_NS, self._next_poll - time.monotonic_ns())

    def _receive(self, message: Message, now: int) -> None:
        if isinstance(message, Watch):
            self._paths = {model.model: model.base_path for model in message.models}
            self._told.clear()
            self._next_poll = now

    def _poll(self, now: int) -> None:
        fresh: list[Message] = []
        for model, path in self._paths.items():
            snapshot = look(model, path)
            if self._told.get(model) != snapshot:
                self._told[model] = snapshot
                fresh.append(snapshot)
        if fresh and not self._link.send(fresh):
            self._told.clear()
        self._next_poll = now + self._poll_ns if self._poll_ns is not None else None


def main(argv: list[str] | None = None) -> int:
    """Run the storekeeper of one run directory until it is ended."""
    parser = argparse.ArgumentParser(
        prog="broker.storekeeper", description="Lists model storage for the broker."
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="run directory written by ie_serving")
    options = parser.parse_args(argv)
    config = load(options.run_dir)
    die_with_parent(os.getppid())
    Logging(config.log_level, Path(config.log_path) if config.log_path else None)
    Storekeeper(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
