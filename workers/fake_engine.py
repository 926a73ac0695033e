"""An engine without OpenVINO that does as it is told: it stands beside the real one in tests of the whole server.

A version's directory holds `model.xml` (any text) and `model.bin`, which is JSON, see `FakeSpec`. Each output is the
input of the same index, converted, where their shapes agree, and zeros otherwise. An int32 input named `command` tells
a run by its first element what to do: 0 echo, 1 fail, 2 kill the process, 3 hang for as many seconds as the first
element of an input named `argument` says, n from 1000 on: sleep for n - 1000 milliseconds.
"""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from common.errors import Code
from common.tensors import STORAGE, Signature, TensorSpec
from workers.engine import Array, Done, LoadError, LoadOptions, MemoryId, Run, RunResult, collect, failure

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
    run_seconds: float = 0.0
    behaviour: str = "echo"
    """`echo`, or `fail`: every run fails."""


class FakeEngine:
    """Loads fake models."""

    def load(self, path: Path, options: LoadOptions) -> "FakeModel":
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
        return FakeModel(spec, options.nireq)


class FakeModel:
    """A loaded fake."""

    def __init__(self, spec: FakeSpec, nireq: int) -> None:
        self.signature = Signature(_specs(spec.inputs), _specs(spec.outputs))
        self._spec = spec
        self._names = [name for name, _, _ in spec.inputs]
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
        produced: list[Array] = []
        for index, (spec, place) in enumerate(zip(self.signature.outputs, run.outputs, strict=True)):
            source = run.inputs[index] if index < len(run.inputs) else None
            array = self._output(spec, source)
            if place is not None:
                np.copyto(place, array)
            produced.append(array)
        return collect(run, produced)

    @staticmethod
    def _output(spec: TensorSpec, source: Array | None) -> Array:
        dtype = STORAGE[spec.dtype]
        if source is not None and spec.accepts(source.shape):
            return source.astype(dtype)
        return np.zeros([max(1, length) for length in spec.shape], dtype)


def _specs(tensors: list[tuple[str, str, list[int]]]) -> tuple[TensorSpec, ...]:
    unknown = [dtype for _, dtype, _ in tensors if dtype not in STORAGE]
    if unknown:
        raise LoadError(f"unknown element type {unknown[0]!r}")
    return tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in tensors)
