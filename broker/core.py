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
from typing import Final

from broker.commands import (
    Command,
    ForgetFrontend,
    RunPrograms,
    SaveWanted,
    Shutdown,
    WantedState,
    WatchProcess,
)
from broker.fleet import Fleet, Program
from broker.outbox import ERROR, INFO, WARNING, Outbox
from broker.peers import Frontend, Peers, Worker
from broker.reconfiguration import Reconfiguration
from broker.registry import Registry
from broker.requests import Requests
from broker.scheduler import Scheduler
from broker.status import Whole, status_document
from broker.workforce import Workforce
from common.config import ServerConfig
from common.messages import (
    Acknowledge,
    BatchFailed,
    Cancel,
    Catalogue,
    ConfigRead,
    Deferred,
    Done,
    FrontendHello,
    Leaving,
    Listening,
    Loaded,
    LoadFailed,
    Message,
    ProcessId,
    Reconfigure,
    Refused,
    RequestKey,
    Resumed,
    ScaleQuery,
    ScaleReply,
    Snapshot,
    StatusQuery,
    StatusReply,
    StorekeeperHello,
    Submit,
    Unloaded,
    Welcome,
    WorkerHello,
)

TICK_NS: Final = 250_000_000
"""Between two looks at what changes because time passes."""

REST_NS: Final = 5_000_000_000
"""The same, while nothing is under way that could: no request, no load, no worker to come, nothing to try again."""


class Core:
    """All state of the broker."""

    def __init__(self, config: ServerConfig, state: WantedState, this: ProcessId, now: int) -> None:
        self._config = config
        self._this = this
        self._saved = state
        self._announced = state.announced
        self.epoch = state.epoch
        self.scheduler = Scheduler()
        retry_ns = int(config.poll_wait_s * 1e9) if config.poll_wait_s > 0 else None
        models = state.configuration.models if state.configuration is not None else config.models
        self.registry = Registry(models, retry_ns, awaited=not state.announced)
        self.registry.restore(state.models, state.served, state.last_revision)
        self.fleet = Fleet({}, state.slots, state.serial)
        self.peers = Peers()
        self._generation = state.epoch << 32
        self._catalogue: Catalogue | None = None
        self._out = out = Outbox(self.peers)
        self.reconfiguration = Reconfiguration(
            config, state, self.registry, self.fleet, self.peers, self._out
        )
        self._requests = Requests(
            self.scheduler, self.registry, self.fleet, self.peers, out, config.inference_timeout_s
        )
        self._workforce = Workforce(
            self.scheduler, self.registry, self.fleet, self.peers, self._requests, out, now
        )
        self._to_settle = True
        self._next_tick = now
        self._of_frontends: dict[type, Callable[..., None]] = {
            Cancel: self._cancel,
            Acknowledge: self._acknowledge,
            Listening: self._listening,
            Refused: self._refused,
            Leaving: self._leaving,
            Reconfigure: self._reconfigure,
        }
        self._of_workers: dict[type, Callable[..., None]] = {
            Loaded: self._workforce.loaded,
            LoadFailed: self._workforce.load_failed,
            Unloaded: self._workforce.unloaded,
            Deferred: self._workforce.deferred,
            Resumed: self._workforce.resumed,
            BatchFailed: self._workforce.batch_failed,
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
            self._workforce.hello(identity, message, now)
        elif isinstance(message, StorekeeperHello):
            self.peers.storekeeper = identity
            self.reconfiguration.storekeeper_greeted()
        self._to_settle = True

    def receive(self, identity: bytes, messages: list[Message], frames: tuple[bytes, ...], now: int) -> None:
        """The messages of an envelope that has come on a link whose Hello was read."""
        frontend = self.peers.frontend_by_identity.get(identity)
        if frontend is not None:
            self._from_frontend(frontend, messages, now)
            return
        worker = self.peers.worker_by_identity.get(identity)
        if worker is not None:
            self._from_worker(worker, messages, frames, now)
        elif identity == self.peers.storekeeper:
            for message in messages:
                self._from_storekeeper(message, now)
        # Anything else is the last word of a peer whose death is known already.

    def control(self, identity: bytes, message: Message, now: int) -> None:
        """A question of `ie_serving status` or `ie_serving scale`."""
        if isinstance(message, StatusQuery):
            whole = Whole(
                self.epoch, self.scheduler, self.registry, self.fleet, self.peers, self.reconfiguration
            )
            self._out.reply(identity, StatusReply(status_document(whole)))
        elif isinstance(message, ScaleQuery):
            error = self.reconfiguration.scale(message, now)
            self._save()
            self._to_settle = True
            self._out.reply(identity, ScaleReply(error))

    def process_died(self, process: ProcessId, now: int) -> None:
        """A watched process has ended."""
        frontend = self.peers.remove_frontend(process)
        if frontend is not None:
            self._frontend_died(frontend)
        self._workforce.process_died(process, now)
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
        ticks = now >= self._next_tick
        if ticks:
            self._tick(now)
        if self._to_settle:
            self._settle(now)
        self._requests.dispatch(now)
        batch = self.fleet.plan(now)
        if batch is not None:
            self._save()
            self._out.put(RunPrograms(tuple(batch)))
        # Whatever has happened now may have set something going: one tick comes soon after it, however long the rest.
        rests = ticks and not self._is_under_way(now)
        if rests:
            self._next_tick = now + REST_NS
        elif self._next_tick > now + TICK_NS:
            self._next_tick = now + TICK_NS
        return self._out.take()

    def next_wake(self) -> int:
        """When `flush` is to be called even if nothing has happened."""
        if self._out or self._to_settle:
            return 0
        wake, deadline, due = self._next_tick, self.fleet.next_deadline(), self.scheduler.next_due()
        if deadline < wake:
            wake = deadline
        return due if due is not None and due < wake else wake

    def _tick(self, now: int) -> None:
        """Everything that happens because time has passed: four times a second, rarely while nothing is under way."""
        self._next_tick = now + TICK_NS
        self._workforce.tick(now, self._config.inference_timeout_s, self._config.load_timeout_s)
        self._requests.tick(now)
        restless = (
            self.registry.is_restless(now),
            self.fleet.is_restless(),
            self.reconfiguration.is_restless(),
        )
        self._to_settle = self._to_settle or any(restless)

    def _is_under_way(self, now: int) -> bool:
        """Whether something may have to be done before a rest would end, though nothing happens until then."""
        return (
            self._requests.is_restless()
            or self._workforce.is_restless()
            or self.registry.is_restless(now + REST_NS)
            or self.fleet.is_restless()
            or self.reconfiguration.is_restless()
        )

    def _settle(self, now: int) -> None:
        """Let registry, fleet, catalogue and configuration follow what has become known."""
        self._to_settle = False
        self._workforce.settle(now)
        self._publish(now)
        acknowledged = self.peers.acknowledged(self._generation)
        for command in self.registry.plan(now, acknowledged, self.scheduler.is_open):
            self._workforce.order(command)
        self._publish(now)
        self._requests.settle(self._generation)
        self.reconfiguration.settle(self._generation, now)
        self._announce()
        self._save()

    def _publish(self, now: int) -> None:
        """Push the catalogue if it differs from the last one."""
        view = self.registry.view
        last = self._catalogue
        if last is None or last.models != view.statuses or last.ready != view.is_ready:
            self._generation += 1
            self._catalogue = Catalogue(self._generation, view.is_ready, view.statuses)
            for frontend in self.peers.frontends.values():
                self._out.send(frontend.identity, self._catalogue)
        self.registry.catalogue_made(self._generation, now)

    def _announce(self) -> None:
        """The ready lines, or the end of a start that has failed; once per start of the server."""
        if self._announced or not self.registry.view.is_tried:
            return
        hopeless = self.registry.view.hopeless
        if hopeless:
            self._announced = True
            self._out.put(Shutdown(1, f"no model can be served: {hopeless}"))
            return
        if sum(frontend.listening for frontend in self.peers.frontends.values()) < self._config.frontends:
            return
        self._announced = True
        self._save()
        names = [model.name for model in self.reconfiguration.in_force.models]
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

    def _from_frontend(self, frontend: Frontend, messages: list[Message], now: int) -> None:
        submit, generation = self._requests.submit, self._generation
        for message in messages:
            if type(message) is Submit:
                submit(frontend, message, generation, now)
                continue
            act = self._of_frontends.get(type(message))
            if act is not None:
                act(frontend, message, now)

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

    def _reconfigure(self, frontend: Frontend, message: Reconfigure, now: int) -> None:
        self.reconfiguration.reconfigure(frontend, message, now)
        self._to_settle = True

    def _frontend_died(self, frontend: Frontend) -> None:
        level = INFO if frontend.leaving else WARNING
        self._out.say(level, f"frontend {frontend.name} (process {frontend.process.pid}) has ended")
        self._requests.frontend_died(frontend.name)
        self.reconfiguration.frontend_died(frontend.name)
        self._out.put(ForgetFrontend(frontend.name))
        self._workforce.frontend_died(frontend.name)

    # ---- workers

    def _from_worker(
        self, worker: Worker, messages: list[Message], frames: tuple[bytes, ...], now: int
    ) -> None:
        done = self._requests.done
        for message in messages:
            if type(message) is Done:
                done(worker.slot, message, frames, now)
                continue
            act = self._of_workers.get(type(message))
            if act is not None:
                act(worker, message, now)
                self._to_settle = True

    # ---- storage

    def _from_storekeeper(self, message: Message, now: int) -> None:
        if isinstance(message, Snapshot):
            self._snapshot(message)
        elif isinstance(message, ConfigRead):
            self.reconfiguration.config_read(message, now)
        self._to_settle = True

    def _snapshot(self, message: Snapshot) -> None:
        for warning in message.warnings:
            self._out.say(WARNING, f"model {message.model}: {warning}")
        if message.error:
            self._out.say(ERROR, f"model {message.model}: {message.error}")
        for number, reason in message.failures.items():
            self._out.say(ERROR, f"model {message.model} version {number} cannot be fetched: {reason}")
        self.registry.snapshot(message)

    # ---- helpers

    def _save(self) -> None:
        """Have the wanted state written down if it has changed; before anything that follows is acted on."""
        state = WantedState(
            self.epoch,
            self._announced,
            self.fleet.serial,
            self.fleet.slots(),
            last_revision=self.registry.last_revision,
            models=self.registry.remembered(),
            served=self.registry.view.served,
        )
        state = self.reconfiguration.remembered(state)
        if state != self._saved:
            self._saved = state
            self._out.put(SaveWanted(state))
