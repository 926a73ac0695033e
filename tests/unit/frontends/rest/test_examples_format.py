"""The bodies of `:classify` and `:regress`, both ways."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError
from frontends.inference import Ranking
from frontends.rest.examples_format import ExamplesBody, classes_pieces, read_examples_body, values_pieces
from frontends.rest.json_text import DocumentParser


def read(body: Any) -> ExamplesBody:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_examples_body(DocumentParser().parse(text))


@pytest.mark.parametrize("rest", [{}, {"of no interest": float("nan")}], ids=["simdjson", "standard library"])
def test_features_are_values_and_lists_of_values(rest: dict[str, Any]) -> None:
    body = read(
        {
            "signature_name": "serving_default",
            "context": {"c": -1},
            "examples": [
                {
                    "f": 1.5,
                    "i": [1, 2],
                    "s": "é",
                    "b": {"b64": "/+8="},
                    "m": ["a", {"b64": "YQ"}],
                    "t": [True],
                },
                {"f": [], "i": [9007199254740993, 18446744073709551615]},
            ],
            **rest,
        }
    )
    assert body.context == {"c": [-1]}
    assert body.examples == [
        {"f": [1.5], "i": [1, 2], "s": ["é".encode()], "b": [b"\xff\xef"], "m": [b"a", b"a"], "t": [True]},
        {"f": [], "i": [9007199254740993, 18446744073709551615]},
    ]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "'examples' is not there"),
        ({"examples": {}}, "'examples' is not an array"),
        ({"examples": None}, "'examples' is not an array"),
        ({"examples": []}, "'examples' is empty"),
        ({"examples": [1]}, "example 0 is not an object"),
        ({"examples": [{}, [1]]}, "example 1 is not an object"),
        ({"examples": [{"x": None}]}, "'x' in example 0 is neither"),
        ({"examples": [{"x": [[1]]}]}, "'x' in example 0 is neither"),
        ({"examples": [{"x": [1, None]}]}, "'x' in example 0 is neither"),
        ({"examples": [{"x": {"a": 1}}]}, "'x' in example 0 is neither"),
        ({"examples": [{"x": {"b64": 1}}]}, "'x' in example 0 is neither"),
        ({"examples": [{"x": {"b64": "!"}}]}, "not base64"),
        ({"examples": [{"x": 1}], "context": [1]}, "'context' is not an object"),
        ({"examples": [{"x": 1}], "context": None}, "'context' is not an object"),
        ({"examples": [{"x": 1}], "signature_name": 5}, "'signature_name' is not a string"),
        (rb'{"examples": [{"x": "\ud800"}]}', "not Unicode"),
    ],
)
def test_wrong_structure(body: Any, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^Invalid inputs in request body: .*{words}"):
        read(body)


def test_another_signature_and_a_name_that_comes_twice() -> None:
    with pytest.raises(InvalidArgumentError, match="'other' not found"):
        read({"examples": [{"x": 1}], "signature_name": "other"})
    for body in (b'{"examples": [{"x": 1, "x": 2}]}', b'{"examples": [], "examples": []}'):
        with pytest.raises(InvalidArgumentError, match="Invalid JSON: an object names a member twice"):
            read(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "b64", ""]), inner),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_nothing_brings_anything_but_invalid_argument(examples: Any, context: Any) -> None:
    refused = ""
    try:
        read({"examples": examples, "context": context})
    except InvalidArgumentError as error:
        refused = error.message
    assert not refused or refused.startswith(("Invalid JSON: ", "Invalid inputs in request body: "))


def test_answers() -> None:
    scores = np.array([0.25, 0.1], np.float32)
    rankings = [Ranking(("cat", "dog"), scores), Ranking(("dog",), np.array([np.nan], np.float64))]
    assert b"".join(classes_pieces(rankings)) == (b'{"results":[[["cat",0.25],["dog",0.1]],[["dog",NaN]]]}')
    assert b"".join(values_pieces(np.array([0.1, -np.inf], np.float32))) == b'{"results":[0.1,-Infinity]}'


def test_long_answers_come_in_pieces() -> None:
    labels = tuple(map(str, range(1000)))
    scores = np.random.default_rng(1).random((100, 1000))
    pieces = list(classes_pieces([Ranking(labels, row) for row in scores]))
    assert len(pieces) > 5
    document = json.loads(b"".join(pieces))
    assert document["results"] == [
        [list(pair) for pair in zip(labels, row, strict=True)] for row in scores.tolist()
    ]
    values = scores.reshape(-1)
    pieces = list(values_pieces(values))
    assert len(pieces) > 5
    assert json.loads(b"".join(pieces))["results"] == values.tolist()
