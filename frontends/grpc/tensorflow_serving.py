"""tensorflow.serving.PredictionService and ModelService in terms of the dataplane."""

import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any

from google.protobuf import wrappers_pb2
from google.protobuf.message import DecodeError

from common.errors import InvalidArgumentError, UnimplementedError
from common.messages import VersionStatus
from common.tensors import Signature, TensorSpec
from frontends.grpc.calls import Buffer, Call, Reply, Table, Unary
from frontends.grpc.tensorflow_protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_pb2,
    predict_pb2,
)
from frontends.grpc.wire import DATA_TYPES, output_buffers, read_tensor, shape_proto
from frontends.interface import DataplaneInterface, InputTensor, Prediction, Selector, Served

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

SIGNATURE = "serving_default"
"""The one signature that a model has here."""

LONGEST_NS = 24 * 3600 * 1_000_000_000
"""Nobody is waited for longer than a day, whatever deadline was set."""

METHOD_NAME = "tensorflow/serving/predict"
SIGNATURE_FIELD = "signature_def"
"""The one metadata_field that TensorFlow Serving knows."""


class TensorFlowServing:
    """The handlers of both services."""

    def __init__(self, dataplane: DataplaneInterface, request_timeout_s: float) -> None:
        self._dataplane = dataplane
        self._timeout_ns = int(request_timeout_s * 1e9)

    def methods(self) -> Table:
        """Every method of both services by its path."""
        table = {
            f"/{PREDICTION_SERVICE}/Predict": Unary(self.predict),
            f"/{PREDICTION_SERVICE}/GetModelMetadata": Unary(self.get_model_metadata),
            f"/{MODEL_SERVICE}/GetModelStatus": Unary(self.get_model_status),
        }
        for name in ("Classify", "Regress", "MultiInference"):
            table[f"/{PREDICTION_SERVICE}/{name}"] = Unary(_unimplemented(name))
        name = "HandleReloadConfigRequest"
        table[f"/{MODEL_SERVICE}/{name}"] = Unary(_unimplemented(name))
        return table

    async def predict(self, message: memoryview, call: Call) -> Reply:
        """Infer. Answers with the version that ran."""
        now = time.monotonic_ns()
        request = _parse(predict_pb2.PredictRequest, message)

        def build(served: Served) -> Mapping[str, InputTensor]:
            _check_signature_name(request.model_spec.signature_name)
            return {name: read_tensor(name, tensor) for name, tensor in request.inputs.items()}

        prediction = await self._dataplane.predict(
            _selector(request.model_spec), build, self._deadline(now, call), frozenset(request.output_filter)
        )
        try:
            return [_predict_response(prediction)]
        finally:
            prediction.release()

    async def get_model_metadata(self, message: memoryview, call: Call) -> Reply:
        """The signature of a version."""
        request = _parse(get_model_metadata_pb2.GetModelMetadataRequest, message)
        for name in request.metadata_field or ("(none)",):
            if name != SIGNATURE_FIELD:
                raise InvalidArgumentError(f"Metadata field {name} is not supported")
        served = self._dataplane.choose(_selector(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=_model_spec(served.id.model, served.id.version)
        )
        response.metadata[SIGNATURE_FIELD].Pack(_signature_def_map(served.signature))
        return [response.SerializeToString()]

    async def get_model_status(self, message: memoryview, call: Call) -> Reply:
        """The state of one version, or of all versions of a model."""
        request = _parse(get_model_status_pb2.GetModelStatusRequest, message)
        statuses = self._dataplane.statuses(_selector(request.model_spec))
        response = get_model_status_pb2.GetModelStatusResponse(
            model_version_status=[_version_status(status) for status in statuses]
        )
        return [response.SerializeToString()]

    def _deadline(self, now: int, call: Call) -> int:
        """CLOCK_MONOTONIC nanoseconds: the client's, or the server's for a client that set none."""
        given = call.deadline_ns
        return now + (self._timeout_ns if given is None else min(given - now, LONGEST_NS))


def _unimplemented(name: str) -> Callable[[memoryview, Call], Awaitable[Reply]]:
    async def refuse(message: memoryview, call: Call) -> Reply:
        raise UnimplementedError(f"{name} is not supported yet")

    return refuse


def _parse(kind: Any, message: memoryview) -> Any:
    """The message. Raises InvalidArgumentError for bytes that are no such message."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidArgumentError(f"The request is not a {kind.DESCRIPTOR.full_name}: {error}") from error


def _selector(spec: Any) -> Selector:
    """What a ModelSpec asks for; version 0 and an empty label are protobuf's way of saying nothing."""
    match spec.WhichOneof("version_choice"):
        case "version":
            return Selector(spec.name, version=spec.version.value or None)
        case "version_label":
            return Selector(spec.name, label=spec.version_label or None)
        case _:
            return Selector(spec.name)


def _check_signature_name(name: str) -> None:
    if name not in ("", SIGNATURE):
        raise InvalidArgumentError(
            f"Serving signature key {name!r} not found. Signatures expected to be in the set {{{[SIGNATURE]}}}."
        )


def _model_spec(model: str, version: int, signature_name: str = "") -> Any:
    return model_pb2.ModelSpec(
        name=model, version=wrappers_pb2.Int64Value(value=version), signature_name=signature_name
    )


@lru_cache(maxsize=256)
def _response_model_spec(model: str, version: int) -> bytes:
    """A PredictResponse that holds its model_spec alone; protobuf messages are merged by writing one after another."""
    return bytes(
        predict_pb2.PredictResponse(model_spec=_model_spec(model, version, SIGNATURE)).SerializeToString()
    )


def _predict_response(prediction: Prediction) -> bytes:
    """The PredictResponse, independent of the prediction's memory."""
    served = prediction.served.id
    parts: list[Buffer] = [_response_model_spec(served.model, served.version)]
    for name, output in prediction.outputs.items():
        parts += output_buffers(name, output)
    return b"".join(parts)


def _signature_def_map(signature: Signature) -> Any:
    definition = meta_graph_pb2.SignatureDef(
        inputs={spec.name: _tensor_info(spec) for spec in signature.inputs},
        outputs={spec.name: _tensor_info(spec) for spec in signature.outputs},
        method_name=METHOD_NAME,
    )
    return get_model_metadata_pb2.SignatureDefMap(signature_def={SIGNATURE: definition})


def _tensor_info(spec: TensorSpec) -> Any:
    return meta_graph_pb2.TensorInfo(
        name=spec.name,
        dtype=DATA_TYPES[spec.dtype],
        tensor_shape=shape_proto(spec.shape, unranked=spec.unranked),
    )


def _version_status(status: VersionStatus) -> Any:
    response = get_model_status_pb2.ModelVersionStatus(version=status.version, state=status.state)
    if status.error is not None:
        # tensorflow.error.Code has gRPC's numbers (tensorflow/core/protobuf/error_codes.proto).
        response.status.error_code = int(status.error.code)
        response.status.error_message = status.error.message
    else:
        response.status.SetInParent()
    return response
