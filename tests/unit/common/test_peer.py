"""common.peer over real sockets; the other end is a real router in this process, and so is the "broker's" pid."""

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.link import Link
from common.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    ArenaGone,
    Envelope,
    Listening,
    Message,
    ProcessId,
    RestartLink,
    Welcome,
    decode,
    encode,
)
from common.peer import PeerLink
from common.process import this_process
from common.session import HELLO_TIMEOUT_NS, LinkDown, LinkUp
from common.transport import Dealer, Router, Transport, Waiter

PATIENCE_NS = 10_000_000_000
EPOCH = 5
GONE = ProcessId(os.getpid(), 1)
"""This process's number, but one that started at another time: has ended, as far as anybody can tell."""


class RecordingWatch:
    """A Waiter that also remembers what it was told to watch."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.watched: set[Dealer | int] = set()

    def add(self, source: Dealer | int) -> None:
        assert source not in self.watched
        self.watched.add(source)
        self.waiter.add(source)

    def remove(self, source: Dealer | int) -> None:
        self.watched.remove(source)
        if isinstance(source, int):
            os.fstat(source)  # removed before it is closed
        self.waiter.remove(source)


class Ends:
    """A peer link and the socket that it reaches."""

    def __init__(self, directory: Path) -> None:
        self.transport = Transport()
        self.path = directory / "broker.ipc"
        self.router: Router = self.transport.router(self.path)
        self.hellos = 0
        self.watch = RecordingWatch(Waiter())
        self.link = PeerLink(self.transport, self.path, "f1", self.hello, self.watch)

    def hello(self) -> Message:
        self.hellos += 1
        return Acknowledge(self.hellos)

    def receive(self) -> tuple[bytes, Envelope, list[bytes]]:
        """The next message at the router's end."""
        # Not a Waiter: that may return for nothing, which its owners' loops make nothing of.
        assert self.router.socket.poll(PATIENCE_NS // 1_000_000)
        identity, head, *frames = next(self.router.drain())
        return identity, decode(head), frames

    def welcome(self, process: ProcessId) -> tuple[bytes, Link]:
        """Answer the Hello that waits at the router."""
        identity, envelope, _ = self.receive()
        assert (envelope.epoch, envelope.sequence) == (0, 0)
        link = Link.greeted(EPOCH)
        self.say(identity, link, Welcome(process))
        return identity, link

    def say(self, identity: bytes, link: Link, *messages: Message, frames: tuple[bytes, ...] = ()) -> None:
        assert self.router.send(identity, [encode(link.stamp(list(messages))), *frames])

    def drain(self, now: int = 0) -> list[tuple[Message, tuple[bytes, ...]]]:
        """Wait for input at the peer's end, and take it."""
        assert self.link.dealer is not None
        assert self.link.dealer.socket.poll(PATIENCE_NS // 1_000_000)
        return list(self.link.drain(now))

    def close(self) -> None:
        self.link.close()
        self.router.close()
        self.transport.close()


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(tmp_path)
    yield ends
    ends.close()


def is_linked(ends: Ends) -> bool:
    return ends.link.linked


def linked(ends: Ends) -> tuple[bytes, Link]:
    ends.link.start(0)
    identity, link = ends.welcome(this_process())
    assert ends.drain() == []
    assert ends.link.changes() == [LinkUp(EPOCH)]
    return identity, link


def test_a_welcome_links(ends: Ends) -> None:
    ends.link.start(0)
    assert not is_linked(ends)
    identity, _ = ends.welcome(this_process())
    assert identity == b"f1.1"
    ends.drain()
    assert is_linked(ends)
    assert ends.link.changes() == [LinkUp(EPOCH)]
    assert ends.link.changes() == []
    assert ends.watch.watched == {ends.link.dealer, ends.link.pidfd}


def test_nothing_is_sent_before_the_welcome(ends: Ends) -> None:
    assert not ends.link.send([Listening()])
    ends.link.start(0)
    assert not ends.link.send([Listening()])
    _, envelope, _ = ends.receive()
    assert envelope.messages == [Acknowledge(1)]


def test_messages_travel_both_ways_with_their_frames(ends: Ends) -> None:
    identity, link = linked(ends)
    assert ends.link.send([Listening(), Acknowledge(9)], (b"frame", b""))
    assert ends.link.send([Acknowledge(10)])
    assert ends.receive() == (
        identity,
        Envelope(PROTOCOL_VERSION, EPOCH, 1, [Listening(), Acknowledge(9)]),
        [b"frame", b""],
    )
    assert ends.receive()[1] == Envelope(PROTOCOL_VERSION, EPOCH, 2, [Acknowledge(10)])
    ends.say(identity, link, ArenaGone("a"), ArenaGone("b"), frames=(b"1", b"2"))
    assert ends.drain() == [(ArenaGone("a"), (b"1", b"2")), (ArenaGone("b"), (b"1", b"2"))]


def test_a_greeting_without_an_answer_is_repeated_on_a_new_socket(ends: Ends) -> None:
    ends.link.start(0)
    first = ends.link.dealer
    assert ends.receive()[0] == b"f1.1"
    ends.link.tick(HELLO_TIMEOUT_NS - 1)
    assert ends.link.dealer is first
    ends.link.tick(HELLO_TIMEOUT_NS)
    assert ends.link.dealer is not first
    assert ends.watch.watched == {ends.link.dealer}
    identity, envelope, _ = ends.receive()
    assert (identity, envelope.messages) == (b"f1.2", [Acknowledge(2)])


def test_a_broker_that_comes_later_is_found(ends: Ends) -> None:
    ends.router.close()
    ends.path.unlink()  # else the link may meet the closed router, which is not closed at once, and lose its Hello
    ends.link.start(0)
    ends.router = ends.transport.router(ends.path)
    identity, _ = ends.welcome(this_process())
    assert identity == b"f1.1"
    ends.drain()
    assert ends.link.linked


def test_a_gap_makes_the_link_anew(ends: Ends) -> None:
    identity, link = linked(ends)
    link.stamp([ArenaGone("lost")])
    ends.say(identity, link, ArenaGone("next"))
    ends.say(identity, link, ArenaGone("after"))
    assert ends.drain() == []
    assert ends.link.changes() == [LinkDown(broker_died=False)]
    assert not ends.link.linked
    assert not ends.link.send([Listening()])
    assert ends.welcome(this_process())[0] == b"f1.2"
    assert ends.drain() == []
    assert ends.link.changes() == [LinkUp(EPOCH)]


def test_restart_link_makes_the_link_anew(ends: Ends) -> None:
    identity, link = linked(ends)
    ends.say(identity, link, RestartLink())
    assert ends.drain() == []
    assert ends.link.changes() == [LinkDown(broker_died=False)]
    assert ends.receive()[0] == b"f1.2"


def test_messages_before_a_gap_count(ends: Ends) -> None:
    identity, link = linked(ends)
    ends.say(identity, link, ArenaGone("first"))
    link.stamp([ArenaGone("lost")])
    ends.say(identity, link, ArenaGone("next"))
    taken = ends.drain()
    if len(taken) == 1 and ends.link.linked:
        ends.drain()
    assert taken == [(ArenaGone("first"), ())]
    assert not ends.link.linked


def test_the_brokers_end_is_reported_once(ends: Ends) -> None:
    linked(ends)
    ends.link.broker_ended(0)
    assert ends.link.changes() == [LinkDown(broker_died=True)]
    assert ends.link.pidfd is None
    ends.link.broker_ended(0)
    assert ends.link.changes() == []
    assert ends.watch.watched == {ends.link.dealer}


def test_a_welcome_of_a_broker_that_has_ended_meanwhile(ends: Ends) -> None:
    ends.link.start(0)
    ends.welcome(GONE)
    ends.drain()
    assert ends.link.changes() == [LinkUp(EPOCH), LinkDown(broker_died=True)]
    assert not ends.link.linked
    assert ends.welcome(this_process())[0] == b"f1.2"
    ends.drain()
    assert ends.link.changes() == [LinkUp(EPOCH)]


def test_what_cannot_be_understood_is_left_out(ends: Ends) -> None:
    identity, link = linked(ends)
    assert ends.router.send(identity, [b"junk"])
    assert ends.router.send(identity, [encode(Envelope(99, EPOCH, 1, [ArenaGone("x")]))])
    ends.say(identity, link, ArenaGone("y"))
    taken: list[tuple[Message, tuple[bytes, ...]]] = []
    while not taken:
        taken = ends.drain()
    assert taken == [(ArenaGone("y"), ())]


def test_the_watched_descriptor_is_the_brokers(ends: Ends) -> None:
    linked(ends)
    assert ends.link.pidfd is not None
    assert select.select([ends.link.pidfd], [], [], 0)[0] == []


def test_close_leaves_nothing(ends: Ends) -> None:
    linked(ends)
    pidfd = ends.link.pidfd
    assert pidfd is not None
    ends.link.close()
    assert ends.watch.watched == set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)
    assert not ends.link.send([Listening()])
    assert list(ends.link.drain(0)) == []


def test_a_router_says_when_a_peer_is_unknown(ends: Ends) -> None:
    assert not ends.router.send(b"nobody", [b"x"])
