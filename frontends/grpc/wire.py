"""TensorProto to arrays and back, after tensorflow/core/framework/tensor.proto and tensorflow/core/framework/tensor.cc.

A tensor comes either as `tensor_content` (its bytes, little-endian, row by row) or as values in the field that belongs
to its type (`float_val`, `int_val` …); one single value stands for all elements, but not of strings. Nothing here
allocates by what a message merely claims: an array is a view of bytes that have arrived, or has as many elements as
values have arrived.

Answers are put together by hand, because a protobuf message would copy the content twice more: the few bytes before it
are cached by type and shape, the content itself is copied once, from where the worker left it into the reply.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError
from common.strings import MAX_STRINGS
from frontends.grpc.calls import Buffer
from frontends.grpc.tensorflow_protos import predict_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from frontends.interface import STRING, InputTensor, OutputTensor

MAX_DIMENSIONS = 64
"""numpy's NPY_MAXDIMS; TensorFlow's own bound is 254."""

_MAX_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How a DataType is carried."""

    dtype: str
    """Key of STORAGE."""
    field: str
    """Where values are, when they are not in tensor_content."""
    bits: bool = False
    """Whether the field's integers are the bits of the elements, not their values."""


_ENCODINGS: dict[int, _Encoding] = {
    types_pb2.DT_BOOL: _Encoding("bool", "bool_val"),
    types_pb2.DT_INT8: _Encoding("int8", "int_val"),
    types_pb2.DT_INT16: _Encoding("int16", "int_val"),
    types_pb2.DT_INT32: _Encoding("int32", "int_val"),
    types_pb2.DT_INT64: _Encoding("int64", "int64_val"),
    types_pb2.DT_UINT8: _Encoding("uint8", "int_val"),
    types_pb2.DT_UINT16: _Encoding("uint16", "int_val"),
    types_pb2.DT_UINT32: _Encoding("uint32", "uint32_val"),
    types_pb2.DT_UINT64: _Encoding("uint64", "uint64_val"),
    types_pb2.DT_HALF: _Encoding("float16", "half_val", bits=True),
    types_pb2.DT_BFLOAT16: _Encoding("bfloat16", "half_val", bits=True),
    types_pb2.DT_FLOAT: _Encoding("float32", "float_val"),
    types_pb2.DT_DOUBLE: _Encoding("float64", "double_val"),
}

DATA_TYPES: dict[str, int] = {
    **{encoding.dtype: number for number, encoding in _ENCODINGS.items()},
    STRING: types_pb2.DT_STRING,
}
"""Key of STORAGE, or STRING → tensorflow.DataType."""

_VALUE_FIELDS = tuple(
    field.name for field in tensor_pb2.TensorProto.DESCRIPTOR.fields if field.name.endswith("_val")
)


def read_tensor(name: str, proto: Any) -> InputTensor:
    """The array in the TensorProto of input `name`, in the client's type and shape.

    A view of `tensor_content`, or a new array of the values; a single value is broadcast without being copied. Raises
    InvalidArgumentError, which says what was expected and what came.
    """
    encoding = _ENCODINGS.get(proto.dtype)
    if encoding is None:
        return _read_strings(name, proto)
    storage = STORAGE[encoding.dtype]
    shape = _read_shape(name, proto.tensor_shape, storage.itemsize)
    content = proto.tensor_content
    if content:
        array = _from_content(name, content, storage, shape)
    else:
        array = _from_values(name, proto, encoding, shape)
    return InputTensor(encoding.dtype, array)


def _read_strings(name: str, proto: Any) -> InputTensor:
    """The bytes in `string_val`, one an element. Raises InvalidArgumentError, also for any other type."""
    if proto.dtype != types_pb2.DT_STRING:
        known = ", ".join(types_pb2.DataType.Name(number) for number in (*_ENCODINGS, types_pb2.DT_STRING))
        raise InvalidArgumentError(
            f"Input {name!r}: {_type_name(proto.dtype)} is not supported; supported are {known}"
        )
    shape = _read_shape(name, proto.tensor_shape, 1)
    values = proto.string_val
    if len(values) > MAX_STRINGS:
        raise InvalidArgumentError(
            f"Input {name!r}: a DT_STRING tensor has {MAX_STRINGS} elements at the most, got {len(values)}"
        )
    if len(values) != prod(shape):
        also = "; tensor_content holds no strings" if proto.tensor_content else ""
        raise InvalidArgumentError(
            f"Input {name!r}: shape {list(shape)} of type DT_STRING needs {prod(shape)} values in string_val, "
            f"got {len(values)}{also}"
        )
    array = np.empty(len(values), np.object_)
    array[:] = values
    return InputTensor(STRING, array.reshape(shape))


def _type_name(number: int) -> str:
    known = types_pb2.DataType.values()
    return f"type {types_pb2.DataType.Name(number)}" if number in known else f"type number {number}"


def _read_shape(name: str, proto: Any, itemsize: int) -> tuple[int, ...]:
    """The shape, if an array could have it. Raises InvalidArgumentError."""
    if proto.unknown_rank:
        raise InvalidArgumentError(
            f"Input {name!r}: its tensor_shape must say every dimension, got unknown_rank"
        )
    dimensions = proto.dim
    if len(dimensions) > MAX_DIMENSIONS:
        raise InvalidArgumentError(
            f"Input {name!r}: at most {MAX_DIMENSIONS} dimensions are supported, got {len(dimensions)}"
        )
    shape = tuple(dimension.size for dimension in dimensions)
    if shape and min(shape) < 0:
        raise InvalidArgumentError(
            f"Input {name!r}: dimensions must not be negative, got shape {list(shape)}"
        )
    # Empty dimensions are left out of the product, as numpy does: (0, 2**62, 2**62) is refused although it is empty.
    if prod(size for size in shape if size) * itemsize > _MAX_BYTES:
        raise InvalidArgumentError(
            f"Input {name!r}: shape {list(shape)} with {itemsize} bytes an element exceeds {_MAX_BYTES} bytes"
        )
    return shape


def _from_content(name: str, content: bytes, storage: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    expected = prod(shape) * storage.itemsize
    if len(content) != expected:
        raise InvalidArgumentError(
            f"Input {name!r}: shape {list(shape)} with {storage.itemsize} bytes an element needs {expected} bytes "
            f"of tensor_content, got {len(content)}"
        )
    if storage.kind == "b":
        # Any byte but 0 is true; as an element it must be 1, for nothing behind this point would expect another.
        return np.frombuffer(content, np.uint8).astype(np.bool_).reshape(shape)
    return np.frombuffer(content, storage).reshape(shape)


def _from_values(name: str, proto: Any, encoding: _Encoding, shape: tuple[int, ...]) -> np.ndarray:
    values = getattr(proto, encoding.field)
    given, elements = len(values), prod(shape)
    if given == elements or (given == 1 and elements):
        array = _checked_values(name, values, encoding)
        return array.reshape(shape) if given == elements else np.broadcast_to(array.reshape(()), shape)
    others = [field for field in _present_values(proto) if field != encoding.field]
    also = f"; values were found in {', '.join(others)}" if others else ""
    raise InvalidArgumentError(
        f"Input {name!r}: shape {list(shape)} of type {encoding.dtype} needs {elements} values in {encoding.field} "
        f"(or one, for all elements) or {elements * STORAGE[encoding.dtype].itemsize} bytes of tensor_content, "
        f"got {given} values{also}"
    )


def _present_values(proto: Any) -> Iterable[str]:
    return (field for field in _VALUE_FIELDS if len(getattr(proto, field)))


def _checked_values(name: str, values: Sequence[float], encoding: _Encoding) -> np.ndarray:
    """The values as an array of their storage type. Raises InvalidArgumentError for one that the type cannot hold."""
    storage = STORAGE[encoding.dtype]
    if encoding.field not in ("int_val", "half_val"):
        return np.array(values, storage)
    wide = np.array(values, np.int32)
    held = np.dtype(np.uint16) if encoding.bits else storage
    narrow = wide.astype(held)
    wrong = wide[narrow != wide]
    if wrong.size:
        what = "the bits of a" if encoding.bits else "a value of type"
        raise InvalidArgumentError(
            f"Input {name!r}: {encoding.field} must hold {what} {encoding.dtype}, got {int(wrong[0])}"
        )
    return narrow.view(storage)


# ---- answers


_CONTENT_TAG = b"\x22"
"""TensorProto.tensor_content: field 4, length-delimited."""
_OUTPUTS_TAG = b"\x0a"
"""PredictResponse.outputs: field 1, length-delimited; each a map entry of key (field 1) and value (field 2)."""
_KEY_TAG = b"\x0a"
_VALUE_TAG = b"\x12"


def varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def shape_proto(shape: tuple[int, ...], *, unranked: bool = False) -> Any:
    """A TensorShapeProto; -1 is a dimension that is not known."""
    if unranked:
        return tensor_shape_pb2.TensorShapeProto(unknown_rank=True)
    return tensor_shape_pb2.TensorShapeProto(
        dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    )


@lru_cache(maxsize=1024)
def entry_head(name: str, dtype: str, shape: tuple[int, ...], nbytes: int) -> bytes:
    """Everything of an entry of PredictResponse.outputs that comes before the tensor's content."""
    proto = tensor_pb2.TensorProto(dtype=DATA_TYPES[dtype], tensor_shape=shape_proto(shape))
    tensor = bytes(proto.SerializeToString())
    if nbytes:
        tensor += _CONTENT_TAG + varint(nbytes)
    key = name.encode()
    entry = _KEY_TAG + varint(len(key)) + key + _VALUE_TAG + varint(len(tensor) + nbytes) + tensor
    return _OUTPUTS_TAG + varint(len(entry) + nbytes) + entry


def output_buffers(name: str, output: OutputTensor) -> list[Buffer]:
    """An entry of PredictResponse.outputs, in parts, of which the last is a view of the output's memory.

    Strings are in `string_val`.
    """
    if output.dtype == STRING:
        return [_strings_entry(name, output.array)]
    array = np.ascontiguousarray(output.array)
    head = entry_head(name, output.dtype, output.array.shape, array.nbytes)
    return [head, array.data.cast("B")] if array.nbytes else [head]


def _strings_entry(name: str, array: np.ndarray) -> bytes:
    proto = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING,
        tensor_shape=shape_proto(array.shape),
        string_val=array.reshape(-1).tolist(),
    )
    return bytes(predict_pb2.PredictResponse(outputs={name: proto}).SerializeToString())
