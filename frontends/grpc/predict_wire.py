"""PredictRequest as it lies on the wire, read where it is: nothing but names is copied. Pure.

    1 model_spec     1 name, 3 signature_name, and 2 version (of 1 value) or 4 version_label
    2 inputs         1 key, 2 value
                       value:  1 dtype, 2 tensor_shape (of 2 dim, each of 1 size),
                               and 4 tensor_content or 5 float_val or 6 double_val
    3 output_filter

Only what clients usually send is read here, and all else (a field twice, an unknown one, values of other types, text
that is not UTF-8, a length beyond its message …) is left to protobuf's parser, which gives the answer or the error. So
whatever is read here protobuf would read as well, and in the same way, but for one thing: a signalling NaN in
`float_val` stays one.
"""

import numpy as np

from common.dtypes import STORAGE
from frontends.forms import Form, Input
from frontends.grpc.wire import DATA_TYPES, MAX_DIMENSIONS
from frontends.interface import Selector

MAX_INPUTS = 64
"""Inputs, and names in output_filter, of a request that is read here."""

_MAX_MESSAGE = 2**31 - 1
"""What protobuf reads at the most."""

_DTYPES = {number: dtype for dtype, number in DATA_TYPES.items() if dtype in STORAGE and number < 0x80}


class _UnusualError(Exception):
    """Left to protobuf."""


def walk(message: memoryview) -> Form | None:
    """The form of the message; None when protobuf's parser is to read it. Looks at no tensor's elements."""
    if len(message) > _MAX_MESSAGE:
        return None
    try:
        return _request(message)
    except (_UnusualError, IndexError, UnicodeDecodeError):
        return None


_LARGE = 4096
"""Bytes of elements that are worth being aligned."""

_MAX_LOCATED = 512
"""Fields that are looked through for them."""


def elements_offset(beginning: memoryview) -> int:
    """Where the first large tensor's elements begin, by the first bytes of a message; 0 where these do not say.

    This is a hint, for whoever chooses the message's place in memory. It checks nothing.
    """
    at = end = depth = 0
    try:
        for _ in range(_MAX_LOCATED):
            if depth and at >= end:
                depth = 0
            tag = beginning[at]
            if tag == 0x08:
                _, at = _varint(beginning, at + 1)
                continue
            start, stop = _field(beginning, at + 1)
            if tag in _PACKED and depth == 2 and stop - start >= _LARGE:
                return start
            at = stop
            if tag == 0x12 and depth < 2:
                # Into an entry of `inputs`, and there into its value.
                at, end, depth = start, stop if depth == 0 else end, depth + 1
    except (_UnusualError, IndexError):
        pass
    return 0


# Each of these reads the fields from `at` up to `end`. One that goes beyond `end` is found when the loop ends: what
# was read of it until then is of bytes that are there, or an IndexError, and is thrown away.


def _request(data: memoryview) -> Form:
    at, end = 0, len(data)
    selector: Selector | None = None
    signature_name = ""
    inputs: dict[str, Input] = {}
    wanted: list[str] = []
    while at < end:
        tag = data[at]
        at, stop = _field(data, at + 1)
        if tag == 0x12:
            found = _entry(data, at, stop)
            if found.name in inputs or len(inputs) == MAX_INPUTS:
                raise _UnusualError
            inputs[found.name] = found
        elif tag == 0x0A and selector is None:
            selector, signature_name = _model_spec(data, at, stop)
        elif tag == 0x1A and len(wanted) < MAX_INPUTS:
            wanted.append(_text(data, at, stop))
        else:
            raise _UnusualError
        at = stop
    if at != end:
        raise _UnusualError
    tensors = tuple(inputs.values())
    return Form(
        selector or Selector(""), signature_name, tensors, frozenset(wanted), _between(data, tensors, end)
    )


def _between(data: memoryview, inputs: tuple[Input, ...], end: int) -> tuple[tuple[int, int, bytes], ...]:
    """What Form.rest says. Inputs that were read one after another lie so."""
    ends = [one.stop for one in inputs]
    begins = [one.start for one in inputs[1:]] + [end]
    return tuple(
        (start, stop, data[start:stop].tobytes())
        for start, stop in zip(ends, begins, strict=False)
        if start < stop
    )


def _model_spec(data: memoryview, at: int, end: int) -> tuple[Selector, str]:
    """Whom it asks, and the signature's name."""
    texts: dict[int, str] = {}
    version: int | None = None
    while at < end:
        tag = data[at]
        at, stop = _field(data, at + 1)
        if tag in _SPEC_TEXTS and tag not in texts:
            texts[tag] = _text(data, at, stop)
        elif tag == 0x12 and version is None:
            version = _wrapped_integer(data, at, stop)
        else:
            raise _UnusualError
        at = stop
    label = texts.get(_LABEL)
    if at != end or (version is not None and label is not None):
        raise _UnusualError
    return Selector(texts.get(_NAME, ""), version or None, label or None), texts.get(_SIGNATURE, "")


_NAME, _SIGNATURE, _LABEL = 0x0A, 0x1A, 0x22
_SPEC_TEXTS = (_NAME, _SIGNATURE, _LABEL)


def _entry(data: memoryview, at: int, end: int) -> Input:
    """An entry of `inputs`: its key and value, each once."""
    name: str | None = None
    value: tuple[str, tuple[int, ...], int, int] | None = None
    while at < end:
        tag = data[at]
        at, stop = _field(data, at + 1)
        if tag == 0x0A and name is None:
            name = _text(data, at, stop)
        elif tag == 0x12 and value is None:
            value = _tensor(data, at, stop)
        else:
            raise _UnusualError
        at = stop
    if at != end or name is None or value is None:
        raise _UnusualError
    dtype, shape, start, stop = value
    return Input(name, dtype, _ON_WIRE[dtype], shape, start, stop)


_ON_WIRE = {dtype: np.dtype(np.uint8) if dtype == "bool" else storage for dtype, storage in STORAGE.items()}

_PACKED = {0x22: "", 0x2A: "float32", 0x32: "float64"}
"""Tags of the fields that hold elements as they are in memory (little-endian), and their type, if it is not any."""


def _tensor(data: memoryview, at: int, end: int) -> tuple[str, tuple[int, ...], int, int]:
    """A TensorProto: type, shape, and where the elements are."""
    dtype = ""
    shape: tuple[int, ...] | None = None
    elements: tuple[int, int, int] | None = None
    while at < end:
        tag = data[at]
        if tag == 0x08 and not dtype:
            dtype = _DTYPES.get(data[at + 1], "")
            at += 2
            if not dtype:
                raise _UnusualError
            continue
        at, stop = _field(data, at + 1)
        if tag == 0x12 and shape is None:
            shape = _shape(data, at, stop)
        elif tag in _PACKED and elements is None:
            elements = (tag, at, stop)
        else:
            raise _UnusualError
        at = stop
    if at != end or elements is None or not dtype:
        raise _UnusualError
    tag, start, stop = elements
    if _PACKED[tag] not in ("", dtype):
        raise _UnusualError
    _check_size(shape or (), STORAGE[dtype].itemsize, stop - start)
    return dtype, shape or (), start, stop


def _check_size(shape: tuple[int, ...], itemsize: int, nbytes: int) -> None:
    """Whether there are as many bytes as elements, and any. Raises _UnusualError."""
    size = itemsize
    for dimension in shape:
        size *= dimension
    if size != nbytes or not size:
        raise _UnusualError


def _shape(data: memoryview, at: int, end: int) -> tuple[int, ...]:
    """A TensorShapeProto of dimensions without names."""
    shape: list[int] = []
    while at < end:
        if data[at] != 0x12 or len(shape) == MAX_DIMENSIONS:
            raise _UnusualError
        at, stop = _field(data, at + 1)
        shape.append(_wrapped_integer(data, at, stop))
        at = stop
    if at != end:
        raise _UnusualError
    return tuple(shape)


def _wrapped_integer(data: memoryview, at: int, end: int) -> int:
    """A message of nothing but one integer as field 1, which is not negative; 0 for an empty one."""
    if at == end:
        return 0
    if data[at] != 0x08:
        raise _UnusualError
    value, at = _varint(data, at + 1)
    if at != end:
        raise _UnusualError
    return value


def _text(data: memoryview, at: int, end: int) -> str:
    return str(data[at:end], "utf-8")


def _field(data: memoryview, at: int) -> tuple[int, int]:
    """Where a field of given length begins and ends; `at` is at its length."""
    length = data[at]
    if length < 0x80:
        return at + 1, at + 1 + length
    length, start = _varint(data, at)
    if start - at > _LONGEST_LENGTH:
        raise _UnusualError
    return start, start + length


_LONGEST_LENGTH = 5
"""Bytes; protobuf refuses a length of more, whatever it is."""

_LONGEST_VARINT = 9
"""Bytes; of ten, the last would be more than 63 bits: a negative number, or too large a one."""


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of up to 63 bits, and where the next field is."""
    value = 0
    for shift in range(0, 7 * _LONGEST_VARINT, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _UnusualError
