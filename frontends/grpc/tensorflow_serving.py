"""tensorflow.serving.PredictionService and ModelService in terms of the dataplane."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Any

from common.errors import Code, InvalidArgumentError
from common.messages import Completed, VersionStatus
from common.tensors import Signature, TensorSpec
from frontends.forms import Form, FormDataplane
from frontends.grpc.calls import Begun, Buffer, Call, Ended, Outcome, Reply, Table, Unary
from frontends.grpc.heads import HeadMethods
from frontends.grpc.model_management import MAX_CONFIG_BYTES, read_models
from frontends.grpc.predict_reader import PredictReader
from frontends.grpc.predict_wire import elements_offset
from frontends.grpc.requests import (
    SIGNATURE,
    check_signature_name,
    deadline_of,
    model_spec,
    parse,
    selector_of,
)
from frontends.grpc.tensorflow_protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_management_pb2,
    predict_pb2,
)
from frontends.grpc.wire import DATA_TYPES, entry_head, output_buffers, read_tensor, shape_proto
from frontends.interface import InputTensor, Prediction, Served
from frontends.memory import Block
from frontends.recipes import MAX_EXPECTED_BYTES, Recipe
from frontends.requests import RecipeRequest, StaleVersionError

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

METHOD_NAME = "tensorflow/serving/predict"
SIGNATURE_FIELD = "signature_def"
"""The one metadata_field that TensorFlow Serving knows."""

IN_PLACE_BYTES = MAX_EXPECTED_BYTES
"""Outputs of this size together are sent out of shared memory. Fewer are copied, and their memory is free at once."""

_SIGNATURE_NAMES = ("", SIGNATURE)


class TensorFlowServing:
    """The handlers of both services."""

    def __init__(self, dataplane: FormDataplane, request_timeout_s: float) -> None:
        self._dataplane = dataplane
        self._timeout_ns = int(request_timeout_s * 1e9)
        self._reader = PredictReader()
        self._heads = HeadMethods(dataplane, self._timeout_ns)

    def methods(self) -> Table:
        """Every method of both services by its path."""
        return {
            f"/{PREDICTION_SERVICE}/Predict": Unary(self.predict, elements_offset, self.begin_predict),
            f"/{PREDICTION_SERVICE}/Classify": Unary(self._heads.classify),
            f"/{PREDICTION_SERVICE}/Regress": Unary(self._heads.regress),
            f"/{PREDICTION_SERVICE}/MultiInference": Unary(self._heads.multi_inference),
            f"/{PREDICTION_SERVICE}/GetModelMetadata": Unary(self.get_model_metadata),
            f"/{MODEL_SERVICE}/GetModelStatus": Unary(self.get_model_status),
            f"/{MODEL_SERVICE}/HandleReloadConfigRequest": Unary(self.handle_reload_config_request),
        }

    async def predict(self, message: memoryview, call: Call) -> Reply:
        """Infer. Answers with the version that ran."""
        now = time.monotonic_ns()
        form = self._reader.read(message)
        deadline_ns = deadline_of(now, call, self._timeout_ns)
        if form is None:
            return _predict_reply(await self._predict_parsed(message, deadline_ns), call)
        block = call.take_block()
        return _predict_reply(await self._predict_in_place(form, message, deadline_ns, block, 0), call)

    def begin_predict(self, message: memoryview, call: Call, ended: Ended) -> Begun:
        """The same by a recipe, where there is one for such requests, and else in a task; see Unary.

        For messages that lie in memory of their own.
        """
        now = time.monotonic_ns()
        form = self._reader.read(message)
        deadline_ns = deadline_of(now, call, self._timeout_ns)
        predict = _BegunPredict(self, message, call, ended, form, now, deadline_ns)
        if form is not None and form.signature_name in _SIGNATURE_NAMES:
            body = call.take_block()
            try:
                predict.request = self._dataplane.begin(form, message, predict, now, deadline_ns, body)
            finally:
                if body is not None and predict.request is None:
                    call.give_block(body)
        if predict.request is None:
            predict.go_on(0)
        return predict

    def answer(
        self, request: RecipeRequest, completed: Completed, form: Form, began: int, call: Call
    ) -> Reply:
        """What was begun is completed."""
        recipe, place = request.recipe, request.place
        if recipe.expected != completed.outputs:
            return _predict_reply(self._dataplane.finish(request, completed, form.output_filter, began), call)
        try:
            heads = recipe.heads or _make_heads(recipe)
            if len(heads) == 1:
                return [heads[0] + place.buffer[place.reads[0]]]
            parts: list[bytes] = []
            for head, read in zip(heads, place.reads, strict=True):
                parts.append(head)
                parts.append(place.buffer[read])
            return [b"".join(parts)]
        finally:
            self._dataplane.put_back(request)

    async def answer_in_general(
        self, form: Form | None, message: memoryview, deadline_ns: int, call: Call, stale: int
    ) -> Reply:
        """What no recipe answers. `stale`: generation of the catalogue to wait for; 0: none."""
        if form is None:
            prediction = await self._predict_parsed(message, deadline_ns)
        else:
            prediction = await self._predict_in_place(form, message, deadline_ns, call.take_block(), stale)
        return _predict_reply(prediction, call)

    def take_back(self, request: RecipeRequest) -> Block | None:
        """The request's block is used no more; that of its message, if it has one, is the caller's."""
        return self._dataplane.take_back(request)

    def give_up(self, request: RecipeRequest) -> None:
        """Its client has gone."""
        self._dataplane.give_up(request)

    def _predict_in_place(
        self, form: Form, message: memoryview, deadline_ns: int, block: Block | None, stale: int
    ) -> Awaitable[Prediction]:
        """A message that is read where it lies, perhaps in a block of shared memory. One that was begun by a catalogue
        which was stale waits for that of generation `stale`.
        """

        def build(served: Served) -> Mapping[str, InputTensor]:
            check_signature_name(form.signature_name)
            return form.read_inputs(message)

        if stale:
            return self._dataplane.predict_after(
                stale, form.selector, build, deadline_ns, form.output_filter, block
            )
        return self._dataplane.predict(form.selector, build, deadline_ns, form.output_filter, block)

    def _predict_parsed(self, message: memoryview, deadline_ns: int) -> Awaitable[Prediction]:
        """Any message, by protobuf's parser, which copies it."""
        request = parse(predict_pb2.PredictRequest, message)

        def build(served: Served) -> Mapping[str, InputTensor]:
            check_signature_name(request.model_spec.signature_name)
            return {name: read_tensor(name, tensor) for name, tensor in request.inputs.items()}

        selector, wanted = selector_of(request.model_spec), frozenset(request.output_filter)
        return self._dataplane.predict(selector, build, deadline_ns, wanted)

    async def get_model_metadata(self, message: memoryview, call: Call) -> Reply:
        """The signature of a version."""
        request = parse(get_model_metadata_pb2.GetModelMetadataRequest, message)
        for name in request.metadata_field or ("(none)",):
            if name != SIGNATURE_FIELD:
                raise InvalidArgumentError(f"Metadata field {name} is not supported")
        served = self._dataplane.choose(selector_of(request.model_spec))
        response = get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec=model_spec(served.id.model, served.id.version)
        )
        response.metadata[SIGNATURE_FIELD].Pack(_signature_def_map(served.signature))
        return [response.SerializeToString()]

    async def get_model_status(self, message: memoryview, call: Call) -> Reply:
        """The state of one version, or of all versions of a model."""
        request = parse(get_model_status_pb2.GetModelStatusRequest, message)
        statuses = self._dataplane.statuses(selector_of(request.model_spec))
        response = get_model_status_pb2.GetModelStatusResponse(
            model_version_status=[_version_status(status) for status in statuses]
        )
        return [response.SerializeToString()]

    async def handle_reload_config_request(self, message: memoryview, call: Call) -> Reply:
        """Serve the models that are named, and no others.

        A configuration that is refused, and so changes nothing, is an error of the call, as in TensorFlow Serving.
        Models that cannot be loaded are named in the answer's status: the configuration is in force all the same.
        """
        now = time.monotonic_ns()
        if len(message) > MAX_CONFIG_BYTES:
            raise InvalidArgumentError(f"A configuration has {MAX_CONFIG_BYTES} bytes at the most")
        models = read_models(parse(model_management_pb2.ReloadConfigRequest, message))
        outcome = await self._dataplane.reconfigure(models, deadline_of(now, call, self._timeout_ns))
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        if outcome.failures:
            response.status.error_code = int(Code.UNKNOWN)
            response.status.error_message = "; ".join(outcome.failures)
        return [response.SerializeToString()]


class _BegunPredict:
    """A Predict that is under way: who is told of the end of what was begun by a recipe, and tells the transport."""

    __slots__ = (
        "_began",
        "_call",
        "_deadline_ns",
        "_ended",
        "_form",
        "_message",
        "_serving",
        "_task",
        "request",
    )

    def __init__(
        self,
        serving: TensorFlowServing,
        message: memoryview,
        call: Call,
        ended: Ended,
        form: Form | None,
        began: int,
        deadline_ns: int,
    ) -> None:
        self._serving = serving
        self._message = message
        self._call = call
        self._ended = ended
        self._form = form
        self._began = began
        self._deadline_ns = deadline_ns
        self._task: asyncio.Task[None] | None = None
        """Of one that no recipe answers, or whose version had left."""
        self.request: RecipeRequest | None = None

    def answered(self, request: RecipeRequest, completed: Completed) -> None:
        """See Owner."""
        outcome: Outcome
        assert self._form is not None, "recipes are for forms"
        try:
            outcome = self._serving.answer(request, completed, self._form, self._began, self._call)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            outcome = error
        self._ended(self._call, outcome)

    def failed(self, request: RecipeRequest, error: Exception) -> None:
        """See Owner."""
        if isinstance(error, StaleVersionError):
            body = self._serving.take_back(request)
            if body is not None:
                self._call.give_block(body)
            self.go_on(error.generation)
        else:
            self._ended(self._call, error)

    def go_on(self, stale: int) -> None:
        """In the general way, in a task; see `answer_in_general`."""
        self._task = asyncio.get_running_loop().create_task(self._answer_in_general(stale))

    async def _answer_in_general(self, stale: int) -> None:
        outcome: Outcome
        try:
            outcome = await self._serving.answer_in_general(
                self._form, self._message, self._deadline_ns, self._call, stale
            )
        except Exception as error:  # noqa: BLE001 - see `answered`
            outcome = error
        self._ended(self._call, outcome)

    def cancel(self) -> None:
        """See Begun."""
        if self._task is not None:
            self._task.cancel()
        elif self.request is not None:
            self._serving.give_up(self.request)


@lru_cache(maxsize=256)
def _response_model_spec(model: str, version: int) -> bytes:
    """A PredictResponse that holds its model_spec alone; protobuf messages are merged by writing one after another."""
    return bytes(
        predict_pb2.PredictResponse(model_spec=model_spec(model, version, SIGNATURE)).SerializeToString()
    )


def _make_heads(recipe: Recipe) -> tuple[bytes, ...]:
    """What stands before each output's elements; kept with the recipe."""
    served = recipe.served
    heads = [entry_head(spec.name, spec.dtype, spec.shape, spec.nbytes) for spec in served.signature.outputs]
    heads[0] = _response_model_spec(served.id.model, served.id.version) + heads[0]
    recipe.heads = tuple(heads)
    return recipe.heads


def _predict_reply(prediction: Prediction, call: Call) -> Reply:
    """The PredictResponse. A long one is sent out of the prediction's memory, which is then released after it."""
    if sum(output.array.nbytes for output in prediction.outputs.values()) >= IN_PLACE_BYTES:
        call.after_reply(prediction.release)
        return _response_parts(prediction)
    try:
        return [b"".join(_response_parts(prediction))]
    finally:
        prediction.release()


def _response_parts(prediction: Prediction) -> list[Buffer]:
    served = prediction.served.id
    parts: list[Buffer] = [_response_model_spec(served.model, served.version)]
    for name, output in prediction.outputs.items():
        parts += output_buffers(name, output)
    return parts


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
