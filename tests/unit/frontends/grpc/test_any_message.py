"""Whatever message comes, every method answers it or says what is wrong with it; none fails on our side.

Messages are made from their descriptors, so that a field that is added later is among them, and damaged as bytes.
"""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ServingError
from frontends.grpc.heads import CLASSIFY_METHOD, REGRESS_METHOD
from frontends.grpc.tensorflow_serving import TensorFlowServing
from tests.support.pictures import plain
from tests.unit.frontends.grpc.answering import METHODS, any_dataplane, check_answered, good_message
from tests.unit.frontends.grpc.calling import run, unary

_MAX_DEPTH = 9

_WORDS: dict[str, st.SearchStrategy[str]] = {
    "name": st.sampled_from(["one", "two", "any", "picture", "heads", "nobody"]),
    "signature_name": st.sampled_from(["", "serving_default", "classification", "regression"]),
    "method_name": st.sampled_from([CLASSIFY_METHOD, REGRESS_METHOD]),
    "version_label": st.sampled_from(["", "stable"]),
    "metadata_field": st.just("signature_def"),
    "output_filter": st.sampled_from(["sum", "difference"]),
    "key": st.sampled_from(["x", "a", "b"]),
    "base_path": st.sampled_from(["/models/m", "s3://bucket/m"]),
}
_INTEGERS = st.integers(-1, 4) | st.sampled_from(
    [2**31 - 1, -(2**31), 2**31, 2**62, 2**63 - 1, -(2**63), 2**64 - 1]
)
_BYTES = st.binary(max_size=20) | st.sampled_from([plain(2, 2), plain(3, 1, kind="JPEG"), plain(2, 2)[:40]])
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _BYTES
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.one_of(*[_WORDS.get(field.name, st.nothing())] * 4, st.text(max_size=4))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if kind in _LIMITS:
        low, high = _LIMITS[kind]
        return _INTEGERS.map(lambda number: max(low, min(number, high)))
    return st.floats(width=32)


def _fill(draw: st.DrawFn, message: Any, rarity: int, depth: int = 0) -> None:
    """Change one of `rarity` fields, in it and in what it holds."""
    for field in message.DESCRIPTOR.fields:
        is_message, is_set = field.message_type is not None, _is_set(message, field)
        if depth > _MAX_DEPTH or (draw(st.integers(1, rarity)) > 1 and not (is_message and is_set)):
            continue
        if is_message and field.message_type.GetOptions().map_entry:
            _fill_map(draw, getattr(message, field.name), field.message_type, rarity, depth)
        elif is_message and field.is_repeated:
            values = getattr(message, field.name)
            if draw(st.integers(1, rarity)) == 1:
                values.add()
            for value in values:
                _fill(draw, value, rarity, depth + 1)
        elif is_message:
            getattr(message, field.name).SetInParent()
            _fill(draw, getattr(message, field.name), rarity, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(draw(st.lists(_scalar(field), max_size=4)))
        else:
            setattr(message, field.name, draw(_scalar(field)))


def _is_set(message: Any, field: FieldDescriptor) -> bool:
    if field.is_repeated:
        return len(getattr(message, field.name)) > 0
    return field.has_presence and message.HasField(field.name)


def _fill_map(draw: st.DrawFn, target: Any, entry: Any, rarity: int, depth: int) -> None:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    added = draw(st.lists(_scalar(key), max_size=2)) if draw(st.integers(1, rarity)) == 1 else []
    for name in [*target, *added]:
        if value.message_type is None:
            target[name] = draw(_scalar(value))
        else:
            _fill(draw, target[name], rarity, depth + 1)


@st.composite
def _messages(draw: st.DrawFn, path: str) -> bytes:
    """Half of them anything, half of them good but for a few fields."""
    if draw(st.booleans()):
        message, rarity = METHODS[path](), 2
    else:
        message, rarity = good_message(path, draw(_WORDS["name"])), 12
    _fill(draw, message, rarity)
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("path", METHODS)
@given(data=st.data())
def test_any_message_is_answered_or_refused(path: str, data: st.DataObject) -> None:
    check_answered(path, data.draw(_messages(path)))


@pytest.mark.parametrize("path", METHODS)
@given(data=st.data())
def test_any_damage_is_answered_or_refused(path: str, data: st.DataObject) -> None:
    message = bytearray(data.draw(_messages(path)))
    for _ in range(data.draw(st.integers(1, 4))):
        if message:
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    check_answered(path, bytes(message[: data.draw(st.integers(0, len(message)))]))


@pytest.mark.parametrize("path", METHODS)
@given(message=st.binary(max_size=64))
def test_any_bytes_are_answered_or_refused(path: str, message: bytes) -> None:
    check_answered(path, message)


@pytest.mark.parametrize("path", METHODS)
def test_unknown_fields_are_passed_over(path: str) -> None:
    """As protobuf says: a client may be newer than the server."""
    known = METHODS[path]()
    if hasattr(known, "model_spec"):
        known.model_spec.name = "one"
    message = known.SerializeToString()
    unknown = b"\xfa\x7f\x03new" + b"\xf8\x7f\x07"
    answers = []
    for sent in (message, message + unknown):
        try:
            answers.append(run(unary(TensorFlowServing(any_dataplane(), 60).methods(), path, sent)))
        except ServingError as error:
            answers.append(error.message.encode())
    assert answers[0] == answers[1]
