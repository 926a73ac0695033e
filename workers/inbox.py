"""How other threads reach the message loop: a deque to put things in, and an eventfd that wakes it."""

import os
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """Many writers, one reader. `descriptor` is readable while something may be inside."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def post(self, item: Item) -> None:
        """Put an item in and wake the reader. From any thread."""
        self._items.append(item)
        os.eventfd_write(self.descriptor, 1)

    def drain(self, *, woken: bool) -> Iterator[Item]:
        """Take out what is inside; `woken` says whether the descriptor was found readable.

        The eventfd is reset before the items are taken, so an item that comes in between wakes the reader once more.
        """
        if woken:
            os.eventfd_read(self.descriptor)
        while self._items:
            yield self._items.popleft()

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.descriptor)
