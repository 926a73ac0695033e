"""numpy arrays as TensorProto and back.

TensorProto (tensorflow/core/framework/tensor.proto) holds its values either as the little-endian bytes
`tensor_content` or in the field of its type; servers may answer with either.
"""

from typing import Any

import numpy as np

from clientlib.errors import ClientError
from clientlib.protos import tensor_pb2, types_pb2

_FIELDS = {
    "bool": ("DT_BOOL", "bool_val"),
    "int8": ("DT_INT8", "int_val"),
    "int16": ("DT_INT16", "int_val"),
    "int32": ("DT_INT32", "int_val"),
    "int64": ("DT_INT64", "int64_val"),
    "uint8": ("DT_UINT8", "int_val"),
    "uint16": ("DT_UINT16", "int_val"),
    "uint32": ("DT_UINT32", "uint32_val"),
    "uint64": ("DT_UINT64", "uint64_val"),
    "float16": ("DT_HALF", "half_val"),
    "float32": ("DT_FLOAT", "float_val"),
    "float64": ("DT_DOUBLE", "double_val"),
}
"""By numpy type: name of the DataType, field of its values."""

NUMPY_TYPES = {name: numpy for numpy, (name, _) in _FIELDS.items()}
"""By name of the DataType."""


def to_proto(array: np.ndarray) -> Any:
    """The array as a TensorProto. Raises ClientError for a type that has none."""
    known = _FIELDS.get(array.dtype.name)
    if known is None:
        raise ClientError(f"arrays of type {array.dtype} cannot be sent; known are {', '.join(_FIELDS)}")
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DataType.Value(known[0]))
    for length in array.shape:
        proto.tensor_shape.dim.add(size=length)
    proto.tensor_content = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return proto


def to_array(proto: Any) -> np.ndarray:
    """A TensorProto's values in its shape. Raises ClientError when they do not fit it, or are no numbers."""
    data_type = types_pb2.DataType.Name(proto.dtype)
    if data_type not in NUMPY_TYPES:
        raise ClientError(f"the answer's type is {data_type}, and these are no numbers")
    dtype = np.dtype(NUMPY_TYPES[data_type])
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_content:
        values = np.frombuffer(proto.tensor_content, dtype.newbyteorder("<")).astype(dtype)
    else:
        values = _typed_values(proto, dtype)
        if len(values) == 1:
            # One value stands for as many as the shape has.
            values = np.full(int(np.prod(shape)), values[0])
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise ClientError(f"the answer has {len(values)} values for the shape {shape}") from error


def _typed_values(proto: Any, dtype: np.dtype[Any]) -> np.ndarray:
    values = getattr(proto, _FIELDS[dtype.name][1])
    if dtype == np.float16:
        # half_val holds the bits.
        return np.array(values, np.uint16).view(np.float16)
    return np.array(values, dtype)
