"""frontends.grpc.wire: outputs of strings, read back by protobuf."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontends.grpc.tensorflow_protos import predict_pb2, types_pb2
from frontends.grpc.wire import output_buffers, read_tensor
from frontends.interface import STRING, OutputTensor


def _strings(values: list[bytes], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape(shape)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_any_bytes_come_back(values: list[bytes]) -> None:
    array = _strings(values, (len(values), 1))
    number = np.zeros(2, np.float32)
    parts = [
        *output_buffers("t", OutputTensor(STRING, array)),
        *output_buffers("n", OutputTensor("float32", number)),
    ]
    answer = predict_pb2.PredictResponse.FromString(b"".join(parts))
    assert set(answer.outputs) == {"t", "n"}
    proto = answer.outputs["t"]
    assert proto.dtype == types_pb2.DT_STRING
    assert [dim.size for dim in proto.tensor_shape.dim] == [len(values), 1]
    assert list(proto.string_val) == values
    assert not proto.tensor_content
    assert read_tensor("t", proto).array.tolist() == array.tolist()


@pytest.mark.parametrize(("values", "shape"), [([b"\xff"], ()), ([], (0, 3)), ([b"", b"b"], (1, 2, 1))])
def test_every_shape(values: list[bytes], shape: tuple[int, ...]) -> None:
    (entry,) = output_buffers("t", OutputTensor(STRING, _strings(values, shape)))
    proto = predict_pb2.PredictResponse.FromString(bytes(entry)).outputs["t"]
    assert tuple(dim.size for dim in proto.tensor_shape.dim) == shape
    assert not proto.tensor_shape.unknown_rank
    assert list(proto.string_val) == values
