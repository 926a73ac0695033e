"""Who waits for which change of the configuration. The broker client sends what is asked and hands over the answers."""

import asyncio

from common.config import ModelConfig
from common.errors import ResourceExhaustedError, UnavailableError, from_wire
from common.messages import Reconfigure, Reconfigured
from frontends.interface import Reconfiguration

MAX_RECONFIGURATIONS = 16
"""Configurations that may be waited for at once; each is as long as its models are many."""


class Reconfigurations:
    """Of one frontend."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[Reconfiguration]] = {}
        self._last_id = 0

    def begin(
        self, waiter: "asyncio.Future[Reconfiguration]", models: tuple[ModelConfig, ...] | None
    ) -> "tuple[asyncio.Future[Reconfiguration], Reconfigure]":
        """Wait for one more; what the broker is to be asked. Raises ResourceExhaustedError."""
        if len(self.waiting) >= MAX_RECONFIGURATIONS:
            raise ResourceExhaustedError(
                f"{MAX_RECONFIGURATIONS} changes of the configuration are under way, the most that are waited for"
            )
        self._last_id += 1
        self.waiting[self._last_id] = waiter
        return waiter, Reconfigure(self._last_id, models)

    def end(self, id_: int) -> None:
        """Nobody waits for this one any more."""
        del self.waiting[id_]

    def answered(self, message: Reconfigured) -> None:
        """The broker's answer has come."""
        waiter = self.waiting.get(message.id)
        if waiter is None or waiter.done():
            return
        if message.error is not None:
            waiter.set_exception(from_wire(message.error))
        else:
            waiter.set_result(Reconfiguration(message.changed, message.failures))

    def lost(self) -> None:
        """The link is down: whether the broker has read what was asked, and whether its answer was on the way, is not
        known.
        """
        for waiter in self.waiting.values():
            if not waiter.done():
                waiter.set_exception(
                    UnavailableError("The broker was lost while the configuration changed; ask again")
                )
