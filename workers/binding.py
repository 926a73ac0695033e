"""From a request's references to views of memory, checked: nothing that a message says is trusted.

A reference outside its segment would read or write beyond the segment, which ends the process or, worse, does not.

A frontend's allocator gives the same few places to one request after the other, so what was checked and made of them is
kept: for a tiny model that is as much work as the inference.
"""

from math import prod
from typing import TypeAlias

import numpy as np

from common.arena import Segment
from common.dtypes import STORAGE
from common.messages import OutputRef, TensorRef
from common.strings import BadStringsError, decode
from common.tensors import STRING, Signature, TensorSpec, with_rows
from workers.engine import Array, Binding, MemoryId, Place
from workers.memory import ARENA

_KEPT = 128
"""Bindings of a version, at most; the oldest go."""

Bound: TypeAlias = tuple[MemoryId, Binding]
"""In which segment, and where in it."""

_BYTES = np.dtype(np.uint8)
"""Of strings, whose layout is common.strings'."""


class BadReferenceError(Exception):
    """A request's references contradict the signature or the segment."""


class Binder:
    """Makes the views of requests for one version."""

    def __init__(self, signature: Signature) -> None:
        self._inputs = [(spec, STORAGE.get(spec.dtype, _BYTES)) for spec in signature.inputs]
        self._outputs = [
            (spec, STORAGE.get(spec.dtype, _BYTES), spec.nbytes if spec.is_static else None)
            for spec in signature.outputs
        ]
        # Where strings begin and end is told in the memory itself, anew for each request.
        self._keeps = all(spec.dtype != STRING for spec in signature.inputs)
        self._signature = signature
        self._kept: dict[tuple[str, tuple[TensorRef, ...], tuple[OutputRef, ...]], Bound] = {}

    def known(
        self, frontend: str, inputs: tuple[TensorRef, ...], outputs: tuple[OutputRef, ...]
    ) -> Bound | None:
        """What was bound before at these places of a frontend's arena, which is mapped as long as they are known."""
        return self._kept.get((frontend, inputs, outputs))

    def bind(
        self,
        memory: MemoryId,
        segment: Segment,
        inputs: tuple[TensorRef, ...],
        outputs: tuple[OutputRef, ...],
    ) -> Binding:
        """The places of a request's tensors. Raises BadReferenceError."""
        if memory.segment != ARENA or not self._keeps:
            return self._bind(segment, inputs, outputs)
        found = self.known(memory.frontend, inputs, outputs)
        if found is None:
            found = memory, self._bind(segment, inputs, outputs)
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[memory.frontend, inputs, outputs] = found
        return found[1]

    def release(self, frontend: str) -> None:
        """Forget all places in this frontend's arena."""
        self._kept = {key: bound for key, bound in self._kept.items() if key[0] != frontend}

    def _bind(
        self, segment: Segment, inputs: tuple[TensorRef, ...], outputs: tuple[OutputRef, ...]
    ) -> Binding:
        rows = 0
        if self._signature.max_rows:
            rows = self._signature.rows_of([reference.shape for reference in inputs])
            if not rows:
                raise BadReferenceError(f"no such rows: {[list(reference.shape) for reference in inputs]}")
        return Binding(self.inputs(segment, inputs), self.outputs(segment, outputs, rows))

    def inputs(self, segment: Segment, references: tuple[TensorRef, ...]) -> list[Place]:
        """Views of the inputs. Raises BadReferenceError."""
        if len(references) != len(self._inputs):
            raise BadReferenceError(f"{len(references)} inputs came, the model has {len(self._inputs)}")
        return [
            _input(segment, spec, dtype, reference)
            for (spec, dtype), reference in zip(self._inputs, references, strict=True)
        ]

    def outputs(
        self, segment: Segment, references: tuple[OutputRef, ...], rows: int = 0
    ) -> list[Array | None]:
        """Views of the room for outputs, None for those of dynamic shape. Raises BadReferenceError.

        `rows`: of each output, where the signature says that this is what its first dimension means.
        """
        if len(references) != len(self._outputs):
            raise BadReferenceError(f"room for {len(references)} outputs, the model has {len(self._outputs)}")
        return [
            None if nbytes is None else _output(segment, spec, dtype, nbytes, reference)
            for (spec, dtype, nbytes), reference in zip(self._of_rows(rows), references, strict=True)
        ]

    def _of_rows(self, rows: int) -> "list[tuple[TensorSpec, np.dtype, int | None]]":
        if not rows:
            return self._outputs
        specs = [(with_rows(spec, rows), dtype) for spec, dtype, _ in self._outputs]
        return [(spec, dtype, spec.nbytes if spec.is_static else None) for spec, dtype in specs]


def _input(segment: Segment, spec: TensorSpec, dtype: np.dtype, reference: TensorRef) -> Place:
    shape = reference.shape
    if not spec.accepts(shape) or (shape and min(shape) < 0):
        raise BadReferenceError(f"shape {list(shape)} does not fit input {spec.name!r}")
    if spec.dtype == STRING:
        # Its length is not said beforehand, so what follows in the segment is looked at, and the layout is checked.
        length = segment.size - reference.offset
        rest = _view(segment, spec, dtype, reference.offset, (length,), length)
        try:
            return decode(rest.data, shape)
        except BadStringsError as error:
            raise BadReferenceError(f"tensor {spec.name!r} of shape {list(shape)}: {error}") from error
    return _view(segment, spec, dtype, reference.offset, shape, prod(shape) * dtype.itemsize)


def _output(segment: Segment, spec: TensorSpec, dtype: np.dtype, nbytes: int, reference: OutputRef) -> Array:
    if reference.nbytes < nbytes:
        raise BadReferenceError(f"{reference.nbytes} bytes of room, output {spec.name!r} takes {nbytes}")
    return _view(segment, spec, dtype, reference.offset, spec.shape, nbytes)


def _view(
    segment: Segment, spec: TensorSpec, dtype: np.dtype, offset: int, shape: tuple[int, ...], nbytes: int
) -> Array:
    if not segment.contains(offset, nbytes) or offset % dtype.itemsize:
        raise BadReferenceError(
            f"tensor {spec.name!r}: {nbytes} bytes at {offset} are not in a segment of {segment.size}"
        )
    try:
        return segment.view(offset, shape, dtype)
    except (ValueError, TypeError) as error:
        raise BadReferenceError(f"tensor {spec.name!r} of shape {list(shape)}: {error}") from error
