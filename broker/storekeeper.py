"""The storekeeper's process: lists model storage, fetches versions from stores, and tells the broker.

    broker ──Watch, Keep, ReadConfig──▶ loop ──▶ models ──▶ pool of threads ──▶ disk, stores, configuration file
           ◀──Snapshot, ConfigRead──     ▲                      │
                                         └── eventfd: results, events of watched directories

The loop never waits for storage, so what is slow delays its own model alone. It polls, because polling is the truth for
every kind of storage, and looks at once where the file system says that something has happened. It sends a model's
whole list when that has changed, and again on every new link.
"""

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from broker.store_config import OWNER, ConfigWatch
from broker.store_events import DirectoryEvents
from broker.store_housekeeping import Housekeeping
from broker.store_model import DEBOUNCE_NS, LocalModel, StoredModel, Surroundings
from broker.store_pool import Pool
from broker.store_remote import RemoteModel
from common.config import ServerConfig, StoreEnvironment, load, peers_socket, read_store_environment
from common.log import Logging
from common.messages import ConfigRead, Keep, Message, ReadConfig, Snapshot, StorekeeperHello, Watch, Watched
from common.peer import PeerLink
from common.process import die_with_parent, this_process
from common.session import LinkUp
from common.storage.stores import is_remote, lane_of, open_store
from common.transport import Transport, Waiter

_logger = logging.getLogger("storekeeper")

_TICK_NS = 250_000_000
"""Between two looks at what nobody reports: an unanswered Hello, the model cache."""

_REST_NS = 2_000_000_000
"""The wait while there is nothing of all that and no storage is due. It need not end at all; but a wait that cannot end
by itself would make any wake-up that is lost the last one."""

LIBRARIES = ("boto3", "botocore", "s3transfer", "urllib3", "google", "azure", "requests", "watchdog")
"""What they log at DEBUG are requests with the keys that sign them."""


class Storekeeper:
    """The loop and what it last told the broker."""

    def __init__(self, config: ServerConfig, environment: StoreEnvironment | None = None) -> None:
        self._config = config
        self._environment = environment if environment is not None else StoreEnvironment()
        self._transport = Transport()
        self._waiter = Waiter()
        self._pool = Pool()
        self._waiter.add(self._pool.descriptor)
        poll_ns = int(config.poll_wait_s * 1e9) if config.poll_wait_s > 0 else None
        self._events = DirectoryEvents() if poll_ns is not None else None
        if self._events is not None:
            self._waiter.add(self._events.descriptor)
        process = this_process()
        self._link = PeerLink(
            self._transport,
            peers_socket(Path(config.run_dir)),
            f"storekeeper-{process.pid}",
            lambda: StorekeeperHello(process),
            self._waiter,
        )
        self._around = Surroundings(self._pool, poll_ns, self._note_change, time.monotonic_ns)
        self._models: dict[str, StoredModel] = {}
        self._changed: set[str] = set()
        self._told: dict[str, Snapshot] = {}
        self._watching = False
        """Whether a broker has ever said what it wants to know."""
        self._fresh: list[Message] = []
        self._config_watch = ConfigWatch(config, self._pool, self._events, self._fresh.append)
        self._housekeeping = Housekeeping(config, self._pool)

    def run(self) -> None:
        """For ever; SIGTERM ends the process as it is: what it leaves half done is removed by the next one."""
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
        messages = [message for message, _ in link.drain(now)]
        if any(isinstance(change, LinkUp) for change in link.changes()):
            self._link_up()
        for message in messages:
            self._receive(message, now)
        self._pool.settle()
        self._look_at_events(now)
        for model in self._models.values():
            model.step(now)
        self._config_watch.step(now)
        if self._watching:
            self._keep_house(now)
        self._pool.start()
        self._tell()

    def close(self) -> None:
        """Close what the loop owns."""
        for model in self._models.values():
            model.close()
        self._link.close()
        if self._events is not None:
            self._events.close()
        self._pool.close()
        self._housekeeping.cache.close()
        self._transport.close()
        self._waiter.close()

    def _wait_ns(self) -> int:
        dues = [model.due for model in self._models.values() if model.due is not None and not model.busy]
        if self._config_watch.due is not None:
            dues.append(self._config_watch.due)
        untold = self._changed or self._fresh or not self._link.linked
        rests = not (untold or self._pool.is_busy or self._keeps_house())
        return min(_TICK_NS if not rests else _REST_NS, min(dues, default=1 << 62) - time.monotonic_ns())

    # ---- the broker

    def _link_up(self) -> None:
        """The broker may be another one: it has to be told everything, and to find out what is in use."""
        self._told.clear()
        self._changed.update(self._models)
        self._housekeeping.begin_again()
        self._config_watch.linked_anew()

    def _receive(self, message: Message, now: int) -> None:
        if isinstance(message, Watch):
            self._watch(message.models, now)
        elif isinstance(message, Keep):
            self._housekeeping.keep(message.paths)
        elif isinstance(message, ReadConfig):
            self._config_watch.ask(message.id)

    def _watch(self, models: tuple[Watched, ...], now: int) -> None:
        """List these from now on, and tell everything again."""
        wanted = {watched.model: watched for watched in models}
        for name, model in list(self._models.items()):
            if name not in wanted or wanted[name].base_path != model.base_path:
                self._models.pop(name).close()
        for watched in models:
            known = self._models.get(watched.model)
            if known is None:
                self._models[watched.model] = self._make(watched)
            else:
                known.change_policy(watched.policy)
                known.wake(now)
        self._told.clear()
        self._changed.update(self._models)
        self._watching = True

    def _make(self, watched: Watched) -> StoredModel:
        if not is_remote(watched.base_path):
            return LocalModel(watched, self._around, self._events)
        cache, environment = self._housekeeping.cache, self._environment
        opener = lambda: open_store(watched.base_path, environment)  # noqa: E731 - used in one place
        return RemoteModel(watched, self._around, cache, lane_of(watched.base_path), opener)

    def _note_change(self, model: str) -> None:
        self._changed.add(model)

    def _tell(self) -> None:
        """Send what is new. Nothing before the broker has said what it wants to know."""
        if not self._watching or not self._link.linked:
            return
        for name in sorted(self._changed):
            model = self._models.get(name)
            snapshot = model.snapshot() if model is not None else None
            if snapshot is not None and self._told.get(name) != snapshot:
                self._told[name] = snapshot
                self._fresh.append(snapshot)
        self._changed.clear()
        if not self._fresh:
            return
        messages = list(self._fresh)
        self._fresh.clear()
        if not self._link.send(messages):
            self._told.clear()
            self._changed.update(self._models)
            self._fresh += [message for message in messages if isinstance(message, ConfigRead)]

    # ---- storage

    def _look_at_events(self, now: int) -> None:
        touched = self._events.touched() if self._events is not None else set()
        if not touched:
            return
        if OWNER in touched:
            self._config_watch.wake(now + DEBOUNCE_NS)
        for model in self._models.values():
            if model.owner in touched:
                model.wake(now + DEBOUNCE_NS)

    def _keeps_house(self) -> bool:
        """Whether there is a model cache, or to be one."""
        return self._housekeeping.cache.is_open or any(
            isinstance(model, RemoteModel) for model in self._models.values()
        )

    def _keep_house(self, now: int) -> None:
        if not self._keeps_house():
            return
        remote = [model for model in self._models.values() if isinstance(model, RemoteModel)]
        for model in self._housekeeping.step(remote, now):
            self._note_change(model)


def main(argv: list[str] | None = None) -> int:
    """Run the storekeeper of one run directory until it is ended."""
    parser = argparse.ArgumentParser(
        prog="broker.storekeeper", description="Lists model storage for the broker and fetches from stores."
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="run directory written by ie_serving")
    options = parser.parse_args(argv)
    config = load(options.run_dir)
    die_with_parent(os.getppid())
    Logging(config.log_level, Path(config.log_path) if config.log_path else None)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
    Storekeeper(config, read_store_environment()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
