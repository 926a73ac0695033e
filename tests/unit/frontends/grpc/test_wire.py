"""frontends.grpc.wire: TensorProto to arrays, arrays to a PredictResponse; protobuf itself is the oracle."""

import resource
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError
from common.strings import MAX_STRINGS
from frontends.grpc.tensorflow_protos import predict_pb2, tensor_pb2, types_pb2
from frontends.grpc.wire import (
    DATA_TYPES,
    MAX_DIMENSIONS,
    output_buffers,
    read_tensor,
    shape_proto,
    varint,
)
from frontends.interface import STRING, OutputTensor

_FIELDS = {
    "bool": "bool_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "int64": "int64_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
}
_DTYPES = sorted(_FIELDS)


def _tensor(dtype: str, shape: tuple[int, ...], **fields: Any) -> Any:
    return tensor_pb2.TensorProto(dtype=DATA_TYPES[dtype], tensor_shape=shape_proto(shape), **fields)


def _values(array: np.ndarray, dtype: str) -> list[Any]:
    flat = array.reshape(-1)
    values: list[Any] = (flat.view(np.uint16) if _FIELDS[dtype] == "half_val" else flat).tolist()
    return values


def _refusal(proto: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        read_tensor("data", proto)
    assert "'data'" in caught.value.message
    return caught.value.message


def test_every_element_type_has_a_data_type() -> None:
    assert set(DATA_TYPES) == {*STORAGE, STRING}


@st.composite
def _arrays(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    dtype = draw(st.sampled_from(_DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    return dtype, draw(hnp.arrays(STORAGE[dtype], shape))


def _same_bytes(array: np.ndarray, other: np.ndarray) -> bool:
    """NaNs count by their bits."""
    return array.shape == other.shape and array.dtype == other.dtype and array.tobytes() == other.tobytes()


@given(_arrays())
def test_content_is_read_as_it_was_written(case: tuple[str, np.ndarray]) -> None:
    dtype, array = case
    tensor = read_tensor("data", _tensor(dtype, array.shape, tensor_content=array.tobytes()))
    assert tensor.dtype == dtype
    assert _same_bytes(tensor.array, array)


@given(_arrays())
def test_values_are_read_as_they_were_written(case: tuple[str, np.ndarray]) -> None:
    dtype, array = case
    proto = _tensor(dtype, array.shape, **{_FIELDS[dtype]: _values(array, dtype)})
    tensor = read_tensor("data", tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    assert tensor.dtype == dtype
    assert tensor.array.shape == array.shape
    assert tensor.array.dtype == array.dtype
    np.testing.assert_array_equal(tensor.array, array)


@given(_arrays())
def test_an_output_is_read_back_from_the_response(case: tuple[str, np.ndarray]) -> None:
    dtype, array = case
    parts = [
        *output_buffers("first", OutputTensor(dtype, array)),
        *output_buffers("zweite·Ausgabe", OutputTensor(dtype, array)),
    ]
    response = predict_pb2.PredictResponse.FromString(b"".join(parts))
    assert set(response.outputs) == {"first", "zweite·Ausgabe"}
    for proto in response.outputs.values():
        tensor = read_tensor("data", proto)
        assert tensor.dtype == dtype
        assert _same_bytes(tensor.array, array)
        assert len(proto.tensor_content) == array.nbytes


@given(_arrays(), st.data())
def test_a_response_is_what_protobuf_would_write(case: tuple[str, np.ndarray], data: st.DataObject) -> None:
    dtype, array = case
    name = data.draw(st.text(st.characters(codec="utf-8"), max_size=300))
    expected = predict_pb2.PredictResponse()
    expected.outputs[name].CopyFrom(_tensor(dtype, array.shape, tensor_content=array.tobytes()))
    written = predict_pb2.PredictResponse.FromString(
        b"".join(output_buffers(name, OutputTensor(dtype, array)))
    )
    assert written == expected


def test_an_output_with_gaps_in_memory_is_written_in_order() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    response = predict_pb2.PredictResponse.FromString(
        b"".join(output_buffers("x", OutputTensor("float32", array)))
    )
    assert read_tensor("x", response.outputs["x"]).array.tolist() == array.tolist()


def test_an_output_is_not_copied_before_it_is_joined() -> None:
    array = np.zeros((2, 2), np.float32)
    content = output_buffers("x", OutputTensor("float32", array))[-1]
    array[:] = 1
    assert bytes(content) == array.tobytes()


def test_content_is_a_view() -> None:
    array = read_tensor("data", _tensor("float32", (2,), tensor_content=b"\0" * 8)).array
    assert not array.flags.owndata


@pytest.mark.parametrize("dtype", _DTYPES)
def test_a_single_value_fills_the_shape(dtype: str) -> None:
    bits = {"float16": 0x3C00, "bfloat16": 0x3F80}.get(dtype, 1)
    tensor = read_tensor("data", _tensor(dtype, (2, 3), **{_FIELDS[dtype]: [bits]}))
    assert tensor.array.shape == (2, 3)
    assert tensor.array.dtype == STORAGE[dtype]
    assert set(tensor.array.reshape(-1).tolist()) == {1 if dtype != "bfloat16" else 0x3F80}


def test_a_single_value_does_not_allocate_what_its_shape_claims() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tensor = read_tensor("data", _tensor("float32", (2**30, 2**29), float_val=[1.0]))
    assert tensor.array.shape == (2**30, 2**29)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_tensor_without_a_shape_is_a_scalar() -> None:
    tensor = read_tensor("data", tensor_pb2.TensorProto(dtype=types_pb2.DT_INT64, int64_val=[-5]))
    assert tensor.array.shape == ()
    assert tensor.array == -5


def test_true_in_content_is_any_byte_but_zero() -> None:
    tensor = read_tensor("data", _tensor("bool", (4,), tensor_content=bytes([0, 1, 2, 255])))
    assert tensor.array.view(np.uint8).tolist() == [0, 1, 1, 1]


def test_content_counts_when_values_are_there_too() -> None:
    proto = _tensor("float32", (1,), tensor_content=np.float32(3).tobytes(), float_val=[1.0, 2.0])
    assert read_tensor("data", proto).array.tolist() == [3]


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("extra", [-1, 1])
def test_content_of_another_length_is_refused(dtype: str, extra: int) -> None:
    needed = 6 * STORAGE[dtype].itemsize
    text = _refusal(_tensor(dtype, (2, 3), tensor_content=b"\0" * (needed + extra)))
    if needed + extra:
        assert f"needs {needed} bytes" in text
        assert f"got {needed + extra}" in text


@pytest.mark.parametrize("given", [0, 2, 5, 7])
def test_values_of_another_number_are_refused(given: int) -> None:
    text = _refusal(_tensor("float32", (2, 3), float_val=[1.0] * given))
    assert "needs 6 values in float_val" in text
    assert f"got {given} values" in text


def test_one_value_for_no_elements_is_refused() -> None:
    assert "needs 0 values" in _refusal(_tensor("float32", (0, 3), float_val=[1.0]))


def test_content_for_no_elements_is_refused() -> None:
    assert "needs 0 bytes" in _refusal(_tensor("float32", (0, 3), tensor_content=b"\0" * 4))


@pytest.mark.parametrize("dtype", [dtype for dtype in _DTYPES if dtype != "float64"])
def test_values_in_the_field_of_another_type_are_refused(dtype: str) -> None:
    text = _refusal(_tensor(dtype, (2,), double_val=[1.0, 2.0]))
    assert _FIELDS[dtype] in text
    assert "double_val" in text


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("uint8", 256),
        ("uint8", -1),
        ("int8", 128),
        ("int16", 40_000),
        ("uint16", -1),
        ("uint16", 65_536),
        ("float16", -1),
        ("bfloat16", 65_536),
    ],
)
def test_values_that_the_type_cannot_hold_are_refused(dtype: str, value: int) -> None:
    text = _refusal(_tensor(dtype, (2,), **{_FIELDS[dtype]: [0, value]}))
    assert f"got {value}" in text
    assert dtype in text


@pytest.mark.parametrize("shape", [(-1,), (2, -1), (1, -(2**63))])
def test_negative_dimensions_are_refused(shape: tuple[int, ...]) -> None:
    assert str(list(shape)) in _refusal(_tensor("float32", shape, float_val=[1.0]))


@pytest.mark.parametrize(
    "shape", [(2**63 - 1,), (2**62, 2), (2**32, 2**32), (2**40, 2**40, 2**40), (0, 2**62, 2**62)]
)
@pytest.mark.parametrize("fields", [{"float_val": [1.0]}, {"tensor_content": b"\0" * 4}, {}])
def test_overflowing_dimensions_are_refused(shape: tuple[int, ...], fields: dict[str, Any]) -> None:
    assert "exceeds" in _refusal(_tensor("float32", shape, **fields))


def test_too_many_dimensions_are_refused() -> None:
    assert read_tensor("data", _tensor("float32", (1,) * MAX_DIMENSIONS, float_val=[1.0])).array.size == 1
    assert "at most" in _refusal(_tensor("float32", (1,) * (MAX_DIMENSIONS + 1), float_val=[1.0]))


def test_unknown_rank_is_refused() -> None:
    proto = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_FLOAT, tensor_shape=shape_proto((), unranked=True), float_val=[1.0]
    )
    assert "unknown_rank" in _refusal(proto)


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (types_pb2.DT_INVALID, "DT_INVALID"),
        (types_pb2.DT_COMPLEX64, "DT_COMPLEX64"),
        (types_pb2.DT_QINT8, "DT_QINT8"),
        (types_pb2.DT_FLOAT_REF, "DT_FLOAT_REF"),
        (4321, "4321"),
        (-1, "-1"),
    ],
)
def test_other_types_are_refused_by_name(number: int, named: str) -> None:
    text = _refusal(tensor_pb2.TensorProto(dtype=number, string_val=[b"x"]))
    assert named in text
    assert text.endswith(", DT_FLOAT, DT_DOUBLE, DT_STRING")


def _strings(shape: tuple[int, ...], *values: bytes, **fields: Any) -> Any:
    return tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, tensor_shape=shape_proto(shape), string_val=values, **fields
    )


@pytest.mark.parametrize(
    ("shape", "values"), [((), [b"a"]), ((2,), [b"a", b""]), ((0,), []), ((2, 1), [b"\xff", b"\x00"])]
)
def test_strings_are_bytes_an_element(shape: tuple[int, ...], values: list[bytes]) -> None:
    tensor = read_tensor("data", _strings(shape, *values))
    assert tensor.dtype == STRING
    assert tensor.array.shape == shape
    assert tensor.array.reshape(-1).tolist() == values


@pytest.mark.parametrize(
    ("proto", "text"),
    [
        (_strings((3,), b"one"), "needs 3 values in string_val, got 1"),
        (_strings((), b"a", b"b"), "needs 1 values in string_val, got 2"),
        (_strings((2**40,), b"a"), "got 1"),
        (_strings((1,), tensor_content=b"\x01a"), "tensor_content holds no strings"),
        (_strings((-1,), b"a"), "must not be negative"),
        (_strings((MAX_STRINGS + 1,), *[b""] * (MAX_STRINGS + 1)), f"{MAX_STRINGS} elements at the most"),
    ],
    ids=["one for three", "two for one", "one for many", "content", "negative", "too many"],
)
def test_strings_that_are_refused(proto: Any, text: str) -> None:
    assert text in _refusal(proto)


@st.composite
def _protos(draw: st.DrawFn) -> Any:
    """Tensors that protobuf can carry, most of them wrong."""
    proto = tensor_pb2.TensorProto(
        dtype=draw(st.sampled_from(types_pb2.DataType.values()) | st.integers(-9, 99))
    )
    sizes = st.integers(0, 3) | st.sampled_from([-1, 2**31, 2**62, 2**63 - 1, -(2**63)])
    proto.tensor_shape.CopyFrom(shape_proto(tuple(draw(st.lists(sizes, max_size=5)))))
    proto.tensor_shape.unknown_rank = draw(st.integers(0, 20)) == 0
    proto.tensor_content = draw(st.just(b"") | st.binary(max_size=32))
    for field, values in (
        ("float_val", st.floats(width=32)),
        ("int_val", st.integers(-(2**31), 2**31 - 1)),
        ("half_val", st.integers(-(2**31), 2**31 - 1)),
        ("uint64_val", st.integers(0, 2**64 - 1)),
        ("bool_val", st.booleans()),
        ("string_val", st.binary(max_size=4)),
    ):
        getattr(proto, field).extend(draw(st.just([]) | st.lists(values, max_size=9)))
    return proto


@given(_protos())
def test_every_tensor_proto_is_an_array_or_clearly_refused(proto: Any) -> None:
    try:
        tensor = read_tensor("data", tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    except InvalidArgumentError:
        return
    assert tensor.array.dtype == (np.object_ if tensor.dtype == STRING else STORAGE[tensor.dtype])
    assert tensor.array.shape == tuple(dimension.size for dimension in proto.tensor_shape.dim)


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_what_protobuf_writes(number: int) -> None:
    proto = tensor_pb2.TensorProto(uint64_val=[number])
    assert proto.SerializeToString().endswith(varint(number))
