"""Short bodies of numbers, read in two ways: what the short one reads, the long one reads alike."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError
from common.tensors import Signature, TensorSpec
from frontends.rest.json_text import DocumentParser
from frontends.rest.predict_format import read_body
from frontends.rest.short_text import read_short

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.integers(-3, 3)
)
TENSORS = st.integers(1, 3).flatmap(
    lambda width: st.recursive(
        st.lists(NUMBERS, min_size=width, max_size=width),
        lambda rows: st.lists(rows, min_size=1, max_size=3),
        max_leaves=4,
    )
)
PIECES = st.lists(
    st.sampled_from(["[", "]", ",", " ", "1", "-0", "1e5", "1e999", ".5", "1.5", "2", "\n"]), max_size=9
).map("".join)


def signature(dtype: str = "float32") -> Signature:
    return Signature((TensorSpec("x", dtype, (-1, -1)),), ())


def check(text: bytes, dtype: str = "float32") -> bool:
    """Whether the short way led, and then where the long one leads."""
    short = read_short(text, signature(dtype))
    if short is None:
        return False
    rows, inputs = short
    body = read_body(DocumentParser().parse(text), signature(dtype))
    assert rows == body.rows
    assert inputs.keys() == body.inputs.keys()
    assert inputs["x"].dtype == body.inputs["x"].dtype
    np.testing.assert_array_equal(inputs["x"].array, body.inputs["x"].array, strict=True)
    return True


@given(TENSORS, st.sampled_from(["instances", "inputs"]))
def test_tensors(tensor: Any, name: str) -> None:
    check(json.dumps({name: tensor}).encode())


@given(PIECES, st.sampled_from(["instances", "inputs"]))
def test_texts_that_may_be_no_tensor_at_all(text: str, name: str) -> None:
    check(b'{"%s": [%s]}' % (name.encode(), text.encode()))


@pytest.mark.parametrize(
    "text",
    [b'{"instances": [[1, 2.5], [-3e2, 4]]}', b'{"inputs":[[[0.1]]]}', b' {\n"inputs" : [1]\t}\r\n'],
)
def test_the_usual_ones_are_read(text: bytes) -> None:
    assert check(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"instances": [[1, 2], [3]]}',
        b'{"instances": []}',
        b'{"instances": 1}',
        b'{"instances": [1], "instances": [2]}',
        b'{"instances": [1], "signature_name": "x"}',
        b'{"instances": [true]}',
        b'{"instances": [null]}',
        b'{"instances": ["1"]}',
        b'{"instances": [NaN]}',
        b'{"instances": [{"x": 1}]}',
        b'{"inst1ances": [1]}',
        b'{"instances": [1 2]}',
        b'{"instances": [' + b"[" * 40 + b"1" + b"]" * 40 + b"]}",
        b'\xef\xbb\xbf{"instances": [1]}',
        b'["instances", 1]',
    ],
)
def test_what_needs_a_second_look_is_left_to_the_long_way(text: bytes) -> None:
    assert read_short(text, signature()) is None


def test_integers_and_models_of_several_inputs_are_left_to_the_long_way() -> None:
    text = b'{"instances": [1]}'
    assert read_short(text, signature("int64")) is None
    two = Signature((TensorSpec("x", "float32", (-1,)), TensorSpec("y", "float32", (-1,))), ())
    assert read_short(text, two) is None
    with pytest.raises(InvalidArgumentError):
        read_body(DocumentParser().parse(text), two)
