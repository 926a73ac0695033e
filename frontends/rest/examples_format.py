"""The bodies of `:classify` and `:regress`, TensorFlow Serving's: examples in, classes or values out.

    {"examples": [{"a": [1.5, 2], "b": "text"}, …], "context": {"c": {"b64": "…"}}}     features by name, an object each
    {"results": [[["cat", 0.8], ["dog", 0.2]], …]}                                       :classify
    {"results": [0.5, …]}                                                                :regress

A feature is a value or a list of values: numbers, or bytes, as base64 or as text, which stands for its UTF-8.
`signature_name` may stand beside `examples` and `context`; further members are ignored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from frontends.inference import Example, Feature, Ranking
from frontends.rest.json_tensors import (
    PIECE_ELEMENTS,
    decode_binary,
    is_binary,
    pieces_of,
    refuse_inputs,
    write,
)
from frontends.rest.json_text import JSON_ARRAY, JSON_OBJECT, Document, members_of
from frontends.rest.predict_format import check_signature_name

_NUMBERS = (int, float)
"""bool is an int."""


@dataclass(frozen=True, slots=True)
class ExamplesBody:
    """A body that was read."""

    examples: Sequence[Example]
    """At least one."""
    context: Example


def read_examples_body(document: Document) -> ExamplesBody:
    """Raises InvalidArgumentError."""
    members = members_of(document.root)
    check_signature_name(members.get("signature_name", ""))
    examples = members.get("examples")
    if not isinstance(examples, JSON_ARRAY):
        refuse_inputs(
            "'examples' is not there" if "examples" not in members else "'examples' is not an array"
        )
    if not len(examples):
        refuse_inputs("'examples' is empty")
    return ExamplesBody(
        [_example(f"example {number}", example) for number, example in enumerate(examples)],
        _example("'context'", members["context"]) if "context" in members else {},
    )


def _example(where: str, value: Any) -> dict[str, Feature]:
    if not isinstance(value, JSON_OBJECT):
        refuse_inputs(f"{where} is not an object")
    return {name: _feature(f"{name!r} in {where}", values) for name, values in members_of(value).items()}


def _feature(where: str, value: Any) -> list[Any]:
    if not isinstance(value, JSON_ARRAY):
        return [_value(where, value)]
    values = list(value)
    if all(isinstance(one, _NUMBERS) for one in values):
        return values
    return [_value(where, one) for one in values]


def _value(where: str, value: Any) -> Any:
    if isinstance(value, _NUMBERS):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            refuse_inputs(f"{where} is text that is not Unicode")
    if is_binary(value):
        return decode_binary(where, value)
    return refuse_inputs(f"{where} is neither a number, a text nor base64, nor a list of these")


def classes_pieces(rankings: Sequence[Ranking]) -> Iterator[bytes]:
    """The body of `:classify`'s answer, in pieces none of which takes long."""
    weight = len(rankings[0].labels) if rankings else 1
    step = max(1, PIECE_ELEMENTS // max(1, weight))
    yield b'{"results":['
    for start in range(0, len(rankings), step):
        pairs = [
            [list(pair) for pair in zip(one.labels, one.scores, strict=True)]
            for one in rankings[start : start + step]
        ]
        yield (b"," if start else b"") + write(pairs)[1:-1]
    yield b"]}"


def values_pieces(values: np.ndarray) -> Iterator[bytes]:
    """The body of `:regress`'s answer, likewise."""
    yield b'{"results":'
    yield from pieces_of(values)
    yield b"}"
