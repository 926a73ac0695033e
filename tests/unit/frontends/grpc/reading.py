"""Whether our reader of PredictRequest reads a message as protobuf does: for tests with any message."""

from collections.abc import Iterator

import numpy as np

from frontends.forms import Form
from frontends.grpc.predict_reader import PredictReader
from frontends.grpc.predict_wire import walk
from frontends.grpc.requests import selector_of
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.grpc.wire import DATA_TYPES, read_tensor, shape_proto

_READER = PredictReader()
"""One for all messages, so that each may be taken for one that came before."""


def check_read_alike(message: bytes) -> bool:
    """Fails when we read what protobuf refuses, or read it differently. Whether we read it at all."""
    walked = walk(memoryview(message))
    for reader in (_READER, PredictReader()):
        for _ in range(2):
            assert reader.read(memoryview(message)) == walked
    if walked is not None:
        _check_same(message, walked)
    return walked is not None


def _check_same(message: bytes, form: Form) -> None:
    request = predict_pb2.PredictRequest.FromString(message)
    assert form.selector == selector_of(request.model_spec)
    assert form.signature_name == request.model_spec.signature_name
    assert form.output_filter == frozenset(request.output_filter)
    found = form.read_inputs(memoryview(message))
    assert set(found) == set(request.inputs)
    for name, proto in request.inputs.items():
        expected = read_tensor(name, proto)
        assert found[name].dtype == expected.dtype
        assert _same(found[name].array, expected.array, bits=bool(proto.tensor_content))


def _same(array: np.ndarray, expected: np.ndarray, *, bits: bool) -> bool:
    """By their bits; or NaN like any other NaN, because protobuf's way makes signalling ones quiet."""
    if (array.shape, array.dtype) != (expected.shape, expected.dtype):
        return False
    return array.tobytes() == expected.tobytes() or (not bits and np.array_equal(array, expected, True))


def good_messages() -> Iterator[bytes]:
    """Messages of every sort that we read; to begin with, where any message is tried."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for kind in ("content", "values", "version", "label"):
        request = predict_pb2.PredictRequest(output_filter=["y"])
        request.model_spec.name = "m"
        for name in ("x", "b"):
            tensor = request.inputs[name]
            tensor.dtype = DATA_TYPES["float32"]
            tensor.tensor_shape.CopyFrom(shape_proto(array.shape))
            if kind == "values":
                tensor.float_val.extend(array.reshape(-1).tolist())
            else:
                tensor.tensor_content = array.tobytes()
        if kind == "version":
            request.model_spec.version.value = 1
        elif kind == "label":
            request.model_spec.version_label = "stable"
        yield bytes(request.SerializeToString())
