"""ZeroMQ ↔ core: links by identity, envelopes in, messages out.

A peer that cannot be reached is
dropped from the links; whether it is dead its pidfd tells, and if it is not, it is told to greet anew when it says
something next.
"""

import logging
from collections.abc import Iterator
from typing import Protocol

import msgspec

from broker.commands import Reply, Send
from broker.core import Core
from common.link import ACCEPT, GAP, Link
from common.messages import (
    PROTOCOL_VERSION,
    Envelope,
    FrontendHello,
    RestartLink,
    ScaleQuery,
    StatusQuery,
    StorekeeperHello,
    WorkerHello,
    decode,
    encode,
)

_logger = logging.getLogger("broker")

_HELLOS = (FrontendHello, WorkerHello, StorekeeperHello)
_FAR_AHEAD = 1 << 62


class RouterSocket(Protocol):
    """common.transport.Router, or its stand-in in memory."""

    def drain(self) -> Iterator[list[bytes]]: ...

    def send(self, identity: bytes, frames: list[bytes]) -> bool: ...


class Router:
    """The links of all peers, behind the broker's one socket for them."""

    def __init__(self, socket: RouterSocket, epoch: int) -> None:
        self._socket = socket
        self._epoch = epoch
        self._links: dict[bytes, Link] = {}

    def drain(self, core: Core, now: int) -> None:
        """Hand everything that has come in to the core."""
        for frames in self._socket.drain():
            try:
                envelope = decode(frames[1])
            except msgspec.DecodeError as error:
                _logger.error("a message that cannot be understood was dropped: %s", error)
                continue
            self._receive(core, frames, envelope, now)

    def _receive(self, core: Core, frames: list[bytes], envelope: Envelope, now: int) -> None:
        identity = frames[0]
        if envelope.protocol != PROTOCOL_VERSION:
            _logger.error("a peer speaks protocol %d, not %d", envelope.protocol, PROTOCOL_VERSION)
            return
        link = self._links.get(identity)
        if link is None:
            self._receive_first(core, identity, envelope, now)
            return
        verdict = link.judge(envelope)
        if verdict is ACCEPT:
            core.receive(identity, envelope.messages, tuple(frames[2:]), now)
        elif verdict is GAP:
            self._restart(identity, link)

    def _receive_first(self, core: Core, identity: bytes, envelope: Envelope, now: int) -> None:
        first = envelope.messages[0] if envelope.messages else None
        if envelope.epoch == self._epoch:
            # Its link was dropped, here alone; a number far ahead shows it that it has missed something.
            lost = Envelope(PROTOCOL_VERSION, self._epoch, _FAR_AHEAD, [RestartLink()])
            self._socket.send(identity, [encode(lost)])
            return
        if envelope.epoch or envelope.sequence or first is None:
            return
        if isinstance(first, (StatusQuery, ScaleQuery)):
            core.control(identity, first, now)
        elif isinstance(first, _HELLOS):
            self._links[identity] = Link.greeted(self._epoch)
            core.hello(identity, first, now)

    def _restart(self, identity: bytes, link: Link) -> None:
        """Something of the peer's was lost: it is to greet anew, and is heard no more before it does."""
        _logger.warning("a message of %s was lost; the link is made anew", identity.decode(errors="replace"))
        del self._links[identity]
        self._socket.send(identity, [encode(link.stamp([RestartLink()]))])

    def send(self, send: Send) -> None:
        """Send what is for one peer, as one ZeroMQ message."""
        link = self._links.get(send.identity)
        if link is None:
            return
        if not self._socket.send(send.identity, [encode(link.stamp(send.messages)), *send.frames]):
            del self._links[send.identity]

    def reply(self, reply: Reply) -> None:
        """Answer somebody who has no link."""
        self._socket.send(reply.identity, [encode(Envelope(PROTOCOL_VERSION, 0, 0, [reply.message]))])
