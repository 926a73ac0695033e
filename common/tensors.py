"""Element types, tensor specifications and signatures, known to every process.

Types are named as numpy (and ml_dtypes, for bfloat16) names them. bfloat16 has no numpy type of its own, so its
storage type is uint16; only a frontend, which converts, needs more than storage.
"""

from collections.abc import Iterable
from math import prod

import msgspec
import numpy as np

STORAGE: dict[str, np.dtype] = {
    "bool": np.dtype(np.bool_),
    "int8": np.dtype(np.int8),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
"""Name of an element type → numpy type of the bytes in memory."""

DYNAMIC = -1
"""A dimension that the model leaves open."""


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One input or output of a model."""

    name: str
    dtype: str
    """A key of STORAGE."""
    shape: tuple[int, ...]
    """Elements a dimension; DYNAMIC where the model leaves it open. `()` is a scalar."""
    unranked: bool = False
    """True where even the number of dimensions is open; `shape` is then `()`."""
    layout: str = ""
    """A letter a dimension, as `NCHW`: what the model or the configuration says of it; empty: nothing is known."""

    @property
    def is_static(self) -> bool:
        """Whether the size in bytes is known without a request."""
        return not self.unranked and DYNAMIC not in self.shape

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return STORAGE[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        """Size in bytes; only for a static specification."""
        return prod(self.shape) * self.itemsize

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of `shape` fits this specification."""
        if self.unranked:
            return True
        return len(shape) == len(self.shape) and all(
            want in (DYNAMIC, got) for want, got in zip(self.shape, shape, strict=True)
        )


class Heads(msgspec.Struct, frozen=True, array_like=True):
    """How the outputs are read as classes or as a value. Outputs are named as in the signature."""

    classification: str = ""
    """Output of scores; empty: the only output, where there is only one."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in the order of the scores; empty: their numbers."""
    top_k: int = 0
    """How many of the highest scores are given, highest first; 0: all, in the model's order."""
    regression: str = ""
    """Output of values; empty: the only output, where there is only one."""


class Signature(msgspec.Struct, frozen=True, array_like=True):
    """What a loaded version takes and gives, in the model's own order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    heads: Heads = Heads()
    max_rows: int = 0
    """Where not 0: every first dimension, of inputs and outputs alike, is the request's number of rows, which is from
    1 to this.
    """

    def rows_of(self, shapes: Iterable[tuple[int, ...]]) -> int:
        """How many rows inputs of these shapes bring; 0 where they disagree or `max_rows` does not allow it."""
        counts = {shape[0] if shape else 0 for shape in shapes}
        rows = counts.pop() if len(counts) == 1 else 0
        return rows if 0 < rows <= self.max_rows else 0


def with_rows(spec: TensorSpec, rows: int) -> TensorSpec:
    """The same tensor with so many rows."""
    return msgspec.structs.replace(spec, shape=(rows, *spec.shape[1:]))


def byte_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of `shape` elements of `dtype`."""
    return prod(shape) * STORAGE[dtype].itemsize
