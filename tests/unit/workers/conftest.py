"""Memory and engines for the tests of the workers."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from common.allocator import Allocator
from common.arena import Segment
from common.dtypes import STORAGE
from common.messages import OutputRef, RequestKey, TensorRef
from common.strings import decode, encode_into, encoded_size
from common.tensors import STRING, Signature
from workers.binding import Binder
from workers.engine import Array, MemoryId, Model, Run, RunResult

MEMORY = MemoryId("frontend", 0)


class Bench:
    """A segment of shared memory, and models that run in it."""

    def __init__(self) -> None:
        self.segment = Segment.create(1 << 20)
        self._allocator = Allocator(1 << 20)
        self._number = 0

    def put(self, array: Array) -> TensorRef:
        """Copy an input into the segment; objects are strings."""
        if array.dtype == np.object_:
            size = encoded_size(array)
            place = self.allocate(size)
            encode_into(array, self.segment.view(place, (size,), np.dtype(np.uint8)).data)
            return TensorRef(place, array.shape)
        offset = self.allocate(array.nbytes)
        self.segment.view(offset, array.shape, array.dtype)[...] = array
        return TensorRef(offset, array.shape)

    def allocate(self, nbytes: int) -> int:
        """Room in the segment."""
        offset = self._allocator.allocate(nbytes)
        assert offset is not None
        return offset

    def room(self, signature: Signature) -> tuple[OutputRef, ...]:
        """Room for a run's outputs."""
        return tuple(
            OutputRef(self.allocate(spec.nbytes), spec.nbytes) if spec.is_static else OutputRef(0, 0)
            for spec in signature.outputs
        )

    def prepare(self, model: Model, inputs: Sequence[Array]) -> Run:
        """A run of a model on copies of these inputs."""
        self._number += 1
        binder = Binder(model.signature)
        references = tuple(self.put(array) for array in inputs)
        binding = binder.bind(MEMORY, self.segment, references, self.room(model.signature))
        return Run(RequestKey(MEMORY.frontend, self._number), MEMORY, binding, 0)

    def wait(self, model: Model, run: Run) -> RunResult:
        """Run it to its end, polling as the loop does."""
        ended = threading.Event()
        results: list[RunResult] = []

        def done(_: Run, result: RunResult) -> None:
            results.append(result)
            ended.set()

        result = model.start(run, done)
        if result is not None:
            return result
        for _ in range(1000):
            if ended.wait(0.005):
                return results[0]
            model.poll()
        raise AssertionError("the run did not end")

    def infer(self, model: Model, inputs: Sequence[Array]) -> list[Array]:
        """The outputs of a run that has to go well."""
        run = self.prepare(model, inputs)
        result = self.wait(model, run)
        assert result.error is None, result.error
        return outputs_of(model, run, result)


def outputs_of(model: Model, run: Run, result: RunResult) -> list[Array]:
    """Copies of what a run produced, wherever it lies."""
    outputs: list[Array] = []
    for spec, place, shape, data in zip(
        model.signature.outputs, run.outputs, result.shapes, result.data, strict=True
    ):
        if place is not None:
            assert data is None
            assert place.shape == shape
            outputs.append(place.copy())
        else:
            assert data is not None
            if spec.dtype == STRING:
                outputs.append(decode(memoryview(data), shape).to_array())
                continue
            outputs.append(np.frombuffer(data, STORAGE[spec.dtype]).reshape(shape))
    return outputs


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Unmapped at the end, which fails while anything refers to the memory still: models are to be closed first."""
    bench = Bench()
    yield bench
    bench.segment.close()
