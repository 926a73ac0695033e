"""A connection to the gRPC services of a TensorFlow Serving API server; every failure is a ClientError."""

from types import TracebackType
from typing import Any

import grpc
import numpy as np

from clientlib.addresses import is_local
from clientlib.answers import Metadata, Tensor, VersionStatus
from clientlib.errors import ClientError
from clientlib.protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    types_pb2,
)
from clientlib.tensors import to_array, to_proto

TIMEOUT_S = 60.0
UNLIMITED = -1


class GrpcServing:
    """PredictionService and ModelService at one address. Connects at the first call."""

    def __init__(self, host: str, port: int) -> None:
        self.address = f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
        options = [
            # Without these no message may be larger than 4 MB.
            ("grpc.max_send_message_length", UNLIMITED),
            ("grpc.max_receive_message_length", UNLIMITED),
            ("grpc.enable_http_proxy", 0 if is_local(host) else 1),
        ]
        self._channel = grpc.insecure_channel(self.address, options)
        self._predictions: Any = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models: Any = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def __enter__(self) -> "GrpcServing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            # RpcError has no methods; what a call raises is a Call as well.
            code, details = getattr(error, "code", None), getattr(error, "details", None)
            name = code().name if callable(code) else type(error).__name__
            reason = details() if callable(details) else ""
            raise ClientError(f"{self.address}: {name}: {reason}") from error

    def status(self, model: str, version: int | None) -> list[VersionStatus]:
        """GetModelStatus; of all versions when none is given."""
        request = get_model_status_pb2.GetModelStatusRequest()
        _name_model(request.model_spec, model, version)
        answer = self._call(self._models.GetModelStatus, request)
        states = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(
                one.version, states.Name(one.state), one.status.error_code, one.status.error_message
            )
            for one in answer.model_version_status
        ]

    def metadata(self, model: str, version: int | None = None) -> Metadata:
        """GetModelMetadata."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        _name_model(request.model_spec, model, version)
        answer = self._call(self._predictions.GetModelMetadata, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not answer.metadata["signature_def"].Unpack(signatures):
            raise ClientError(f"{self.address}: the metadata of {model!r} hold no signature_def")
        signature = signatures.signature_def["serving_default"]
        return Metadata(_tensors(signature.inputs), _tensors(signature.outputs))

    def prepare(self, model: str, input_name: str, images: np.ndarray) -> Any:
        """A PredictRequest."""
        request = predict_pb2.PredictRequest()
        _name_model(request.model_spec, model, None)
        request.inputs[input_name].CopyFrom(to_proto(images))
        return request

    def predict(self, request: Any) -> Any:
        """Predict: a PredictResponse."""
        return self._call(self._predictions.Predict, request)

    def output(self, response: Any, name: str) -> np.ndarray:
        """One output of a PredictResponse."""
        if name not in response.outputs:
            raise ClientError(
                f"the model has no output {name!r}; it has {', '.join(sorted(response.outputs))}"
            )
        return to_array(response.outputs[name])


def _name_model(spec: Any, model: str, version: int | None) -> None:
    spec.name = model
    if version is not None:
        spec.version.value = version


def _tensors(infos: Any) -> list[Tensor]:
    return [
        Tensor(name, [dim.size for dim in info.tensor_shape.dim], types_pb2.DataType.Name(info.dtype))
        for name, info in infos.items()
    ]
