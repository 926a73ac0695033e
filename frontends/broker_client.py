"""A frontend's side of the broker link, on asyncio: submits, answers, and everything that a broker's death brings.

Sends are gathered and go out once for each round of the event loop. ZeroMQ's descriptor is edge-triggered, so after
every send the queue is looked at again, and a timer looks whatever the descriptor says: often while an answer is due,
once a second at rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.config import ModelConfig, peers_socket
from common.errors import (
    DeadlineExceededError,
    InternalError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    from_wire,
)
from common.messages import (
    Acknowledge,
    Cancel,
    Catalogue,
    Completed,
    FrontendHello,
    Leaving,
    Listening,
    Message,
    OutputResult,
    Reconfigure,
    Reconfigured,
    Refused,
    Released,
    Stale,
    Submit,
    Timing,
)
from common.peer import PeerLink
from common.process import this_process
from common.session import LinkDown, LinkUp
from common.transport import Dealer, Transport
from frontends.admission import Admission
from frontends.catalogue import CatalogueView
from frontends.interface import Reconfiguration
from frontends.ledger import Ledger
from frontends.memory import Block, Memory

_logger = logging.getLogger("frontends")

_TICK_S = 0.1
"""Between two looks at what no descriptor tells, while something is due."""

_REST_S = 1.0
"""The same while the link is up and nothing is due."""

_SOON_NS = 300_000_000
"""A request with less time left has a timer of its own. Some ticks: one may be late."""

MAX_RECONFIGURATIONS = 16
"""Configurations that may be waited for at once; each is as long as its models are many."""


class StaleVersionError(Exception):
    """The version left between the choice and the submit: choose again once the catalogue is at `generation`."""

    def __init__(self, generation: int) -> None:
        super().__init__(f"catalogue generation {generation}")
        self.generation = generation


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's outputs as the broker reported them."""

    outputs: tuple[OutputResult, ...]
    frames: tuple[bytes, ...]
    timing: Timing


class _LoopWatch:
    """Announces the link's descriptors to asyncio."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_input: Callable[[], None], on_death: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_input = on_input
        self._on_death = on_death

    def add(self, source: Dealer | int) -> None:
        if isinstance(source, int):
            self._loop.add_reader(source, self._on_death)
        else:
            self._loop.add_reader(source.descriptor, self._on_input)

    def remove(self, source: Dealer | int) -> None:
        self._loop.remove_reader(source if isinstance(source, int) else source.descriptor)


class BrokerClient:
    """The link, the ledger, and who waits for what."""

    def __init__(self, run_dir: Path, name: str, kind: str, memory: Memory, admission: Admission) -> None:
        self.name = name
        self._kind = kind
        self._process = this_process()
        self._memory = memory
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._transport = Transport()
        watch = _LoopWatch(self._loop, self._on_input, self._on_death)
        self._link = PeerLink(self._transport, peers_socket(run_dir), name, self._hello, watch)
        self.ledger = Ledger()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._blocks: dict[int, Block] = {}
        self._reconfiguring: dict[int, asyncio.Future[Reconfiguration]] = {}
        self._last_reconfiguration = 0
        self._outgoing: list[Message] = []
        self._flush_due: asyncio.Handle | None = None
        self._listening = False
        self._catalogue: CatalogueView | None = None
        self._catalogue_waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timers: dict[int, asyncio.TimerHandle] = {}
        """Of the requests that are near their deadline."""
        self._resting = False
        self.unknown_answers = 0

    @property
    def linked(self) -> bool:
        """Whether a broker is there."""
        return self._link.linked

    @property
    def catalogue(self) -> CatalogueView | None:
        """The last one that came; None before the first."""
        return self._catalogue

    def start(self) -> None:
        """Greet the broker, now and whenever it is a new one."""
        self._link.start(time.monotonic_ns())
        self._tick()

    def announce_listening(self) -> None:
        """The port accepts."""
        self._listening = True
        self._post(Listening())

    def announce_leaving(self) -> None:
        """The process is about to end."""
        self._post(Leaving())
        # Now, because nothing else may come that a round of the loop would be waited for.
        self._flush()

    async def run(self, submit: Submit, block: Block, deadline_ns: int) -> Answer:
        """Have a request inferred. The block is the caller's again when this returns or raises StaleVersionError; it is
        free when this raises a ServingError of the broker; after DeadlineExceededError or CancelledError it becomes so.

        Raises ServingError, StaleVersionError.
        """
        waiter: asyncio.Future[Answer] = self._loop.create_future()
        id_ = submit.id
        self._waiting[id_] = waiter
        self._blocks[id_] = block
        self.ledger.add(submit)
        if self._resting:
            self._tick_after(_TICK_S)
        if self._link.linked:
            self._post(submit)
        self._watch(id_, deadline_ns - time.monotonic_ns())
        try:
            return await waiter
        except asyncio.CancelledError:
            if _gave_back(waiter):
                # Answered in the very round in which the client went: the block is ours, and nobody's any more.
                self._memory.free(block)
            else:
                self._abandon(id_)
            raise
        finally:
            timer = self._timers.pop(id_, None)
            if timer is not None:
                timer.cancel()
            self._waiting.pop(id_, None)

    async def wait_for_catalogue(self, generation: int, deadline_ns: int) -> None:
        """Until the catalogue is at least of this generation (0: until there is one). Raises DeadlineExceededError."""
        while self._catalogue is None or self._catalogue.generation < generation:
            waiter = self._loop.create_future()
            self._catalogue_waiters.append(waiter)
            left = (deadline_ns - time.monotonic_ns()) / 1e9
            try:
                await asyncio.wait_for(waiter, max(0.0, left))
            except asyncio.TimeoutError:  # not the built-in one before Python 3.11
                raise DeadlineExceededError("The deadline passed before the model was chosen") from None

    async def reconfigure(self, models: tuple[ModelConfig, ...] | None, deadline_ns: int) -> Reconfiguration:
        """Have these models served, or (None) the configuration file read again. See DataplaneInterface."""
        if not self._link.linked:
            raise UnavailableError("The broker is not there now; ask again")
        if len(self._reconfiguring) >= MAX_RECONFIGURATIONS:
            raise ResourceExhaustedError(
                f"{MAX_RECONFIGURATIONS} changes of the configuration are under way, the most that are waited for"
            )
        self._last_reconfiguration += 1
        id_ = self._last_reconfiguration
        waiter: asyncio.Future[Reconfiguration] = self._loop.create_future()
        self._reconfiguring[id_] = waiter
        self._tick_after(_TICK_S)
        self._post(Reconfigure(id_, models))
        try:
            return await asyncio.wait_for(waiter, max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            raise DeadlineExceededError(
                "The deadline passed before the models of the new configuration were loaded; loading goes on"
            ) from None
        finally:
            del self._reconfiguring[id_]

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nobody waits for an answer; whether that was so in time."""
        ends = self._loop.time() + timeout_s
        while self._waiting and (left := ends - self._loop.time()) > 0:
            # One round may not be the last: a Stale request is submitted again.
            await asyncio.wait(list(self._waiting.values()), timeout=left)
        return not self._waiting

    def close(self) -> None:
        """Close the link."""
        if self._timer is not None:
            self._timer.cancel()
        self._link.close()
        self._transport.close()

    # ---- outgoing

    def _hello(self) -> Message:
        now = time.monotonic_ns()
        # What the end of the last link means for the requests comes before they are listed for the next.
        self._follow_changes(now)
        requests, abandoned = self.ledger.greet(now)
        return FrontendHello(self.name, self._process, self._kind, self._listening, requests, abandoned)

    def _post(self, message: Message) -> None:
        """Have a message sent, with all others of this round of the loop."""
        self._outgoing.append(message)
        if self._flush_due is None:
            self._flush_due = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        outgoing, self._outgoing = self._outgoing, []
        if not outgoing or not self._link.linked:
            # What was to be said is in the ledger, and so in the next Hello, or said when the link is there.
            return
        now = time.monotonic_ns()
        # A Submit whose request was given up in this very round must not go: its block belongs to another by now.
        outgoing = [one for one in outgoing if type(one) is not Submit or self.ledger.sent(one.id, now)]
        self._link.send(outgoing)
        dealer = self._link.dealer
        if dealer is not None and dealer.has_input():
            self._on_input()

    def _abandon(self, id_: int) -> None:
        """Nobody waits for the request any more; its block comes back when the broker says so."""
        if self.ledger.abandon(id_):
            self._free(id_)
        elif id_ in self.ledger.entries:
            self._post(Cancel(id_))

    def _watch(self, id_: int, left_ns: int) -> None:
        """Have a request expire on time. One that has long is looked at again at every tick, and has no timer yet."""
        if left_ns < _SOON_NS:
            self._timers[id_] = self._loop.call_later(max(0.0, left_ns / 1e9), self._expire, id_)

    def _watch_all(self, now: int) -> None:
        for id_ in self._waiting:
            entry = self.ledger.entries.get(id_)
            if entry is not None and id_ not in self._timers:
                self._watch(id_, entry.submit.deadline - now)

    def _expire(self, id_: int) -> None:
        waiter = self._waiting.get(id_)
        if waiter is not None and not waiter.done():
            self._abandon(id_)
            waiter.set_exception(DeadlineExceededError("The deadline passed before the answer was there"))

    def _free(self, id_: int) -> None:
        block = self._blocks.pop(id_, None)
        if block is not None:
            self._memory.free(block)

    # ---- incoming

    def _on_input(self) -> None:
        now = time.monotonic_ns()
        for message, frames in self._link.drain(now):
            self._receive(message, frames)
        self._follow_changes(now)
        dealer = self._link.dealer
        if dealer is not None and dealer.left:
            self._loop.call_soon(self._on_input)

    def _on_death(self) -> None:
        self._link.broker_ended(time.monotonic_ns())
        self._on_input()

    def _receive(self, message: Message, frames: tuple[bytes, ...]) -> None:
        if isinstance(message, Completed):
            self._completed(message, frames)
        elif isinstance(message, Catalogue):
            self._take_catalogue(message)
        elif isinstance(message, Released):
            if self.ledger.close(message.id) is not None:
                self._free(message.id)
        elif isinstance(message, Stale):
            self._give_back(message.id, StaleVersionError(message.generation))
        elif isinstance(message, Reconfigured):
            self._reconfigured(message)

    def _completed(self, message: Completed, frames: tuple[bytes, ...]) -> None:
        if message.error is not None:
            self._fail(message.id, from_wire(message.error))
            return
        self._give_back(message.id, Answer(message.outputs, frames, message.timing))

    def _give_back(self, id_: int, outcome: Answer | StaleVersionError) -> None:
        """The waiter gets this, and the block with it."""
        if self.ledger.close(id_) is None:
            self.unknown_answers += 1
            return
        waiter = self._waiting.get(id_)
        if waiter is None or waiter.done():
            self._free(id_)
            return
        del self._blocks[id_]
        if isinstance(outcome, Answer):
            waiter.set_result(outcome)
        else:
            waiter.set_exception(outcome)

    def _fail(self, id_: int, error: ServingError) -> None:
        if self.ledger.close(id_) is None:
            self.unknown_answers += 1
            return
        self._free(id_)
        waiter = self._waiting.get(id_)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _reconfigured(self, message: Reconfigured) -> None:
        waiter = self._reconfiguring.get(message.id)
        if waiter is None or waiter.done():
            return
        if message.error is not None:
            waiter.set_exception(from_wire(message.error))
        else:
            waiter.set_result(Reconfiguration(message.changed, message.failures))

    def _take_catalogue(self, message: Catalogue) -> None:
        self._catalogue = CatalogueView(message)
        # Every submit of this loop round was chosen by an older one and is already in `_outgoing`, before this.
        self._post(Acknowledge(message.generation))
        waiters, self._catalogue_waiters = self._catalogue_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _follow_changes(self, now: int) -> None:
        for change in self._link.changes():
            self._follow(change, now)

    def _follow(self, change: LinkUp | LinkDown, now: int) -> None:
        if isinstance(change, LinkUp):
            # What happened between the Hello and its answer stands in neither.
            if self._listening:
                self._post(Listening())
            for id_ in self.ledger.abandoned():
                self._post(Cancel(id_))
            for submit in self.ledger.unsent():
                self._post(submit)
            return
        self._tick_after(_TICK_S)
        self._outgoing.clear()
        # Whether the broker has read it, and whether its answer was on the way, is not known.
        for waiting in self._reconfiguring.values():
            if not waiting.done():
                waiting.set_exception(
                    UnavailableError("The broker was lost while the configuration changed; ask again")
                )
        if not change.broker_died:
            return
        _logger.warning("the broker has ended; requests are kept for its successor")
        for id_ in self.ledger.broker_died(now):
            waiter = self._waiting.get(id_)
            if waiter is not None and not waiter.done():
                waiter.set_exception(
                    InternalError("The broker ended three times right after it got the request")
                )

    def _tick(self) -> None:
        now = time.monotonic_ns()
        self._watch_all(now)
        self._link.tick(now)
        self._on_input()
        self._memory.collect()
        refused = self._admission.refused()
        if refused and self._link.linked:
            self._post(Refused(refused))
        due = self.ledger.entries or self._reconfiguring or self._memory.is_restless or not self._link.linked
        self._tick_after(_TICK_S if due else _REST_S)

    def _tick_after(self, delay_s: float) -> None:
        """Once, whatever was planned before: something may have become due that is not to wait for a rest's end."""
        if self._timer is not None:
            self._timer.cancel()
        self._resting = delay_s > _TICK_S
        self._timer = self._loop.call_later(delay_s, self._tick)


def _gave_back(waiter: asyncio.Future[Answer]) -> bool:
    """Whether the block came back to who waits here; else it is free already, or the broker's still."""
    if not waiter.done() or waiter.cancelled():
        return False
    return waiter.exception() is None or isinstance(waiter.exception(), StaleVersionError)
