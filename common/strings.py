"""A tensor of strings as bytes: in a request's block, and in the frame that brings an output. Pure.

    offsets: n + 1 integers of 64 bits, in the machine's order │ the bytes of all strings, one after another

String i, row by row, is the bytes from offset i to offset i + 1, counted from the end of the offsets. So the first
offset is 0 and the last one how many bytes there are. A string is any bytes, zeros and invalid UTF-8 among them.

Who decodes believes nothing: the offsets are copied before they are looked at, so that nobody changes them afterwards.
"""

from itertools import pairwise
from math import prod

import numpy as np

MAX_STRINGS = 65_536
"""Elements of a tensor of strings. Each becomes an object, many times the size of the two bytes that it may come in."""

MAX_BYTES = 1 << 30
"""Of the strings of a tensor: OpenVINO counts them with 32 bits."""

_OFFSET = np.dtype(np.int64)
_JOINED_BYTES = 1 << 20
"""Up to here the strings are put together before they are copied, which is quicker and takes their size once more."""


class BadStringsError(Exception):
    """Bytes that are no tensor of strings of the shape that was promised."""


class StringTensor:
    """A tensor of strings whose layout was checked."""

    __slots__ = ("offsets", "shape", "symbols")

    def __init__(self, shape: tuple[int, ...], offsets: np.ndarray, symbols: np.ndarray) -> None:
        """`offsets`: int64, one more than there are elements, ascending from 0 to the length of `symbols`, uint8."""
        self.shape = shape
        self.offsets = offsets
        self.symbols = symbols

    @property
    def size(self) -> int:
        """Elements."""
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in the layout."""
        return int(self.offsets.nbytes + self.symbols.nbytes)

    def tobytes(self) -> bytes:
        """In the layout."""
        return self.offsets.tobytes() + self.symbols.tobytes()

    def to_array(self) -> np.ndarray:
        """Of `bytes` objects, independent of the memory."""
        symbols = self.symbols.data
        strings = [symbols[start:end].tobytes() for start, end in pairwise(self.offsets.tolist())]
        array = np.empty(len(strings), np.object_)
        array[:] = strings
        return array.reshape(self.shape)


def encoded_size(strings: np.ndarray) -> int:
    """Bytes that `encode_into` takes for an array of `bytes` objects."""
    return (strings.size + 1) * _OFFSET.itemsize + sum(map(len, strings.reshape(-1).tolist()))


def encode_into(strings: np.ndarray, target: memoryview) -> None:
    """Write an array of `bytes` objects to the beginning of `target`. Raises ValueError where it has no room."""
    elements: list[bytes] = strings.reshape(-1).tolist()
    offsets = np.zeros(len(elements) + 1, _OFFSET)
    np.cumsum(np.fromiter(map(len, elements), _OFFSET, len(elements)), out=offsets[1:])
    start, total = offsets.nbytes, int(offsets[-1])
    if start + total > len(target):
        raise ValueError(f"the strings take {start + total} bytes, and there are {len(target)}")
    target[:start] = offsets.view(np.uint8).data
    if total <= _JOINED_BYTES:
        target[start : start + total] = b"".join(elements)
        return
    for element in elements:
        target[start : start + len(element)] = element
        start += len(element)


def decode(memory: memoryview, shape: tuple[int, ...]) -> StringTensor:
    """The tensor of `shape` at the beginning of `memory`, which may be longer; its symbols are a view.

    Raises BadStringsError.
    """
    if any(length < 0 for length in shape):
        raise BadStringsError(f"no tensor has the shape {list(shape)}")
    count = prod(shape)
    if count > MAX_STRINGS:
        raise BadStringsError(f"{count} strings, more than the {MAX_STRINGS} that a tensor may have")
    start = (count + 1) * _OFFSET.itemsize
    if start > len(memory):
        raise BadStringsError(f"{len(memory)} bytes are too few for the offsets of {count} strings")
    offsets = np.frombuffer(memory[:start], _OFFSET).copy()
    if offsets[0] != 0 or bool((offsets[1:] < offsets[:-1]).any()):
        raise BadStringsError("the offsets do not ascend from 0")
    total = int(offsets[-1])
    if total > min(len(memory) - start, MAX_BYTES):
        raise BadStringsError(f"the strings take {total} bytes, and there are {len(memory) - start}")
    return StringTensor(shape, offsets, np.frombuffer(memory[start : start + total], np.uint8))


def empty(shape: tuple[int, ...]) -> StringTensor:
    """A tensor of strings without a byte."""
    return StringTensor(shape, np.zeros(prod(shape) + 1, _OFFSET), np.zeros(0, np.uint8))
