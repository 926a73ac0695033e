"""ZeroMQ ↔ core: links by identity, envelopes in, messages out, as few as possible.

Everything that a round of the loop sends to one peer travels as one ZeroMQ message. A peer that cannot be reached is
dropped from the links; whether it is dead its pidfd tells, and if it is not, it is told to greet anew when it says
something next.
"""

import logging
from collections.abc import Iterator
from typing import Protocol

import msgspec

from broker.commands import Send
from broker.core import Core
from common.errors import INTERNAL_TEXT, Code, WireError
from common.link import Link, Verdict
from common.messages import (
    PROTOCOL_VERSION,
    Completed,
    Envelope,
    FrontendHello,
    Message,
    OutputResult,
    RestartLink,
    ScaleQuery,
    ScaleReply,
    StatusQuery,
    StatusReply,
    StorekeeperHello,
    WorkerHello,
    decode,
    encode,
)

_logger = logging.getLogger("broker")

_HELLOS = (FrontendHello, WorkerHello, StorekeeperHello)
_CONTROL_REPLIES = (StatusReply, ScaleReply)
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
            identity, head, *rest = frames
            try:
                envelope = decode(head)
            except msgspec.DecodeError as error:
                _logger.error("a message that cannot be understood was dropped: %s", error)
                continue
            self._receive(core, identity, envelope, tuple(rest), now)

    def _receive(
        self, core: Core, identity: bytes, envelope: Envelope, frames: tuple[bytes, ...], now: int
    ) -> None:
        if envelope.protocol != PROTOCOL_VERSION:
            _logger.error("a peer speaks protocol %d, not %d", envelope.protocol, PROTOCOL_VERSION)
            return
        link = self._links.get(identity)
        if link is None:
            self._receive_first(core, identity, envelope, now)
            return
        verdict = link.judge(envelope)
        if verdict is Verdict.GAP:
            self._restart(identity, link)
        elif verdict is Verdict.ACCEPT:
            for message in envelope.messages:
                core.receive(identity, message, frames, now)

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

    def send(self, commands: list[Send]) -> None:
        """Send all of these, one ZeroMQ message a peer, in order."""
        grouped: dict[bytes, tuple[list[Message], list[bytes]]] = {}
        for command in commands:
            if isinstance(command.message, _CONTROL_REPLIES):
                envelope = Envelope(PROTOCOL_VERSION, 0, 0, [command.message])
                self._socket.send(command.identity, [encode(envelope)])
                continue
            messages, frames = grouped.setdefault(command.identity, ([], []))
            if command.frames:
                messages.append(_renumber(command, frames))
            else:
                messages.append(command.message)
        for identity, (messages, frames) in grouped.items():
            link = self._links.get(identity)
            if link is None:
                continue
            if not self._socket.send(identity, [encode(link.stamp(messages)), *frames]):
                del self._links[identity]


def _renumber(command: Send, frames: list[bytes]) -> Message:
    """The answer with its frames at the end of `frames`. Frame 0 of the ZeroMQ message is the envelope."""
    answer = command.message
    assert isinstance(answer, Completed), "only answers bring frames"
    if any(output.frame > len(command.frames) for output in answer.outputs):
        # A worker that counts wrongly costs its own request, not the broker.
        return Completed(answer.id, (), WireError(Code.INTERNAL, INTERNAL_TEXT))
    outputs = []
    for output in answer.outputs:
        if output.frame < 1:
            outputs.append(output)
            continue
        frames.append(command.frames[output.frame - 1])
        outputs.append(OutputResult(output.shape, len(frames)))
    return msgspec.structs.replace(answer, outputs=tuple(outputs))
