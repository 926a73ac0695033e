"""A whole server in memory: the real core, router, sessions and ledgers; simulated workers, supervisord and clock.

Nothing here is timed: messages wait in their links until somebody delivers one, so that a test can bring about every
order of events. Links are first-in-first-out, as ZeroMQ's are; a socket that is closed loses what it held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
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
    Load,
    ProcessId,
    RequestKey,
    ScaleQuery,
)
from tests.unit.broker.registry_harness import check as check_registry
from tests.unit.broker.scheduler_check import check as check_scheduler
from tests.unit.broker.simulated_peers import (
    SECOND,
    MemorySocket,
    Peer,
    SimFrontend,
    SimStorekeeper,
    SimWorker,
)


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
