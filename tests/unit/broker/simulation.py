"""A whole server in memory: the real core, router, sessions and ledgers; simulated workers, supervisord and clock.

Nothing here is timed: messages wait in their links until somebody delivers one, so that a test can bring about every
order of events. Links are first-in-first-out, as ZeroMQ's are; a socket that is closed loses what it held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from broker.commands import (
    Configuration,
    KillProcess,
    RunPrograms,
    SaveWanted,
    Say,
    Send,
    Shutdown,
    WantedState,
    WatchProcess,
)
from broker.core import Core
from broker.fleet import Add, Program, ProgramCommand, Remove, Start, Stop
from broker.router import Router
from common.config import BatchingParameters, ModelConfig, ServerConfig
from common.messages import (
    Acknowledge,
    ArenaGone,
    BatchFailed,
    Cancel,
    Catalogue,
    Completed,
    ConfigRead,
    Done,
    Execute,
    ExecuteBatch,
    FrontendHello,
    Keep,
    Load,
    Loaded,
    LoadedVersion,
    LoadFailed,
    Message,
    OutputRef,
    ProcessId,
    ReadConfig,
    Reconfigure,
    Reconfigured,
    Released,
    RequestKey,
    ScaleQuery,
    Snapshot,
    Stale,
    StorekeeperHello,
    Submit,
    TensorRef,
    Unload,
    Unloaded,
    VersionId,
    Watch,
    WorkerHello,
    decode,
    encode,
)
from common.session import Command, LinkDown, LinkUp, Open, Session, State, WatchBroker
from common.tensors import Signature, TensorSpec
from frontends.ledger import Entry, Ledger
from tests.unit.broker.registry_harness import check as check_registry
from tests.unit.broker.scheduler_check import check as check_scheduler

SIGNATURE = Signature((TensorSpec("x", "float32", (1, 10)),), (TensorSpec("y", "float32", (1, 10)),))
SECOND = 1_000_000_000


class MemorySocket:
    """Stands in for the broker's ROUTER socket."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.inbox: deque[list[bytes]] = deque()

    def drain(self) -> Iterator[list[bytes]]:
        while self.inbox:
            yield self.inbox.popleft()

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        peer = self._world.by_identity.get(identity)
        if peer is None:
            return False
        peer.inbound.append(frames)
        return True


class Peer:
    """A process with a link to the broker; the real Session decides."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.process = world.new_process()
        self.session = Session(name)
        self.identity = b""
        self.outbound: deque[list[bytes]] = deque()
        self.inbound: deque[list[bytes]] = deque()
        self.watched: ProcessId | None = None
        world.peers.append(self)

    @property
    def linked(self) -> bool:
        return self.session.state is State.LINKED

    def start(self) -> None:
        self.carry_out(self.session.open(self.world.now))

    def hello(self) -> Message:
        raise NotImplementedError

    def on_message(self, message: Message) -> None:
        raise NotImplementedError

    def on_link(self, *, up: bool, died: bool) -> None:
        """The link has changed."""

    def send(self, *messages: Message) -> bool:
        if not self.linked:
            return False
        self.outbound.append([encode(self.session.stamp(list(messages)))])
        return True

    def carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Open):
                self.world.by_identity.pop(self.identity, None)
                self.identity = command.identity.encode()
                self.world.by_identity[self.identity] = self
                self.outbound.clear()
                self.inbound.clear()
                self.outbound.append([encode(self.session.stamp([self.hello()]))])
            elif isinstance(command, WatchBroker):
                self.watched = command.process
                if command.process != self.world.broker_process:
                    self.carry_out(self.session.broker_died(command.process, self.world.now))
            elif isinstance(command, LinkUp):
                self.on_link(up=True, died=False)
            elif isinstance(command, LinkDown):
                self.on_link(up=False, died=command.broker_died)

    def deliver_inbound(self) -> None:
        frames = self.inbound.popleft()
        messages, commands = self.session.receive(decode(frames[0]), self.world.now)
        for message in messages:
            self.on_message(message)
        self.carry_out(commands)

    def broker_died(self, process: ProcessId) -> None:
        if self.watched == process:
            self.carry_out(self.session.broker_died(process, self.world.now))

    def tick(self) -> None:
        self.carry_out(self.session.tick(self.world.now))


class SimFrontend(Peer):
    """Submits and remembers; the real Ledger decides what a block's fate is."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.name = name
        self.ledger: Ledger[Entry] = Ledger()
        self.answers: dict[int, Message] = {}
        self.freed: set[int] = set()
        self.abandoned: set[int] = set()
        self.given_up: set[int] = set()
        self.catalogue: Catalogue | None = None
        self.stale: list[int] = []
        self.asked: dict[int, str] = {}
        """Requests that any version of the model may answer; one that has left is chosen anew, as clients expect."""
        self.unserved: set[int] = set()
        """Of those, the ones for which there was nothing to choose."""
        self.reconfigured: dict[int, Reconfigured] = {}
        self.start()

    def hello(self) -> Message:
        requests, abandoned = self.ledger.greet(self.world.now)
        return FrontendHello(self.name, self.process, "grpc", True, requests, abandoned)

    def submit(self, version: VersionId, patience_ns: int = 3600 * SECOND) -> int:
        id_ = self.ledger.next_id()
        generation = self.catalogue.generation if self.catalogue else 0
        deadline = self.world.now + patience_ns
        submit = Submit(id_, version, generation, 0, (TensorRef(0, (1, 10)),), (OutputRef(64, 40),), deadline)
        self.ledger.add(Entry(submit))
        if self.send(submit):
            self.ledger.sent(id_, self.world.now)
        return id_

    def ask(self, model: str) -> None:
        """A request for the default version, as the catalogue has it now."""
        best = self.default(model)
        if best is None:
            self.unserved.add(self.ledger.next_id())
        else:
            self.asked[self.submit(best)] = model

    def default(self, model: str) -> VersionId | None:
        for status in self.catalogue.models if self.catalogue else ():
            servable = [one for one in status.versions if one.servable]
            if status.name == model and servable:
                return VersionId(model, servable[-1].version, servable[-1].revision)
        return None

    def reconfigure(self, models: tuple[ModelConfig, ...] | None) -> int:
        id_ = self.ledger.next_id()
        self.send(Reconfigure(id_, models))
        return id_

    def abandon(self, id_: int) -> None:
        self.abandoned.add(id_)
        if self.ledger.abandon(id_):
            self.freed.add(id_)
        elif id_ in self.ledger.entries:
            self.send(Cancel(id_))

    def on_link(self, *, up: bool, died: bool) -> None:
        if up:
            for submit in self.ledger.unsent():
                if self.send(submit):
                    self.ledger.sent(submit.id, self.world.now)
        elif died:
            self.given_up.update(self.ledger.broker_died(self.world.now))

    def on_message(self, message: Message) -> None:
        if isinstance(message, Catalogue):
            self.catalogue = message
            self.send(Acknowledge(message.generation))
        elif isinstance(message, (Completed, Released, Stale)):
            if self.ledger.close(message.id) is None:
                return
            self.freed.add(message.id)
            if isinstance(message, Stale):
                self.stale.append(message.id)
                if message.id in self.asked:
                    self.ask(self.asked.pop(message.id))
                    return
            if not isinstance(message, Released):
                self.answers[message.id] = message
        elif isinstance(message, Reconfigured):
            assert message.id not in self.reconfigured, "answered twice"
            self.reconfigured[message.id] = message


class SimWorker(Peer):
    """Has in hand what it was given, and finishes it when it is told to."""

    def __init__(self, world: World, slot: str) -> None:
        super().__init__(world, slot)
        self.slot = slot
        self.loaded: dict[VersionId, LoadedVersion] = {}
        self.loading: list[Load] = []
        self.in_hand: list[Execute] = []
        self.batches: dict[RequestKey, int] = {}
        self.last_batch = 0
        self.start()

    def hello(self) -> Message:
        return WorkerHello(
            self.slot,
            self.process,
            tuple(self.loaded.values()),
            tuple(load.version for load in self.loading),
            tuple(execute.key for execute in self.in_hand),
            tuple(execute.version for execute in self.in_hand),
            (),
            tuple(self.batches.get(execute.key, 0) for execute in self.in_hand),
        )

    def on_message(self, message: Message) -> None:
        if isinstance(message, Execute):
            assert message.version in self.loaded, "given a request of a version that it has not loaded"
            assert message.key not in [one.key for one in self.in_hand], "given a request twice"
            self.in_hand.append(message)
        elif isinstance(message, ExecuteBatch):
            assert len(message.requests) > 1, "a batch of one"
            assert len({execute.version for execute in message.requests}) == 1, "of two versions"
            self.last_batch += 1
            for execute in message.requests:
                assert execute.version in self.loaded
                assert self.loaded[execute.version].batching is not None, "it is not inferred by batches"
                assert execute.key not in [one.key for one in self.in_hand], "given a request twice"
                self.in_hand.append(execute)
                self.batches[execute.key] = self.last_batch
        elif isinstance(message, Load):
            assert message.version not in self.loaded, "loaded twice"
            assert message.version not in [one.version for one in self.loading], "loaded twice"
            self.loading.append(message)
        elif isinstance(message, Unload):
            assert not any(one.version == message.version for one in self.in_hand), "unloaded in use"
            del self.loaded[message.version]
            self.send(Unloaded(message.version))
        elif isinstance(message, ArenaGone):
            pass

    def finish_load(self, *, fail: bool = False) -> None:
        if not self.loading:
            return
        load = self.loading.pop(0)
        if fail or self.world.fails(load):
            self.send(LoadFailed(load.version, "no such layer"))
            return
        self.loaded[load.version] = LoadedVersion(
            load.version,
            load.config.nireq or 1,
            SIGNATURE,
            self.world.notes(load),
            load.config.batching_parameters,
        )
        self.send(Loaded(self.loaded[load.version]))

    def finish(self, index: int = 0) -> None:
        """Done for one of the running requests; kept in hand while there is no link to say it on."""
        if not self.in_hand or not self.linked:
            return
        execute = self.in_hand[index % len(self.in_hand)]
        self.in_hand.remove(execute)
        self.batches.pop(execute.key, None)
        self.send(Done(execute.key))

    def fail_batch(self, index: int = 0) -> None:
        """One of the batches cannot be inferred as one."""
        batch = self.batches.get(self.in_hand[index % len(self.in_hand)].key) if self.in_hand else None
        if batch is None or not self.linked:
            return
        failed = tuple(key for key, number in self.batches.items() if number == batch)
        self.in_hand = [one for one in self.in_hand if one.key not in failed]
        for key in failed:
            del self.batches[key]
        self.send(BatchFailed(failed))


class SimStorekeeper(Peer):
    """Says what storage holds: of a base path that it is to watch once, and then when that changes."""

    def __init__(self, world: World) -> None:
        super().__init__(world, f"storekeeper-{world.now}-{len(world.dead)}")
        self.paths: dict[str, str] = {}
        self.kept: tuple[str, ...] = ()
        self.start()

    def hello(self) -> Message:
        self.paths = {}
        return StorekeeperHello(self.process)

    def on_message(self, message: Message) -> None:
        if isinstance(message, Watch):
            before, self.paths = self.paths, {one.model: one.base_path for one in message.models}
            for model, path in self.paths.items():
                if before.get(model) != path:
                    self.tell(model)
        elif isinstance(message, Keep):
            self.kept = message.paths
        elif isinstance(message, ReadConfig):
            self.say_config(message.id)

    def tell(self, model: str) -> None:
        base = self.paths.get(model)
        if base is not None:
            held = self.world.storage.get(model, ())
            self.send(Snapshot(model, {number: f"{base}/{number}" for number in held}, base_path=base))

    def say_config(self, id_: int = 0) -> None:
        file = self.world.file
        if isinstance(file, str):
            self.send(ConfigRead(error=file, id=id_))
        else:
            self.send(ConfigRead(file.models, file.devices, id=id_))


@dataclass
class SimProgram:
    """A program as supervisord knows it."""

    slot: str
    state: str = "STOPPED"
    worker: SimWorker | None = None


@dataclass
class World:
    """Everything, and the clock."""

    config: ServerConfig
    storage: dict[str, set[int]]
    now: int = SECOND
    peers: list[Peer] = field(default_factory=list)
    by_identity: dict[bytes, Peer] = field(default_factory=dict)
    programs: dict[str, SimProgram] = field(default_factory=dict)
    wanted: WantedState = field(default_factory=WantedState)
    deaths_in_hand: dict[RequestKey, int] = field(default_factory=dict)
    shutdown: Shutdown | None = None
    said: list[Say] = field(default_factory=list)
    fails: Callable[[Load], bool] = lambda _: False
    """Which loads fail."""
    notes: Callable[[Load], tuple[str, ...]] = lambda _: ()
    """What workers note of what they load."""
    _pids: int = 100

    def __post_init__(self) -> None:
        self.file: Configuration | str = Configuration(self.config.models, self.config.devices)
        """What the configuration file says, or why it cannot be used."""
        self.batches: deque[tuple[ProgramCommand, ...]] = deque()
        self.frontends: dict[str, SimFrontend] = {}
        self.watched: set[ProcessId] = set()
        self.dead: set[ProcessId] = set()
        self.start_broker()
        self.storekeeper = SimStorekeeper(self)

    # ---- processes

    def new_process(self) -> ProcessId:
        self._pids += 1
        return ProcessId(self._pids, self.now)

    def start_broker(self) -> None:
        self.broker_process = self.new_process()
        self.batches.clear()
        self.watched.clear()
        # As it would be read from the disk.
        written = msgspec.json.decode(msgspec.json.encode(self.wanted), type=WantedState)
        self.wanted = msgspec.structs.replace(written, epoch=written.epoch + 1)
        self.core = Core(self.config, self.wanted, self.broker_process, self.now)
        self.socket = MemorySocket(self)
        self.router = Router(self.socket, self.wanted.epoch)

    def kill_broker(self) -> None:
        dead = self.broker_process
        self.start_broker()
        for peer in list(self.peers):
            peer.broker_died(dead)

    def workers(self) -> list[SimWorker]:
        return [program.worker for program in self.programs.values() if program.worker is not None]

    def kill_worker(self, worker: SimWorker) -> None:
        for program in self.programs.values():
            if program.worker is worker:
                program.worker = None
                # supervisord notices later: see run_batch.
        in_hand = {execute.key for execute in worker.in_hand}
        # On their way to it as well: the broker cannot know how far they came.
        in_hand |= {request.key for request in self.core.scheduler.in_hand_of(worker.slot)}
        for key in in_hand:
            self.deaths_in_hand[key] = self.deaths_in_hand.get(key, 0) + 1
        self._end(worker)

    def kill_storekeeper(self) -> None:
        """The next one starts at once."""
        self._end(self.storekeeper)
        self.storekeeper = SimStorekeeper(self)

    def store(self, model: str, *numbers: int) -> None:
        """Have storage hold these versions."""
        self.storage[model] = set(numbers)
        self.storekeeper.tell(model)

    def write_config(self, file: Configuration | str) -> None:
        """Have the configuration file say this."""
        self.file = file
        self.storekeeper.say_config()

    def add_frontend(self, name: str) -> SimFrontend:
        self.frontends[name] = SimFrontend(self, name)
        return self.frontends[name]

    def kill_frontend(self, name: str) -> None:
        self._end(self.frontends.pop(name))

    def _end(self, peer: Peer) -> None:
        self.peers.remove(peer)
        self.by_identity.pop(peer.identity, None)
        self.dead.add(peer.process)
        if peer.process in self.watched:
            self.core.process_died(peer.process, self.now)
        # Messages that it sent before it died still arrive.
        while peer.outbound:
            self.socket.inbox.append([peer.identity, *peer.outbound.popleft()])

    # ---- supervisord

    def run_batch(self) -> None:
        """Carry out the oldest batch and report the list."""
        if not self.batches:
            return
        for command in self.batches.popleft():
            self._run(command)
        programs = tuple(
            Program(name, program.state, program.worker.process if program.worker else None)
            for name, program in self.programs.items()
        )
        self.core.programs_seen(programs, self.now)
        for program in self.programs.values():
            if program.worker is None and program.state == "RUNNING":
                program.state = "EXITED"

    def _run(self, command: ProgramCommand) -> None:
        if isinstance(command, Add):
            self.programs.setdefault(command.slot.program, SimProgram(command.slot.name))
            return
        program = self.programs.get(command.program)
        if program is None:
            return
        if isinstance(command, Start) and program.state != "RUNNING":
            program.state = "RUNNING"
            program.worker = SimWorker(self, program.slot)
        elif isinstance(command, Stop) and program.worker is not None:
            assert not program.worker.in_hand, "stopped with requests in hand"
            self.kill_worker(program.worker)
            program.state = "STOPPED"
        elif isinstance(command, Stop):
            program.state = "STOPPED"
        elif isinstance(command, Remove) and program.state != "RUNNING":
            del self.programs[command.program]

    # ---- messages

    def deliver_to_broker(self, peer: Peer) -> None:
        if peer.outbound:
            self.socket.inbox.append([peer.identity, *peer.outbound.popleft()])

    def step_broker(self) -> None:
        self.router.drain(self.core, self.now)
        self.carry_out()

    def carry_out(self) -> None:
        for command in self.core.flush(self.now):
            if isinstance(command, Send):
                self.router.send(command)
            elif isinstance(command, SaveWanted):
                self.wanted = command.state
            elif isinstance(command, WatchProcess):
                self.watched.add(command.process)
                if command.process in self.dead:
                    self.core.process_died(command.process, self.now)
            elif isinstance(command, KillProcess):
                for worker in self.workers():
                    if worker.process == command.process:
                        self.kill_worker(worker)
            elif isinstance(command, RunPrograms):
                self.batches.append(command.commands)
            elif isinstance(command, Shutdown):
                self.shutdown = command
            elif isinstance(command, Say):
                self.said.append(command)

    def flow(self) -> None:
        """Deliver everything that is under way; workers finish nothing."""
        for peer in list(self.peers):
            while peer.outbound:
                self.deliver_to_broker(peer)
        self.step_broker()
        self.run_batch()
        self.step_broker()
        for peer in list(self.peers):
            while peer.inbound:
                peer.deliver_inbound()
        for worker in self.workers():
            while worker.loading and worker.linked:
                worker.finish_load()

    def scale(self, device: str, replicas: int) -> None:
        """As `ie_serving scale` does."""
        self.core.control(b"control", ScaleQuery(device, replicas), self.now)

    def pass_time(self, ns: int) -> None:
        self.now += ns
        for peer in list(self.peers):
            peer.tick()

    def settle(self, rounds: int = 60) -> None:
        """Let everything that is under way come to its end."""
        for _ in range(rounds):
            for _ in range(20):
                for peer in list(self.peers):
                    while peer.outbound:
                        self.deliver_to_broker(peer)
                self.step_broker()
                while self.batches:
                    self.run_batch()
                    self.step_broker()
                busy = False
                for peer in list(self.peers):
                    while peer.inbound:
                        busy = True
                        peer.deliver_inbound()
                for worker in self.workers():
                    while worker.loading and worker.linked:
                        busy = True
                        worker.finish_load()
                    while worker.in_hand and worker.linked:
                        busy = True
                        worker.finish()
                if not busy:
                    break
            self.pass_time(SECOND // 4)

    def says(self, text: str) -> list[Say]:
        """What was logged that has this in it."""
        return [one for one in self.said if text in one.text]

    # ---- what must always hold

    def check(self) -> None:
        check_registry(self.core.registry)
        check_scheduler(self.core.scheduler)
        holders: dict[RequestKey, str] = {}
        for worker in self.workers():
            for execute in worker.in_hand:
                other = holders.setdefault(execute.key, worker.slot)
                assert other == worker.slot, f"{execute.key} is in the hands of {other} and {worker.slot}"
                frontend = self.frontends.get(execute.key.frontend)
                if frontend is not None:
                    assert execute.key.id not in frontend.freed, f"{execute.key} was freed while in hand"


def config(
    *names: str,
    workers: int = 1,
    nireq: int | None = None,
    batching: Mapping[str, BatchingParameters] | None = None,
) -> ServerConfig:
    """A server of these models, one frontend expected. `batching`: of some of them, by name."""
    parameters = batching or {}
    models = tuple(
        ModelConfig(name, f"/models/{name}", nireq=nireq, batching_parameters=parameters.get(name))
        for name in names
    )
    return ServerConfig(models, "/run/simulated", workers=workers, config_path="/etc/models.json")


def settled(
    *names: str,
    workers: int = 1,
    nireq: int | None = None,
    batching: Mapping[str, BatchingParameters] | None = None,
) -> World:
    """A world that serves version 1 of each model, with one frontend `f1`."""
    models = config(*names, workers=workers, nireq=nireq, batching=batching)
    world = World(models, {name: {1} for name in names})
    world.add_frontend("f1")
    world.settle()
    return world
