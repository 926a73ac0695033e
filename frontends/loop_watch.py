"""The broker link's descriptors on asyncio."""

import asyncio
from collections.abc import Callable

from common.transport import Dealer


class LoopWatch:
    """Announces the link's descriptors to asyncio. A `common.peer.Watch`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_input: Callable[[], None], on_death: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._on_input = on_input
        self._on_death = on_death

    def add(self, source: Dealer | int) -> None:
        """See Watch."""
        if isinstance(source, int):
            self._loop.add_reader(source, self._on_death)
        else:
            self._loop.add_reader(source.descriptor, self._on_input)

    def remove(self, source: Dealer | int) -> None:
        """See Watch."""
        self._loop.remove_reader(source if isinstance(source, int) else source.descriptor)
