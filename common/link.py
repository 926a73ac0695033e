"""One direction-pair of a link: stamps what goes out, judges what comes in. Pure.

A ZeroMQ socket may hand over a dead broker's messages after its successor's first one, and a router drops silently
for a peer that has gone. So each envelope carries the broker's epoch and a number; repeats and foreign epochs are
dropped, and a gap means that something was lost, upon which the handshake is done anew.
"""

from enum import Enum
from typing import Final

from common.messages import PROTOCOL_VERSION, Envelope, Message


class Verdict(Enum):
    """What to do with an envelope that came in."""

    ACCEPT = "accept"
    DROP = "drop"
    GAP = "gap"


# Names of this module: an enumeration's own are looked up as attributes.
ACCEPT: Final = Verdict.ACCEPT
DROP: Final = Verdict.DROP
GAP: Final = Verdict.GAP


class Link:
    """Epoch and both counters of one socket's life."""

    __slots__ = ("_incoming", "_outgoing", "epoch")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self._incoming = 0
        self._outgoing = 0

    @classmethod
    def greeted(cls, epoch: int) -> "Link":
        """The broker's end of a link whose Hello, number 0, has been read."""
        link = cls(epoch)
        link._incoming = 1
        return link

    def stamp(self, messages: list[Message]) -> Envelope:
        """The next envelope to send."""
        envelope = Envelope(PROTOCOL_VERSION, self.epoch, self._outgoing, messages)
        self._outgoing += 1
        return envelope

    def judge(self, envelope: Envelope) -> Verdict:
        """Whether an envelope of this link is the next one, an old one, or shows that one was lost."""
        if envelope.protocol != PROTOCOL_VERSION or envelope.epoch != self.epoch:
            return DROP
        if envelope.sequence < self._incoming:
            return DROP
        if envelope.sequence > self._incoming:
            return GAP
        self._incoming += 1
        return ACCEPT
