"""Long bodies of numbers in slices: what is read so, is read alike in one go; and no step takes more than a slice."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simdjson
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError
from common.tensors import Signature, TensorSpec
from frontends.rest import long_text
from frontends.rest.json_text import DocumentParser
from frontends.rest.long_text import read_long
from frontends.rest.predict_format import read_body

NUMBERS = st.one_of(
    st.integers(-(2**64), 2**64), st.floats(), st.sampled_from([1, -0.0, 2.5e-7, math.nan, -math.inf])
)
DTYPES = st.sampled_from(["float32", "float64", "int64", "uint8", "bool"])
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
PIECES = st.lists(
    st.sampled_from(["[", "]", "],[", "[1,2]", ",", ", ", " ", "1", "-2.5", "NaN", "true", '"a"', "\n"]),
    max_size=14,
).map("".join)


@pytest.fixture(autouse=True, scope="module")
def slices_of_a_few_bytes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_text, "_PLAIN_BYTES", 0)
        patch.setattr(long_text, "_SLICE_BYTES", 16)
        patch.setattr(long_text, "give_way", lambda: None)
        yield


def signature(dtype: str = "float32", names: str = "x") -> Signature:
    return Signature(tuple(TensorSpec(name, dtype, (-1,)) for name in names), ())


def check(text: bytes, dtype: str = "float32", names: str = "x") -> bool:
    """Whether the text is read in slices, and then as it is in one go."""
    body = read_long(text, DocumentParser(), signature(dtype, names))
    if body is None:
        return False
    whole = read_body(DocumentParser().parse(text), signature(dtype, names))
    assert body.rows == whole.rows
    assert body.inputs.keys() == whole.inputs.keys()
    for name, tensor in whole.inputs.items():
        assert body.inputs[name].dtype == tensor.dtype
        np.testing.assert_array_equal(body.inputs[name].array, tensor.array, strict=True)
    return True


def check_or_refuse(text: bytes, dtype: str) -> None:
    """A number that the type cannot hold is refused in both ways."""
    try:
        check(text, dtype)
    except InvalidArgumentError as error:
        refused = error.message
    else:
        return
    with pytest.raises(InvalidArgumentError) as whole:
        read_body(DocumentParser().parse(text), signature(dtype))
    assert refused == whole.value.message


@given(
    st.data(),
    SHAPES,
    DTYPES,
    st.sampled_from(["instances", "inputs"]),
    st.sampled_from([None, 1, (",", ":")]),
)
def test_tensors(data: Any, shape: list[int], dtype: str, name: str, layout: Any) -> None:
    size = math.prod(shape)
    numbers = data.draw(st.lists(NUMBERS, min_size=size, max_size=size))
    tensor: Any = numbers
    for length in reversed(shape[1:]):
        tensor = [tensor[at : at + length] for at in range(0, len(tensor), length)]
    options = {"separators": layout} if isinstance(layout, tuple) else {"indent": layout}
    check_or_refuse(json.dumps({name: tensor}, **options).encode(), dtype)


@given(
    PIECES,
    st.sampled_from(['{"inputs":[%s]}', '{"instances":[[%s]]}', '{"inputs":{"x":[%s]}}', '{"a":[%s]}']),
)
def test_texts_that_may_be_no_tensor_at_all(text: str, frame: str) -> None:
    check((frame % text).encode())


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        (b'{"instances": [[1, 2, 3], [4.5, 5, 6], [7, 8, 9], [1, 1, 1]]}', "float32"),
        (b'{"inputs": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}', "int32"),
        (
            b'{"inputs": {"x": [[[1.5], [2], [3]], [[NaN], [5], [-Infinity]]]}, "signature_name": ""}',
            "float64",
        ),
        (b'{"signature_name": "serving_default", "instances": [[1,2,3,4,5,6,7,8]]}', "float16"),
        (b'\xef\xbb\xbf{"instances": [\n[1,\t2],\r\n[3,4] ] , "further": {"a": 1}}', "float32"),
    ],
)
def test_the_usual_ones_are_read_in_slices(text: bytes, dtype: str) -> None:
    assert check(text, dtype)


@pytest.mark.parametrize(
    "text",
    [
        b'{"inputs": [[5], 6[], [7]]}',
        b'{"inputs": [[5], []6, [7]]}',
        b'{"inputs": [[1, 2], [3, 4[]]}',
        b'{"inputs": [1, 2 3]}',
        b'{"inputs": [1, 2,]}',
        b'{"inputs": [1, 2], "inputs": [3]}',
        b'{"inputs": [1, 2], "instances": 1}',
        b'{"inputs": [1, 2], "signature_name": "other"}',
        b'{"a": {"inputs": [1, 2]}}',
        b'{"a": "\\"inputs\\": [1, 2]"}',
        b'{"inputs": [1, 2], "b": [3, 4]}',
        b'{"inputs": [1, 2]',
        b'{"inputs": [NaN, NaNN]}',
        b'{"inputs": [[1, 2], [3]]}',
        b'{"inputs": [[1, 2], [3], [4, 5, 6]]}',
        b'{"inputs": [[[1, 2]], [[3], [4]]]}',
        b'{"inputs": [true, false]}',
        b'{"inputs": ' + b"[" * 40 + b"1" + b"]" * 40 + b"}",
    ],
)
def test_what_is_wrong_or_unusual_is_left_to_the_other_way(text: bytes) -> None:
    assert not check(text)


def test_a_model_of_several_inputs_wants_names() -> None:
    assert not check(b'{"inputs": [1, 2]}', names="xy")
    assert check(b'{"inputs": {"x": [1, 2]}}', names="xy")


@given(st.data(), SHAPES, DTYPES, st.sampled_from([None, 1, (",", ":"), (" , ", " : ")]))
def test_objects(data: Any, shape: list[int], dtype: str, layout: Any) -> None:
    size = math.prod(shape)
    numbers = data.draw(st.lists(NUMBERS, min_size=size, max_size=size))
    rows = [{"x": row} for row in np.array(numbers, object).reshape(shape).tolist()]
    indent, separators = (layout, None) if layout is None or layout == 1 else (None, layout)
    check_or_refuse(json.dumps({"instances": rows}, indent=indent, separators=separators).encode(), dtype)


def test_objects_are_read_in_slices() -> None:
    for rows in ([{"x": [1, 2]}, {"x": [3, 4]}], [{"x": [1]}, {"x": [2]}, {"x": [3]}], [{"x": [[1]]}]):
        assert check(json.dumps({"instances": rows}).encode())


@pytest.mark.parametrize(
    "rows",
    [
        b'[{"x":1},{2}]', b'[{"x":1},[2]]', b'[{"x":1,2}]', b'[{"x":1},{"y":2}]', b'[{"x":1},{"x":2,"x":3}]',
        b'[[{"x":1}],[{"x":2}]]', b'[{"x":{"x":1}}]', b'[{"x":1}{"x":2}]', b'[{"x":1]}', b'[{"x":}]', b'[{"x":1},2]',
        b'[{"x":[1,2]},{"x":[3]}]', b'[{"y":1},{"y":2}]', b'[{"x":1},{"x" :2}]', b'[{"x":"1"}]', b'[{"x":1}},{{"x":2}]',
        b'[{"x":1},{"x":2}]', b'[{},{"x":1}]', b'[{"x":[]}]',
    ],
)  # fmt: skip
def test_objects_that_are_not_all_alike_are_left_to_the_other_way(rows: bytes) -> None:
    assert read_long(b'{"instances": ' + rows + b"}", DocumentParser(), signature()) is None


def test_objects_are_rows_alone() -> None:
    assert read_long(b'{"inputs": [{"x":1},{"x":2}]}', DocumentParser(), signature()) is None


def test_no_step_reads_more_than_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds the interpreter's lock in one go is bounded, however long the text."""
    lengths: list[int] = []

    make_parser = simdjson.Parser

    class Noting:
        def __init__(self) -> None:
            self._parser = make_parser()

        def parse(self, text: bytes) -> Any:
            lengths.append(len(text))
            return self._parser.parse(text)

    real = json.loads

    def loads(text: bytes) -> Any:
        lengths.append(len(text))
        return real(text)

    pauses: list[None] = []
    monkeypatch.setattr(simdjson, "Parser", Noting)
    monkeypatch.setattr(json, "loads", loads)
    monkeypatch.setattr(long_text, "_SLICE_BYTES", 1000)
    monkeypatch.setattr(long_text, "give_way", lambda: pauses.append(None))
    numbers = np.arange(60_000.0).reshape(-1, 3)
    numbers[7, 1] = math.nan
    text = json.dumps({"instances": numbers.tolist()}).encode()
    body = read_long(text, DocumentParser(), signature())
    assert body is not None
    np.testing.assert_array_equal(body.inputs["x"].array, numbers)
    assert sum(lengths) >= len(text) - len(lengths) - 100
    assert max(lengths) <= 1002
    assert len(pauses) == (len(lengths) - 1) // 8  # one was what surrounds the tensor
