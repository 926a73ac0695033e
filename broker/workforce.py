"""What the core does about workers: they come, load, fail, are replaced, die. Pure.

Registry, fleet and scheduler each know their side of a worker; here every event reaches all three, in order.
"""

from broker.commands import KillProcess
from broker.fleet import Fleet
from broker.outbox import DEBUG, ERROR, INFO, WARNING, Outbox
from broker.peers import Peers, Worker
from broker.planning import LoadCommand, UnloadCommand
from broker.registry import Registry
from broker.requests import Requests
from broker.scheduler import Scheduler
from common.messages import (
    ArenaGone,
    Deferred,
    Load,
    Loaded,
    LoadFailed,
    ProcessId,
    Resumed,
    Unload,
    Unloaded,
    VersionId,
    WorkerHello,
)

RESYNC_NS = 5_000_000_000
"""After its start a broker takes a frontend of which it has heard nothing for dead only after so long."""


class Workforce:
    """The workers' part of the core."""

    def __init__(
        self,
        scheduler: Scheduler,
        registry: Registry,
        fleet: Fleet,
        peers: Peers,
        requests: Requests,
        out: Outbox,
        started_at: int,
    ) -> None:
        self._scheduler = scheduler
        self._registry = registry
        self._fleet = fleet
        self._peers = peers
        self._requests = requests
        self._out = out
        self._started_at = started_at
        self._resync_done = False

    # ---- events

    def hello(self, identity: bytes, hello: WorkerHello, now: int) -> None:
        """A worker says what it has loaded and what it has in hand."""
        post = self._fleet.hello(hello.slot, hello.process, now)
        if post is None:
            self._out.say(
                WARNING, f"worker {hello.slot} (process {hello.process.pid}) has no place and is killed"
            )
            self._out.put(KillProcess(hello.process))
            return
        slot = hello.slot
        worker = Worker(slot, identity, hello.process, frozenset(hello.arenas))
        self._peers.add_worker(worker)
        notes = self._registry.worker_joined(
            slot, post.slot.device, trial=post.slot.trial, loaded=hello.loaded
        )
        for id_, news in notes.items():
            self._say_notes(id_, news)
        for id_ in hello.loading:
            self._registry.worker_loading(slot, id_, now)
        if not post.slot.trial:
            self._requests.worker_greeted(hello, now)
            if post.retiring:
                self._registry.drain(slot)
                self._scheduler.drain(slot)
        if self._resync_done:
            self._tell_dead_arenas(worker)

    def process_died(self, process: ProcessId, now: int) -> None:
        """A watched process has ended, which may have been a worker's."""
        worker = self._peers.remove_worker(process)
        post = self._fleet.died(process, now)
        slot = worker.slot if worker is not None else (post.slot.name if post is not None else "")
        if not slot:
            return
        post = self._fleet.posts.get(slot)
        deliberate = (post is not None and post.retiring) or self._peers.all_leaving()
        self._out.say(INFO if deliberate else WARNING, f"worker {slot} has ended")
        blamed = self._registry.worker_lost(slot, now, deliberate=deliberate)
        for version in blamed:
            self._out.say(ERROR, f"{_name(version.id)}: {version.reason}")
        self._requests.worker_died(slot, was_loading=bool(blamed))

    def loaded(self, worker: Worker, message: Loaded, _now: int) -> None:
        """A version can run there."""
        record = message.loaded
        news = self._registry.loaded(worker.slot, record)
        if worker.slot in self._scheduler.workers:
            self._scheduler.version_loaded(worker.slot, record.version, record.nireq)
        self._out.say(INFO, f"worker {worker.slot} has loaded {_name(record.version)}")
        self._say_notes(record.version, news)

    def load_failed(self, worker: Worker, message: LoadFailed, now: int) -> None:
        """A version cannot run there, for now."""
        known = self._registry.find(message.version)
        # It is tried again at every poll; the log is not to be filled with it.
        level = DEBUG if known is not None and known.reason == message.reason else ERROR
        self._registry.load_failed(worker.slot, message.version, message.reason, now)
        where = _name(message.version)
        self._out.say(level, f"{where} cannot be loaded by worker {worker.slot}: {message.reason}")

    def unloaded(self, worker: Worker, message: Unloaded, _now: int) -> None:
        """A version is forgotten there."""
        self._registry.unloaded(worker.slot, message.version)

    def deferred(self, worker: Worker, message: Deferred, now: int) -> None:
        """Requests wait there for their shapes."""
        self._scheduler.defer(worker.slot, message.keys, now)

    def resumed(self, worker: Worker, message: Resumed, now: int) -> None:
        """Their shapes are compiled."""
        self._scheduler.resume(worker.slot, message.keys, now)

    def frontend_died(self, name: str) -> None:
        """Its memory is to be unmapped."""
        for worker in self._peers.workers.values():
            self._out.send(worker.identity, ArenaGone(name))

    # ---- decisions

    def tick(self, now: int, inference_timeout_s: float, load_timeout_s: float) -> None:
        """Kill what hangs."""
        limits = int(inference_timeout_s * 1e9), int(load_timeout_s * 1e9)
        for request in self._scheduler.overdue(now, *limits):
            if request.deferred_since:
                reason = f"has been compiling one shape for more than {load_timeout_s:g} s"
            else:
                reason = f"inferred one request for more than {inference_timeout_s:g} s"
            self._kill(request.worker, reason)
        for slot in self._registry.overdue_loads(now, int(load_timeout_s * 1e9)):
            self._kill(slot, f"has been loading one version for more than {load_timeout_s:g} s")
        for process in self._fleet.overdue(now):
            self._out.say(WARNING, f"worker process {process.pid} stays silent and is killed")
            self._out.put(KillProcess(process))
        if not self._resync_done and now - self._started_at >= RESYNC_NS:
            self._resync_done = True
            for worker in self._peers.workers.values():
                self._tell_dead_arenas(worker)

    def is_restless(self) -> bool:
        """Whether `tick` has anything to watch but requests: a load, a worker to come, a broker's first seconds."""
        return not self._resync_done or self._registry.is_loading() or self._fleet.is_awaiting()

    def settle(self, now: int) -> None:
        """Let the fleet follow what has become known of its workers."""
        view = self._registry.view
        for slot in self._fleet.advance(view.serving, view.vital, now):
            self._out.say(INFO, f"worker {slot} is no longer needed or is replaced")
            self._registry.drain(slot)
            if slot in self._scheduler.workers:
                self._scheduler.drain(slot)
        for post in self._fleet.posts.values():
            # What a worker has in hand is known only once it has said Hello to this broker, or is known to be dead.
            heard = post.connected or (self._fleet.listed and post.process is None)
            if (
                post.retiring
                and not post.drained
                and heard
                and not self._scheduler.in_hand_of(post.slot.name)
            ):
                post.drained = True
                self._fleet.hurry(now)
        for device, deaths in self._fleet.failing().items():
            why = f"no worker of device {device} comes up: its process has ended {deaths} times in a row"
            for version in self._registry.device_fails(device, why):
                self._out.say(ERROR, f"{_name(version.id)}: {why}")
        for device in self._fleet.wanted:
            if self._registry.view.needs_trial(device, now):
                self._fleet.want_trial(device, now)
            elif not self._registry.view.in_quarantine(device):
                self._fleet.end_trial(device, now)

    def order(self, command: LoadCommand | UnloadCommand) -> None:
        """Have a worker load or unload a version."""
        worker = self._peers.workers.get(command.slot)
        if worker is None:
            return
        version = command.version
        if isinstance(command, UnloadCommand):
            if command.slot in self._scheduler.workers:
                self._scheduler.version_unloaded(command.slot, version.id)
            self._out.say(INFO, f"worker {command.slot} unloads {_name(version.id)}")
            self._out.send(worker.identity, Unload(version.id))
            return
        level = DEBUG if version.reason else INFO
        self._out.say(level, f"worker {command.slot} loads {_name(version.id)}")
        load = Load(version.id, version.path, version.config, command.trial)
        self._out.send(worker.identity, load)

    # ---- helpers

    def _say_notes(self, id_: VersionId, notes: list[str]) -> None:
        for note in notes:
            self._out.say(WARNING, f"{_name(id_)}: {note}")

    def _tell_dead_arenas(self, worker: Worker) -> None:
        for name in worker.arenas - self._peers.frontends.keys():
            self._out.send(worker.identity, ArenaGone(name))

    def _kill(self, slot: str, why: str) -> None:
        worker = self._peers.workers.get(slot)
        if worker is not None and not worker.kill_sent:
            worker.kill_sent = True
            self._out.say(ERROR, f"worker {slot} {why} and is killed")
            self._out.put(KillProcess(worker.process))


def _name(id_: VersionId) -> str:
    return f"model {id_.model} version {id_.version}"
