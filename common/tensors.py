"""Element types, tensor specifications and signatures, known to every process.

Broker, storekeeper and command know of tensors only what stands in messages: numpy, which costs a process 10 MB and a
tenth of a second at its start, is for those that touch them (`common.dtypes`).
"""

from math import prod

import msgspec

ITEMSIZE: dict[str, int] = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
}
"""Name of an element type → bytes an element."""

STRING = "string"
"""Element type of tensors whose elements are bytes of any number. They lie in memory as common.strings says."""

DYNAMIC = -1
"""A dimension that the model leaves open."""


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One input or output of a model."""

    name: str
    dtype: str
    """A key of ITEMSIZE, or STRING."""
    shape: tuple[int, ...]
    """Elements a dimension; DYNAMIC where the model leaves it open. `()` is a scalar."""
    unranked: bool = False
    """True where even the number of dimensions is open; `shape` is then `()`."""
    layout: str = ""
    """A letter a dimension, as `NCHW`: what the model or the configuration says of it; empty: nothing is known."""

    @property
    def has_static_shape(self) -> bool:
        """Whether the number of elements is known without a request."""
        return not self.unranked and DYNAMIC not in self.shape

    @property
    def is_static(self) -> bool:
        """Whether the size in bytes is known without a request; that of strings never is."""
        return self.has_static_shape and self.dtype != STRING

    @property
    def itemsize(self) -> int:
        """Bytes an element; not of strings."""
        return ITEMSIZE[self.dtype]

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


def byte_size(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor of `shape` elements of `dtype`."""
    return prod(shape) * ITEMSIZE[dtype]
