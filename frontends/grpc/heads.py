"""Classify, Regress and MultiInference of tensorflow.serving.PredictionService.

All three infer once and read the outputs by `frontends.inference`. A model has the signatures serving_default, which
every call may name, and beside it one for each use, called as TensorFlow's estimators call theirs; with them a
MultiInference can ask for both, for each of its tasks must name another signature.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import InvalidArgumentError, ResourceExhaustedError, UnimplementedError
from common.tensors import Signature
from frontends.grpc.calls import Call, Reply
from frontends.grpc.examples import Examples, classification_result, examples_of, regression_result
from frontends.grpc.requests import (
    SIGNATURE,
    check_signature_name,
    deadline_of,
    model_spec,
    parse,
    selector_of,
)
from frontends.grpc.tensorflow_protos import classification_pb2, inference_pb2, regression_pb2
from frontends.inference import check_classifiable, check_regressable, classify, read_examples, regress
from frontends.interface import DataplaneInterface, InputTensor, Prediction, Selector, Served

CLASSIFY_METHOD = "tensorflow/serving/classify"
REGRESS_METHOD = "tensorflow/serving/regress"

MAX_MESSAGE_BYTES = 64 << 20
"""Longest message of examples. Parsed, empty examples take about 20 times as much."""

_SIGNATURES = {CLASSIFY_METHOD: "classification", REGRESS_METHOD: "regression"}
"""Method → its own signature, beside serving_default."""


@dataclass(frozen=True, slots=True)
class _Task:
    """One use of the outputs."""

    method: str
    signature_name: str

    def check(self, signature: Signature) -> None:
        """Whether the model can be used so. Raises InvalidArgumentError."""
        check_signature_name(self.signature_name, (SIGNATURE, _SIGNATURES[self.method]))
        (check_classifiable if self.method == CLASSIFY_METHOD else check_regressable)(signature)

    def spec(self, prediction: Prediction) -> Any:
        """The answer's ModelSpec."""
        served = prediction.served.id
        return model_spec(served.model, served.version, self.signature_name)


class HeadMethods:
    """The handlers of the three methods."""

    def __init__(self, dataplane: DataplaneInterface, timeout_ns: int) -> None:
        """`timeout_ns`: for a client that sets no deadline."""
        self._dataplane = dataplane
        self._timeout_ns = timeout_ns

    async def classify(self, message: memoryview, call: Call) -> Reply:
        """The classes of each example."""
        now = time.monotonic_ns()
        request = _parse(classification_pb2.ClassificationRequest, message)
        task = _Task(CLASSIFY_METHOD, request.model_spec.signature_name or SIGNATURE)
        examples = examples_of(request.input)
        prediction = await self._infer(
            selector_of(request.model_spec), (task,), examples, deadline_of(now, call, self._timeout_ns)
        )
        try:
            result = classification_result(classify(prediction, len(examples.examples)))
            response = classification_pb2.ClassificationResponse(
                model_spec=task.spec(prediction), result=result
            )
        finally:
            prediction.release()
        return [response.SerializeToString()]

    async def regress(self, message: memoryview, call: Call) -> Reply:
        """The value of each example."""
        now = time.monotonic_ns()
        request = _parse(regression_pb2.RegressionRequest, message)
        task = _Task(REGRESS_METHOD, request.model_spec.signature_name or SIGNATURE)
        examples = examples_of(request.input)
        prediction = await self._infer(
            selector_of(request.model_spec), (task,), examples, deadline_of(now, call, self._timeout_ns)
        )
        try:
            result = regression_result(regress(prediction, len(examples.examples)))
            response = regression_pb2.RegressionResponse(model_spec=task.spec(prediction), result=result)
        finally:
            prediction.release()
        return [response.SerializeToString()]

    async def multi_inference(self, message: memoryview, call: Call) -> Reply:
        """Several uses of one inference."""
        now = time.monotonic_ns()
        request = _parse(inference_pb2.MultiInferenceRequest, message)
        tasks = _read_tasks(request.tasks)
        selector = _one_selector(request.tasks)
        examples = examples_of(request.input)
        deadline_ns = deadline_of(now, call, self._timeout_ns)
        prediction = await self._infer(selector, tasks, examples, deadline_ns)
        response = inference_pb2.MultiInferenceResponse()
        try:
            for task in tasks:
                _add_result(response, task, prediction, len(examples.examples))
        finally:
            prediction.release()
        return [response.SerializeToString()]

    async def _infer(
        self, selector: Selector, tasks: tuple[_Task, ...], given: Examples, deadline_ns: int
    ) -> Prediction:
        def build(served: Served) -> Mapping[str, InputTensor]:
            for task in tasks:
                task.check(served.signature)
            return read_examples(served.signature, given.examples, given.context)

        return await self._dataplane.predict(selector, build, deadline_ns)


def _parse(kind: Any, message: memoryview) -> Any:
    if len(message) > MAX_MESSAGE_BYTES:
        raise ResourceExhaustedError(
            f"A message of examples has {MAX_MESSAGE_BYTES} bytes at the most, got {len(message)}"
        )
    return parse(kind, message)


def _read_tasks(protos: Any) -> tuple[_Task, ...]:
    """In TensorFlow Serving's words and order. Raises InvalidArgumentError, UnimplementedError."""
    if not protos:
        raise InvalidArgumentError("A MultiInferenceRequest must have at least one task")
    tasks: dict[str, _Task] = {}
    for proto in protos:
        if not proto.model_spec.name:
            raise InvalidArgumentError("Found ModelSpec with an empty model name.")
        if proto.model_spec.name != protos[0].model_spec.name:
            raise InvalidArgumentError(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        name = proto.model_spec.signature_name or SIGNATURE
        if name in tasks:
            raise InvalidArgumentError(f"Duplicate evaluation of signature: {name}")
        if proto.method_name not in _SIGNATURES:
            raise UnimplementedError(f"Unsupported signature method_name: {proto.method_name}")
        tasks[name] = _Task(proto.method_name, name)
    return tuple(tasks.values())


def _one_selector(protos: Any) -> Selector:
    """The version of all tasks; one that names none follows the others. Raises InvalidArgumentError."""
    selectors = {selector_of(proto.model_spec) for proto in protos}
    chosen = [one for one in selectors if one != Selector(one.model)]
    if len(chosen) > 1:
        raise InvalidArgumentError("All ModelSpecs in a MultiInferenceRequest must access the same version.")
    return chosen[0] if chosen else selectors.pop()


def _add_result(response: Any, task: _Task, prediction: Prediction, examples: int) -> None:
    result = response.results.add(model_spec=task.spec(prediction))
    if task.method == CLASSIFY_METHOD:
        result.classification_result.CopyFrom(classification_result(classify(prediction, examples)))
    else:
        result.regression_result.CopyFrom(regression_result(regress(prediction, examples)))
