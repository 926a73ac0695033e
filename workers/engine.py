"""What the message loop asks of an inference engine. The loop knows this module and no runtime behind it.

    Engine ──load──▶ Model ──start(run)──▶ RunResult at once, or None and later done(run, result) from any thread
           └──load──▶ VariableModel ──compile(shapes)──▶ Model       where each request brings its own shapes

A run's tensors are numpy views of shared memory, in the storage types of common.dtypes, or tensors of strings
(common.strings): inputs are read and outputs written in place, but for outputs of strings, which travel by message. An
engine keeps nothing of a run once it is finished except, at most, bindings to its memory, and gives those up in
`release`; the memory is unmapped right after.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from common.config import ModelConfig
from common.errors import Code, WireError
from common.messages import OutputResult, RequestKey
from common.strings import MAX_STRINGS, StringTensor
from common.tensors import Signature
from workers.ports import Shapes

Array: TypeAlias = npt.NDArray[np.generic]
Place: TypeAlias = Array | StringTensor
"""Of an input. A tensor of strings refers to the block with its bytes alone; its offsets are a copy."""

MAX_REPLY_BYTES = 64 << 20
"""Most that one request's outputs of unknown size may take together, for they travel by message."""


class LoadError(Exception):
    """A version that cannot be loaded. `reason` is for people, without paths of the machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ShapeError(Exception):
    """Shapes that a model cannot take. `reason` is for clients, without paths of the machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MemoryId(NamedTuple):
    """A segment of shared memory: its owner's instance name, and the owner's number for it."""

    frontend: str
    segment: int


class Binding:
    """Where the tensors of a run lie. Kept for further runs over the very same places, until their memory goes."""

    __slots__ = ("inputs", "outputs", "tensors")

    def __init__(self, inputs: Sequence[Place], outputs: Sequence[Array | None]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.tensors: object = None
        """What an engine has made of them."""


NOWHERE = Binding((), ())
"""Of a run that is over."""


class Run:
    """One inference. `outputs` holds None where the size is not known beforehand; `inputs` follow the signature."""

    __slots__ = ("binding", "ended", "key", "memory", "started")

    def __init__(self, key: RequestKey, memory: MemoryId, binding: Binding, started: int) -> None:
        self.key = key
        self.memory = memory
        self.binding = binding
        self.started = started
        """CLOCK_MONOTONIC nanoseconds."""
        self.ended = 0
        """Likewise, where an engine that infers within `start` has looked at the clock; else 0."""

    @property
    def inputs(self) -> Sequence[Place]:
        """Views of the inputs."""
        return self.binding.inputs

    @property
    def outputs(self) -> Sequence[Array | None]:
        """Views of the room for outputs."""
        return self.binding.outputs

    def forget(self) -> None:
        """Refer to the memory no longer: it must be able to go."""
        self.binding = NOWHERE


class RunResult(NamedTuple):
    """What became of a run: an error, or for each output its true shape, and its bytes where it had no place."""

    shapes: tuple[tuple[int, ...], ...] = ()
    data: tuple[bytes | None, ...] = ()
    error: WireError | None = None
    in_place: tuple[OutputResult, ...] | None = None
    """The same as an answer says it, where every output lies in its place: made once for many runs."""


Done: TypeAlias = Callable[[Run, RunResult], None]


class Model(Protocol):
    """A loaded version. Called by one thread."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What an operator should know of how it was loaded."""

    @property
    def nireq(self) -> int:
        """Runs that may be in progress at once."""

    def start(self, run: Run, done: Done) -> RunResult | None:
        """Run it: the result when the engine chose to infer within the call, else None, and `done` is called once.

        The caller has at most `nireq` runs in progress. Never raises: a failure is a result.
        """

    def poll(self) -> None:
        """Called every few milliseconds while runs are in progress: report those whose end nobody reports."""

    def release(self, memory: MemoryId) -> None:
        """Drop every binding to a segment in which nothing runs any more."""

    def close(self) -> None:
        """Give everything back. Called when nothing runs, possibly by another thread; nothing is called after it."""


@runtime_checkable
class VariableModel(Protocol):
    """A version of which each request brings its own shapes, to be compiled for each set of them."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives, open where requests decide."""

    @property
    def notes(self) -> tuple[str, ...]:
        """As of a Model."""

    def take_first(self) -> tuple[Shapes, Model] | None:
        """The shapes that it has by itself, compiled; None where it leaves some open. The caller's from then on."""

    def compile(self, shapes: Shapes) -> Model:
        """A model of these shapes alone. Takes as long as it takes; one call at a time. Raises ShapeError.

        Outputs that `signature` leaves open have no place in a run's memory, whatever their shape is here.
        """

    def close(self) -> None:
        """Give everything back but what was compiled."""


@runtime_checkable
class BatchableModel(Protocol):
    """A version that is compiled for several batch sizes."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives, `max_rows` included."""

    @property
    def notes(self) -> tuple[str, ...]:
        """As of a Model."""

    def take(self) -> dict[int, Model]:
        """The models by their batch sizes, ascending. The caller's from then on."""


class Engine(Protocol):
    """A runtime on one device."""

    def load(self, path: Path, config: ModelConfig) -> Model | VariableModel | BatchableModel:
        """Load the version in a directory; takes as long as it takes. Raises LoadError."""


def failure(code: Code, message: str) -> RunResult:
    """The result of a run that failed."""
    return RunResult(error=WireError(code, message))


def collect(run: Run, produced: Sequence[Place]) -> RunResult:
    """The result of a run that went well, given what it produced. Copies only the outputs that had no place.

    RESOURCE_EXHAUSTED when those are more than MAX_REPLY_BYTES together, or of more than MAX_STRINGS strings each.
    """
    loose = 0
    for array, place in zip(produced, run.outputs, strict=True):
        if isinstance(array, StringTensor) and array.size > MAX_STRINGS:
            return failure(
                Code.RESOURCE_EXHAUSTED,
                f"An output has {array.size} strings, more than the {MAX_STRINGS} that an answer may have",
            )
        if place is None:
            loose += array.nbytes
    if loose > MAX_REPLY_BYTES:
        return failure(
            Code.RESOURCE_EXHAUSTED,
            f"Outputs of dynamic shape take {loose} bytes, more than the {MAX_REPLY_BYTES} that a reply may have",
        )
    shapes = tuple([array.shape for array in produced])
    if not any(place is None for place in run.outputs):
        return all_in_place(shapes)
    return RunResult(
        shapes,
        tuple(
            [
                array.tobytes() if place is None else None
                for array, place in zip(produced, run.outputs, strict=True)
            ]
        ),
    )


def all_in_place(shapes: tuple[tuple[int, ...], ...]) -> RunResult:
    """The result of a run that went well and left every output, of these shapes, in its place."""
    return RunResult(shapes, (None,) * len(shapes), None, tuple([OutputResult(shape) for shape in shapes]))
