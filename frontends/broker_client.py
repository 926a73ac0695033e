"""A frontend's side of the broker link, on asyncio: submits, answers, and everything that a broker's death brings.

Sends are gathered and go out once for each round of the event loop, or for several that follow each other closely
(`frontends.gathering`). ZeroMQ's descriptor is edge-triggered, so after
every send the queue is looked at again, and a timer looks whatever the descriptor says: often while an answer is due,
once a second at rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from common.config import ModelConfig, peers_socket
from common.errors import (
    DeadlineExceededError,
    InternalError,
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
    Reconfigured,
    Refused,
    Released,
    Stale,
    Submit,
)
from common.peer import PeerLink
from common.process import this_process
from common.session import LinkDown, LinkUp
from common.transport import Transport
from frontends.admission import Admission
from frontends.catalogue import CatalogueView
from frontends.gathering import Gathering
from frontends.interface import Reconfiguration
from frontends.ledger import Ledger
from frontends.loop_watch import LoopWatch
from frontends.memory import Block, Memory
from frontends.reconfigurations import Reconfigurations
from frontends.requests import Answer, AwaitedRequest, Request, StaleVersionError

_logger = logging.getLogger("frontends")

_TICK_S = 0.1
"""Between two looks at what no descriptor tells, while something is due."""

_REST_S = 1.0
"""The same while the link is up and nothing is due."""

_DRAIN_LOOK_S = 0.005
"""Between two looks at whether the last request has ended."""

_SOON_NS = 300_000_000
"""A request with less time left has a timer of its own. Some ticks: one may be late."""


class BrokerClient:
    """The link, the ledger, and who waits for what."""

    def __init__(self, run_dir: Path, name: str, kind: str, memory: Memory, admission: Admission) -> None:
        self.name = name
        self._kind = kind
        self._process = this_process()
        self._memory = memory
        self._admission = admission
        self.loop = asyncio.get_running_loop()
        self._transport = Transport()
        watch = LoopWatch(self.loop, self._on_input, self._on_death)
        self._link = PeerLink(self._transport, peers_socket(run_dir), name, self._hello, watch)
        self.ledger: Ledger[Request] = Ledger()
        self._entries = self.ledger.entries
        self._reconfigurations = Reconfigurations()
        self._outgoing: list[Message] = []
        self._flush_due: asyncio.Handle | None = None
        self._gathering = Gathering()
        self._listening = False
        self.catalogue: CatalogueView | None = None
        """The last one that came; None before the first."""
        self.catalogues = 0
        """How many have come: what was found out by one may be wrong by the next."""
        self._catalogue_waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False
        self.unknown_answers = 0

    @property
    def linked(self) -> bool:
        """Whether a broker is there."""
        return self._link.linked

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

    def begin(self, request: Request, now: int) -> None:
        """Have it inferred; it is told of its end. The block is the caller's again with an answer or a
        StaleVersionError; it is free with a ServingError of the broker; after DeadlineExceededError it becomes so.

        Whoever does not want it any more says so by `give_up`. `now`, by CLOCK_MONOTONIC, may be of a little while ago.
        """
        submit = request.submit
        self._entries[submit.id] = request
        if self._resting:
            self._tick_after(_TICK_S)
        if self._link.linked:
            self._post(submit)
        left_ns = submit.deadline - now
        if left_ns < _SOON_NS:
            self._watch(request, left_ns)

    def give_up(self, request: Request) -> None:
        """Nobody wants it any more, and its end was not told: the block is freed as soon as nothing can write to it."""
        if request.timer is not None:
            request.timer.cancel()
        self._abandon(request.submit.id)

    async def run(self, submit: Submit, block: Block) -> Answer:
        """Have a request inferred, and wait; of being cancelled nobody need be told. Raises ServingError,
        StaleVersionError.
        """
        request = AwaitedRequest(submit, block, self.loop.create_future())
        self.begin(request, time.monotonic_ns())
        try:
            completed = await request.waiter
        except asyncio.CancelledError:
            if request.gave_back():
                # Answered in the very round in which the client went: the block is ours, and nobody's any more.
                self._memory.free(request.block)
            else:
                self.give_up(request)
            raise
        return Answer(completed.outputs, request.frames, completed.timing)

    async def wait_for_catalogue(self, generation: int, deadline_ns: int) -> None:
        """Until the catalogue is at least of this generation (0: until there is one). Raises DeadlineExceededError."""
        while self.catalogue is None or self.catalogue.generation < generation:
            waiter = self.loop.create_future()
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
        asked, message = self._reconfigurations.begin(self.loop.create_future(), models)
        self._tick_after(_TICK_S)
        self._post(message)
        try:
            return await asyncio.wait_for(asked, max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9))
        except asyncio.TimeoutError:  # not the built-in one before Python 3.11
            raise DeadlineExceededError(
                "The deadline passed before the models of the new configuration were loaded; loading goes on"
            ) from None
        finally:
            self._reconfigurations.end(message.id)

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nobody waits for an answer; whether that was so in time."""
        ends = self.loop.time() + timeout_s
        # Who was answered in this very round goes first: what is Stale is submitted again.
        await asyncio.sleep(0)
        # Looking costs a process that is about to end next to nothing; to say so at its end would cost each request.
        while (waited_for := self._is_waited_for()) and (left := ends - self.loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(_DRAIN_LOOK_S, left))
        return not waited_for

    def _is_waited_for(self) -> bool:
        return any(not request.ended() for request in self._entries.values())

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
        """Have a message sent, with all others of this round of the loop, and perhaps of the next ones."""
        self._outgoing.append(message)
        if self._flush_due is None:
            self._flush_due = self.loop.call_soon(self._gather)

    def _gather(self) -> None:
        if self._gathering.waits(len(self._outgoing), time.monotonic_ns()):
            self._flush_due = self.loop.call_soon(self._gather)
        else:
            self._flush()

    def _flush(self) -> None:
        if self._flush_due is not None:
            self._flush_due.cancel()
            self._flush_due = None
        outgoing, self._outgoing = self._outgoing, []
        self._gathering.sent(len(outgoing))
        if not outgoing or not self._link.linked:
            # What was to be said is in the ledger, and so in the next Hello, or said when the link is there.
            return
        now, entries = time.monotonic_ns(), self._entries
        sent: list[Message] = []
        for one in outgoing:
            if type(one) is Submit:
                request = entries.get(one.id)
                if request is None:
                    # Given up in this very round: it must not go, for its block belongs to another by now.
                    continue
                request.sent_at = now
            sent.append(one)
        self._link.send(sent)
        dealer = self._link.dealer
        if dealer is not None and dealer.has_input():
            self._on_input()

    def _abandon(self, id_: int) -> None:
        """Nobody waits for the request any more; its block comes back when the broker says so."""
        request = self._entries.get(id_)
        if request is None:
            return
        if self.ledger.abandon(id_):
            self._memory.free(request.block)
        else:
            self._post(Cancel(id_))

    def _watch(self, request: Request, left_ns: int) -> None:
        """Have a request expire on time. One that has long is looked at again at every tick, and has no timer yet."""
        request.timer = self.loop.call_later(max(0.0, left_ns / 1e9), self._expire, request.submit.id)

    def _watch_all(self, now: int) -> None:
        for request in self._entries.values():
            left_ns = request.submit.deadline - now
            if left_ns < _SOON_NS and request.timer is None and not request.ended():
                self._watch(request, left_ns)

    def _expire(self, id_: int) -> None:
        request = self._entries.get(id_)
        if request is not None and not request.ended():
            self._abandon(id_)
            request.failed(DeadlineExceededError("The deadline passed before the answer was there"))

    # ---- incoming

    def _on_input(self) -> None:
        now = time.monotonic_ns()
        for message, frames in self._link.drain(now):
            self.receive(message, frames)
        self._follow_changes(now)
        dealer = self._link.dealer
        if dealer is not None and dealer.left:
            self.loop.call_soon(self._on_input)

    def _on_death(self) -> None:
        self._link.broker_ended(time.monotonic_ns())
        self._on_input()

    def receive(self, message: Message, frames: tuple[bytes, ...]) -> None:
        """A message of the broker, and the further frames that it came with."""
        if isinstance(message, Completed):
            self._completed(message, frames)
        elif isinstance(message, Catalogue):
            self._take_catalogue(message)
        elif isinstance(message, Released):
            request = self.ledger.close(message.id)
            if request is not None:
                self._memory.free(request.block)
        elif isinstance(message, Stale):
            self._stale(message)
        elif isinstance(message, Reconfigured):
            self._reconfigurations.answered(message)

    def _completed(self, message: Completed, frames: tuple[bytes, ...]) -> None:
        """The request gets the answer, and the block with it, or the error."""
        request = self._closed(message.id)
        if request is None:
            return
        if message.error is None and not request.ended():
            request.frames = frames
            request.answered(message)
            return
        self._memory.free(request.block)
        if message.error is not None and not request.ended():
            request.failed(from_wire(message.error))

    def _stale(self, message: Stale) -> None:
        """The request gets the block back."""
        request = self._closed(message.id)
        if request is None:
            return
        if request.ended():
            self._memory.free(request.block)
        else:
            request.failed(StaleVersionError(message.generation))

    def _closed(self, id_: int) -> Request | None:
        """The request that has ended, which is forgotten; None, and it is counted, for one that is not known."""
        request = self._entries.pop(id_, None)
        if request is None:
            self.unknown_answers += 1
        elif request.timer is not None:
            request.timer.cancel()
        return request

    def _take_catalogue(self, message: Catalogue) -> None:
        self.catalogue = CatalogueView(message)
        self.catalogues += 1
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
        self._reconfigurations.lost()
        if not change.broker_died:
            return
        _logger.warning("the broker has ended; requests are kept for its successor")
        for id_ in self.ledger.broker_died(now):
            request = self._entries[id_]
            if not request.ended():
                request.failed(InternalError("The broker ended three times right after it got the request"))

    def _tick(self) -> None:
        now = time.monotonic_ns()
        self._watch_all(now)
        self._link.tick(now)
        self._on_input()
        self._memory.collect()
        refused = self._admission.refused()
        if refused and self._link.linked:
            self._post(Refused(refused))
        due = (
            self._entries
            or self._reconfigurations.waiting
            or self._memory.is_restless
            or not self._link.linked
        )
        self._tick_after(_TICK_S if due else _REST_S)

    def _tick_after(self, delay_s: float) -> None:
        """Once, whatever was planned before: something may have become due that is not to wait for a rest's end."""
        if self._timer is not None:
            self._timer.cancel()
        self._resting = delay_s > _TICK_S
        self._timer = self.loop.call_later(delay_s, self._tick)
