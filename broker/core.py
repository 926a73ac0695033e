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
    Say,
    Send,
    Shutdown,
    WantedState,
    WatchProcess,
)
from broker.fleet import Fleet, Program
from broker.models import LoadCommand, Registry
from broker.peers import Frontend, Peers, Worker
from broker.scheduler import Request, Scheduler
from broker.status import Whole, status_document
from common.config import ServerConfig
from common.errors import Code, WireError
from common.messages import (
    Acknowledge,
    ArenaGone,
    Cancel,
    Catalogue,
    Completed,
    Done,
    Execute,
    FrontendHello,
    Listening,
    Load,
    Loaded,
    LoadFailed,
    Message,
    ProcessId,
    Refused,
    Released,
    RequestKey,
    ScaleQuery,
    ScaleReply,
    Snapshot,
    Stale,
    StatusQuery,
    StatusReply,
    StorekeeperHello,
    Submit,
    Timing,
    Unload,
    Unloaded,
    VersionId,
    Watch,
    Welcome,
    WorkerHello,
)

DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40

RESYNC_NS = 5_000_000_000
"""After its start a broker takes a frontend of which it has heard nothing for dead only after so long."""

MAX_REPLICAS = 64

_CONVICTED = WireError(
    Code.INTERNAL, "Inference ended its worker process twice; the request will not be tried again"
)
_EXPIRED = WireError(Code.DEADLINE_EXCEEDED, "The deadline passed while the request waited for a worker")


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
        self._out: list[Command] = []
        self._to_settle = False
        self._next_tick = now
        self._unclaimed: dict[RequestKey, tuple[Done, tuple[bytes, ...], int]] = {}
        self._pending_releases: list[RequestKey] = []
        self._resync_done = False
        self._handlers: dict[type, Callable[..., None]] = {
            Submit: self._submit,
            Cancel: self._cancel,
            Acknowledge: self._acknowledge,
            Listening: self._listening,
            Refused: self._refused,
            Loaded: self._loaded,
            LoadFailed: self._load_failed,
            Unloaded: self._unloaded,
            Snapshot: self._snapshot,
        }

    # ---- events

    def hello(self, identity: bytes, message: Message, now: int) -> None:
        """The first message of a link."""
        self._send(identity, Welcome(self._this))
        if isinstance(message, FrontendHello):
            self._out.append(WatchProcess(message.process))
            self._frontend_hello(identity, message, now)
        elif isinstance(message, WorkerHello):
            self._out.append(WatchProcess(message.process))
            self._worker_hello(identity, message, now)
        elif isinstance(message, StorekeeperHello):
            self._send(identity, Watch({model.name: model.base_path for model in self._config.models}))
        self._to_settle = True

    def receive(self, identity: bytes, message: Message, frames: tuple[bytes, ...], now: int) -> None:
        """A message on a link whose Hello was read."""
        if isinstance(message, Done):
            self._done(identity, message, frames, now)
            return
        handler = self._handlers.get(type(message))
        if handler is None:
            self._say(ERROR, f"a peer sent {type(message).__name__}, which the broker does not take")
        else:
            handler(identity, message, now)

    def control(self, identity: bytes, message: Message, now: int) -> None:
        """A question of `ie_serving status` or `ie_serving scale`."""
        if isinstance(message, StatusQuery):
            whole = Whole(self.epoch, self.scheduler, self.registry, self.fleet, self.peers)
            self._send(identity, StatusReply(status_document(whole)))
        elif isinstance(message, ScaleQuery):
            error = self._scale(message, now)
            self._send(identity, ScaleReply(error))

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
                self._out.append(WatchProcess(post.process))
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
        for request in self.scheduler.dispatch(now):
            self._execute(request, now)
        batch = self.fleet.plan(now)
        if batch is not None:
            self._save()
            self._out.append(RunPrograms(tuple(batch)))
        out, self._out = self._out, []
        return out

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
            self._say(WARNING, f"worker process {process.pid} stays silent and is killed")
            self._out.append(KillProcess(process))
        if not self._resync_done and now - self._started_at >= RESYNC_NS:
            self._resync_done = True
            for worker in self.peers.workers.values():
                self._tell_dead_arenas(worker)
        for key in [key for key, entry in self._unclaimed.items() if now >= entry[2]]:
            del self._unclaimed[key]
        self._to_settle = True

    def _settle(self, now: int) -> None:
        """Let registry, fleet and catalogue follow what has become known."""
        self._to_settle = False
        self._settle_recovery()
        self._settle_fleet(now)
        self._publish(now)
        for command in self.registry.plan(
            now, self.peers.acknowledged(self._generation), self.scheduler.is_open
        ):
            worker = self.peers.workers.get(command.slot)
            if worker is None:
                continue
            if isinstance(command, LoadCommand):
                config = command.model.config
                self._say(
                    INFO,
                    f"worker {command.slot} loads model {config.name} version {command.version.id.version}",
                )
                load = Load(
                    command.version.id,
                    command.version.path,
                    config.nireq,
                    config.plugin_config,
                    command.trial,
                )
                self._send(worker.identity, load)
            else:
                self.scheduler.version_unloaded(command.slot, command.version.id)
                self._send(worker.identity, Unload(command.version.id))
        self._publish(now)
        self._settle_stale()
        self._announce()

    def _settle_recovery(self) -> None:
        """Requests that were held back because a worker unheard might be running them."""
        silent = self.fleet.silent_devices()
        if silent is None:
            return
        for request in self.scheduler.held():
            if self._device(request.version) not in silent:
                self.scheduler.release_held(request)
        if not silent:
            pending, self._pending_releases = self._pending_releases, []
            for key in pending:
                self._abandoned_again(key)

    def _settle_fleet(self, now: int) -> None:
        serving = frozenset(slot for slot in self.peers.workers if self.registry.serves_all(slot))
        for slot in self.fleet.advance(serving, now):
            self._say(INFO, f"worker {slot} is replaced")
            self.registry.drain(slot)
            if slot in self.scheduler.workers:
                self.scheduler.drain(slot)
        for post in self.fleet.posts.values():
            # What a worker has in hand is known only once it has said Hello to this broker.
            heard = post.connected or post.process is None
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
            self._send(frontend.identity, self._catalogue)

    def _settle_stale(self) -> None:
        """Requests queued for a version that can never run any more are sent back to be resolved anew."""
        for version in self.scheduler.queued_versions():
            if self._may_wait(version):
                continue
            for key in self.scheduler.queued_keys(version):
                self.scheduler.cancel(key)
                self._to_frontend(key.frontend, Stale(key.id, self._generation))

    def _announce(self) -> None:
        """The ready lines, or the end of a start that has failed; once per start of the server."""
        if self._announced or not self.registry.is_tried():
            return
        hopeless = self.registry.hopeless()
        if hopeless:
            self._announced = True
            self._out.append(Shutdown(1, f"no model can be served: {hopeless}"))
            return
        if sum(frontend.listening for frontend in self.peers.frontends.values()) < self._config.frontends:
            return
        self._announced = True
        self._save()
        names = [model.name for model in self._config.models]
        ports = [("gRPC", self._config.grpc_port), ("REST", self._config.rest_port)]
        for kind, port in ports:
            if port:
                self._say(INFO, f"{kind} server listens on port {port} and will be serving models: {names}")

    # ---- frontends

    def _frontend_hello(self, identity: bytes, hello: FrontendHello, now: int) -> None:
        frontend = Frontend(hello.name, identity, hello.process, hello.kind, hello.listening)
        self.peers.add_frontend(frontend)
        if self._catalogue is not None:
            self._send(identity, self._catalogue)
        listed = {submit.id for submit in hello.requests} | set(hello.abandoned)
        for request in self.scheduler.of_frontend(hello.name):
            if request.key.id not in listed:
                self.scheduler.cancel(request.key)
        for submit in hello.requests:
            self._resubmit(frontend, submit, now)
        for id_ in hello.abandoned:
            self._abandoned_again(RequestKey(hello.name, id_))

    def _resubmit(self, frontend: Frontend, submit: Submit, now: int) -> None:
        key = RequestKey(frontend.name, submit.id)
        known = self.scheduler.requests.get(key)
        if known is not None:
            known.submit = submit
            known.abandoned = False
            return
        unclaimed = self._unclaimed.pop(key, None)
        if unclaimed is not None:
            done, frames, _ = unclaimed
            self._send(frontend.identity, Completed(submit.id, done.outputs, done.error), frames)
            return
        silent = self.fleet.silent_devices()
        held = silent is None or self._device(submit.version) in silent
        self.scheduler.submit(Request(key, submit.version, submit, now), held=held)

    def _abandoned_again(self, key: RequestKey) -> None:
        """A lent block whose request nobody wants: released when no worker can be running it."""
        self._unclaimed.pop(key, None)
        if key in self.scheduler.requests:
            self._cancel_key(key)
        elif self.fleet.silent_devices() == frozenset():
            self._release(key.frontend, key.id)
        else:
            self._pending_releases.append(key)

    def _submit(self, identity: bytes, submit: Submit, now: int) -> None:
        frontend = self.peers.frontend_by_identity.get(identity)
        if frontend is None:
            return
        if not self._may_wait(submit.version):
            self._send(identity, Stale(submit.id, self._generation))
            return
        key = RequestKey(frontend.name, submit.id)
        if key not in self.scheduler.requests:
            self.scheduler.submit(Request(key, submit.version, submit, now))

    def _may_wait(self, version: VersionId) -> bool:
        """Whether requests for the version may queue: it is served, or a new broker does not know it yet."""
        if self.registry.accepts(version):
            return True
        return self.registry.find(version) is None and self._is_recovering(version)

    def _is_recovering(self, version: VersionId) -> bool:
        model = self.registry.models.get(version.model)
        silent = self.fleet.silent_devices()
        return model is not None and (
            silent is None or model.config.target_device in silent or not model.listed
        )

    def _cancel(self, identity: bytes, cancel: Cancel, now: int) -> None:
        frontend = self.peers.frontend_by_identity.get(identity)
        if frontend is not None:
            self._cancel_key(RequestKey(frontend.name, cancel.id))

    def _cancel_key(self, key: RequestKey) -> None:
        request = self.scheduler.cancel(key)
        if request is not None:
            self._release(key.frontend, key.id)

    def _acknowledge(self, identity: bytes, message: Acknowledge, now: int) -> None:
        frontend = self.peers.frontend_by_identity.get(identity)
        if frontend is not None:
            frontend.acknowledged = message.generation
            self._to_settle = True

    def _listening(self, identity: bytes, message: Listening, now: int) -> None:
        frontend = self.peers.frontend_by_identity.get(identity)
        if frontend is not None:
            frontend.listening = True
            self._to_settle = True

    def _refused(self, identity: bytes, message: Refused, now: int) -> None:
        for code, count in message.counts.items():
            self.peers.refused[code] = self.peers.refused.get(code, 0) + count

    def _frontend_died(self, frontend: Frontend) -> None:
        self._say(WARNING, f"frontend {frontend.name} (process {frontend.process.pid}) has ended")
        for request in self.scheduler.of_frontend(frontend.name):
            self.scheduler.cancel(request.key)
        self._out.append(ForgetFrontend(frontend.name))
        for worker in self.peers.workers.values():
            self._send(worker.identity, ArenaGone(frontend.name))

    # ---- workers

    def _worker_hello(self, identity: bytes, hello: WorkerHello, now: int) -> None:
        post = self.fleet.hello(hello.slot, hello.process, now)
        if post is None:
            self._say(
                WARNING, f"worker {hello.slot} (process {hello.process.pid}) has no place and is killed"
            )
            self._out.append(KillProcess(hello.process))
            return
        slot = hello.slot
        worker = Worker(slot, identity, hello.process, frozenset(hello.arenas))
        self.peers.add_worker(worker)
        self.registry.worker_joined(slot, post.slot.device, trial=post.slot.trial, loaded=hello.loaded)
        for id_ in hello.loading:
            if id_.model in self.registry.models:
                self.registry.worker_loading(slot, id_, now)
        if not post.slot.trial:
            self._let_serve(hello, now)
            if post.retiring:
                self.registry.drain(slot)
                self.scheduler.drain(slot)
        if self._resync_done:
            self._tell_dead_arenas(worker)

    def _let_serve(self, hello: WorkerHello, now: int) -> None:
        """Credits for what is loaded; what it says it has in hand is adopted, what it does not is queued again."""
        slot = hello.slot
        self.scheduler.worker_joined(slot)
        for record in hello.loaded:
            self.scheduler.version_loaded(slot, record.version, record.nireq)
        stated = dict(zip(hello.running, hello.running_versions, strict=True))
        for request in self.scheduler.in_hand_of(slot):
            if request.key not in stated and self.scheduler.not_in_hand(request) and request.abandoned:
                self._release(request.key.frontend, request.key.id)
        for key, version in stated.items():
            request = self.scheduler.requests.get(key) or Request(key, version, None, now)
            self.scheduler.adopt(request, slot, now)

    def _worker_died(self, slot: str, now: int) -> None:
        self._say(WARNING, f"worker {slot} has ended")
        post = self.fleet.posts.get(slot)
        deliberate = post is not None and post.retiring
        for version in self.registry.worker_lost(slot, now, deliberate=deliberate):
            self._say(ERROR, f"model {version.id.model} version {version.id.version}: {version.reason}")
        verdict = self.scheduler.worker_lost(slot)
        for request in verdict.convicted:
            error = _CONVICTED
            if request.timed_out:
                text = f"Inference took longer than {self._config.inference_timeout_s:g} s and was stopped"
                error = WireError(Code.DEADLINE_EXCEEDED, text)
            self._to_frontend(request.key.frontend, Completed(request.key.id, (), error))
        for request in verdict.dropped:
            self._release(request.key.frontend, request.key.id)

    def _execute(self, request: Request, now: int) -> None:
        submit = request.submit
        assert submit is not None, "only adopted requests lack their Submit, and those are in hand"
        if now >= submit.deadline:
            # Seen only now: nobody looks through the queues for deadlines, the frontend has its own timer.
            self.scheduler.done(request.worker, request.key, now)
            self._to_frontend(request.key.frontend, Completed(submit.id, (), _EXPIRED))
            return
        worker = self.peers.workers[request.worker]
        message = Execute(
            request.key, submit.version, submit.segment, submit.inputs, submit.outputs, submit.deadline
        )
        self._send(worker.identity, message)

    def _done(self, identity: bytes, done: Done, frames: tuple[bytes, ...], now: int) -> None:
        worker = self.peers.worker_by_identity.get(identity)
        if worker is None:
            return
        request = self.scheduler.done(worker.slot, done.key, now)
        if request is None:
            self.peers.unknown_done += 1
            return
        if request.submit is None and not request.abandoned:
            # Its frontend may still be on its way to this broker.
            self._unclaimed[done.key] = (done, frames, now + RESYNC_NS)
            return
        if request.abandoned:
            self._release(done.key.frontend, done.key.id)
            return
        frontend = self.peers.frontends.get(done.key.frontend)
        if frontend is not None:
            timing = Timing(request.handed_at - request.queued_at, done.inferring)
            self._send(frontend.identity, Completed(done.key.id, done.outputs, done.error, timing), frames)

    def _loaded(self, identity: bytes, message: Loaded, now: int) -> None:
        worker = self.peers.worker_by_identity.get(identity)
        if worker is None or message.loaded.version.model not in self.registry.models:
            return
        record = message.loaded
        self.registry.loaded(worker.slot, record)
        if worker.slot in self.scheduler.workers:
            self.scheduler.version_loaded(worker.slot, record.version, record.nireq)
        self._say(
            INFO,
            f"worker {worker.slot} has loaded model {record.version.model} version {record.version.version}",
        )
        self._to_settle = True

    def _load_failed(self, identity: bytes, message: LoadFailed, now: int) -> None:
        worker = self.peers.worker_by_identity.get(identity)
        if worker is None or message.version.model not in self.registry.models:
            return
        self.registry.load_failed(worker.slot, message.version, message.reason, now)
        where = f"model {message.version.model} version {message.version.version}"
        self._say(ERROR, f"{where} cannot be loaded by worker {worker.slot}: {message.reason}")
        self._to_settle = True

    def _unloaded(self, identity: bytes, message: Unloaded, now: int) -> None:
        worker = self.peers.worker_by_identity.get(identity)
        if worker is not None and message.version.model in self.registry.models:
            self.registry.unloaded(worker.slot, message.version)
            self._to_settle = True

    def _tell_dead_arenas(self, worker: Worker) -> None:
        for name in worker.arenas - self.peers.frontends.keys():
            self._send(worker.identity, ArenaGone(name))

    def _kill_slot(self, slot: str, why: str) -> None:
        worker = self.peers.workers.get(slot)
        if worker is not None and not worker.kill_sent:
            worker.kill_sent = True
            self._say(ERROR, f"worker {slot} {why} and is killed")
            self._out.append(KillProcess(worker.process))

    # ---- storage and control

    def _snapshot(self, identity: bytes, message: Snapshot, now: int) -> None:
        for warning in message.warnings:
            self._say(WARNING, f"model {message.model}: {warning}")
        if message.error:
            self._say(ERROR, f"model {message.model}: {message.error}")
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
        self._say(INFO, f"device {query.device} is scaled to {query.replicas} worker(s)")
        return ""

    # ---- helpers

    def _device(self, version: VersionId) -> str:
        model = self.registry.models.get(version.model)
        return model.config.target_device if model is not None else ""

    def _release(self, frontend: str, id_: int) -> None:
        self._to_frontend(frontend, Released(id_))

    def _to_frontend(self, name: str, message: Message) -> None:
        frontend = self.peers.frontends.get(name)
        if frontend is not None:
            self._send(frontend.identity, message)

    def _send(self, identity: bytes, message: Message, frames: tuple[bytes, ...] = ()) -> None:
        self._out.append(Send(identity, message, frames))

    def _say(self, level: int, text: str) -> None:
        self._out.append(Say(level, text))

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
            self._out.append(SaveWanted(state))
