"""Versions that are compiled for several batch sizes, as the message loop sees them.

    runs ──gather──▶ rows of one input, padded ──▶ Model of that size ──scatter──▶ each run's own outputs

A single run that has as many rows as one of the sizes is inferred where it lies. Padding repeats the last row, so that
what is computed there is of no other kind than the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import numpy as np

from common.dtypes import STORAGE
from common.errors import Code
from common.messages import RequestKey
from common.tensors import Signature, with_rows
from workers.engine import Array, BatchableModel, Binding, Done, MemoryId, Run, RunResult, failure

BatchDone: TypeAlias = Callable[[Sequence[Run], Sequence[RunResult]], None]
"""Takes the runs of a batch and the result of each."""

_OURS = MemoryId("", -2)
_NOBODY = RequestKey("", 0)


class BatchedModel:
    """A version's models of all batch sizes as one workers.engine.Model, which takes batches too."""

    def __init__(self, source: BatchableModel, nireq: int = 1) -> None:
        """`nireq`: of batches."""
        self.nireq = nireq
        self.signature: Signature = source.signature
        self.notes = source.notes
        self._models = source.take()
        self._free: dict[int, list[Binding]] = {size: [] for size in self._models}
        """Inputs and outputs of batches, while no batch uses them; not where their shapes are not known."""
        self._keeps = all(with_rows(spec, 1).is_static for spec in self.signature.inputs)

    def start(self, run: Run, done: Done) -> RunResult | None:
        """See workers.engine.Model."""
        model = self._models.get(run.inputs[0].shape[0])
        if model is not None:
            return model.start(run, done)
        results = self.start_batch((run,), lambda _, results: done(run, results[0]))
        return None if results is None else results[0]

    def start_batch(self, runs: Sequence[Run], done: BatchDone) -> Sequence[RunResult] | None:
        """Run them together: the results when the engine chose to infer within the call, else `done` is called once.

        Where the inference fails, all of them have that failure. They have max_rows rows at most together, and shapes
        that differ in the first dimension alone. Never raises.
        """
        try:
            return self._start(runs, done)
        except (MemoryError, ValueError, TypeError) as error:
            text = (
                f"Error occurred during inference execution: {type(error).__name__} while gathering a batch"
            )
            return [failure(Code.INTERNAL, text)] * len(runs)

    def poll(self) -> None:
        """See workers.engine.Model."""
        for model in self._models.values():
            model.poll()

    def release(self, memory: MemoryId) -> None:
        """See workers.engine.Model."""
        for model in self._models.values():
            model.release(memory)

    def close(self) -> None:
        """See workers.engine.Model."""
        self._free = {}
        while self._models:
            self._models.popitem()[1].close()

    def _start(self, runs: Sequence[Run], done: BatchDone) -> Sequence[RunResult] | None:
        rows = sum(run.inputs[0].shape[0] for run in runs)
        size = next((size for size in self._models if size >= rows), 0)
        if not size:
            raise ValueError(f"{rows} rows are more than the model takes")
        binding = self._take_binding(size, runs[0])
        _gather(cast("Sequence[Array]", binding.inputs), runs)
        whole = Run(_NOBODY, _OURS, binding, time.monotonic_ns())

        def ended(_: Run, result: RunResult) -> None:
            done(runs, self._end(size, binding, runs, result))

        result = self._models[size].start(whole, ended)
        return None if result is None else self._end(size, binding, runs, result)

    def _end(
        self, size: int, binding: Binding, runs: Sequence[Run], result: RunResult
    ) -> Sequence[RunResult]:
        """Give every run its part; possibly by a thread of the engine."""
        try:
            if result.error is not None:
                return [result] * len(runs)
            return _scatter(size, binding.outputs, runs, result)
        except (MemoryError, ValueError, TypeError) as error:
            text = f"Error occurred during inference execution: {type(error).__name__} while dividing a batch"
            return [failure(Code.INTERNAL, text)] * len(runs)
        finally:
            if self._keeps:
                self._free[size].append(binding)

    def _take_binding(self, size: int, like: Run) -> Binding:
        """Memory of our own for a batch of this size and of this run's kind."""
        if self._free[size]:
            return self._free[size].pop()
        inputs = [np.empty((size, *one.shape[1:]), one.dtype) for one in _arrays(like)]
        specs = [with_rows(spec, size) for spec in self.signature.outputs]
        outputs = [np.empty(spec.shape, STORAGE[spec.dtype]) if spec.is_static else None for spec in specs]
        return Binding(inputs, outputs)


def _arrays(run: Run) -> Sequence[Array]:
    """Its inputs: a model that takes strings is not inferred by batches."""
    return cast("Sequence[Array]", run.inputs)


def _gather(inputs: Sequence[Array], runs: Sequence[Run]) -> None:
    for index, whole in enumerate(inputs):
        row = 0
        for run in runs:
            part = _arrays(run)[index]
            if part.shape[1:] != whole.shape[1:]:
                raise ValueError("requests of different shapes are in one batch")
            whole[row : row + part.shape[0]] = part
            row += part.shape[0]
        whole[row:] = whole[row - 1]


def _scatter(
    size: int, outputs: Sequence[Array | None], runs: Sequence[Run], result: RunResult
) -> Sequence[RunResult]:
    """Each run's rows of every output: into its own room, or where there is none, as bytes."""
    results: list[RunResult] = []
    row = 0
    for run in runs:
        rows = run.inputs[0].shape[0]
        shapes = tuple([(rows, *shape[1:]) for shape in result.shapes])
        data: list[bytes | None] = []
        for whole, place, loose in zip(outputs, run.outputs, result.data, strict=True):
            if loose is not None:
                stride = len(loose) // size
                data.append(loose[row * stride : (row + rows) * stride])
            elif whole is not None and place is not None:
                np.copyto(place, whole[row : row + rows])
                data.append(None)
        results.append(RunResult(shapes, tuple(data)))
        row += rows
    return results
