"""common.transport: messages of several frames, the bound of a drain, and waiting for sockets and descriptors."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.transport import MAX_DRAIN, Dealer, Router, Transport, Waiter

SECOND = 1_000_000_000


class Ends:
    """A router and a dealer, connected."""

    def __init__(self, path: Path) -> None:
        self.transport = Transport()
        self.router: Router = self.transport.router(path)
        self.dealer: Dealer = self.transport.dealer(path, "d.1")
        self.waiter = Waiter()
        self.waiter.add(self.router)

    def receive(self, count: int) -> list[list[bytes]]:
        """So many messages that the dealer has sent."""
        got: list[list[bytes]] = []
        for _ in range(1000):
            self.waiter.wait(SECOND // 100)
            got += self.router.drain()
            if len(got) >= count:
                break
        return got


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path / "s")
    yield made
    made.waiter.close()
    made.transport.close()


MESSAGES = [[b"one"], [b"one", b"two"], [b"", b"", b""], [b"a", b"x" * 100_000, b"", b"b"], [b"last"]]


def test_each_frame_arrives_with_its_message(ends: Ends) -> None:
    for frames in MESSAGES:
        assert ends.dealer.send(frames)
    got = ends.receive(len(MESSAGES))
    assert got == [[b"d.1", *frames] for frames in MESSAGES]
    assert all(type(frame) is bytes for frames in got for frame in frames)


def test_each_frame_of_an_answer_arrives_with_its_message(ends: Ends) -> None:
    ends.dealer.send([b"hello"])
    ends.receive(1)
    waiter = Waiter()
    waiter.add(ends.dealer)
    for frames in MESSAGES:
        assert ends.router.send(b"d.1", frames)
    got: list[list[bytes]] = []
    for _ in range(1000):
        waiter.wait(SECOND // 100)
        got += ends.dealer.drain()
        if len(got) >= len(MESSAGES):
            break
    waiter.close()
    assert got == MESSAGES
    assert all(type(frame) is bytes for frames in got for frame in frames)


def test_a_drain_of_an_empty_socket_yields_nothing(ends: Ends) -> None:
    assert list(ends.router.drain()) == []
    assert list(ends.dealer.drain()) == []
    assert not ends.router.left


def test_a_drain_ends_at_its_bound_and_says_so(ends: Ends) -> None:
    for number in range(MAX_DRAIN + 1):
        assert ends.dealer.send([b"%d" % number])
    first: list[list[bytes]] = []
    while len(first) < MAX_DRAIN:
        ends.waiter.wait(SECOND)
        got = list(ends.router.drain())
        assert len(got) == MAX_DRAIN if ends.router.left else len(got) <= MAX_DRAIN
        first += got
    rest = [] if len(first) > MAX_DRAIN else ends.receive(1)
    assert [int(frames[1]) for frames in first + rest] == list(range(MAX_DRAIN + 1))


def test_what_is_sent_to_nobody_is_not_taken(ends: Ends) -> None:
    assert not ends.router.send(b"nobody", [b"x"])
    assert not ends.router.send(b"nobody", [b"x", b"y"])


def test_waiting_tells_of_plain_descriptors_alone(ends: Ends) -> None:
    descriptor = os.eventfd(0)
    try:
        ends.waiter.add(descriptor)
        assert ends.waiter.wait(-1) == set(), "a time that has passed is no wait without end"
        os.eventfd_write(descriptor, 1)
        ends.dealer.send([b"x"])
        while not ends.router.has_input():
            assert ends.waiter.wait(SECOND) == {descriptor}
        # What is there already is found at once, beside the descriptor.
        assert ends.waiter.wait(1000 * SECOND) == {descriptor}
        os.eventfd_read(descriptor)
        assert ends.waiter.wait(1000 * SECOND) == set()
        ends.waiter.remove(descriptor)
    finally:
        os.close(descriptor)
    assert list(ends.router.drain()) == [[b"d.1", b"x"]]
