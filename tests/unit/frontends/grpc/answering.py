"""Whether a method answers a message, or refuses it for a reason that is the client's: for tests with any message."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from common.errors import Code, ResourceExhaustedError, ServingError
from common.tensors import Heads, Signature, TensorSpec
from frontends.grpc.heads import CLASSIFY_METHOD, REGRESS_METHOD
from frontends.grpc.tensorflow_protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
    types_pb2,
)
from frontends.grpc.tensorflow_serving import TensorFlowServing
from frontends.grpc.wire import shape_proto
from frontends.interface import BuildInputs, InputTensor, Selector, Served
from frontends.memory import Block
from tests.support.pictures import plain
from tests.unit.frontends.fake_dataplane import (
    FakeDataplane,
    FakePrediction,
    FakeVersion,
    add_one,
    sum_and_difference,
)
from tests.unit.frontends.grpc.calling import run, unary

_PREDICTION = "/tensorflow.serving.PredictionService"
_MODEL = "/tensorflow.serving.ModelService"
METHODS: dict[str, Any] = {
    f"{_PREDICTION}/Predict": predict_pb2.PredictRequest,
    f"{_PREDICTION}/Classify": classification_pb2.ClassificationRequest,
    f"{_PREDICTION}/Regress": regression_pb2.RegressionRequest,
    f"{_PREDICTION}/MultiInference": inference_pb2.MultiInferenceRequest,
    f"{_PREDICTION}/GetModelMetadata": get_model_metadata_pb2.GetModelMetadataRequest,
    f"{_MODEL}/GetModelStatus": get_model_status_pb2.GetModelStatusRequest,
    f"{_MODEL}/HandleReloadConfigRequest": model_management_pb2.ReloadConfigRequest,
}
_REFUSALS = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.RESOURCE_EXHAUSTED,
    Code.UNIMPLEMENTED,
    Code.UNAVAILABLE,
}
_MEMORY = 1 << 20


class _Dataplane(FakeDataplane):
    """With a bound on memory, as the real one has it."""

    async def predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> FakePrediction:
        def bounded(served: Served) -> Mapping[str, InputTensor]:
            inputs = build(served)
            if sum(tensor.array.nbytes for tensor in inputs.values()) > _MEMORY:
                raise ResourceExhaustedError("memory")
            return inputs

        return await super().predict(selector, bounded, deadline_ns, outputs, body)


def _heads(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    rows = len(given["x"])
    return {"scores": np.ones((rows, 3), np.float32), "value": np.ones((rows, 1), np.float32)}


def any_dataplane() -> FakeDataplane:
    """Models of every sort."""
    signature = Signature(
        (TensorSpec("x", "float32", (-1, 2)),),
        (TensorSpec("scores", "float32", (-1, 3)), TensorSpec("value", "float32", (-1, 1))),
        Heads("scores", ("cat", "dog", "owl"), 2, "value"),
    )
    return _Dataplane(
        {
            "one": {1: add_one("float32", (-1, -1), "x"), 2: add_one("int8", (2,), "x")},
            "two": {1: sum_and_difference()},
            "any": {1: add_one("float32", (), "x", unranked=True)},
            "picture": {1: add_one("float32", (-1, -1, -1, 3), "x"), 2: add_one("uint8", (1, 3, 2, 2), "x")},
            "heads": {1: FakeVersion(signature, _heads)},
        },
        labels={"one": {"stable": 2}},
    )


def good_message(path: str, model: str) -> Any:
    """A message that is answered, or nearly."""
    message = METHODS[path]()
    if path.endswith("HandleReloadConfigRequest"):
        message.config.model_config_list.config.add(name="m", base_path="/m", model_platform="x")
        return message
    if path.endswith("MultiInference"):
        for name, method in (("", CLASSIFY_METHOD), ("regression", REGRESS_METHOD)):
            task = message.tasks.add(method_name=method)
            task.model_spec.name, task.model_spec.signature_name = model, name
    else:
        message.model_spec.name = model
    if path.endswith("GetModelMetadata"):
        message.metadata_field.append("signature_def")
    if path.endswith("/Predict"):
        for name in ("a", "b") if model == "two" else ("x",):
            tensor = message.inputs[name]
            if model == "picture":
                tensor.dtype = types_pb2.DT_STRING
                tensor.string_val.append(plain(2, 2))
            else:
                tensor.dtype = types_pb2.DT_FLOAT
                tensor.float_val.extend([1, 2])
                tensor.tensor_shape.CopyFrom(shape_proto((1, 2)))
    elif hasattr(message, "input"):
        for example in (message.input.example_list_with_context.examples.add() for _ in range(2)):
            if model == "picture":
                example.features.feature["x"].bytes_list.value.append(plain(2, 2))
            else:
                example.features.feature["x"].float_list.value.extend([1, 2])
    return message


def check_answered(path: str, message: bytes) -> None:
    """Answered, or refused for a reason that is the client's."""
    dataplane = any_dataplane()
    refusal: ServingError | None = None
    try:
        run(unary(TensorFlowServing(dataplane, 60).methods(), path, message))
    except ServingError as error:
        refusal = error
    assert refusal is None or (refusal.code in _REFUSALS and refusal.message), refusal
    assert all(prediction.released == 1 for prediction in dataplane.predictions)
