"""The simulated peers of the broker: frontends, workers and the storekeeper, and the links between them and it.

They belong to a `World` (simulation.py), which delivers their messages and ends them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from common.config import ModelConfig
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

if TYPE_CHECKING:
    from tests.unit.broker.simulation import World

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
