"""A peer's side of the handshake with the broker, for frontends, workers and the storekeeper. Pure.

    CLOSED ──open──▶ GREETING (Hello sent) ──Welcome──▶ LINKED
                         ▲  │ no Welcome in time          │ pidfd fires, gap, RestartLink
                         └──┴──── on a new socket ◀───────┘

Every socket has a new identity, so nothing that was meant for an earlier one can reach it.
"""

from enum import Enum
from typing import TypeAlias

import msgspec

from common.link import DROP, GAP, Link
from common.messages import PROTOCOL_VERSION, Envelope, Message, ProcessId, RestartLink, Welcome

HELLO_TIMEOUT_NS = 500_000_000
"""Long enough for a busy broker to answer, short enough that one that died between Hello and Welcome is not missed."""


class State(Enum):
    """Of the session."""

    CLOSED = "closed"
    GREETING = "greeting"
    LINKED = "linked"


class Open(msgspec.Struct, frozen=True):
    """Close the socket, open one with this identity, and send a Hello on it."""

    identity: str


class WatchBroker(msgspec.Struct, frozen=True):
    """Tell the session when this process ends (`broker_died`)."""

    process: ProcessId


class LinkUp(msgspec.Struct, frozen=True):
    """Messages may be sent from now on."""

    epoch: int


class LinkDown(msgspec.Struct, frozen=True):
    """Nothing sent on the old link may be counted on; `broker_died` tells a death from a lost message."""

    broker_died: bool


Command: TypeAlias = Open | WatchBroker | LinkUp | LinkDown


class Session:
    """Decides when to open sockets and which envelopes count. The owner does the sending."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._attempt = 0
        self._link = Link(0)
        self._incoming: Link | None = None
        self._greeted_at = 0
        self.state = State.CLOSED
        self.broker: ProcessId | None = None

    @property
    def epoch(self) -> int:
        """Of the broker that this session is linked to; 0 before that."""
        return self._link.epoch

    def open(self, now: int) -> list[Command]:
        """Start, or start anew."""
        was_linked = self.state is State.LINKED
        self._attempt += 1
        self._link = Link(0)
        self._incoming = None
        self._greeted_at = now
        self.broker = None
        self.state = State.GREETING
        opened: list[Command] = [Open(f"{self._name}.{self._attempt}")]
        return [LinkDown(broker_died=False), *opened] if was_linked else opened

    def broker_died(self, process: ProcessId, now: int) -> list[Command]:
        """The watched process has ended; a late report about an earlier one changes nothing."""
        if process != self.broker:
            return []
        self.state = State.CLOSED
        return [LinkDown(broker_died=True), *self.open(now)]

    def tick(self, now: int) -> list[Command]:
        """To be called now and then: a Hello without an answer is sent again on a new socket."""
        if self.state is State.GREETING and now - self._greeted_at >= HELLO_TIMEOUT_NS:
            return self.open(now)
        return []

    def stamp(self, messages: list[Message]) -> Envelope:
        """The envelope for messages that are to be sent now: the Hello while greeting, anything once linked."""
        return self._link.stamp(messages)

    def receive(self, envelope: Envelope, now: int) -> tuple[list[Message], list[Command]]:
        """The messages that count, and what is to be done because of the envelope itself."""
        if self._incoming is None:
            return self._receive_first(envelope)
        verdict = self._incoming.judge(envelope)
        if verdict is DROP:
            return [], []
        if verdict is GAP:
            return [], self.open(now)
        for message in envelope.messages:
            if type(message) is RestartLink:
                return [], self.open(now)
        return envelope.messages, []

    def _receive_first(self, envelope: Envelope) -> tuple[list[Message], list[Command]]:
        """Only a Welcome can be the first; anything else belongs to another life of the broker."""
        if envelope.protocol != PROTOCOL_VERSION or envelope.sequence != 0 or not envelope.messages:
            return [], []
        welcome = envelope.messages[0]
        if not isinstance(welcome, Welcome):
            return [], []
        self._incoming = Link(envelope.epoch)
        self._incoming.judge(envelope)
        self._link.epoch = envelope.epoch
        self.broker = welcome.process
        self.state = State.LINKED
        return envelope.messages[1:], [LinkUp(envelope.epoch), WatchBroker(welcome.process)]
