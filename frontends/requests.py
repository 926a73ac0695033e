"""A request as the broker client knows it, and the ways in which it ends."""

import asyncio
import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from common.messages import Completed, OutputResult, Submit, Timing
from frontends.ledger import Entry
from frontends.memory import Block
from frontends.plans import Place
from frontends.recipes import Recipe

_logger = logging.getLogger("frontends")

_SURPRISE = "a request's end was not taken as it should be; other requests go on"


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


class Request(Entry, ABC):
    """In the ledger, with its block. Its end is told once: it was answered, or it failed."""

    __slots__ = ("block", "frames", "timer")

    def __init__(self, submit: Submit, block: Block) -> None:
        super().__init__(submit)
        self.block = block
        self.timer: asyncio.TimerHandle | None = None
        """Of a request that is near its deadline."""
        self.frames: tuple[bytes, ...] = ()
        """Those that the answer came with."""

    @abstractmethod
    def ended(self) -> bool:
        """Whether the end was told, or nobody wants to know it any more."""

    @abstractmethod
    def answered(self, completed: Completed) -> None:
        """The answer is in the block, which is with it whoever's that waited."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """There is no answer. Only with StaleVersionError the block is with it whoever's that waited."""


class AwaitedRequest(Request):
    """A task waits for it."""

    __slots__ = ("waiter",)

    def __init__(self, submit: Submit, block: Block, waiter: "asyncio.Future[Completed]") -> None:
        super().__init__(submit, block)
        self.waiter = waiter

    def ended(self) -> bool:
        """See Request."""
        return self.waiter.done()

    def answered(self, completed: Completed) -> None:
        """See Request."""
        self.waiter.set_result(completed)

    def failed(self, error: Exception) -> None:
        """See Request."""
        self.waiter.set_exception(error)

    def gave_back(self) -> bool:
        """Whether the block came back to who waits; else it is free already, or the broker's still."""
        if not self.waiter.done() or self.waiter.cancelled():
            return False
        return self.waiter.exception() is None or isinstance(self.waiter.exception(), StaleVersionError)


class Owner(Protocol):
    """Who has begun a request by a recipe. It is told of the end at once, and raises nothing."""

    def answered(self, request: "RecipeRequest", completed: Completed) -> None:
        """`finish` or `put_back` (see FormDataplane) is to be called, once."""
        ...

    def failed(self, request: "RecipeRequest", error: Exception) -> None:
        """With StaleVersionError `put_back` is to be called, and then `predict_after`; any other is the request's."""
        ...


class RecipeRequest(Request):
    """One that was made by a recipe. No task waits for it."""

    __slots__ = ("owner", "place", "recipe")

    def __init__(self, submit: Submit, owner: Owner, recipe: Recipe, place: Place) -> None:
        # What the two constructors above do, without calling them.
        self.submit = submit
        self.sent_at = 0
        self.abandoned = False
        self.broker_deaths = 0
        self.block = place.block
        self.timer = None
        self.frames = ()
        self.owner: Owner | None = owner
        """None once it was told, or does not want to be."""
        self.recipe = recipe
        self.place = place

    def ended(self) -> bool:
        """See Request."""
        return self.owner is None

    def answered(self, completed: Completed) -> None:
        """See Request."""
        owner, self.owner = self.owner, None
        assert owner is not None
        try:
            owner.answered(self, completed)
        except Exception:
            _logger.exception("%s", _SURPRISE)

    def failed(self, error: Exception) -> None:
        """See Request."""
        owner, self.owner = self.owner, None
        assert owner is not None
        try:
            owner.failed(self, error)
        except Exception:
            _logger.exception("%s", _SURPRISE)
