"""Short Predict bodies of one tensor of numbers and nothing else: `{"instances": [[1.5, 2]]}`, `{"inputs": [1]}`.

For a few numbers, making simdjson's objects and looking at each costs several times what orjson and numpy take for the
whole text. orjson lets pass what this API refuses (members named twice, other numbers than they were), so a text is
read here only if, numbers and brackets aside, nothing is in it but the one member's name. Everything else, whatever is
wrong included, is left to frontends.rest.predict_format, which finds the same in what is read here.
"""

import numpy as np
import orjson

from common.tensors import Signature
from frontends.interface import InputTensor
from frontends.rest.json_tensors import FLOATS, MAX_RANK

SHORT_BYTES = 4096
"""Up to about here this is the quicker way."""

_NUMBERS_AND_BRACKETS = b"0123456789+-.eE[], \t\r\n"
_MEMBERS = {
    text.translate(None, _NUMBERS_AND_BRACKETS): (name, name == "instances")
    for name, text in (("instances", b'{"instances":}'), ("inputs", b'{"inputs":}'))
}
"""What is left of a body without numbers and brackets → the member that it may have, and whether that is rows."""


def read_numbers(text: bytes) -> tuple[bool, np.ndarray] | None:
    """Whether the body is in row format, and its numbers, for a model of one input of FLOATS; None where this way does
    not lead."""
    member = _MEMBERS.get(text.translate(None, _NUMBERS_AND_BRACKETS))
    if member is None:
        return None
    name, rows = member
    try:
        array = np.array(orjson.loads(text)[name], np.float64)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    if not array.size or not 0 < array.ndim <= MAX_RANK:
        return None
    return rows, array


def read_short(text: bytes, signature: Signature) -> tuple[bool, dict[str, InputTensor]] | None:
    """Whether the body is in row format, and its only input; None where this way does not lead."""
    if len(signature.inputs) != 1 or signature.inputs[0].dtype not in FLOATS:
        return None
    read = read_numbers(text)
    if read is None:
        return None
    rows, array = read
    return rows, {signature.inputs[0].name: InputTensor("float64", array)}
