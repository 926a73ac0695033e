"""JSON values ↔ numpy arrays.

In: big arrays of numbers are taken from simdjson as one flat buffer. That forgets their structure, so it is checked
beside it: the length of every array but the innermost ones' elements is looked at, and an element that is itself an
array, which the buffer would swallow, betrays itself by a bracket too many in the text (`TensorReader.arrays` against
`Document.brackets`). Whatever the quick way cannot read is read element by element, which also finds the words for
what is wrong.

Bytes are objects of one member, `{"b64": "…"}`, and to an input of strings text is bytes too: its UTF-8.

Out: orjson writes numpy arrays, floats as short as they can be read back. It has no word for NaN and the infinities and
writes null; the words are put there afterwards, as Python's clients understand them. Big arrays are written in pieces,
between which other requests can be served.
"""

import binascii
import itertools
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
import orjson
import simdjson

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError
from common.strings import MAX_STRINGS
from frontends.interface import STRING, InputTensor, OutputTensor
from frontends.rest.json_text import JSON_ARRAY, JSON_OBJECT

MAX_RANK = 32
"""Dimensions of a tensor; numpy itself takes 64."""

PIECE_ELEMENTS = 1 << 14
"""Elements that are written in one go; that takes under a millisecond."""

FLOATS = ("float64", "float32", "float16", "bfloat16")
"""The model's types to which every number is a float64."""

_BINARY = "b64"
_EXACT = 2.0**53
"""From here on not every whole number is a float64."""

_Letter: TypeAlias = Literal["d", "i", "u"]
_BUFFERS: dict[_Letter, np.dtype] = {
    "d": np.dtype(np.float64),
    "i": np.dtype(np.int64),
    "u": np.dtype(np.uint64),
}
"""simdjson's letters for the element types that it can give."""

_NAMES = {
    np.dtype(np.object_): STRING,
    **{kind: name for name, kind in STORAGE.items() if name != "bfloat16"},
}
"""numpy's own names, and much sooner."""


def refuse_inputs(reason: str) -> NoReturn:
    """Raises InvalidArgumentError with the documented beginning."""
    raise InvalidArgumentError(f"Invalid inputs in request body: {reason}")


def as_input(array: np.ndarray) -> InputTensor:
    """An array that a TensorReader has read, as the data plane takes it."""
    return InputTensor(_NAMES[array.dtype], array)


def is_binary(value: Any) -> bool:
    """Whether a JSON value stands for bytes."""
    return (
        isinstance(value, JSON_OBJECT) and list(value.keys()) == [_BINARY] and isinstance(value[_BINARY], str)
    )


def decode_binary(name: str, value: Any) -> bytes:
    """The bytes; padding may be left out, and there may be white space. Raises InvalidArgumentError."""
    text = "".join(value[_BINARY].split())
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        refuse_inputs(f"{name!r} holds bytes that are not base64")


class TensorReader:
    """Reads the tensors of one document."""

    def __init__(self, *, quick: bool) -> None:
        self._quick = quick
        self.arrays = 0
        """JSON arrays that were understood so far."""

    def read(self, name: str, value: Any, dtype: str | None) -> np.ndarray:
        """The tensor `value` for input `name`, of any rank.

        `dtype` is the model's element type, None for an input that the model does not have. The array is of that type
        where both are integers, else of bool, int64, uint64, float64 or, for bytes, of objects. For an input of strings
        text is bytes. Raises
        InvalidArgumentError.
        """
        array: np.ndarray | None = None
        if self._quick and isinstance(value, simdjson.Array):
            array = self._read_buffer(value, dtype)
        if array is None:
            array = self._read_elements(name, value, dtype)
        return fit(name, array, dtype)

    def read_batch(self, name: str, values: Sequence[Any], dtype: str | None) -> np.ndarray:
        """One tensor out of `values`, one a row. Raises InvalidArgumentError."""
        if not any(isinstance(value, JSON_ARRAY) for value in values):
            self.arrays -= 1  # `values` itself is not an array of the text
            return self.read(name, list(values), dtype)
        rows = [self.read(name, value, dtype) for value in values]
        if any(row.shape != rows[0].shape for row in rows):
            refuse_inputs(f"the instances differ in the shape of {name!r}")
        return rows[0][np.newaxis] if len(rows) == 1 else np.stack(rows)

    def _read_buffer(self, value: simdjson.Array, dtype: str | None) -> np.ndarray | None:
        """None where the quick way does not lead; the slow one then knows why."""
        shape = _first_shape(value)
        arrays = _count_arrays(value, shape)
        flat = flatten(value, _letters_for(dtype)) if arrays else None
        if flat is None or flat.size != prod(shape):
            return None
        self.arrays += arrays
        return flat.reshape(shape)

    def _read_elements(self, name: str, value: Any, dtype: str | None) -> np.ndarray:
        # Level by level, by iteration: simdjson's `len` stops at 2**24 - 1, and its `as_list` trusts it and writes
        # past the end of a list when an array has more elements.
        level: list[Any] = [value]
        shape: list[int] = []
        while level and isinstance(level[0], JSON_ARRAY):
            if len(shape) == MAX_RANK:
                refuse_inputs(f"{name!r} has more than {MAX_RANK} dimensions")
            if any(not isinstance(item, JSON_ARRAY) for item in level):
                _refuse_ragged(name)
            self.arrays += len(level)
            lists = [_listed(array) for array in level]
            shape.append(len(lists[0]))
            if any(len(items) != shape[-1] for items in lists):
                _refuse_ragged(name)
            level = lists[0] if len(lists) == 1 else list(itertools.chain.from_iterable(lists))
        if dtype == STRING and all(isinstance(element, str) or is_binary(element) for element in level):
            return _strings(name, level).reshape(shape)
        return _array_of(name, level, exact=is_integer(dtype)).reshape(shape)


def _listed(array: Any) -> list[Any]:
    """The elements, made some at a time, because other threads run in between alone."""
    elements: list[Any] = []
    rest = iter(array)
    while some := list(itertools.islice(rest, PIECE_ELEMENTS)):
        elements += some
    return elements


def _pieces(elements: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(elements), PIECE_ELEMENTS):
        yield elements[start : start + PIECE_ELEMENTS]


def _converted(elements: list[Any], kind: Any) -> np.ndarray:
    """A flat array of a type that holds all elements. Raises OverflowError."""
    if len(elements) <= PIECE_ELEMENTS:
        return np.array(elements, kind)
    return np.concatenate([np.array(piece, kind) for piece in _pieces(elements)])


def _refuse_ragged(name: str) -> NoReturn:
    refuse_inputs(f"{name!r} is ragged: its arrays differ in length or depth")


def _first_shape(value: Any) -> tuple[int, ...]:
    """The shape of `value` if all its arrays are like the first of their level."""
    shape: list[int] = []
    while isinstance(value, simdjson.Array) and len(shape) < MAX_RANK:
        shape.append(len(value))
        if not shape[-1]:
            break
        value = value[0]
    return tuple(shape)


def _count_arrays(value: Any, shape: tuple[int, ...]) -> int:
    """Arrays that make up `value` if its structure is `shape`; 0 if it is not. Does not look at the last level's
    elements."""
    if not isinstance(value, simdjson.Array) or len(value) != shape[0]:
        return 0
    if len(shape) == 1:
        return 1
    if len(shape) == 2:
        # The usual case of the last levels, written out: there may be as many arrays as numbers.
        length = shape[1]
        for item in value:
            if not isinstance(item, simdjson.Array) or len(item) != length:
                return 0
        return 1 + shape[0]
    arrays = 1
    rest = shape[1:]
    for item in value:
        below = _count_arrays(item, rest)
        if not below:
            return 0
        arrays += below
    return arrays


def _letters_for(dtype: str | None) -> tuple[_Letter, ...]:
    """Buffers to ask for in turn: integers must stay exact, and everything is a float to a float."""
    if dtype is None or dtype in FLOATS:
        return ("d",)
    return () if dtype in ("bool", STRING) else ("i", "u", "d")


def flatten(value: simdjson.Array, letters: tuple[_Letter, ...]) -> np.ndarray | None:
    """All numbers of an array and of those in it, by the first buffer that holds them exactly; None if none does."""
    for letter in letters:
        try:
            buffer = value.as_buffer(of_type=letter)
        except ValueError:
            if letter == "u":
                return None  # integers without a common type: to floats they would lose digits
        except TypeError:
            continue
        else:
            flat = np.frombuffer(buffer, _BUFFERS[letter])
            if letter == "d" and len(letters) > 1 and flat.size and float(np.abs(flat).max()) >= _EXACT:
                return None  # decimals among integers that may have lost digits
            return flat
    return None


def is_integer(dtype: str | None) -> bool:
    """Whether a model's type (None: not known) is of integers."""
    return dtype is not None and dtype not in ("bfloat16", STRING) and STORAGE[dtype].kind in "iu"


def _array_of(name: str, elements: list[Any], *, exact: bool) -> np.ndarray:
    """A flat array of numbers, booleans or bytes. With `exact`, decimals that are whole are integers among integers."""
    kinds: set[type] = set()
    for piece in _pieces(elements):
        kinds.update(map(type, piece))
    if kinds <= {bool}:
        return _converted(elements, np.bool_ if elements else np.float64)
    if kinds == {int}:
        return _integers(elements)
    if kinds <= {int, float}:
        if exact and kinds != {float} and all(type(one) is int or one.is_integer() for one in elements):
            return _integers([int(one) for one in elements])
        try:
            return _converted(elements, np.float64)
        except OverflowError:
            refuse_inputs(f"{name!r} holds a number that no element type can hold")
    if kinds and all(is_binary(element) for element in elements):
        return _strings(name, elements)
    return _refuse_elements(name, kinds)


def _strings(name: str, elements: list[Any]) -> np.ndarray:
    """A flat array of `bytes` objects from texts and base64. Raises InvalidArgumentError."""
    if len(elements) > MAX_STRINGS:
        refuse_inputs(f"{name!r} has {len(elements)} strings, and a tensor of them {MAX_STRINGS} at the most")
    strings = np.empty(len(elements), np.object_)
    try:
        strings[:] = [
            element.encode() if isinstance(element, str) else decode_binary(name, element)
            for element in elements
        ]
    except UnicodeEncodeError:
        refuse_inputs(f"{name!r} holds text that is not Unicode")
    return strings


def _integers(elements: list[int]) -> np.ndarray:
    """int64, else uint64, else float64 (for a float model; an integer one refuses it)."""
    for kind in (np.int64, np.uint64):
        try:
            return _converted(elements, kind)
        except OverflowError:
            continue
    return np.array([_to_float(element) for element in elements], np.float64)


def _to_float(element: int) -> float:
    try:
        return float(element)
    except OverflowError:
        return float("inf") if element > 0 else float("-inf")


def _refuse_elements(name: str, kinds: set[type]) -> NoReturn:
    words = {
        bool: "booleans",
        int: "numbers",
        float: "numbers",
        str: "strings",
        type(None): "null",
        list: "arrays",
    }
    found = sorted({words.get(kind, "objects") for kind in kinds})
    if found == ["booleans", "numbers"]:
        refuse_inputs(f"{name!r} mixes booleans and numbers")
    refuse_inputs(f"{name!r} is ragged or not of numbers: it holds {' and '.join(found)}")


def fit(name: str, array: np.ndarray, dtype: str | None) -> np.ndarray:
    """Integers for an integer input: of its type, or refused. Anything else is left to the data plane's rules."""
    if dtype is None or not is_integer(dtype) or array.dtype.kind == "O":
        return array
    target = STORAGE[dtype]
    limits = np.iinfo(target)
    if array.dtype.kind == "f":
        # max + 1 is a power of two and exact as a float; max itself need not be. NaN fails both comparisons.
        whole = np.trunc(array)
        if not np.all((whole >= float(limits.min)) & (whole < float(limits.max) + 1.0)):
            _refuse_range(name, dtype)
        return array
    if array.dtype.kind == "b" or not array.size:
        return array
    if int(array.min()) < limits.min or int(array.max()) > limits.max:
        _refuse_range(name, dtype)
    return array.astype(target, copy=False)


def _refuse_range(name: str, dtype: str) -> NoReturn:
    refuse_inputs(f"{name!r} is of type {dtype}, which cannot hold all the numbers that came")


# ---- out


def printable(output: OutputTensor, name: str = "") -> np.ndarray:
    """The output in a type and a layout that JSON writers know: bfloat16 widened, C-contiguous; strings as what JSON
    has for them."""
    array = output.array
    if output.dtype == STRING:
        return _printable_strings(name, array)
    if output.dtype == "bfloat16":
        # A bfloat16 is the upper half of the float32 of the same value.
        array = (array.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(array.shape)
    return array if array.flags.c_contiguous else array.copy(order="C")


def _printable_strings(name: str, array: np.ndarray) -> np.ndarray:
    """Objects: text where the bytes are UTF-8, else base64. By TensorFlow Serving's rule an output whose name ends in
    `_bytes` is base64 whatever it holds."""
    binary = name.endswith("_bytes")
    values = np.empty(array.size, np.object_)
    for index, string in enumerate(array.reshape(-1).tolist()):
        values[index] = _base64(string) if binary else _text_or_base64(string)
    return values.reshape(array.shape)


def _text_or_base64(string: bytes) -> Any:
    try:
        return string.decode()
    except UnicodeDecodeError:
        return _base64(string)


def _base64(string: bytes) -> dict[str, str]:
    return {_BINARY: b64encode(string).decode()}


def write(answer: Any) -> bytes:
    """JSON text of dicts, lists and numpy arrays. float32 and float64 are written as short as they can be read back;
    NaN, Infinity and -Infinity as these words."""
    text = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY, default=_scalar)
    if b"null" not in text or not _any_array(answer, _has_not_finite):
        return text
    return _write_not_finite(answer)


def pieces_of(array: np.ndarray) -> Iterator[bytes]:
    """The text of an array, in pieces of about PIECE_ELEMENTS."""
    if array.size <= PIECE_ELEMENTS or not array.ndim:
        yield write(array)
        return
    rows = len(array)
    step = rows * PIECE_ELEMENTS // array.size
    for start in range(0, rows, max(1, step)):
        yield b"," if start else b"["
        if step:
            yield write(array[start : start + step])[1:-1]
        else:
            yield from pieces_of(array[start])
    yield b"]"


def _scalar(value: Any) -> Any:
    """orjson knows numpy's scalars, but neither its arrays without dimensions nor those of objects."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value[()]
    if isinstance(value, np.ndarray) and value.dtype == np.object_:
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _any_array(answer: Any, test: Callable[[np.ndarray], bool]) -> bool:
    if isinstance(answer, np.ndarray | np.generic):
        return test(np.asarray(answer))
    if isinstance(answer, dict):
        return any(_any_array(value, test) for value in answer.values())
    return isinstance(answer, list) and any(_any_array(value, test) for value in answer)


def _has_not_finite(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and not bool(np.isfinite(array).all())


def _write_not_finite(answer: Any) -> bytes:
    if isinstance(answer, dict):
        return (
            b"{"
            + b",".join(orjson.dumps(name) + b":" + write(value) for name, value in answer.items())
            + b"}"
        )
    if isinstance(answer, list):
        return b"[" + b",".join(map(write, answer)) + b"]"
    array = np.asarray(answer)
    # In the text of an array, each null is one of the values that are not finite, in their order.
    pieces = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY, default=_scalar).split(b"null")
    words = [_word(value) for value in array[~np.isfinite(array)].tolist()]
    return b"".join(itertools.chain.from_iterable(zip(pieces, [*words, b""], strict=True)))


def _word(value: float) -> bytes:
    if value != value:
        return b"NaN"
    return b"Infinity" if value > 0 else b"-Infinity"
