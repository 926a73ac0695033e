"""Which element type of a client may become which one of a model, and the one pass that copies and converts. Pure.

The rule is numpy's `same_kind` (a cast within a kind, or to a kind that holds more: bool → integer → float), and beside
it float64 and int64 to any type, because those are what Python clients send when nobody chose a type. A cast that
loses digits or wraps is done as numpy does it, silently: so it is in the clients' own code.

bool follows the same rule: bool becomes any number, and only float64 and int64 become bool (zero is false).
"""

import ml_dtypes
import numpy as np

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError

_FROM_ANYTHING = ("float64", "int64")
"""What Python's own numbers become in numpy."""

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _numpy_type(dtype: str) -> np.dtype:
    """The type in which numpy computes with `dtype`: its storage type, but for bfloat16."""
    return _BFLOAT16 if dtype == "bfloat16" else STORAGE[dtype]


def _kind_of(dtype: str) -> np.dtype:
    """A type that numpy's rule understands: to it, bfloat16 is a float of 16 bits like another."""
    return STORAGE["float16"] if dtype == "bfloat16" else STORAGE[dtype]


CONVERTIBLE: frozenset[tuple[str, str]] = frozenset(
    (source, target)
    for source in STORAGE
    for target in STORAGE
    if source in _FROM_ANYTHING or np.can_cast(_kind_of(source), _kind_of(target), "same_kind")
)
"""Pairs (client's type, model's type) that `copy_into` may be asked for."""


def check_convertible(name: str, source: str, target: str) -> None:
    """Whether the client's type `source` is accepted for input `name` of type `target`.

    Raises InvalidArgumentError that names both.
    """
    if (source, target) not in CONVERTIBLE:
        raise InvalidArgumentError(
            f"Input {name!r} is of type {source}, which cannot be converted to the model's type {target}"
        )


def copy_into(source: np.ndarray, source_dtype: str, target: np.ndarray, target_dtype: str) -> None:
    """Write `source` into `target`, converting; both have the same shape.

    `source` is of STORAGE[source_dtype] in any layout (a broadcast view, unaligned bytes); `target` is a C-contiguous,
    writable array of STORAGE[target_dtype].
    """
    if source_dtype == target_dtype:
        np.copyto(target, source)
        return
    _cast(source.view(_numpy_type(source_dtype)), target.view(_numpy_type(target_dtype)))


@np.errstate(all="ignore")
def _cast(source: np.ndarray, target: np.ndarray) -> None:
    np.copyto(target, source, casting="unsafe")
