"""Strings in JSON, both ways: texts, base64, and which of the two an answer has."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError
from common.strings import MAX_STRINGS
from common.tensors import Signature, TensorSpec
from frontends.interface import STRING, OutputTensor
from frontends.rest.json_tensors import PIECE_ELEMENTS
from frontends.rest.json_text import DocumentParser
from frontends.rest.predict_format import answer_pieces, read_body, write_answer

ONE = Signature((TensorSpec("s", STRING, (-1,)),), ())
TWO = Signature((TensorSpec("s", STRING, (-1,)), TensorSpec("n", "float32", (-1, 2))), ())


def b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def read(body: Any, signature: Signature = ONE) -> dict[str, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    inputs = read_body(DocumentParser().parse(text), signature).inputs
    assert inputs["s"].dtype == STRING
    assert inputs["s"].array.dtype == np.object_
    return {name: tensor.array.tolist() for name, tensor in inputs.items()}


def refused(body: Any, signature: Signature = ONE) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        read(body, signature)
    return caught.value.message


def strings(values: list[bytes], shape: tuple[int, ...] | None = None) -> OutputTensor:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return OutputTensor(STRING, array.reshape((len(values),) if shape is None else shape))


# ---- in


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": ["a", "ü[", b64(b"\xff\0")]},
        {"inputs": {"s": ["a", "ü[", b64(b"\xff\0")]}},
        {"instances": ["a", "ü[", b64(b"\xff\0")]},
        {"instances": [{"s": "a"}, {"s": "ü["}, {"s": b64(b"\xff\0")}]},
        {"instances": [b64(b"a"), "ü[", b64(b"\xff\0")]},
    ],
)
@pytest.mark.parametrize("more", [{}, {"more": "["}])
def test_texts_and_base64_in_every_format(body: dict[str, Any], more: dict[str, str]) -> None:
    assert read(body | more) == {"s": [b"a", "ü[".encode(), b"\xff\0"]}


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_text(values: list[str]) -> None:
    wanted = {"s": [value.encode() for value in values]}
    assert read({"inputs": {"s": values}}) == wanted
    assert read(json.dumps({"inputs": {"s": values}}, ensure_ascii=False).encode()) == wanted


def test_strings_and_numbers_together() -> None:
    wanted = {"s": [b"1", b"2"], "n": [[1, 2], [3, 4]]}
    assert read({"inputs": {"s": ["1", "2"], "n": [[1, 2], [3, 4]]}}, TWO) == wanted
    assert read({"instances": [{"s": "1", "n": [1, 2]}, {"s": "2", "n": [3, 4]}]}, TWO) == wanted


@pytest.mark.parametrize(
    ("value", "shape"), [("a", ()), (["a"], (1,)), ([["a", "b"]], (1, 2)), ([], (0,)), ([[], []], (2, 0))]
)
def test_every_shape(value: Any, shape: tuple[int, ...]) -> None:
    any_shape = Signature((TensorSpec("s", STRING, (), unranked=True),), ())
    body = json.dumps({"inputs": {"s": value}}).encode()
    tensor = read_body(DocumentParser().parse(body), any_shape).inputs["s"]
    assert tensor.dtype == STRING
    assert tensor.array.shape == shape


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["a", 1], "holds numbers and strings"),
        (["a", None], "holds null and strings"),
        (["a", ["b"]], "ragged"),
        (["a", {"b65": "YQ=="}], "holds objects and strings"),
        ([{"b64": "no base64!"}], "not base64"),
        ([""] * (MAX_STRINGS + 1), f"{MAX_STRINGS} at the most"),
    ],
)
def test_what_is_no_tensor_of_strings(value: Any, words: str) -> None:
    text = refused({"inputs": {"s": value}})
    assert text.startswith("Invalid inputs in request body: ")
    assert words in text


def test_text_that_is_not_unicode() -> None:
    # simdjson refuses a lone surrogate as it reads the text, the standard library hands it on.
    assert refused(b'{"inputs": ["\\ud800"]}').startswith("Invalid ")
    assert refused(b'{"inputs": ["\\ud800"], "more": NaN}').startswith("Invalid ")


def test_numbers_for_strings_are_left_to_the_data_plane() -> None:
    inputs = read_body(DocumentParser().parse(b'{"inputs": [1, 2]}'), ONE).inputs
    assert inputs["s"].dtype == "int64"


def test_texts_for_numbers() -> None:
    numbers = Signature((TensorSpec("s", "float32", (-1,)),), ())
    assert "it holds strings" in refused({"inputs": ["a"]}, numbers)
    assert "takes numbers" in refused({"inputs": [b64(b"a")]}, numbers)


# ---- out


def test_text_where_it_is_text_and_else_base64() -> None:
    values = [b"plain", b"", 'schön\n"'.encode(), b"\xff", b"\0", b"null"]
    answer = json.loads(write_answer({"t": strings(values)}, False))
    assert answer == {"outputs": ["plain", "", 'schön\n"', b64(b"\xff"), "\0", "null"]}


def test_a_name_that_ends_in_bytes_is_base64() -> None:
    answer = json.loads(write_answer({"image_bytes": strings([b"text", b"\xff"])}, True))
    assert answer == {"predictions": [b64(b"text"), b64(b"\xff")]}


@pytest.mark.parametrize("rows", [True, False])
def test_beside_numbers_that_are_not_finite(rows: bool) -> None:
    outputs = {
        "t": strings([b"null", b"\xff"]),
        "n": OutputTensor("float32", np.array([np.nan, 1.5], np.float32)),
        "b_bytes": strings([b"a", b"b"], (2, 1)),
    }
    answer = json.loads(write_answer(outputs, rows))
    pieces = json.loads(b"".join(answer_pieces(outputs, rows)))
    assert str(pieces) == str(answer)
    if rows:
        first, second = answer["predictions"]
        assert (first["t"], first["b_bytes"]) == ("null", [b64(b"a")])
        assert second == {"t": b64(b"\xff"), "n": 1.5, "b_bytes": [b64(b"b")]}
    else:
        assert answer["outputs"]["t"] == ["null", b64(b"\xff")]
        assert answer["outputs"]["b_bytes"] == [[b64(b"a")], [b64(b"b")]]


@pytest.mark.parametrize(
    ("values", "shape", "written"),
    [
        ([b"a"], (), "a"),
        ([b"\xff"], (), b64(b"\xff")),
        ([], (0, 2), []),
        ([b"a", b"b"], (2, 1), [["a"], ["b"]]),
    ],
)
def test_every_shape_is_written(values: list[bytes], shape: tuple[int, ...], written: Any) -> None:
    outputs = {"t": strings(values, shape)}
    assert json.loads(write_answer(outputs, False)) == {"outputs": written}
    assert json.loads(b"".join(answer_pieces(outputs, False))) == {"outputs": written}


def test_pieces_make_up_the_text() -> None:
    values = [b"%d" % number if number % 3 else b"\xff%d" % number for number in range(PIECE_ELEMENTS + 5)]
    for outputs in (
        {"t": strings(values)},
        {"t": strings(values), "u": OutputTensor("int64", np.arange(len(values)))},
    ):
        for rows in (True, False):
            assert b"".join(answer_pieces(outputs, rows)) == write_answer(outputs, rows)


@given(st.lists(st.binary(max_size=12), max_size=6))
def test_what_is_written_can_be_read(values: list[bytes]) -> None:
    answer = json.loads(write_answer({"t": strings(values)}, False))
    assert read({"inputs": {"s": answer["outputs"]}}) == {"s": values}
