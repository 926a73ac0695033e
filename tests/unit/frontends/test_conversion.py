"""frontends.conversion: which types become which, and the one pass that does it."""

import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError
from frontends.conversion import CONVERTIBLE, check_convertible, copy_into

_DTYPES = sorted(STORAGE)


def _allowed(source: str, target: str) -> bool:
    try:
        check_convertible("data", source, target)
    except InvalidArgumentError:
        return False
    return True


@pytest.mark.parametrize("source", _DTYPES)
def test_a_type_becomes_itself(source: str) -> None:
    assert _allowed(source, source)


@pytest.mark.parametrize("target", _DTYPES)
@pytest.mark.parametrize("source", ["float64", "int64"])
def test_what_python_sends_by_default_becomes_anything(source: str, target: str) -> None:
    assert _allowed(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("float32", "float16"),
        ("float32", "bfloat16"),
        ("bfloat16", "float32"),
        ("bfloat16", "float16"),
        ("float16", "bfloat16"),
        ("int32", "float32"),
        ("int32", "float16"),
        ("int32", "bfloat16"),
        ("uint8", "float32"),
        ("uint8", "int8"),
        ("int32", "int8"),
        ("uint32", "uint8"),
        ("bool", "uint8"),
        ("bool", "float32"),
        ("bool", "bfloat16"),
    ],
)
def test_same_kind_and_upwards_is_allowed(source: str, target: str) -> None:
    assert _allowed(source, target)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("float32", "int32"),
        ("float16", "uint8"),
        ("bfloat16", "int64"),
        ("int32", "uint8"),
        ("int8", "uint64"),
        ("float32", "bool"),
        ("int32", "bool"),
        ("uint8", "bool"),
    ],
)
def test_anything_else_is_refused_with_both_types(source: str, target: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"'data'.* type {source}.* type {target}"):
        check_convertible("data", source, target)


def _computing(dtype: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else STORAGE[dtype]


@pytest.mark.parametrize(("source", "target"), sorted(CONVERTIBLE))
def test_every_allowed_pair_converts_as_numpy_does(source: str, target: str) -> None:
    values = np.array([[0, 1, 2], [3, 100, 1]]).astype(_computing(source))
    into = np.full((2, 3), 77, STORAGE[target])
    copy_into(values.view(STORAGE[source]), source, into, target)
    np.testing.assert_array_equal(into.view(_computing(target)), values.astype(_computing(target)))


@pytest.mark.parametrize("target", _DTYPES)
def test_values_that_do_not_fit_bring_no_warning(target: str) -> None:
    values = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copy_into(values, "float64", np.empty(6, STORAGE[target]), target)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4), elements=st.floats()),
)
def test_any_shape_and_any_double_becomes_float32(array: Any) -> None:
    into = np.empty(array.shape, np.float32)
    copy_into(array, "float64", into, "float32")
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(into, array.astype(np.float32))


@pytest.mark.parametrize("target", ["float32", "bfloat16"])
def test_a_broadcast_source_fills_the_target(target: str) -> None:
    source = np.broadcast_to(np.array(2.5, np.float32), (3, 4))
    into = np.zeros((3, 4), STORAGE[target])
    copy_into(source, "float32", into, target)
    assert (into.view(_computing(target)).astype(np.float32) == 2.5).all()


def test_a_source_that_is_not_aligned_is_read() -> None:
    raw = b"x" + np.arange(4, dtype=np.float64).tobytes()
    source = np.frombuffer(raw, np.float64, offset=1)
    into = np.empty(4, np.float32)
    copy_into(source, "float64", into, "float32")
    assert into.tolist() == [0, 1, 2, 3]


def test_bfloat16_is_copied_bit_by_bit() -> None:
    bits = np.array([0x7FC1, 0xFFFF, 0x0001, 0x3F80], np.uint16)  # NaNs with payload, a denormal, one
    into = np.zeros(4, np.uint16)
    copy_into(bits, "bfloat16", into, "bfloat16")
    assert into.tolist() == bits.tolist()


def test_a_scalar_is_converted() -> None:
    into = np.empty((), np.int32)
    copy_into(np.array(7.9), "float64", into, "int32")
    assert into == 7
