"""A request as the broker client knows it, and the ways in which it ends."""

import asyncio
from dataclasses import dataclass

from common.messages import Completed, OutputResult, Submit, Timing
from frontends.ledger import Entry
from frontends.memory import Block
from frontends.plans import Place
from frontends.recipes import Recipe


class StaleVersionError(Exception):
    """The version left between the choice and the submit: choose again once the catalogue is at `generation`."""

    def __init__(self, generation: int) -> None:
        super().__init__(f"catalogue generation {generation}")
        self.generation = generation


@dataclass(frozen=True, slots=True)
class Answer:
    """A request's outputs as the broker reported them."""

    outputs: tuple[OutputResult, ...]
    frames: tuple[bytes, ...]
    timing: Timing


class Request(Entry):
    """In the ledger, with its block and who waits for it."""

    __slots__ = ("block", "frames", "timer", "waiter")

    def __init__(self, submit: Submit, block: Block, waiter: "asyncio.Future[Completed]") -> None:
        super().__init__(submit)
        self.block = block
        self.waiter = waiter
        self.timer: asyncio.TimerHandle | None = None
        """Of a request that is near its deadline."""
        self.frames: tuple[bytes, ...] = ()
        """Those that the answer came with."""


class RecipeRequest(Request):
    """One that was made by a recipe."""

    __slots__ = ("place", "recipe")

    def __init__(
        self, submit: Submit, waiter: "asyncio.Future[Completed]", recipe: Recipe, place: Place
    ) -> None:
        # What the two constructors above do, without calling them.
        self.submit = submit
        self.sent_at = 0
        self.abandoned = False
        self.broker_deaths = 0
        self.block = place.block
        self.waiter = waiter
        self.timer = None
        self.frames = ()
        self.recipe = recipe
        self.place = place


def gave_back(waiter: "asyncio.Future[Completed]") -> bool:
    """Whether the block came back to who waits here; else it is free already, or the broker's still."""
    if not waiter.done() or waiter.cancelled():
        return False
    return waiter.exception() is None or isinstance(waiter.exception(), StaleVersionError)
