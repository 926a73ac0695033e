"""What the message loop asks of an inference engine. The loop knows this module and no runtime behind it.

    Engine ──load──▶ Model ──start(run)──▶ RunResult at once, or None and later done(run, result) from any thread

A run's tensors are numpy views of shared memory, in the storage types of common.tensors: inputs are read and outputs
written in place. An engine keeps nothing of a run once it is finished except, at most, bindings to its memory, and
gives those up in `release`; the memory is unmapped right after.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from common.errors import Code, WireError
from common.messages import RequestKey
from common.tensors import Signature

Array: TypeAlias = npt.NDArray[np.generic]

MAX_REPLY_BYTES = 64 << 20
"""Most that one request's outputs of unknown size may take together, for they travel by message."""


class LoadError(Exception):
    """A version that cannot be loaded. `reason` is for people, without paths of the machine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LoadOptions(NamedTuple):
    """How a version is to be loaded."""

    nireq: int
    """Runs that will be in progress at once, at most."""
    plugin_config: dict[str, str]
    """Properties of the runtime, by name."""


class MemoryId(NamedTuple):
    """A segment of shared memory: its owner's instance name, and the owner's number for it."""

    frontend: str
    segment: int


class Run:
    """One inference. `outputs` holds None where the size is not known beforehand; `inputs` follow the signature."""

    __slots__ = ("inputs", "key", "memory", "outputs", "started")

    def __init__(
        self,
        key: RequestKey,
        memory: MemoryId,
        inputs: Sequence[Array],
        outputs: Sequence[Array | None],
        started: int,
    ) -> None:
        self.key = key
        self.memory = memory
        self.inputs = inputs
        self.outputs = outputs
        self.started = started
        """CLOCK_MONOTONIC nanoseconds."""


class RunResult(NamedTuple):
    """What became of a run: an error, or for each output its true shape, and its bytes where it had no place."""

    shapes: tuple[tuple[int, ...], ...] = ()
    data: tuple[bytes | None, ...] = ()
    error: WireError | None = None


Done: TypeAlias = Callable[[Run, RunResult], None]


class Model(Protocol):
    """A loaded version. Called by one thread."""

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""

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


class Engine(Protocol):
    """A runtime on one device."""

    def load(self, path: Path, options: LoadOptions) -> Model:
        """Load the version in a directory; takes as long as it takes. Raises LoadError."""


def failure(code: Code, message: str) -> RunResult:
    """The result of a run that failed."""
    return RunResult(error=WireError(code, message))


def collect(run: Run, produced: Sequence[Array]) -> RunResult:
    """The result of a run that went well, given what it produced. Copies only the outputs that had no place.

    RESOURCE_EXHAUSTED when those are more than MAX_REPLY_BYTES together.
    """
    loose = sum(array.nbytes for array, place in zip(produced, run.outputs, strict=True) if place is None)
    if loose > MAX_REPLY_BYTES:
        return failure(
            Code.RESOURCE_EXHAUSTED,
            f"Outputs of dynamic shape take {loose} bytes, more than the {MAX_REPLY_BYTES} that a reply may have",
        )
    return RunResult(
        shapes=tuple([array.shape for array in produced]),
        data=tuple(
            [
                array.tobytes() if place is None else None
                for array, place in zip(produced, run.outputs, strict=True)
            ]
        ),
    )
