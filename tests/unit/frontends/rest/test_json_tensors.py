"""JSON ↔ arrays, held against numpy and the standard library's json."""

import json
import math
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError
from common.tensors import Signature, TensorSpec
from frontends.interface import STRING, OutputTensor
from frontends.rest.json_tensors import MAX_RANK, PIECE_ELEMENTS, pieces_of, printable, write
from frontends.rest.json_text import DocumentParser
from frontends.rest.predict_format import PredictBody, read_body, write_answer

ONE = Signature((TensorSpec("x", "float32", (), unranked=True),), ())
INTEGERS = [name for name, kind in STORAGE.items() if kind.kind in "iu" and name != "bfloat16"]
FLOATS = ("float16", "float32", "float64")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=1, max_side=4)


def one_input(dtype: str) -> Signature:
    return Signature((TensorSpec("x", dtype, (), unranked=True),), ())


def read(body: bytes | str, signature: Signature = ONE) -> PredictBody:
    return read_body(DocumentParser().parse(body.encode() if isinstance(body, str) else body), signature)


def read_one(value: str, dtype: str = "float32") -> np.ndarray:
    """The tensor that a column body with this JSON value means."""
    return read(f'{{"inputs": {value}}}', one_input(dtype)).inputs["x"].array


@pytest.fixture(params=[True, False], ids=["quick", "slow"])
def suffix(request: pytest.FixtureRequest) -> str:
    """Text behind the tensor; a bracket in a member of no interest sends the reader down the slow way."""
    return "" if request.param else ', "of no interest": "["'


@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data())
def test_integers_are_read_exactly(dtype: str, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(STORAGE[dtype], SHAPES))
    for suffix in ("", ', "of no interest": "["'):
        tensor = read(f'{{"inputs": {json.dumps(array.tolist())}{suffix}}}', one_input(dtype)).inputs["x"]
        assert tensor.dtype == tensor.array.dtype.name == dtype
        assert tensor.array.shape == array.shape
        assert np.array_equal(tensor.array, array)


@pytest.mark.parametrize("dtype", FLOATS)
@given(data=st.data())
def test_floats_are_read_as_python_reads_them(dtype: str, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(STORAGE[dtype], SHAPES))  # NaN and infinities among them
    for suffix in ("", ', "of no interest": "["'):
        tensor = read(f'{{"inputs": {json.dumps(array.tolist())}{suffix}}}', one_input(dtype)).inputs["x"]
        assert tensor.dtype == "float64"
        assert np.array_equal(tensor.array, array.astype(np.float64), equal_nan=True)


@given(hnp.arrays(np.bool_, SHAPES))
def test_booleans_are_read(array: np.ndarray) -> None:
    for dtype in ("bool", "float32", "int8"):
        tensor = read(f'{{"inputs": {json.dumps(array.tolist())}}}', one_input(dtype)).inputs["x"]
        assert tensor.dtype == "bool"
        assert np.array_equal(tensor.array, array)


NESTED = st.recursive(
    st.integers(-3, 3) | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3)
)


@given(NESTED.filter(lambda value: value != []))
def test_structure_is_accepted_exactly_when_numpy_accepts_it(value: Any) -> None:
    try:
        expected: np.ndarray | None = np.array(value, np.float64)
    except ValueError:
        expected = None
    for text in (
        json.dumps({"inputs": value}),
        json.dumps({"inputs": {"x": value}}),
        json.dumps({"inputs": value, "z": "["}),
    ):
        if expected is None:
            with pytest.raises(InvalidArgumentError, match=r"^Invalid inputs in request body: .*ragged"):
                read(text)
        else:
            assert np.array_equal(read(text).inputs["x"].array, expected)


@pytest.mark.parametrize(
    "value",
    [
        "[[1, 2], [3]]",
        "[[1, 2], [3], [4, 5, 6]]",  # as many numbers as 3 x 2
        "[1, [2]]",
        "[[1], 2]",
        "[[1, 2], [3, [4]]]",  # as many numbers, and as many in each array, as 2 x 2
        "[[1, 2], [[], 3]]",
        "[[], [1]]",
        "[[[1], [2]], [[3, 4]]]",
    ],
)
def test_ragged_arrays_are_refused(value: str, suffix: str) -> None:
    for dtype in ("float32", "int64", "bool"):
        with pytest.raises(InvalidArgumentError, match=r"^Invalid inputs in request body: 'x' is ragged"):
            read(f'{{"inputs": {value}{suffix}}}', one_input(dtype))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('["a"]', "strings"),
        ('"a"', "strings"),
        ("[null]", "null"),
        ("null", "null"),
        ("[1, null]", "null"),
        ('[{"a": 1}]', "objects"),
        ("[true, 1]", "mixes booleans and numbers"),
        ('[{"b64": "AAAA"}]', "base64"),
        ('{"x": {"b64": "AAAA"}}', "base64"),
        ('{"b64": "AAAA"}', "base64"),
    ],
)
def test_what_is_no_number_is_named(value: str, words: str, suffix: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^Invalid inputs in request body: .*{words}"):
        read(f'{{"inputs": {value}{suffix}}}')


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("[9007199254740993, 1.0]", [9007199254740993, 1]),
        ("[18446744073709551615, 2.0, -0.0]", [18446744073709551615, 2, 0]),
        ("[3, 1.0]", [3, 1]),
    ],
)
def test_decimals_among_integers_cost_these_no_digits(value: str, expected: list[int], suffix: str) -> None:
    array = read(f'{{"inputs": {{"x": {value}}}{suffix}}}', one_input("uint64")).inputs["x"].array
    assert [int(element) for element in array] == expected


IMAGE = Signature((TensorSpec("x", "uint8", (-1, 3, 4, 4)),), ())


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ('{"inputs": {"b64": "/+8="}}', ()),
        ('{"inputs": {"x": {"b64": "/+8="}}}', ()),
        ('{"inputs": [{"b64": "/+8="}, {"b64": " /+ 8\\n"}]}', (2,)),
        ('{"inputs": {"x": [{"b64": "/+8"}]}}', (1,)),
        ('{"instances": [{"b64": "/+8="}, {"b64": "/+8="}]}', (2,)),
        ('{"instances": [{"x": {"b64": "/+8="}}, {"x": {"b64": "/+8="}}]}', (2,)),
        ('{"instances": [{"x": [{"b64": "/+8="}]}], "signature_name": ""}', (1, 1)),
    ],
)
def test_bytes_for_an_image(body: str, shape: tuple[int, ...]) -> None:
    for text in (body, body[:-1] + ', "of no interest": [NaN]}'):
        tensor = read(text, IMAGE).inputs["x"]
        assert tensor.dtype == STRING
        assert tensor.array.shape == shape
        assert set(tensor.array.reshape(-1).tolist()) == {b"\xff\xef"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"inputs": {"b64": "!"}}', "'x' holds bytes that are not base64"),
        ('{"inputs": [{"b64": "AAAA"}, 1]}', "numbers and objects"),
        ('{"inputs": [{"b64": "AAAA"}, {"b64": 1}]}', "holds objects"),
        ('{"inputs": [{"b64": "AAAA", "c": 1}]}', "holds objects"),
        ('{"inputs": {"x": {"b64": "\u0663"}}}', "not base64"),
        ('{"inputs": {"x": {"b64": "A"}}}', "not base64"),
        ('{"inputs": ["AAAA"]}', "strings"),
    ],
)
def test_what_is_no_bytes(body: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^Invalid inputs in request body: .*{words}"):
        read(body, IMAGE)


def test_an_input_may_be_called_b64() -> None:
    signature = Signature((TensorSpec("b64", "float32", (-1,)),), ())
    assert read('{"inputs": {"b64": [1.5]}}', signature).inputs["b64"].array.tolist() == [1.5]
    assert read('{"instances": [{"b64": 1.5}]}', signature).inputs["b64"].array.tolist() == [1.5]


def test_integers_beyond_53_bits_stay_exact_in_rows_of_different_sign() -> None:
    body = '{"instances": [{"x": [18446744073709551615]}, {"x": [9007199254740993]}]}'
    array = read(body, one_input("uint64")).inputs["x"].array
    assert array.tolist() == [[18446744073709551615], [9007199254740993]]


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", "[256]"),
        ("uint8", "[-1]"),
        ("int64", "[9223372036854775808]"),
        ("int64", "[-1, 18446744073709551615]"),
        ("uint64", "[18446744073709551616]"),
        ("int32", "[1e10]"),
        ("int32", "[NaN]"),
        ("int32", "[Infinity]"),
        ("int8", "1000000000000000000000000000000"),
    ],
)
def test_integers_that_do_not_fit_are_refused(dtype: str, value: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"'x' is of type {dtype}, which cannot hold"):
        read_one(value, dtype)


def test_decimals_for_an_integer_input_are_left_to_the_data_plane() -> None:
    body = read('{"inputs": [1.0, -128.0]}', one_input("int8"))
    assert body.inputs["x"].dtype == "float64"
    assert body.inputs["x"].array.tolist() == [1.0, -128.0]


def test_huge_integers_are_floats_to_a_float() -> None:
    assert read_one("[100000000000000000000, -1]").tolist() == [1e20, -1.0]
    assert read_one("[1" + "0" * 400 + "]").tolist() == [math.inf]


def test_empty_tensors_keep_their_shape(suffix: str) -> None:
    for dtype in ("float32", "int32", "bool"):
        for value, shape in (("[]", (0,)), ("[[], []]", (2, 0))):
            body = read(f'{{"inputs": {{"x": {value}}}{suffix}}}', one_input(dtype))
            assert body.inputs["x"].array.shape == shape


def test_rank_is_bounded(suffix: str) -> None:
    deepest = "[" * MAX_RANK + "1" + "]" * MAX_RANK
    assert read_one(deepest).shape == (1,) * MAX_RANK
    for value in (f"[{deepest}]", "[" * 900 + "1" + "]" * 900):
        with pytest.raises(InvalidArgumentError, match="more than 32 dimensions"):
            read(f'{{"inputs": {value}{suffix}}}')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"[1]",
        b"5",
        b'"text"',
        b"null",
        b"NaN",
        b'{"inputs": [1, 2]',
        b'{"inputs": [1, 2]} x',
        b'{"inputs": [1,]}',
        b'{"inputs": [01]}',
        b'{"inputs": [nan]}',
        b'{"inputs": [+1]}',
        b"{'inputs': [1]}",
        b'{"inputs": [1], "inputs": [2]}',
        b'{"inputs": {"x": [1], "x": [NaN]}}',
        b'{"inputs": {"x": [1], "x": [2]}}',
        b'{"instances": [{"x": [1], "x": [2]}]}',
        b'{"inputs": {"x": [1], "x\\u0000y": [2]}}',
        b'{"inputs": "\xff"}',
        b'{"inputs": ["\xff", NaN]}',
        b'{"inputs": 1' + b"0" * 5000 + b"}",
        b'{"inputs":' + b"[" * 2000,
        b'{"inputs":' + b"[" * 200_000,
        b'{"inputs":' + b"[" * 200_000 + b"NaN",
        b'{"a":' * 200_000,
        b'{"inputs": [NaN,' + b" " * 100_000,
    ],
)
def test_what_is_no_json_object_is_invalid_json(body: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^Invalid JSON: "):
        read(body)


def test_the_place_of_a_mistake_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="line 2, column 12"):
        read(b'{\n"inputs": [}')


@given(
    st.binary(max_size=60)
    | st.text('{}[]",:0123.eE-+ntfinputsa').map(lambda text: f'{{"inputs":{text}'.encode())
)
def test_no_text_brings_anything_but_invalid_argument(body: bytes) -> None:
    known = ("Invalid JSON: ", "Invalid inputs in request body: ", "Serving signature")
    refused = ""
    try:
        read(body)
    except InvalidArgumentError as error:
        refused = error.message
    assert refused.startswith(known) or not refused


def test_a_parser_is_usable_while_an_error_still_refers_to_its_text() -> None:
    parser = DocumentParser()
    with pytest.raises(InvalidArgumentError) as caught:
        read_body(parser.parse(b'{"inputs": {"x": [[1], 2]}}'), ONE)
    kept = parser.parse(b'{"inputs": [3]}')
    assert read_body(parser.parse(b'{"inputs": [4]}'), ONE).inputs["x"].array.tolist() == [4.0]
    assert read_body(kept, ONE).inputs["x"].array.tolist() == [3.0]
    assert caught.value.message


# ---- out


def output(dtype: str, array: np.ndarray) -> OutputTensor:
    return OutputTensor(dtype, array)


def loaded(outputs: Mapping[str, OutputTensor], *, rows: bool = False) -> Any:
    return json.loads(write_answer(outputs, rows))


@pytest.mark.parametrize("dtype", [name for name in STORAGE if name != "bfloat16"])
@given(data=st.data())
def test_every_type_can_be_read_back(dtype: str, data: st.DataObject) -> None:
    array = data.draw(hnp.arrays(STORAGE[dtype], SHAPES))
    value = loaded({"y": output(dtype, array)})["outputs"]
    back = np.array(value, STORAGE[dtype] if STORAGE[dtype].kind != "f" else np.float64)
    assert back.shape == array.shape
    with np.errstate(over="ignore"):
        assert np.array_equal(back.astype(STORAGE[dtype]), array, equal_nan=STORAGE[dtype].kind == "f")


@given(hnp.arrays(np.uint16, SHAPES))
def test_bfloat16_is_written_as_numbers(bits: np.ndarray) -> None:
    value = loaded({"y": output("bfloat16", bits)})["outputs"]
    with np.errstate(invalid="ignore"):  # signalling NaNs
        expected = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    back = np.array(value, np.float64).astype(np.float32)
    assert np.array_equal(back, expected, equal_nan=True)


def test_float32_is_written_short_beside_what_is_not_finite() -> None:
    finite = np.array([0.1, 1 / 3], np.float32)
    assert write({"y": finite}) == b'{"y":[0.1,0.33333334]}'
    mixed = np.array([0.1, np.nan, -np.inf, np.inf], np.float32)
    assert write({"y": mixed}) == b'{"y":[0.1,NaN,-Infinity,Infinity]}'


def test_a_name_that_reads_null_is_no_null() -> None:
    assert write({"null": np.array([1.5], np.float32)}) == b'{"null":[1.5]}'


def test_outputs_of_any_layout_are_written() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert loaded({"y": output("float32", array.T)})["outputs"] == array.T.tolist()
    assert loaded({"y": output("float32", array[:, ::2])})["outputs"] == array[:, ::2].tolist()
    scalar = np.array(0.1, np.float32)
    assert write_answer({"y": output("float32", scalar)}, False) == b'{"outputs":0.1}'
    assert printable(output("bfloat16", np.array(0x3F80, np.uint16))).shape == ()
    assert loaded({"y": output("bfloat16", np.array(0x3F80, np.uint16))})["outputs"] == 1.0


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (5, 0), (20_000,), (40_000, 1), (3, 20_000), (2, 3, 70, 70), (70, 3, 100), (1, 1, 20_000, 1)],
)
def test_pieces_make_up_the_text(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).random(shape, np.float32)
    if array.size > 5:
        array.reshape(-1)[[0, 3, -1]] = np.nan, np.inf, -np.inf
    pieces = list(pieces_of(array))
    assert b"".join(pieces) == write(array)
    assert len(pieces) > 1 or array.size <= PIECE_ELEMENTS
    assert max(map(len, pieces)) < 16 * PIECE_ELEMENTS


@given(hnp.arrays(np.float64, SHAPES, elements=st.floats(width=64)))
def test_what_is_not_finite_is_written_in_its_place(array: np.ndarray) -> None:
    document = json.loads(write({"null": array, "rows": [{"null": array}]}))
    for value in (document["null"], document["rows"][0]["null"]):
        assert np.array_equal(np.array(value, np.float64).reshape(array.shape), array, equal_nan=True)


def test_big_requests_are_read_the_quick_way() -> None:
    array = np.random.default_rng(1).random((1, 3, 64, 64), np.float32)
    body = orjson.dumps({"instances": array}, option=orjson.OPT_SERIALIZE_NUMPY)
    document = DocumentParser().parse(body)
    assert document.brackets == 1 + 1 + 3 + 3 * 64
    read_array = read_body(document, ONE).inputs["x"].array
    assert np.array_equal(read_array.astype(np.float32), array)
