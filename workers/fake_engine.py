"""An engine without OpenVINO that does as it is told: it stands beside the real one in tests of the whole server.

A version's directory holds `model.xml` (any text) and `model.bin`, which is JSON, see `FakeSpec`. Each output is the
input of the same index, converted, where their shapes agree, and zeros (or empty strings) otherwise. An int32 input
named `command` tells a run by its first element what to do: 0 echo, 1 fail, 2 kill the process, 3 hang for as many
seconds as the first element of an input named `argument` says, n from 1000 on: sleep for n - 1000 milliseconds.

The options `batch_size` and `shape` are obeyed where they are `auto`, and by no means otherwise. In a batch the highest
command of all rows holds for all of it, and so does the highest argument.
"""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from common.config import BatchingParameters, ModelConfig
from common.dtypes import STORAGE
from common.errors import Code
from common.strings import StringTensor, empty
from common.tensors import STRING, Signature, TensorSpec
from workers.batch_shapes import open_rows
from workers.engine import (
    Done,
    LoadError,
    MemoryId,
    Model,
    Place,
    Run,
    RunResult,
    ShapeError,
    collect,
    failure,
)
from workers.heads import heads_of, with_layouts
from workers.model_files import read_labels
from workers.ports import Port, Shapes, all_open
from workers.shapes import plan

ECHO, FAIL, CRASH, HANG, SLEEP = 0, 1, 2, 3, 1000
_FOREVER_S = 3600.0


class FakeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.bin` says."""

    inputs: list[tuple[str, str, list[int]]]
    """Name, element type, shape."""
    outputs: list[tuple[str, str, list[int]]]
    load_seconds: float = 0.0
    load_fails: str = ""
    """The reason; empty: it does not fail."""
    load_crashes: bool = False
    compile_seconds: float = 0.0
    """For each set of shapes, where requests bring their own."""
    compile_fails_from: int = 1 << 62
    """Length of a dimension from which on shapes cannot be compiled."""
    compile_crashes_from: int = 1 << 62
    run_seconds: float = 0.0
    behaviour: str = "echo"
    """`echo`, or `fail`: every run fails."""


class FakeEngine:
    """Loads fake models."""

    def load(self, path: Path, config: ModelConfig) -> "FakeModel | FakeVariants | FakeBatches":
        """See workers.engine.Engine."""
        if not (path / "model.xml").is_file():
            raise LoadError("the version's directory holds no model.xml")
        try:
            spec = msgspec.json.decode((path / "model.bin").read_bytes(), type=FakeSpec)
        except (OSError, msgspec.DecodeError) as error:
            raise LoadError(f"model.bin: {type(error).__name__}") from error
        time.sleep(spec.load_seconds)
        if spec.load_crashes:
            os.kill(os.getpid(), signal.SIGKILL)
        if spec.load_fails:
            raise LoadError(spec.load_fails)
        ports, outputs = (
            tuple(Port(one, frozenset({one.name})) for one in _specs(side))
            for side in (spec.inputs, spec.outputs)
        )
        ports = with_layouts(ports, config.layout)
        heads, _ = heads_of(outputs, config, read_labels(path, config.classification.labels))
        signature = Signature(tuple(port.spec for port in ports), tuple(port.spec for port in outputs), heads)
        if config.batching_parameters is not None:
            return FakeBatches(spec, signature, config.nireq or 1, config.batching_parameters)
        wanted = plan(ports, config.batch_size, config.shape)
        if wanted.per_request is None:
            return FakeModel(spec, signature, config.nireq or 1)
        return FakeVariants(spec, signature, wanted.per_request, config.nireq or 1)


class FakeVariants:
    """A fake of which each request brings its shapes; the rank of outputs is kept, every dimension is open."""

    notes: tuple[str, ...] = ()

    def __init__(self, spec: FakeSpec, own: Signature, shapes: Shapes, nireq: int) -> None:
        self._spec = spec
        self._nireq = nireq
        self._own = own
        self.signature = Signature(
            tuple(
                msgspec.structs.replace(one, shape=shape)
                for one, shape in zip(own.inputs, shapes, strict=True)
            ),
            tuple(TensorSpec(one.name, one.dtype, all_open(one.shape)) for one in own.outputs),
            own.heads,
        )

    def take_first(self) -> "tuple[Shapes, FakeModel] | None":
        """See workers.engine.VariableModel."""
        if not all(spec.has_static_shape for spec in self._own.inputs):
            return None
        return tuple(spec.shape for spec in self._own.inputs), self._model()

    def compile(self, shapes: Shapes) -> "FakeModel":
        """See workers.engine.VariableModel."""
        time.sleep(self._spec.compile_seconds)
        longest = max((length for shape in shapes for length in shape), default=0)
        if longest >= self._spec.compile_crashes_from:
            os.kill(os.getpid(), signal.SIGKILL)
        if longest >= self._spec.compile_fails_from:
            raise ShapeError(f"a dimension of {longest}")
        return self._model()

    def close(self) -> None:
        """Nothing is kept."""

    def _model(self) -> "FakeModel":
        return FakeModel(self._spec, self.signature, self._nireq)


class FakeBatches:
    """A fake that takes batches; its inputs and outputs are as if they could be anything's."""

    notes: tuple[str, ...] = ()

    def __init__(self, spec: FakeSpec, own: Signature, nireq: int, batching: BatchingParameters) -> None:
        self.signature = open_rows(own, batching.max_batch_size)
        self._models = {size: FakeModel(spec, self.signature, nireq) for size in batching.sizes}

    def take(self) -> dict[int, Model]:
        """See workers.engine.BatchableModel."""
        return dict(self._models)


class FakeModel:
    """A loaded fake."""

    notes: tuple[str, ...] = ()

    def __init__(self, spec: FakeSpec, signature: Signature, nireq: int) -> None:
        self.signature = signature
        self._spec = spec
        self._names = [name for name, _, _ in spec.inputs]
        self.nireq = nireq
        self._threads = ThreadPoolExecutor(nireq)

    def start(self, run: Run, done: Done) -> RunResult | None:
        """See workers.engine.Model."""
        command = self._first(run, "command")
        if command == ECHO and not self._spec.run_seconds:
            return self._infer(run)
        if command == CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        if command == HANG:
            seconds = float(self._first(run, "argument")) or _FOREVER_S
        else:
            seconds = self._spec.run_seconds + max(0, command - SLEEP) / 1000
        self._threads.submit(self._later, run, done, seconds, command == FAIL)
        return None

    def poll(self) -> None:
        """Nothing is missed: the threads report every end."""

    def release(self, memory: MemoryId) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """See workers.engine.Model."""
        self._threads.shutdown(wait=False)

    def _first(self, run: Run, name: str) -> int:
        if name not in self._names:
            return 0
        array = run.inputs[self._names.index(name)]
        if not isinstance(array, np.ndarray):
            return 0
        if self.signature.max_rows:
            return int(array.max())
        return int(array.flat[0]) if array.size else 0

    def _later(self, run: Run, done: Done, seconds: float, fails: bool) -> None:
        time.sleep(seconds)
        if fails:
            done(run, failure(Code.INTERNAL, "Error occurred during inference execution: told to fail"))
        else:
            done(run, self._infer(run))

    def _infer(self, run: Run) -> RunResult:
        if self._spec.behaviour == "fail":
            return failure(Code.INTERNAL, "Error occurred during inference execution: made to fail")
        produced: list[Place] = []
        for index, (spec, place) in enumerate(zip(self.signature.outputs, run.outputs, strict=True)):
            source = run.inputs[index] if index < len(run.inputs) else None
            array = self._output(spec, source)
            if place is not None and isinstance(array, np.ndarray):
                np.copyto(place, array)
            produced.append(array)
        return collect(run, produced)

    @staticmethod
    def _output(spec: TensorSpec, source: Place | None) -> Place:
        shape = tuple(max(1, length) for length in spec.shape)
        if spec.dtype == STRING:
            fits = isinstance(source, StringTensor) and spec.accepts(source.shape)
            return source if fits and source is not None else empty(shape)
        dtype = STORAGE[spec.dtype]
        if isinstance(source, np.ndarray) and spec.accepts(source.shape):
            return source.astype(dtype)
        return np.zeros(shape, dtype)


def _specs(tensors: list[tuple[str, str, list[int]]]) -> tuple[TensorSpec, ...]:
    unknown = [dtype for _, dtype, _ in tensors if dtype not in (*STORAGE, STRING)]
    if unknown:
        raise LoadError(f"unknown element type {unknown[0]!r}")
    return tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in tensors)
