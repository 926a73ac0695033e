"""Long Predict bodies that hold one tensor of numbers: read in slices, so that no step of it takes long.

The tensor is one list, or a list of objects of one name, which all are written alike.

A parser's pass over 3 MB takes milliseconds in which no other thread of the process runs. So the text is cut behind
commas, and of each slice three things are looked at:

    [[1.5, 2], [3, 4]]   without brackets        1.5, 2, 3, 4        a list of numbers, read by simdjson
                         without numbers         [[,],[,]]           the structure, compared with that of a full tensor
                         each bracket's follower                     a number stands within the innermost brackets

The three together leave no other text than the tensor's. What surrounds the tensor is read as it always is, with a
number in the tensor's place. Where anything is unusual or wrong the answer is None, and the whole text is to be read in
one go by frontends.rest.predict_format, which finds the same in what is read here, and the words for what is not.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simdjson

from common.errors import InvalidArgumentError
from common.tensors import Signature
from frontends.rest.json_tensors import MAX_RANK, as_input, fit, flatten, is_integer
from frontends.rest.json_text import DocumentParser, members_of
from frontends.rest.offload import give_way
from frontends.rest.predict_format import SIGNATURE, PredictBody

_SLICE_BYTES = 32 << 10
"""Read in some 50 µs; in half a millisecond where there is a NaN among its numbers."""
_SLICES_IN_A_ROW = 8
"""Then the loop may have the core."""
_PLAIN_BYTES = 1536 << 10
"""Texts up to this length are read in one go, which takes less of the processor and two milliseconds at the most. Not
so where a number is one of the words that only the standard library reads: that takes ten times as long."""
_SURROUNDINGS_BYTES = 4096
"""Longest text before and after the tensor."""

_TOP = re.compile(rb'[^{]*\{[^{]*"(instances|inputs)"\s*:\s*', re.DOTALL)
_NAMED = re.compile(rb'[^{]*\{[^{]*"(inputs)"\s*:\s*\{\s*"([^"\\]*)"\s*:\s*', re.DOTALL)

_NUMBERS = b"0123456789+-.eE \t\r\n"
_WORDS = b"NaInfity"
"""The letters of NaN and Infinity."""
_EMPTY = re.compile(rb"[\[{][ \t\r\n]*[,\]}]")
_FOLLOWED = re.compile(rb"[\]}][ \t\r\n]*[^\]},\s]")
_OBJECT = re.compile(rb'\[[ \t\r\n]*(\{[ \t\r\n]*"([^"\\,]*)"[ \t\r\n]*:)')
"""How a list of objects begins: of one name each, and all of them written alike."""
_NO_BRACKETS = bytes.maketrans(b"[]{}", b"    ")
_BRACKETS_ALONE = bytes.maketrans(b"{}", b"[]")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the tensor stands."""

    rows: bool
    name: str
    """Of the input."""


def read_long(text: bytes, parser: DocumentParser, signature: Signature) -> PredictBody | None:
    """See above."""
    if (
        len(text) <= _PLAIN_BYTES and b"N" not in text and b"I" not in text
    ):  # single letters are found far sooner
        return None
    start = text.find(b"[", 0, _SURROUNDINGS_BYTES)
    end = text.rfind(b"]", -_SURROUNDINGS_BYTES) + 1
    if start < 0 or end <= start:
        return None
    types = {spec.name: spec.dtype for spec in signature.inputs}
    place = _place(text[:start], text[end:], parser, types)
    if place is None:
        return None
    opening = _OBJECT.match(text, start, start + _SURROUNDINGS_BYTES)
    if opening is not None and (not place.rows or opening[2].decode("utf-8", "replace") != place.name):
        return None
    dtype = types.get(place.name)
    array = None
    if dtype != "bool":
        integers = is_integer(dtype)
        array = _read_slices(text, start, end, b"" if opening is None else opening[1], integers=integers)
    if array is None:
        return None
    return PredictBody(place.rows, {place.name: as_input(fit(place.name, array, dtype))})


def _place(before: bytes, after: bytes, parser: DocumentParser, types: Mapping[str, str]) -> _Place | None:
    at_top, named = _TOP.fullmatch(before), _NAMED.fullmatch(before)
    match = at_top or named
    if match is None:
        return None
    try:
        members = members_of(parser.parse(before + b"0" + after).root)
        if (
            members.get("signature_name", "") not in ("", SIGNATURE)
            or len({"instances", "inputs"} & members.keys()) > 1
        ):
            return None
        value: Any = members[match[1].decode()]
        if named is not None:
            columns = members_of(value)
            name = named[2].decode()
            return _Place(False, name) if list(columns) == [name] else None
    except (InvalidArgumentError, UnicodeDecodeError):
        return None
    return _Place(match[1] == b"instances", next(iter(types))) if len(types) == 1 else None


def _read_slices(text: bytes, start: int, end: int, opening: bytes, *, integers: bool) -> np.ndarray | None:
    """`opening`: with which each row begins that is an object, name and colon included; empty: rows are none."""
    parser = simdjson.Parser()
    numbers: list[np.ndarray] = []
    structure: list[bytes] = []
    for number, piece in enumerate(_slices(text, start, end), 1):
        if not number % _SLICES_IN_A_ROW:
            give_way()
        if opening:
            if piece.count(b"{") != piece.count(opening):
                return None
            piece = piece.replace(opening, b"{")
        if _EMPTY.search(piece) or _FOLLOWED.search(piece):
            return None
        outline = piece.translate(None, _NUMBERS)
        words = not integers and (b"N" in outline or b"I" in outline)
        flat = b"[" + piece.translate(_NO_BRACKETS) + b"]"
        read = _read_words(flat) if words else _read_numbers(parser, flat, integers=integers)
        if read is None:
            return None
        numbers.append(read)
        structure.append(outline.translate(None, _WORDS) if words else outline)
    shape = _shape_of(b",".join(structure), objects=bool(opening))
    return None if shape is None else np.concatenate(numbers).reshape(shape)


def _slices(text: bytes, start: int, end: int) -> Iterator[bytes]:
    """Cut at commas, which belong to no slice. One number that fills a slice makes a longer one."""
    while end - start > _SLICE_BYTES:
        comma = text.rfind(b",", start, start + _SLICE_BYTES)
        if comma < 0:
            comma = text.find(b",", start, end)
        if comma < 0:
            break
        yield text[start:comma]
        start = comma + 1
    yield text[start:end]


def _read_numbers(parser: simdjson.Parser, flat: bytes, *, integers: bool) -> np.ndarray | None:
    try:
        array = parser.parse(flat)
    except (ValueError, RuntimeError):
        return None
    return flatten(array, ("i",) if integers else ("d",)) if isinstance(array, simdjson.Array) else None


def _read_words(flat: bytes) -> np.ndarray | None:
    try:
        elements = json.loads(flat)
        return np.array(elements, np.float64) if set(map(type, elements)) <= {int, float} else None
    except (ValueError, OverflowError):
        return None


def _shape_of(outline: bytes, *, objects: bool) -> tuple[int, ...] | None:
    """Of the tensor whose brackets and commas these are; None if they are no tensor's.

    `objects`: those of the second level are braces, with one list each, and no dimension.
    """
    structure = outline.translate(_BRACKETS_ALONE)
    rank = len(structure) - len(structure.lstrip(b"["))
    if not 0 < rank <= MAX_RANK:
        return None
    shape: list[int] = []
    inner = length = 1
    for level in range(1, rank + 1):
        closed = structure.find(b"]" * level)
        count = structure.count(b",", 0, closed) + 1
        if closed < 0 or count % inner:
            return None
        shape.insert(0, count // inner)
        length = (length if level > 1 else 0) * shape[0] + shape[0] + 1
        inner = count
    if length != len(structure):
        return None
    expected = b""
    for level, size in reversed(list(enumerate(shape))):
        begin, finish = (b"{", b"}") if objects and level == 1 else (b"[", b"]")
        expected = begin + (expected + b",") * (size - 1) + expected + finish
    if outline != expected or (objects and (rank < 3 or shape[1] != 1)):
        return None
    return (shape[0], *shape[2:]) if objects else tuple(shape)
