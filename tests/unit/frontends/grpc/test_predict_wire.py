"""predict_wire and predict_reader: nothing but what protobuf reads, and everything that clients usually send."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.dtypes import STORAGE
from frontends.grpc import predict_reader as module
from frontends.grpc.predict_reader import MAX_FORM_BYTES, MAX_FORMS, PredictReader
from frontends.grpc.predict_wire import MAX_INPUTS, elements_offset, walk
from frontends.grpc.tensorflow_protos import predict_pb2, types_pb2
from frontends.grpc.wire import DATA_TYPES, MAX_DIMENSIONS, shape_proto, varint
from frontends.interface import Selector
from tests.unit.frontends.grpc.reading import check_read_alike, good_messages

_NAMES = st.sampled_from(["x", "data", "", "Ünïcode"]) | st.text(max_size=4)
_VALUE_FIELDS = {"float32": "float_val", "float64": "double_val"}


def _fill(proto: Any, dtype: str, array: np.ndarray, *, values: bool = False) -> None:
    proto.dtype = DATA_TYPES[dtype]
    proto.tensor_shape.CopyFrom(shape_proto(array.shape))
    if values:
        getattr(proto, _VALUE_FIELDS[dtype]).extend(array.reshape(-1).tolist())
    else:
        proto.tensor_content = array.tobytes()


def _request(name: str = "m", /, **inputs: np.ndarray) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for key, array in inputs.items():
        _fill(request.inputs[key], str(array.dtype), array)
    return request


def _read(message: bytes, reader: PredictReader | None = None) -> tuple[Any, dict[str, np.ndarray]]:
    form = (reader or PredictReader()).read(memoryview(message))
    assert form is not None
    return form, {name: tensor.array for name, tensor in form.read_inputs(memoryview(message)).items()}


X = np.arange(6, dtype=np.float32).reshape(2, 3)


# ---- what clients usually send


@st.composite
def _usual(draw: st.DrawFn) -> Any:
    request = predict_pb2.PredictRequest()
    spec = request.model_spec
    spec.name = draw(_NAMES)
    spec.signature_name = draw(st.sampled_from(["", "serving_default"]))
    choice = draw(st.sampled_from(["none", "version", "label"]))
    if choice == "version":
        spec.version.value = draw(st.integers(0, 2**63 - 1))
    elif choice == "label":
        spec.version_label = draw(_NAMES)
    for name in draw(st.lists(_NAMES, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(sorted(STORAGE)))
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5))
        values = dtype in _VALUE_FIELDS and draw(st.booleans())
        _fill(request.inputs[name], dtype, draw(hnp.arrays(STORAGE[dtype], shape)), values=values)
    request.output_filter.extend(draw(st.lists(_NAMES, max_size=3)))
    return request


@given(_usual())
def test_what_clients_usually_send_is_read_as_protobuf_reads_it(request_: Any) -> None:
    assert check_read_alike(request_.SerializeToString())


def test_names_and_arrays() -> None:
    request = _request("model", x=X, y=X.astype(np.int8))
    request.model_spec.version.value = 3
    request.output_filter.append("out")
    form, arrays = _read(request.SerializeToString())
    assert form.selector == Selector("model", version=3)
    assert form.output_filter == {"out"}
    np.testing.assert_array_equal(arrays["x"], X)
    np.testing.assert_array_equal(arrays["y"], X.astype(np.int8))


def test_an_array_is_a_view_of_the_message() -> None:
    message = bytearray(_request(x=X).SerializeToString())
    _, arrays = _read(bytes(message))
    assert not arrays["x"].flags.owndata
    view = memoryview(message)
    form = walk(view)
    assert form is not None
    array = form.read_inputs(view)["x"].array
    message[-4:] = np.float32(9).tobytes()
    assert array[1, 2] == 9


def test_elements_are_never_looked_at_by_the_walk() -> None:
    """Else a form that is kept would not be that of each message with the same other bytes."""
    for fill in (b"\0", b"\xff", b"\x0a"):
        message = _request(x=X).SerializeToString()[:-24] + fill * 24
        assert check_read_alike(message)


# ---- forms that are kept


def test_a_message_of_a_known_form_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PredictReader()
    request = _request(x=X, y=X)
    request.output_filter.append("out")
    first, _ = _read(request.SerializeToString(deterministic=True), reader)
    request.inputs["x"].tensor_content = (X + 1).tobytes()
    monkeypatch.setattr(module, "walk", lambda _: None)
    second, arrays = _read(request.SerializeToString(deterministic=True), reader)
    assert first is second
    np.testing.assert_array_equal(arrays["x"], X + 1)


def test_every_byte_outside_the_elements_tells_forms_apart() -> None:
    request = _request(x=X, y=X)
    request.output_filter.append("out")
    message = request.SerializeToString(deterministic=True)
    reader = PredictReader()
    for index in range(len(message)):
        changed = bytearray(message)
        changed[index] ^= 1
        assert reader.read(memoryview(message)) == walk(memoryview(message))
        assert reader.read(memoryview(changed)) == walk(memoryview(changed))


def test_no_more_forms_are_kept_than_their_bound() -> None:
    reader = PredictReader()
    for number in range(2 * MAX_FORMS):
        _read(_request("m" * (number + 1), x=X).SerializeToString(), reader)
    _read(_request("m" * MAX_FORM_BYTES, x=X).SerializeToString(), reader)
    assert len(reader._forms) == len(reader._heads) == MAX_FORMS
    assert sum(len(head) for _, head in reader._forms) <= MAX_FORMS * MAX_FORM_BYTES


# ---- where a message is put


def test_the_first_large_tensor_is_found_by_the_first_bytes() -> None:
    """Small ones may come before it, in any order: protobuf's maps have none."""
    request = _request("model", a=X, b=np.zeros((32, 32), np.float32), c=np.zeros((64, 64), np.float32))
    request.model_spec.version.value = 7
    message = request.SerializeToString(deterministic=True)
    form, _ = _read(message)
    expected = form.inputs[1].start
    assert expected > form.inputs[0].start
    assert elements_offset(memoryview(message)[:expected]) == expected
    assert elements_offset(memoryview(message)) == expected
    for length in range(expected - 2):
        assert elements_offset(memoryview(message)[:length]) == 0
    assert elements_offset(memoryview(_request(x=X).SerializeToString())) == 0


# ---- what is left to protobuf


def _tensor_twice() -> bytes:
    """A tensor in two parts, which protobuf merges."""
    half = predict_pb2.PredictRequest()
    half.inputs["x"].dtype = types_pb2.DT_FLOAT
    value = half.inputs["x"].SerializeToString()
    rest = _request(x=X).inputs["x"]
    rest.ClearField("dtype")
    parts = _field(1, b"x") + _field(2, value) + _field(2, rest.SerializeToString())
    return _field(2, parts)


def _field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def _changed(change: Callable[[Any], object]) -> bytes:
    request = _request(x=X)
    change(request)
    return bytes(request.SerializeToString())


_UNUSUAL = {
    "a tensor in two parts": _tensor_twice(),
    "a key twice": _request(x=X).SerializeToString() + _request(x=X + 1).SerializeToString(),
    "a model_spec in two parts": _request(x=X).SerializeToString() + _field(1, _field(3, b"s")),
    "an unknown field": _request(x=X).SerializeToString() + _field(15, b"new"),
    "a group": _request(x=X).SerializeToString() + b"\x7b\x7c",
    "values as varints": _changed(lambda request: request.inputs["x"].int_val.append(1)),
    "values and content": _changed(lambda request: request.inputs["x"].float_val.append(1)),
    "strings": _changed(lambda request: request.inputs["y"].string_val.append(b"s")),
    "a dimension's name": _changed(
        lambda request: setattr(request.inputs["x"].tensor_shape.dim[0], "name", "n")
    ),
    "an unknown rank": _changed(
        lambda request: setattr(request.inputs["x"].tensor_shape, "unknown_rank", True)
    ),
    "no content": _changed(lambda request: request.inputs["x"].ClearField("tensor_content")),
    "no type": _changed(lambda request: request.inputs["x"].ClearField("dtype")),
    "another shape": _changed(lambda request: request.inputs["x"].tensor_shape.dim.add(size=2)),
    "a negative version": _changed(lambda request: setattr(request.model_spec.version, "value", -1)),
    "text that is not UTF-8": _field(1, _field(1, b"\xff")),
    "version and label": _field(1, _field(2, b"\x08\x01") + _field(4, b"l")),
    "the end within a field": _request(x=X).SerializeToString()[:-1],
}


@pytest.mark.parametrize("what", _UNUSUAL)
def test_what_is_unusual_is_left_to_protobuf(what: str) -> None:
    assert not check_read_alike(_UNUSUAL[what])


def test_work_is_bounded_by_few_inputs_names_and_dimensions() -> None:
    many = _request("m", **{f"x{number}": X for number in range(MAX_INPUTS + 1)})
    assert not check_read_alike(many.SerializeToString())
    del many.inputs["x0"]
    assert check_read_alike(many.SerializeToString())
    many.output_filter.extend("y" * (MAX_INPUTS + 1))
    assert not check_read_alike(many.SerializeToString())
    deep = _request(x=X)
    deep.inputs["x"].tensor_shape.CopyFrom(shape_proto((2, 3) + (1,) * (MAX_DIMENSIONS - 2)))
    assert check_read_alike(deep.SerializeToString())
    deep.inputs["x"].tensor_shape.dim.add(size=1)
    assert not check_read_alike(deep.SerializeToString())


def _padded(number: int, length: int) -> bytes:
    """A varint of so many bytes, more than it needs."""
    return bytes([number | 0x80]) + b"\x80" * (length - 2) + b"\0"


@pytest.mark.parametrize("length", range(2, 12))
def test_numbers_of_more_bytes_than_they_need(length: int) -> None:
    """protobuf takes integers of up to ten bytes, lengths of up to five."""
    name = _field(1, b"\x0a" + _padded(1, length) + b"m")
    version = _field(1, _field(2, b"\x08" + _padded(1, length)))
    assert check_read_alike(name) == (length <= 5)
    assert check_read_alike(version) == (length <= 9)


# ---- any message


_SIZES = st.sampled_from([0, 1, 2, 3, 4, 6, 8, 24])
_ANY_VARINT = st.integers(0, 8) | st.sampled_from([2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])


def _message(*fields: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Fields in any order, each any number of times, and now and then one that should not be there."""
    odd = st.tuples(st.integers(1, 5), st.binary(max_size=3)).map(lambda one: _field(*one)) | st.binary(
        max_size=3
    )
    usual = st.tuples(*fields).map(b"".join)
    return (
        usual
        | st.permutations(fields).flatmap(lambda some: st.tuples(*some)).map(b"".join)
        | st.lists(st.one_of(*fields, odd), max_size=6).map(b"".join)
    )


def _of(number: int, content: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return content.map(lambda found: _field(number, found))


def _integer(number: int, values: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return values.map(lambda found: varint(number << 3) + varint(found))


_TEXT = st.sampled_from([b"", b"m", b"x", b"\xc3\xbc", b"\xed\xa0\x80", b"\xff", b"\0"])
_DIM = _message(_integer(1, _ANY_VARINT))
_SHAPE = st.lists(
    _of(2, st.sampled_from([1, 2, 3]).map(lambda n: b"\x08" + varint(n)) | _DIM), max_size=3
).map(b"".join)
_ELEMENTS = _SIZES.flatmap(lambda size: st.binary(min_size=size, max_size=size))
_TENSOR = _message(
    _integer(1, st.sampled_from([1, 2, 3, 9, 10, 14]) | _ANY_VARINT),
    _of(2, _SHAPE),
    st.sampled_from([4, 4, 4, 5, 6]).flatmap(lambda number: _of(number, _ELEMENTS)),
)
_MODEL_SPEC = _message(
    _of(1, _TEXT), _of(2, _message(_integer(1, _ANY_VARINT))) | _of(4, _TEXT), _of(3, _TEXT)
)
_ANY = _message(_of(1, _MODEL_SPEC), _of(2, _message(_of(1, _TEXT), _of(2, _TENSOR))), _of(3, _TEXT))


@example(b'\n\x00\x12\n\n\x00\x12\x06\x08\x07\x12\x00"\x00')  # of strings, which are not read here
@given(_ANY)
def test_any_structure_is_read_as_protobuf_reads_it_or_not_at_all(message: bytes) -> None:
    check_read_alike(message)


@given(st.data())
def test_any_damage_is_read_as_protobuf_reads_it_or_not_at_all(data: st.DataObject) -> None:
    message = bytearray(data.draw(_ANY | _usual().map(lambda request: bytes(request.SerializeToString()))))
    check_read_alike(bytes(message))
    for _ in range(data.draw(st.integers(1, 3))):
        if message:
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        check_read_alike(bytes(message))
    check_read_alike(bytes(message[: data.draw(st.integers(0, len(message)))]))


@given(st.binary(max_size=64))
def test_any_bytes_are_read_as_protobuf_reads_them_or_not_at_all(message: bytes) -> None:
    check_read_alike(message)


@given(st.binary(max_size=64) | _ANY)
def test_any_first_bytes_give_some_place(first: bytes) -> None:
    assert elements_offset(memoryview(first)) >= 0


def test_the_fuzzers_first_messages_are_read() -> None:
    assert all(check_read_alike(message) for message in good_messages())
