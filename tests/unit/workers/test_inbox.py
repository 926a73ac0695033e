"""How other threads reach the loop."""

import select
import threading
from collections.abc import Iterator

import pytest

from workers.inbox import Inbox


@pytest.fixture
def inbox() -> Iterator[Inbox[int]]:
    inbox: Inbox[int] = Inbox()
    yield inbox
    inbox.close()


def is_readable(inbox: Inbox[int]) -> bool:
    return bool(select.select([inbox.descriptor], [], [], 0)[0])


def test_a_post_wakes_the_reader_until_it_has_read(inbox: Inbox[int]) -> None:
    assert not is_readable(inbox)
    inbox.post(1)
    inbox.post(2)
    assert is_readable(inbox)
    assert list(inbox.drain(woken=True)) == [1, 2]
    assert not is_readable(inbox)
    assert list(inbox.drain(woken=False)) == []


def test_a_post_during_the_reading_is_read_or_wakes_again(inbox: Inbox[int]) -> None:
    inbox.post(1)
    items = inbox.drain(woken=True)
    assert next(items) == 1
    inbox.post(2)
    assert list(items) == [2]
    assert is_readable(inbox), "a superfluous look does no harm, a missed one would"
    assert list(inbox.drain(woken=True)) == []


def test_many_writers(inbox: Inbox[int]) -> None:
    def write(number: int) -> None:
        for _ in range(200):
            inbox.post(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    received: list[int] = []
    while len(received) < 800:
        ready, _, _ = select.select([inbox.descriptor], [], [], 10)
        assert ready
        received += inbox.drain(woken=True)
    for thread in threads:
        thread.join()
    assert sorted(received) == sorted(n for n in range(4) for _ in range(200))
