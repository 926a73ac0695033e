"""What equal requests have in common: all but their tensors' elements, which lie in the message as they are.

A rim that has read a message so (`frontends.grpc.predict_wire`) need not make arrays of it: what the data plane has
found out about the first requests of a form is written down in a recipe (`frontends.recipes`), by which the others are
carried out. Where elements must be made of a text there is an array first, and its form says as much about it.
"""

from typing import NamedTuple, Protocol

import numpy as np

from common.messages import Completed
from frontends.interface import BuildInputs, DataplaneInterface, InputTensor, Prediction, Selector
from frontends.memory import Block
from frontends.recipes import Recipe
from frontends.requests import Owner, RecipeRequest


class Input(NamedTuple):
    """A tensor whose elements lie in the message one after another, as many as its shape says, at least one."""

    name: str
    dtype: str
    """Key of STORAGE."""
    storage: np.dtype
    """Of the bytes in the message."""
    shape: tuple[int, ...]
    start: int
    """Bytes from the message's start."""
    stop: int

    def read(self, message: memoryview) -> InputTensor:
        """The array, in place; of bool a copy, because any byte but 0 is true and as an element it must be 1."""
        array: np.ndarray = np.ndarray(self.shape, self.storage, message, self.start)
        return InputTensor(self.dtype, array.astype(np.bool_) if self.dtype == "bool" else array)


class Form:
    """A request but for the elements of its tensors."""

    __slots__ = (
        "_in_block",
        "catalogue",
        "inputs",
        "output_filter",
        "recipe",
        "rest",
        "seen",
        "selector",
        "signature_name",
    )

    def __init__(
        self,
        selector: Selector,
        signature_name: str,
        inputs: tuple[Input, ...],
        output_filter: frozenset[str],
        rest: tuple[tuple[int, int, bytes], ...],
    ) -> None:
        self.selector = selector
        self.signature_name = signature_name
        self.inputs = inputs
        self.output_filter = output_filter
        self.rest = rest
        """What lies between and behind the tensors' elements: from, to, and the bytes there."""
        self.seen = False
        """Whether the data plane has been asked for one."""
        self.catalogue = -1
        """Number of the one by which there is a recipe, or is none."""
        self.recipe: Recipe | None = None
        """What the data plane has noted; None: requests of this form go the general way, which may be a refusal."""
        self._in_block: Form | None = None

    def in_block(self) -> "Form":
        """The same for messages that lie in a block of shared memory: of these the data plane notes other things."""
        form = self._in_block
        if form is None:
            form = self._in_block = Form(*self._read())
        return form

    def __eq__(self, other: object) -> bool:
        """Whether both read messages in the same way; what was noted about them since does not count."""
        return isinstance(other, Form) and self._read() == other._read()

    __hash__ = None  # type: ignore[assignment]

    def _read(
        self,
    ) -> tuple[Selector, str, tuple[Input, ...], frozenset[str], tuple[tuple[int, int, bytes], ...]]:
        return (self.selector, self.signature_name, self.inputs, self.output_filter, self.rest)

    def read_inputs(self, message: memoryview) -> dict[str, InputTensor]:
        """The inputs of the message, which is of this form."""
        return {one.name: one.read(message) for one in self.inputs}


class ArrayForm:
    """A request of one input, which the rim has made an array of, but for its elements."""

    __slots__ = ("catalogue", "dtype", "recipe", "selector", "shape", "targets")

    def __init__(
        self, selector: Selector, dtype: str, shape: tuple[int, ...], targets: tuple[str, ...]
    ) -> None:
        self.selector = selector
        self.dtype = dtype
        """Of the arrays; key of STORAGE."""
        self.shape = shape
        self.targets = targets
        """Types of the model's input for which the array is what the general way reads, too."""
        self.catalogue = -1
        """As in Form."""
        self.recipe: Recipe | None = None


class RecipeDataplane(DataplaneInterface, Protocol):
    """What every rim uses that has requests carried out by recipes."""

    def begin_array(
        self, form: ArrayForm, array: np.ndarray, owner: Owner, now: int, deadline_ns: int
    ) -> RecipeRequest | None:
        """As FormDataplane.begin, for an array that is of the form and is copied here."""
        ...

    def finish(
        self, request: RecipeRequest, completed: Completed, wanted: frozenset[str], started: int
    ) -> Prediction:
        """The answer in the general form. The block is the prediction's. Raises ServingError."""
        ...

    async def predict_after(
        self,
        generation: int,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> Prediction:
        """As `predict`, for what was begun by a catalogue older than `generation`: that one is waited for."""
        ...

    def put_back(self, request: RecipeRequest) -> None:
        """The request's block is used no more, nor is the one in which its message lies."""
        ...

    def take_back(self, request: RecipeRequest) -> Block | None:
        """The request's block is used no more. The one in which its message lies is the caller's again, if any."""
        ...

    def give_up(self, request: RecipeRequest) -> None:
        """Its end is not to be told any more: the block is freed as soon as nothing can write to it."""
        ...


class FormDataplane(RecipeDataplane, Protocol):
    """What a rim that reads forms uses."""

    def begin(
        self,
        form: Form,
        message: memoryview,
        owner: Owner,
        now: int,
        deadline_ns: int,
        body: Block | None = None,
    ) -> RecipeRequest | None:
        """Submit a request by its form's recipe; None when it is to go the general way, by `predict`.

        `body`: where the message lies, in shared memory; it is the request's, once there is one. The owner is told of
        the end, unless it gives the request up before, by `give_up`. Both times are CLOCK_MONOTONIC. Raises
        ResourceExhaustedError, UnavailableError.
        """
        ...
