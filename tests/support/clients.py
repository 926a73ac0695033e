"""Clients as users write them: the official stubs over grpcio, and HTTP over the standard library."""

import http.client
import json
from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np

from common.dtypes import STORAGE
from frontends.grpc.tensorflow_protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    tensor_pb2,
    types_pb2,
)
from tests.support.server import HOST, NAME

TIMEOUT_S = 20.0

Arrays = dict[str, np.ndarray]

TYPES: dict[str, int] = {
    "bool": types_pb2.DT_BOOL,
    "int8": types_pb2.DT_INT8,
    "int16": types_pb2.DT_INT16,
    "int32": types_pb2.DT_INT32,
    "int64": types_pb2.DT_INT64,
    "uint8": types_pb2.DT_UINT8,
    "uint16": types_pb2.DT_UINT16,
    "uint32": types_pb2.DT_UINT32,
    "uint64": types_pb2.DT_UINT64,
    "float16": types_pb2.DT_HALF,
    "bfloat16": types_pb2.DT_BFLOAT16,
    "float32": types_pb2.DT_FLOAT,
    "float64": types_pb2.DT_DOUBLE,
}
"""Name of an element type → tensorflow.DataType, written down anew, so that the server's own table is held to it."""

FIELDS = {
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
"""Where tensor.proto keeps the values of a type; half_val holds bits."""


def to_proto(array: np.ndarray, dtype: str = "", *, typed: bool = False) -> Any:
    """A TensorProto, by `tensor_content` or by the field of the type. A bfloat16 comes as the uint16 of its bits."""
    dtype = dtype or array.dtype.name
    proto = tensor_pb2.TensorProto(dtype=TYPES[dtype])
    for length in array.shape:
        proto.tensor_shape.dim.add(size=length)
    if typed:
        flat = array.view(np.uint16) if dtype == "float16" else array
        getattr(proto, FIELDS[dtype]).extend(flat.ravel().tolist())
    else:
        proto.tensor_content = np.ascontiguousarray(array).tobytes()
    return proto


def to_array(proto: Any) -> np.ndarray:
    """The array in an answer, which is always `tensor_content`; bfloat16 as the uint16 of its bits."""
    name = next(name for name, number in TYPES.items() if number == proto.dtype)
    shape = [dim.size for dim in proto.tensor_shape.dim]
    return np.frombuffer(proto.tensor_content, STORAGE[name]).reshape(shape)


def predict_request(inputs: Mapping[str, Any], version: int = 0, model: str = NAME, label: str = "") -> Any:
    """A PredictRequest; values are arrays or ready TensorProtos. Version 0 and an empty label: none given."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if version:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(to_proto(value) if isinstance(value, np.ndarray) else value)
    return request


class GrpcClient:
    """One connection, to a port of this machine or to another target, in the clear or encrypted."""

    def __init__(self, target: int | str, credentials: grpc.ChannelCredentials | None = None) -> None:
        # A subchannel pool of its own: otherwise channels to one address share one connection. After a lost
        # connection grpcio would wait a second and more before it tried again.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
        ]
        address = f"{HOST}:{target}" if isinstance(target, int) else target
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options)
        self.stub: Any = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models: Any = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def predict(
        self,
        inputs: Mapping[str, Any],
        version: int = 0,
        timeout_s: float = TIMEOUT_S,
        *,
        model: str = NAME,
        label: str = "",
    ) -> Arrays:
        """The outputs. Raises grpc.RpcError."""
        answer = self.stub.Predict(predict_request(inputs, version, model, label), timeout=timeout_s)
        return {name: to_array(proto) for name, proto in answer.outputs.items()}

    def start(self, inputs: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> Any:
        """The same without waiting: grpcio's future."""
        return self.stub.Predict.future(predict_request(inputs), timeout=timeout_s)

    def refusal(
        self,
        inputs: Mapping[str, Any],
        version: int = 0,
        timeout_s: float = TIMEOUT_S,
        *,
        model: str = NAME,
        label: str = "",
    ) -> tuple[grpc.StatusCode, str]:
        """Code and text of a Predict that must be refused."""
        return refusal(self.stub.Predict, predict_request(inputs, version, model, label), timeout_s)

    def states(self, model: str = NAME) -> dict[int, tuple[str, int, str]]:
        """GetModelStatus: by version its state, error code and error text."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        answer = self.models.GetModelStatus(request, timeout=TIMEOUT_S)
        states = get_model_status_pb2.ModelVersionStatus.State
        return {
            one.version: (states.Name(one.state), one.status.error_code, one.status.error_message)
            for one in answer.model_version_status
        }

    def known_states(self, model: str = NAME) -> dict[int, tuple[str, int, str]] | None:
        """The same; None for a model of which the server knows no version."""
        try:
            return self.states(model)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    def load_error(self, version: int, model: str = NAME) -> tuple[str, int, str] | None:
        """The same of one version, once it is an error."""
        found = self.states(model).get(version)
        return found if found is not None and found[1] else None

    def signature(self) -> Any:
        """GetModelMetadata: the SignatureDef `serving_default`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = NAME
        answer = self.stub.GetModelMetadata(request, timeout=TIMEOUT_S)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return found.signature_def["serving_default"]


def refusal(call: Any, request: Any, timeout_s: float = TIMEOUT_S) -> tuple[grpc.StatusCode, str]:
    """Code and text with which a call is refused. Raises AssertionError when it is answered."""
    try:
        answer = call(request, timeout=timeout_s)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError(f"answered: {str(answer)[:200]}")


class RestClient:
    """One connection that is kept alive."""

    def __init__(self, port: int, timeout_s: float = TIMEOUT_S) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)

    def __enter__(self) -> "RestClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and document. Raises OSError and http.client.HTTPException; the connection is then a new one."""
        try:
            self._connection.request(method, path, body)
            response = self._connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        return response.status, json.loads(text) if text else None

    def predict(self, document: object, version: int = 0, model: str = NAME) -> tuple[int, Any]:
        """POST :predict."""
        middle = f"/versions/{version}" if version else ""
        return self.send("POST", f"/v1/models/{model}{middle}:predict", json.dumps(document).encode())

    def columns(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The outputs of a columnar request, by name where there are several. Raises AssertionError when refused."""
        status, answer = self.predict({"inputs": {name: array.tolist() for name, array in inputs.items()}})
        assert status == 200, answer
        return {"outputs": answer["outputs"]}
