"""The broker's decisions, all of them. Pure: events and a clock value come in, commands go out.

    peers' messages ─┐              ┌─ Scheduler  which worker runs which request
    deaths (pidfds) ─┼─▶   Core   ──┼─ Registry   which version is where, in which state
    supervisord's   ─┘              └─ Fleet      which worker processes exist
    lists, clock          flush() ─▶ [Send, KillProcess, RunPrograms, SaveWanted, …]

Events only note; `flush` decides what follows from all that has been noted, once for each round of the loop, so that
under load many events are answered by few messages.

A broker that starts may be the successor of a dead one. Workers may still be running that one's requests: they are
adopted from their Hellos, and requests that frontends submit again wait until every worker that could be running them
has said Hello or is dead. See docs/architecture.md, "The protocol under failure".
"""

from collections.abc import Callable

from broker.commands import (
    Command,
    ForgetFrontend,
    KillProcess,
    RunPrograms,
    SaveWanted,
    Shutdown,
    WantedState,
    WatchProcess,
)
from broker.fleet import Fleet, Program
from broker.models import LoadCommand, Registry, UnloadCommand
from broker.outbox import ERROR, INFO, WARNING, Outbox
from broker.peers import Frontend, Peers, Worker
from broker.requests import Requests
from broker.scheduler import Scheduler
from broker.status import Whole, status_document
from common.config import ServerConfig
from common.messages import (
    Acknowledge,
    ArenaGone,
    Cancel,
    Catalogue,
    Done,
    FrontendHello,
    Leaving,
    Listening,
    Load,
    Loaded,
    LoadFailed,
    Message,
    ProcessId,
    Refused,
    RequestKey,
    ScaleQuery,
    ScaleReply,
    Snapshot,
    StatusQuery,
    StatusReply,
    StorekeeperHello,
    Submit,
    Unload,
    Unloaded,
    Watch,
    Watched,
    Welcome,
    WorkerHello,
)

RESYNC_NS = 5_000_000_000
"""After its start a broker takes a frontend of which it has heard nothing for dead only after so long."""

MAX_REPLICAS = 64


class Core:
    """All state of the broker."""

    def __init__(self, config: ServerConfig, state: WantedState, this: ProcessId, now: int) -> None:
        self._config = config
        self._this = this
        self._started_at = now
        self._saved = state
        self._announced = state.announced
        self.epoch = state.epoch
        self.scheduler = Scheduler()
        retry_ns = int(config.poll_wait_s * 1e9) if config.poll_wait_s > 0 else None
        self.registry = Registry(config.models, retry_ns)
        self.registry.restore(state.served)
        wanted = {model.target_device: config.workers for model in config.models} | state.replicas
        self.fleet = Fleet(wanted, state.slots, state.serial)
        self.peers = Peers()
        self._generation = state.epoch << 32
        self._catalogue: Catalogue | None = None
        self._out = Outbox(self.peers)
        self._requests = Requests(
            self.scheduler, self.registry, self.fleet, self.peers, self._out, config.inference_timeout_s
        )
        self._to_settle = False
        self._next_tick = now
        self._resync_done = False
        self._of_frontends: dict[type, Callable[..., None]] = {
            Submit: self._submit,
            Cancel: self._cancel,
            Acknowledge: self._acknowledge,
            Listening: self._listening,
            Refused: self._refused,
            Leaving: self._leaving,
        }
        self._of_workers: dict[type, Callable[..., None]] = {
            Loaded: self._loaded,
            LoadFailed: self._load_failed,
            Unloaded: self._unloaded,
        }

    # ---- events

    def hello(self, identity: bytes, message: Message, now: int) -> None:
        """The first message of a link."""
        self._out.send(identity, Welcome(self._this))
        if isinstance(message, FrontendHello):
            self._out.put(WatchProcess(message.process))
            self._frontend_hello(identity, message, now)
        elif isinstance(message, WorkerHello):
            self._out.put(WatchProcess(message.process))
            self._worker_hello(identity, message, now)
        elif isinstance(message, StorekeeperHello):
            models = self._config.models
            watched = tuple(Watched(one.name, one.base_path, one.version_policy) for one in models)
            self._out.send(identity, Watch(watched))
        self._to_settle = True

    def receive(self, identity: bytes, message: Message, frames: tuple[bytes, ...], now: int) -> None:
        """A message on a link whose Hello was read."""
        kind = type(message)
        frontend = self.peers.frontend_by_identity.get(identity)
        if frontend is not None and kind in self._of_frontends:
            self._of_frontends[kind](frontend, message, now)
            return
        worker = self.peers.worker_by_identity.get(identity)
        if worker is not None and isinstance(message, Done):
            self._requests.done(worker.slot, message, frames, now)
        elif worker is not None and kind in self._of_workers:
            self._of_workers[kind](worker, message, now)
        elif isinstance(message, Snapshot):
            self._snapshot(message)
        # Anything else is the last word of a peer whose death is known already.

    def control(self, identity: bytes, message: Message, now: int) -> None:
        """A question of `ie_serving status` or `ie_serving scale`."""
        if isinstance(message, StatusQuery):
            whole = Whole(self.epoch, self.scheduler, self.registry, self.fleet, self.peers)
            self._out.send(identity, StatusReply(status_document(whole)))
        elif isinstance(message, ScaleQuery):
            error = self._scale(message, now)
            self._out.send(identity, ScaleReply(error))

    def process_died(self, process: ProcessId, now: int) -> None:
        """A watched process has ended."""
        frontend = self.peers.remove_frontend(process)
        if frontend is not None:
            self._frontend_died(frontend)
        worker = self.peers.remove_worker(process)
        post = self.fleet.died(process, now)
        slot = worker.slot if worker is not None else (post.slot.name if post is not None else "")
        if slot:
            self._worker_died(slot, now)
        self._to_settle = True

    def programs_seen(self, programs: tuple[Program, ...], now: int) -> None:
        """supervisord's list of worker programs."""
        for post in self.fleet.programs_seen(programs, now):
            if post.process is not None:
                self._out.put(WatchProcess(post.process))
        self._to_settle = True

    def supervisor_unreachable(self, now: int) -> None:
        """supervisord did not answer."""
        self.fleet.unreachable(now)

    # ---- decisions

    def flush(self, now: int) -> list[Command]:
        """Decide what follows from everything noted since the last call."""
        if now >= self._next_tick:
            self._tick(now)
        if self._to_settle:
            self._settle(now)
        self._requests.dispatch(now)
        batch = self.fleet.plan(now)
        if batch is not None:
            self._save()
            self._out.put(RunPrograms(tuple(batch)))
        return self._out.take()

    def next_wake(self) -> int:
        """When `flush` is to be called even if nothing has happened."""
        if self._out or self._to_settle:
            return 0
        return min(self._next_tick, self.fleet.next_deadline())

    def _tick(self, now: int) -> None:
        """Everything that happens because time has passed, four times a second."""
        self._next_tick = now + 250_000_000
        limit = int(self._config.inference_timeout_s * 1e9)
        for request in self.scheduler.overdue(now, limit):
            self._kill_slot(
                request.worker, f"inferred one request for more than {self._config.inference_timeout_s:g} s"
            )
        for slot in self.registry.overdue_loads(now, int(self._config.load_timeout_s * 1e9)):
            self._kill_slot(
                slot, f"has been loading one version for more than {self._config.load_timeout_s:g} s"
            )
        for process in self.fleet.overdue(now):
            self._out.say(WARNING, f"worker process {process.pid} stays silent and is killed")
            self._out.put(KillProcess(process))
        if not self._resync_done and now - self._started_at >= RESYNC_NS:
            self._resync_done = True
            for worker in self.peers.workers.values():
                self._tell_dead_arenas(worker)
        self._requests.tick(now)
        self._to_settle = True

    def _settle(self, now: int) -> None:
        """Let registry, fleet and catalogue follow what has become known."""
        self._to_settle = False
        self._settle_fleet(now)
        self._publish(now)
        acknowledged = self.peers.acknowledged(self._generation)
        for command in self.registry.plan(now, acknowledged, self.scheduler.is_open):
            self._order(command)
        self._publish(now)
        self._requests.settle(self._generation)
        self._announce()

    def _order(self, command: LoadCommand | UnloadCommand) -> None:
        """Have a worker load or unload a version."""
        worker = self.peers.workers.get(command.slot)
        if worker is None:
            return
        id_ = command.version.id
        if isinstance(command, UnloadCommand):
            self.scheduler.version_unloaded(command.slot, id_)
            self._out.send(worker.identity, Unload(id_))
            return
        self._out.say(INFO, f"worker {command.slot} loads model {id_.model} version {id_.version}")
        load = Load(id_, command.version.path, command.model.config, command.trial)
        self._out.send(worker.identity, load)

    def _settle_fleet(self, now: int) -> None:
        serving = frozenset(slot for slot in self.peers.workers if self.registry.serves_all(slot))
        for slot in self.fleet.advance(serving, now):
            self._out.say(INFO, f"worker {slot} is replaced")
            self.registry.drain(slot)
            if slot in self.scheduler.workers:
                self.scheduler.drain(slot)
        for post in self.fleet.posts.values():
            # What a worker has in hand is known only once it has said Hello to this broker, or is known to be dead.
            heard = post.connected or (self.fleet.listed and post.process is None)
            if post.retiring and not post.drained and heard and not self.scheduler.in_hand_of(post.slot.name):
                post.drained = True
                self.fleet.hurry(now)
        for device in self.fleet.wanted:
            if self.registry.needs_trial(device, now):
                self.fleet.want_trial(device, now)
            elif not self.registry.in_quarantine(device):
                self.fleet.end_trial(device, now)

    def _publish(self, now: int) -> None:
        """Push the catalogue if it differs from the last one."""
        models, ready = self.registry.statuses(), self.registry.is_ready()
        last = self._catalogue
        if last is not None and last.models == models and last.ready == ready:
            return
        self._generation += 1
        self._catalogue = Catalogue(self._generation, ready, models)
        self.registry.catalogue_made(self._generation, now)
        self._save()
        for frontend in self.peers.frontends.values():
            self._out.send(frontend.identity, self._catalogue)

    def _announce(self) -> None:
        """The ready lines, or the end of a start that has failed; once per start of the server."""
        if self._announced or not self.registry.is_tried():
            return
        hopeless = self.registry.hopeless()
        if hopeless:
            self._announced = True
            self._out.put(Shutdown(1, f"no model can be served: {hopeless}"))
            return
        if sum(frontend.listening for frontend in self.peers.frontends.values()) < self._config.frontends:
            return
        self._announced = True
        self._save()
        names = [model.name for model in self._config.models]
        ports = [("gRPC", self._config.grpc_port), ("REST", self._config.rest_port)]
        for kind, port in ports:
            if port:
                self._out.say(
                    INFO, f"{kind} server listens on port {port} and will be serving models: {names}"
                )

    # ---- frontends

    def _frontend_hello(self, identity: bytes, hello: FrontendHello, now: int) -> None:
        frontend = Frontend(hello.name, identity, hello.process, hello.kind, hello.listening)
        self.peers.add_frontend(frontend)
        if self._catalogue is not None:
            self._out.send(identity, self._catalogue)
        self._requests.greeted(frontend, hello, now)

    def _submit(self, frontend: Frontend, submit: Submit, now: int) -> None:
        self._requests.submit(frontend, submit, self._generation, now)

    def _cancel(self, frontend: Frontend, cancel: Cancel, _now: int) -> None:
        self._requests.cancel(RequestKey(frontend.name, cancel.id))

    def _acknowledge(self, frontend: Frontend, message: Acknowledge, _now: int) -> None:
        frontend.acknowledged = message.generation
        self._to_settle = True

    def _listening(self, frontend: Frontend, _message: Listening, _now: int) -> None:
        frontend.listening = True
        self._to_settle = True

    def _refused(self, _frontend: Frontend, message: Refused, _now: int) -> None:
        for code, count in message.counts.items():
            self.peers.refused[code] = self.peers.refused.get(code, 0) + count

    def _leaving(self, frontend: Frontend, _message: Leaving, _now: int) -> None:
        frontend.leaving = True

    def _frontend_died(self, frontend: Frontend) -> None:
        level = INFO if frontend.leaving else WARNING
        self._out.say(level, f"frontend {frontend.name} (process {frontend.process.pid}) has ended")
        self._requests.frontend_died(frontend.name)
        self._out.put(ForgetFrontend(frontend.name))
        for worker in self.peers.workers.values():
            self._out.send(worker.identity, ArenaGone(frontend.name))

    # ---- workers

    def _worker_hello(self, identity: bytes, hello: WorkerHello, now: int) -> None:
        post = self.fleet.hello(hello.slot, hello.process, now)
        if post is None:
            self._out.say(
                WARNING, f"worker {hello.slot} (process {hello.process.pid}) has no place and is killed"
            )
            self._out.put(KillProcess(hello.process))
            return
        slot = hello.slot
        worker = Worker(slot, identity, hello.process, frozenset(hello.arenas))
        self.peers.add_worker(worker)
        self.registry.worker_joined(slot, post.slot.device, trial=post.slot.trial, loaded=hello.loaded)
        for id_ in hello.loading:
            if id_.model in self.registry.models:
                self.registry.worker_loading(slot, id_, now)
        if not post.slot.trial:
            self._requests.worker_greeted(hello, now)
            if post.retiring:
                self.registry.drain(slot)
                self.scheduler.drain(slot)
        if self._resync_done:
            self._tell_dead_arenas(worker)

    def _worker_died(self, slot: str, now: int) -> None:
        post = self.fleet.posts.get(slot)
        deliberate = (post is not None and post.retiring) or self.peers.all_leaving()
        self._out.say(INFO if deliberate else WARNING, f"worker {slot} has ended")
        blamed = self.registry.worker_lost(slot, now, deliberate=deliberate)
        for version in blamed:
            self._out.say(ERROR, f"model {version.id.model} version {version.id.version}: {version.reason}")
        self._requests.worker_died(slot, was_loading=bool(blamed))

    def _loaded(self, worker: Worker, message: Loaded, _now: int) -> None:
        record = message.loaded
        if record.version.model not in self.registry.models:
            return
        self.registry.loaded(worker.slot, record)
        if worker.slot in self.scheduler.workers:
            self.scheduler.version_loaded(worker.slot, record.version, record.nireq)
        self._out.say(
            INFO,
            f"worker {worker.slot} has loaded model {record.version.model} version {record.version.version}",
        )
        self._to_settle = True

    def _load_failed(self, worker: Worker, message: LoadFailed, now: int) -> None:
        if message.version.model not in self.registry.models:
            return
        self.registry.load_failed(worker.slot, message.version, message.reason, now)
        where = f"model {message.version.model} version {message.version.version}"
        self._out.say(ERROR, f"{where} cannot be loaded by worker {worker.slot}: {message.reason}")
        self._to_settle = True

    def _unloaded(self, worker: Worker, message: Unloaded, _now: int) -> None:
        if message.version.model in self.registry.models:
            self.registry.unloaded(worker.slot, message.version)
            self._to_settle = True

    def _tell_dead_arenas(self, worker: Worker) -> None:
        for name in worker.arenas - self.peers.frontends.keys():
            self._out.send(worker.identity, ArenaGone(name))

    def _kill_slot(self, slot: str, why: str) -> None:
        worker = self.peers.workers.get(slot)
        if worker is not None and not worker.kill_sent:
            worker.kill_sent = True
            self._out.say(ERROR, f"worker {slot} {why} and is killed")
            self._out.put(KillProcess(worker.process))

    # ---- storage and control

    def _snapshot(self, message: Snapshot) -> None:
        for warning in message.warnings:
            self._out.say(WARNING, f"model {message.model}: {warning}")
        if message.error:
            self._out.say(ERROR, f"model {message.model}: {message.error}")
        self.registry.snapshot(message)
        self._to_settle = True

    def _scale(self, query: ScaleQuery, now: int) -> str:
        if query.device not in self.fleet.wanted:
            known = ", ".join(sorted(self.fleet.wanted))
            return f"no model is served on device {query.device}; devices in use: {known}"
        if not 1 <= query.replicas <= MAX_REPLICAS:
            return f"the number of workers must be between 1 and {MAX_REPLICAS}, not {query.replicas}"
        self.fleet.scale(query.device, query.replicas, now)
        self._save()
        self._to_settle = True
        self._out.say(INFO, f"device {query.device} is scaled to {query.replicas} worker(s)")
        return ""

    # ---- helpers

    def _save(self) -> None:
        """Have the wanted state written down if it has changed; before anything that follows is acted on."""
        state = WantedState(
            self.epoch,
            self._announced,
            self.fleet.serial,
            dict(self.fleet.wanted),
            self.fleet.slots(),
            self.registry.served(),
        )
        if state != self._saved:
            self._saved = state
            self._out.put(SaveWanted(state))
