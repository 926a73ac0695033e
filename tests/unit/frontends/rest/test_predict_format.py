"""Row and column format, both ways."""

import json
from typing import Any

import numpy as np
import pytest

from common.errors import InvalidArgumentError
from common.tensors import Signature, TensorSpec
from frontends.interface import OutputTensor
from frontends.rest.json_tensors import PIECE_ELEMENTS
from frontends.rest.json_text import DocumentParser
from frontends.rest.predict_format import PredictBody, answer_pieces, is_long_answer, read_body, write_answer

ONE = Signature((TensorSpec("x", "float32", (-1, 2)),), ())
TWO = Signature((TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "int64", (-1,))), ())


def read(body: Any, signature: Signature) -> PredictBody:
    return read_body(DocumentParser().parse(json.dumps(body).encode()), signature)


def values(body: PredictBody) -> dict[str, Any]:
    return {name: tensor.array.tolist() for name, tensor in body.inputs.items()}


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"x": [[1, 2], [3, 4]]}},
        {"instances": [[1, 2], [3, 4]]},
        {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]},
        {"instances": [[1, 2], [3, 4]], "signature_name": "serving_default"},
        {"signature_name": "", "instances": [[1, 2], [3, 4]], "more": {"of": ["no", "interest"]}},
    ],
)
def test_one_tensor_in_every_format(body: dict[str, Any]) -> None:
    read_one = read(body, ONE)
    assert values(read_one) == {"x": [[1.0, 2.0], [3.0, 4.0]]}
    assert read_one.rows == ("instances" in body)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": {"a": [[1, 2], [3, 4]], "b": [5, 6]}},
        {"instances": [{"a": [1, 2], "b": 5}, {"b": 6, "a": [3, 4]}]},
    ],
)
def test_several_tensors_in_both_formats(body: dict[str, Any]) -> None:
    read_two = read(body, TWO)
    assert values(read_two) == {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [5, 6]}
    assert read_two.inputs["b"].dtype == "int64"


def test_a_single_value_is_a_scalar_or_a_row() -> None:
    assert values(read({"inputs": 5}, ONE)) == {"x": 5.0}
    assert values(read({"instances": [5]}, ONE)) == {"x": [5.0]}
    assert values(read({"instances": [{"x": 5}]}, ONE)) == {"x": [5.0]}


def test_unknown_and_missing_inputs_are_left_to_the_data_plane() -> None:
    assert values(read({"inputs": {"y": [1]}}, ONE)) == {"y": [1.0]}
    assert values(read({"instances": [{"b": 1}]}, TWO)) == {"b": [1]}


@pytest.mark.parametrize(
    ("body", "signature", "words"),
    [
        ({}, ONE, "neither of"),
        ({"instances": [1], "inputs": [1]}, ONE, "both of"),
        ({"instances": []}, ONE, "'instances' is empty"),
        ({"inputs": []}, ONE, "'inputs' is empty"),
        ({"inputs": {}}, ONE, "'inputs' is empty"),
        ({"instances": {"x": [1]}}, ONE, "'instances' is not an array"),
        ({"instances": 1}, ONE, "'instances' is not an array"),
        ({"instances": None}, ONE, "'instances' is not an array"),
        ({"inputs": None}, ONE, "null"),
        ({"instances": [{}]}, ONE, "the first instance is empty"),
        ({"instances": [{"x": [1, 2]}, [3, 4]]}, ONE, "instance 1 is not an object"),
        ({"instances": [[1, 2], {"x": [3, 4]}]}, ONE, "ragged"),
        ({"instances": [{"a": [1, 2], "b": 1}, {"a": [1, 2]}]}, TWO, "instance 1 has the inputs"),
        ({"instances": [{"x": [1, 2]}, {"x": [1]}]}, ONE, "differ in the shape of 'x'"),
        ({"instances": [{"x": [1, 2]}, {"x": 1}]}, ONE, "differ in the shape of 'x'"),
        ({"instances": [[1, 2]]}, TWO, r"the model has the inputs \['a', 'b'\]"),
        ({"inputs": [[1, 2]]}, TWO, r"the model has the inputs \['a', 'b'\]"),
        ({"instances": [{"b64": "AAAA"}]}, ONE, "base64"),
        ({"signature_name": 5, "inputs": [1]}, ONE, "'signature_name' is not a string"),
    ],
)
def test_wrong_structure(body: dict[str, Any], signature: Signature, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^Invalid inputs in request body: .*{words}"):
        read(body, signature)


def test_unknown_signature_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"'other' not found. .*\['serving_default'\]"):
        read({"signature_name": "other", "inputs": [1]}, ONE)


# ---- answers


def tensor(*shape: int) -> OutputTensor:
    return OutputTensor("float32", np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape))


def answer(rows: bool, **outputs: OutputTensor) -> Any:
    return json.loads(write_answer(outputs, rows))


def test_one_output_is_bare() -> None:
    assert answer(False, y=tensor(2, 2)) == {"outputs": [[0, 1], [2, 3]]}
    assert answer(True, y=tensor(2, 2)) == {"predictions": [[0, 1], [2, 3]]}
    assert answer(False, y=tensor()) == {"outputs": 0}


def test_several_outputs_are_named() -> None:
    assert answer(False, y=tensor(2, 1), z=tensor(3)) == {"outputs": {"y": [[0], [1]], "z": [0, 1, 2]}}
    assert answer(True, y=tensor(2, 1), z=tensor(2)) == {
        "predictions": [{"y": [0], "z": 0}, {"y": [1], "z": 1}]
    }


def test_rows_are_written_with_what_is_not_finite() -> None:
    bad = OutputTensor("float16", np.array([np.nan, 0.5], np.float16))
    assert write_answer({"y": tensor(2), "z": bad}, True) == (
        b'{"predictions":[{"y":0.0,"z":NaN},{"y":1.0,"z":0.5}]}'
    )


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize(
    "outputs",
    [
        {"y": tensor(2, 2)},
        {"y": tensor(40_000)},
        {"y": tensor(2, 40_000)},
        {"y": tensor(3), "z": tensor(3, 2)},
        {"y": tensor(0), "z": tensor(0, 2)},
        {"y": tensor(5000), "z": tensor(5000, 2)},
        {"y": tensor(3, 40_000), "z": tensor(3)},
        {'y"': tensor(1, 40_000), "z": OutputTensor("float16", np.array([np.nan], np.float16))},
    ],
)
def test_pieces_make_up_the_answer(outputs: dict[str, OutputTensor], rows: bool) -> None:
    pieces = list(answer_pieces(outputs, rows))
    assert b"".join(pieces) == write_answer(outputs, rows)
    assert max(map(len, pieces)) < 12 * PIECE_ELEMENTS
    assert is_long_answer(outputs) == (sum(one.array.size for one in outputs.values()) > PIECE_ELEMENTS)


@pytest.mark.parametrize(
    "outputs", [{"y": tensor()}, {"y": tensor(2), "z": tensor(3)}, {"y": tensor(2), "z": tensor()}]
)
def test_outputs_without_rows_are_an_error_that_names_the_other_format(
    outputs: dict[str, OutputTensor],
) -> None:
    with pytest.raises(InvalidArgumentError, match="columnar format, with 'inputs'"):
        write_answer(outputs, True)
    with pytest.raises(InvalidArgumentError, match="columnar format, with 'inputs'"):
        list(answer_pieces(outputs, True))
