"""A peer's link to the broker, with its socket and its watch over the broker's process.

The decisions are `common.session`'s; here they are carried out. The owner supplies the Hello, tells when its
descriptors have input, and sends and drains; it runs in a poll loop (workers, storekeeper) or under asyncio
(frontends), which is why descriptors are announced through `Watch` instead of waited for.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from common.messages import Message, ProcessId, decode, encode
from common.process import open_pidfd
from common.session import Command, LinkDown, LinkUp, Open, Session, State, WatchBroker
from common.transport import Dealer, Transport


class Watch(Protocol):
    """Whatever waits for descriptors on the link's behalf."""

    def add(self, source: Dealer | int) -> None:
        """Wait for input on this from now on."""

    def remove(self, source: Dealer | int) -> None:
        """Wait for it no longer; called before it is closed."""


class PeerLink:
    """The socket of the present attempt, and what came of it."""

    def __init__(
        self, transport: Transport, path: Path, name: str, hello: Callable[[], Message], watch: Watch
    ) -> None:
        self._transport = transport
        self._path = path
        self._hello = hello
        self._watch = watch
        self._session = Session(name)
        self._broker: ProcessId | None = None
        self.dealer: Dealer | None = None
        self.pidfd: int | None = None
        self._changes: list[LinkUp | LinkDown] = []

    @property
    def linked(self) -> bool:
        """Whether messages may be sent."""
        return self._session.state is State.LINKED

    def start(self, now: int) -> None:
        """Open the first socket and greet."""
        self._carry_out(self._session.open(now), now)

    def tick(self, now: int) -> None:
        """To be called a few times a second: a greeting without an answer is repeated on a new socket."""
        self._carry_out(self._session.tick(now), now)

    def broker_ended(self, now: int) -> None:
        """`pidfd` has become readable."""
        if self._broker is not None:
            self._carry_out(self._session.broker_died(self._broker, now), now)

    def changes(self) -> list[LinkUp | LinkDown]:
        """What has become of the link since the last call, in order."""
        found, self._changes = self._changes, []
        return found

    def send(self, messages: list[Message], frames: tuple[bytes, ...] = ()) -> bool:
        """Send as one ZeroMQ message; False when not linked or not taken (a gap that the broker will notice)."""
        if not self.linked or self.dealer is None:
            return False
        return self.dealer.send([encode(self._session.stamp(messages)), *frames])

    def drain(self, now: int) -> Iterator[tuple[Message, tuple[bytes, ...]]]:
        """The messages that have come and count, each with the further frames of its ZeroMQ message."""
        dealer = self.dealer
        if dealer is None:
            return
        for head, *frames in dealer.drain():
            try:
                envelope = decode(head)
            except msgspec.DecodeError:
                # The broker speaks another protocol version: greeting goes on until one of the two is replaced.
                continue
            messages, commands = self._session.receive(envelope, now)
            further = tuple(frames)
            for message in messages:
                yield message, further
            if commands:
                self._carry_out(commands, now)
                if self.dealer is not dealer:
                    return

    def close(self) -> None:
        """Close socket and watch."""
        self._close_socket()
        self._close_watch()

    def _carry_out(self, commands: list[Command], now: int) -> None:
        for command in commands:
            if isinstance(command, Open):
                self._close_socket()
                self._close_watch()
                self.dealer = self._transport.dealer(self._path, command.identity)
                self._watch.add(self.dealer)
                self.dealer.send([encode(self._session.stamp([self._hello()]))])
            elif isinstance(command, WatchBroker):
                self._open_watch(command.process, now)
            else:
                self._changes.append(command)

    def _open_watch(self, process: ProcessId, now: int) -> None:
        self._broker = process
        self.pidfd = open_pidfd(process)
        if self.pidfd is None:
            self._carry_out(self._session.broker_died(process, now), now)
        else:
            self._watch.add(self.pidfd)

    def _close_socket(self) -> None:
        if self.dealer is not None:
            self._watch.remove(self.dealer)
            self.dealer.close()
            self.dealer = None

    def _close_watch(self) -> None:
        if self.pidfd is not None:
            self._watch.remove(self.pidfd)
            os.close(self.pidfd)
            self.pidfd = None
