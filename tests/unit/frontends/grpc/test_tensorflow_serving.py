"""frontends.grpc.tensorflow_serving: each case of the documented gRPC table, by real messages."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from common.arena import Segment
from common.config import ModelConfig, VersionPolicy
from common.errors import (
    Code,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ServingError,
    UnavailableError,
    WireError,
)
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.grpc.calls import Reply, Table, Unary
from frontends.grpc.model_management import MAX_CONFIG_BYTES
from frontends.grpc.tensorflow_protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    meta_graph_pb2,
    model_management_pb2,
    predict_pb2,
    types_pb2,
)
from frontends.grpc.tensorflow_serving import IN_PLACE_BYTES, TensorFlowServing
from frontends.grpc.wire import DATA_TYPES, read_tensor, shape_proto
from frontends.interface import Reconfiguration
from frontends.memory import Block
from tests.support.pictures import plain
from tests.unit.frontends.fake_dataplane import FakeDataplane, FakeVersion, add_one, sum_and_difference
from tests.unit.frontends.grpc.calling import FakeCall, run, unary

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
_STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
_TIMEOUT_S = 60.0

_FAILED = WireError(Code.UNKNOWN, "Error occurred while loading version: no such layer")


def _dataplane() -> FakeDataplane:
    everything = Signature(
        tuple(TensorSpec(f"in-{dtype}", dtype, (-1, 2)) for dtype in sorted(DATA_TYPES)),
        (TensorSpec("scalar", "int64", ()), TensorSpec("any", "float32", (), unranked=True)),
    )
    return FakeDataplane(
        {
            "adder": {1: add_one(), 3: add_one(shape=(2, 2)), 4: add_one("bfloat16")},
            "two": {7: sum_and_difference()},
            "pictures": {1: add_one(shape=(-1, 3, 4, 5))},
            "one picture": {1: add_one("uint8", shape=(1, 4, 5, 3))},
            "dynamic": {1: add_one(shape=(-1, -1))},
            "everything": {1: FakeVersion(everything, lambda inputs: {})},
            "loading": {1: FakeVersion(everything, lambda inputs: {}, VersionState.LOADING, _FAILED)},
            "mixed": {
                1: FakeVersion(everything, lambda inputs: {}, VersionState.END),
                2: add_one(),
                3: FakeVersion(everything, lambda inputs: {}, VersionState.LOADING),
            },
        }
    )


@pytest.fixture
def dataplane() -> FakeDataplane:
    """Models of every sort."""
    return _dataplane()


@pytest.fixture
def table(dataplane: FakeDataplane) -> Table:
    """The methods over them."""
    return TensorFlowServing(dataplane, _TIMEOUT_S).methods()


def _fill(proto: Any, dtype: str, array: np.ndarray) -> None:
    proto.dtype = DATA_TYPES[dtype]
    proto.tensor_shape.CopyFrom(shape_proto(array.shape))
    proto.tensor_content = array.tobytes()


def _request(model: str = "adder", version: int | None = 1, **inputs: np.ndarray) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    for name, array in inputs.items():
        _fill(request.inputs[name], str(array.dtype), array)
    return request


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape or (1, 10), np.float32)


def _predict(table: Table, request: Any, deadline_ns: int | None = None) -> Any:
    raw = run(unary(table, _PREDICT, request.SerializeToString(), deadline_ns))
    return predict_pb2.PredictResponse.FromString(raw)


def _refusal(table: Table, path: str, message: bytes, kind: type[ServingError]) -> str:
    with pytest.raises(ServingError) as caught:
        run(unary(table, path, message))
    assert type(caught.value) is kind
    return caught.value.message


def _predict_refusal(table: Table, request: Any, kind: type[ServingError]) -> str:
    return _refusal(table, _PREDICT, request.SerializeToString(), kind)


# ---- Predict


def test_predict_computes_and_says_which_version_ran(table: Table, dataplane: FakeDataplane) -> None:
    array = np.arange(10, dtype=np.float32).reshape(1, 10)
    response = _predict(table, _request(data=array))
    assert list(response.outputs) == ["sum"]
    output = response.outputs["sum"]
    assert output.dtype == types_pb2.DT_FLOAT
    assert output.tensor_content == (array + 1).tobytes()
    assert not output.float_val
    assert response.model_spec.name == "adder"
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == "serving_default"
    assert [prediction.released for prediction in dataplane.predictions] == [1]


def _handle(table: Table, message: memoryview, call: FakeCall) -> Reply:
    method = table[_PREDICT]
    assert isinstance(method, Unary)
    handler = method.handler

    async def handled() -> Reply:
        return await handler(message, call)

    return run(handled())


def test_a_short_reply_is_one_object_and_its_memory_free_at_once(
    table: Table, dataplane: FakeDataplane
) -> None:
    call = FakeCall()
    reply = _handle(table, memoryview(_request(data=_ones()).SerializeToString()), call)
    assert [type(part) for part in reply] == [bytes]
    assert not call.releases
    assert [prediction.released for prediction in dataplane.predictions] == [1]


def test_a_long_reply_is_sent_out_of_memory_that_is_free_after_it(
    table: Table, dataplane: FakeDataplane
) -> None:
    array = np.arange(IN_PLACE_BYTES // 4, dtype=np.float32).reshape(1, -1)
    call = FakeCall()
    reply = _handle(table, memoryview(_request("dynamic", data=array).SerializeToString()), call)
    [prediction] = dataplane.predictions
    assert prediction.released == 0
    sent = np.frombuffer(reply[-1], np.float32)
    assert np.shares_memory(sent, prediction.outputs["sum"].array)
    response = predict_pb2.PredictResponse.FromString(b"".join(reply))
    np.testing.assert_array_equal(read_tensor("sum", response.outputs["sum"]).array, array + 1)
    call.finish()
    assert prediction.released == 1


def _in_shared_memory(request: Any) -> tuple[memoryview, FakeCall]:
    message = request.SerializeToString()
    segment = Segment.create(4096)
    segment.buffer[64 : 64 + len(message)] = message
    return memoryview(segment.buffer)[64 : 64 + len(message)], FakeCall(block=Block(1, 64, 1024, segment))


def test_a_message_in_shared_memory_is_handed_on_with_its_block(
    table: Table, dataplane: FakeDataplane
) -> None:
    message, call = _in_shared_memory(_request(data=_ones()))
    block = call.block
    response = predict_pb2.PredictResponse.FromString(b"".join(_handle(table, message, call)))
    assert response.outputs["sum"].tensor_content == (_ones() + 1).tobytes()
    assert dataplane.bodies == [block]
    assert call.block is None


def test_the_block_of_a_message_that_protobuf_copies_is_left_to_the_transport(
    table: Table, dataplane: FakeDataplane
) -> None:
    request = _request("everything")
    request.inputs["x"].dtype = types_pb2.DT_STRING
    message, call = _in_shared_memory(request)
    with pytest.raises(InvalidArgumentError):
        _handle(table, message, call)
    assert not dataplane.bodies
    assert call.block is not None


def test_without_a_version_the_highest_one_runs(table: Table) -> None:
    assert _predict(table, _request("mixed", None, data=_ones())).model_spec.version.value == 2


def test_version_zero_is_no_version(table: Table) -> None:
    assert _predict(table, _request("mixed", 0, data=_ones())).model_spec.version.value == 2


def test_bfloat16_goes_in_and_out(table: Table) -> None:
    request = _request("adder", 4)
    _fill(request.inputs["data"], "bfloat16", np.full((1, 10), 0x3F80, np.uint16))
    output = _predict(table, request)
    # The fake adds one to the bits: the next number above 1.0.
    assert output.outputs["sum"].dtype == types_pb2.DT_BFLOAT16
    assert output.outputs["sum"].tensor_content == np.full((1, 10), 0x3F81, np.uint16).tobytes()


def test_doubles_are_converted_to_the_models_type(table: Table) -> None:
    response = _predict(table, _request(data=np.full((1, 10), 0.5)))
    assert response.outputs["sum"].dtype == types_pb2.DT_FLOAT
    assert read_tensor("sum", response.outputs["sum"]).array.tolist() == [[1.5] * 10]


def test_a_single_value_fills_the_input(table: Table) -> None:
    request = _request()
    request.inputs["data"].dtype = types_pb2.DT_FLOAT
    request.inputs["data"].tensor_shape.CopyFrom(shape_proto((1, 10)))
    request.inputs["data"].float_val.append(2)
    assert read_tensor("sum", _predict(table, request).outputs["sum"]).array.tolist() == [[3] * 10]


def test_several_inputs_and_outputs(table: Table) -> None:
    request = _request("two", None, a=_ones(3, 2) * 5, b=_ones(3, 2))
    outputs = _predict(table, request).outputs
    assert {name: read_tensor(name, proto).array[2, 1] for name, proto in outputs.items()} == {
        "sum": 6,
        "difference": 4,
    }


def test_output_filter_is_honoured(table: Table) -> None:
    request = _request("two", None, a=_ones(1, 2), b=_ones(1, 2))
    request.output_filter.append("difference")
    assert list(_predict(table, request).outputs) == ["difference"]


def test_an_unknown_name_in_output_filter_is_refused_with_the_known_ones(table: Table) -> None:
    request = _request("two", None, a=_ones(1, 2), b=_ones(1, 2))
    request.output_filter.extend(["sum", "quotient"])
    text = _predict_refusal(table, request, InvalidArgumentError)
    assert text == (
        "output tensor alias not found in signature: ['quotient']. "
        "Outputs expected to be in the set {['sum', 'difference']}."
    )


def test_the_signature_may_be_named(table: Table) -> None:
    request = _request(data=_ones())
    request.model_spec.signature_name = "serving_default"
    assert list(_predict(table, request).outputs) == ["sum"]


def test_another_signature_is_refused_with_the_known_one(table: Table) -> None:
    request = _request(data=_ones())
    request.model_spec.signature_name = "classify"
    text = _predict_refusal(table, request, InvalidArgumentError)
    assert "'classify'" in text
    assert "'serving_default'" in text


@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nobody", None, "Servable not found for request: Specific(nobody, 0)"),
        ("nobody", 5, "Servable not found for request: Specific(nobody, 5)"),
        ("adder", 99, "Servable not found for request: Specific(adder, 99)"),
        ("adder", -1, "Servable not found for request: Specific(adder, -1)"),
        ("", None, "Servable not found for request: Specific(, 0)"),
    ],
)
def test_an_unknown_model_or_version_is_not_found(
    table: Table, model: str, version: int | None, text: str
) -> None:
    assert _predict_refusal(table, _request(model, version, data=_ones()), NotFoundError) == text


def test_an_unknown_label_is_not_found_by_its_name(table: Table) -> None:
    request = _request(version=None, data=_ones())
    request.model_spec.version_label = "stable"
    assert "stable" in _predict_refusal(table, request, NotFoundError)


def test_a_version_that_is_not_loaded_is_unavailable(table: Table) -> None:
    assert "LOADING" in _predict_refusal(table, _request("mixed", 3, data=_ones()), UnavailableError)


def test_an_unreadable_tensor_is_refused_by_its_name(table: Table) -> None:
    request = _request(data=_ones())
    request.inputs["data"].tensor_content = b"short"
    assert "'data'" in _predict_refusal(table, request, InvalidArgumentError)


def test_a_string_tensor_is_refused(table: Table) -> None:
    request = _request()
    request.inputs["data"].dtype = types_pb2.DT_STRING
    request.inputs["data"].string_val.append(b"abc")
    text = _predict_refusal(table, request, InvalidArgumentError)
    assert text.startswith("Input 'data' takes no strings. They stand for JPEG and PNG images")


def test_encoded_images_are_a_batch_of_the_input(table: Table) -> None:
    request = _request("pictures", None)
    request.inputs["data"].dtype = types_pb2.DT_STRING
    request.inputs["data"].tensor_shape.CopyFrom(shape_proto((2,)))
    request.inputs["data"].string_val.extend([plain(9, 9, (1, 2, 3)), plain(2, 2, (4, 5, 6), "JPEG")])
    array = read_tensor("sum", _predict(table, request).outputs["sum"]).array
    assert array.shape == (2, 3, 4, 5)
    assert array[0, :, 0, 0].tolist() == [4, 3, 2]
    np.testing.assert_allclose(array[1, :, 3, 4], [7, 6, 5], atol=2)


def test_an_image_that_cannot_be_read_is_refused(table: Table) -> None:
    request = _request("pictures", None)
    request.inputs["data"].dtype = types_pb2.DT_STRING
    request.inputs["data"].string_val.append(b"no image")
    assert "neither a JPEG nor a PNG" in _predict_refusal(table, request, InvalidArgumentError)


def test_a_batch_of_images_has_the_models_size(table: Table) -> None:
    request = _request("one picture", None)
    request.inputs["data"].dtype = types_pb2.DT_STRING
    request.inputs["data"].tensor_shape.CopyFrom(shape_proto((2,)))
    request.inputs["data"].string_val.extend([plain(1, 1)] * 2)
    text = _predict_refusal(table, request, InvalidArgumentError)
    assert text == "Input batch size is incorrect. Obtained batch size 2, required batch size 1"


@pytest.mark.parametrize("path", [_PREDICT, _METADATA, _STATUS])
def test_bytes_that_are_no_message_are_refused(table: Table, path: str) -> None:
    assert "is not a tensorflow.serving." in _refusal(table, path, b"\xff\xff\xff", InvalidArgumentError)


def test_an_empty_message_names_no_model(table: Table) -> None:
    assert _refusal(table, _PREDICT, b"", NotFoundError) == "Servable not found for request: Specific(, 0)"


def test_a_repeated_input_counts_as_protobuf_says(table: Table) -> None:
    """Of two entries of one key the last one counts."""
    raw = _request(data=_ones()).SerializeToString() + _request(data=_ones() * 4).SerializeToString()
    response = predict_pb2.PredictResponse.FromString(run(unary(table, _PREDICT, raw)))
    assert read_tensor("sum", response.outputs["sum"]).array[0, 0] == 5


def test_without_a_deadline_the_servers_own_counts(table: Table, dataplane: FakeDataplane) -> None:
    before = time.monotonic_ns()
    _predict(table, _request(data=_ones()))
    after = time.monotonic_ns()
    assert before <= dataplane.deadlines[0] - int(_TIMEOUT_S * 1e9) <= after


def test_the_clients_earlier_deadline_counts(table: Table, dataplane: FakeDataplane) -> None:
    deadline = time.monotonic_ns() + 5_000_000_000
    _predict(table, _request(data=_ones()), deadline)
    assert dataplane.deadlines == [deadline]


def test_the_clients_later_deadline_counts_too(table: Table, dataplane: FakeDataplane) -> None:
    deadline = time.monotonic_ns() + int(3 * _TIMEOUT_S * 1e9)
    _predict(table, _request(data=_ones()), deadline)
    assert dataplane.deadlines == [deadline]


def test_no_deadline_is_later_than_a_day(table: Table, dataplane: FakeDataplane) -> None:
    _predict(table, _request(data=_ones()), 2**80)
    assert dataplane.deadlines[0] <= time.monotonic_ns() + 24 * 3600 * 1_000_000_000


def test_a_deadline_that_has_passed_ends_the_request(table: Table, dataplane: FakeDataplane) -> None:
    async def call() -> None:
        dataplane.gate = asyncio.Event()
        await unary(table, _PREDICT, _request(data=_ones()).SerializeToString(), time.monotonic_ns())

    with pytest.raises(DeadlineExceededError):
        run(call())


def test_a_cancelled_call_cancels_its_request(table: Table, dataplane: FakeDataplane) -> None:
    async def call() -> None:
        dataplane.gate = asyncio.Event()
        task = asyncio.create_task(unary(table, _PREDICT, _request(data=_ones()).SerializeToString()))
        await asyncio.sleep(0)
        assert dataplane.waiting
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(call())
    assert dataplane.cancelled == 1
    assert not dataplane.predictions


def test_memory_is_released_when_encoding_fails(dataplane: FakeDataplane) -> None:
    signature = Signature(
        (TensorSpec("data", "float32", (-1,)),), (TensorSpec("sum", "no-such-type", (-1,)),)
    )
    broken = FakeVersion(signature, lambda inputs: {"sum": inputs["data"]})
    dataplane.models = {"broken": {1: broken}}
    table = TensorFlowServing(dataplane, _TIMEOUT_S).methods()
    with pytest.raises(KeyError):
        _predict(table, _request("broken", None, data=_ones(3)))
    assert [prediction.released for prediction in dataplane.predictions] == [1]


# ---- GetModelMetadata


def _metadata_request(model: str, *fields: str, version: int | None = None) -> bytes:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return bytes(request.SerializeToString())


def _signature(table: Table, model: str, version: int | None = None) -> tuple[Any, Any]:
    raw = run(unary(table, _METADATA, _metadata_request(model, "signature_def", version=version)))
    response = get_model_metadata_pb2.GetModelMetadataResponse.FromString(raw)
    assert list(response.metadata) == ["signature_def"]
    definitions = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].type_url == (
        "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    )
    assert response.metadata["signature_def"].Unpack(definitions)
    assert list(definitions.signature_def) == ["serving_default"]
    return response.model_spec, definitions.signature_def["serving_default"]


def test_metadata_names_the_version_and_the_method(table: Table) -> None:
    spec, definition = _signature(table, "adder", 3)
    assert (spec.name, spec.version.value) == ("adder", 3)
    assert definition.method_name == "tensorflow/serving/predict"
    assert list(definition.inputs) == ["data"]
    assert [dimension.size for dimension in definition.inputs["data"].tensor_shape.dim] == [2, 2]


def test_metadata_has_true_types_and_open_dimensions(table: Table) -> None:
    _, definition = _signature(table, "everything")
    for dtype, number in DATA_TYPES.items():
        info = definition.inputs[f"in-{dtype}"]
        assert info.dtype == number
        assert [dimension.size for dimension in info.tensor_shape.dim] == [-1, 2]
        assert not info.tensor_shape.unknown_rank
    scalar = definition.outputs["scalar"]
    assert scalar == meta_graph_pb2.TensorInfo(name="scalar", dtype=types_pb2.DT_INT64, tensor_shape={})
    assert scalar.HasField("tensor_shape")
    assert definition.outputs["any"].tensor_shape.unknown_rank


@pytest.mark.parametrize(
    ("fields", "named"),
    [(("graph",), "graph"), (("signature_def", "x"), "x"), ((), "(none)")],
)
def test_other_metadata_is_refused(table: Table, fields: tuple[str, ...], named: str) -> None:
    text = _refusal(table, _METADATA, _metadata_request("adder", *fields), InvalidArgumentError)
    assert text == f"Metadata field {named} is not supported"


def test_metadata_of_an_unknown_model_is_not_found(table: Table) -> None:
    text = _refusal(table, _METADATA, _metadata_request("nobody", "signature_def"), NotFoundError)
    assert text == "Servable not found for request: Specific(nobody, 0)"


def test_metadata_of_a_model_that_is_not_loaded_is_unavailable(table: Table) -> None:
    _refusal(table, _METADATA, _metadata_request("loading", "signature_def"), UnavailableError)


# ---- GetModelStatus


def _statuses(table: Table, model: str, version: int | None = None) -> list[tuple[int, int, int, str]]:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    response = get_model_status_pb2.GetModelStatusResponse.FromString(
        run(unary(table, _STATUS, request.SerializeToString()))
    )
    assert all(status.HasField("status") for status in response.model_version_status)
    return [
        (status.version, status.state, status.status.error_code, status.status.error_message)
        for status in response.model_version_status
    ]


def test_status_without_a_version_lists_all(table: Table) -> None:
    assert _statuses(table, "mixed") == [(1, 50, 0, ""), (2, 30, 0, ""), (3, 10 + 10, 0, "")]


def test_status_of_one_version(table: Table) -> None:
    assert _statuses(table, "mixed", 2) == [(2, 30, 0, "")]


def test_a_failed_load_is_told(table: Table) -> None:
    assert _statuses(table, "loading") == [(1, 20, 2, _FAILED.message)]


def test_status_of_an_unknown_version_is_not_found(table: Table) -> None:
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "adder"
    request.model_spec.version.value = 9
    text = _refusal(table, _STATUS, request.SerializeToString(), NotFoundError)
    assert text == "Servable not found for request: Specific(adder, 9)"


# ---- labels


def test_labels_choose_versions(table: Table, dataplane: FakeDataplane) -> None:
    dataplane.labels = {"adder": {"stable": 3}}
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "adder"
    request.model_spec.version_label = "stable"
    response = get_model_status_pb2.GetModelStatusResponse.FromString(
        run(unary(table, _STATUS, request.SerializeToString()))
    )
    assert [one.version for one in response.model_version_status] == [3]
    request.model_spec.version_label = "canary"
    text = _refusal(table, _STATUS, request.SerializeToString(), NotFoundError)
    assert text == "Unrecognized servable version label: canary"


# ---- HandleReloadConfigRequest


def _reload_request(*models: tuple[str, str]) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for name, base_path in models:
        request.config.model_config_list.config.add(name=name, base_path=base_path)
    return request


def _reload(table: Table, request: Any, deadline_ns: int | None = None) -> tuple[int, str]:
    answer = run(unary(table, _RELOAD, request.SerializeToString(), deadline_ns))
    response = model_management_pb2.ReloadConfigResponse.FromString(answer)
    assert response.HasField("status")
    return response.status.error_code, response.status.error_message


def test_a_configuration_is_taken_over(table: Table, dataplane: FakeDataplane) -> None:
    request = _reload_request(("a", "/models/a"), ("b", "s3://bucket/b"), ("c", "/c"), ("d", "/d"))
    a, b, c, d = request.config.model_config_list.config
    a.model_platform = "tensorflow"
    a.version_labels["stable"] = 3
    b.model_version_policy.all.SetInParent()
    c.model_version_policy.latest.num_versions = 4
    d.model_version_policy.specific.versions.extend([7, 2])
    assert _reload(table, request) == (0, "")
    assert dataplane.configurations == [
        (
            ModelConfig("a", "/models/a", labels={"stable": 3}),
            ModelConfig("b", "s3://bucket/b", version_policy=VersionPolicy("all")),
            ModelConfig("c", "/c", version_policy=VersionPolicy("latest", 4)),
            ModelConfig("d", "/d", version_policy=VersionPolicy("specific", versions=(2, 7))),
        )
    ]


def test_latest_without_a_number_is_one(table: Table, dataplane: FakeDataplane) -> None:
    request = _reload_request(("a", "/a"))
    request.config.model_config_list.config[0].model_version_policy.latest.SetInParent()
    _reload(table, request)
    assert dataplane.configurations == [(ModelConfig("a", "/a"),)]


def test_an_empty_list_is_no_model(table: Table, dataplane: FakeDataplane) -> None:
    assert _reload(table, _reload_request()) == (0, "")
    assert dataplane.configurations == [()]


def test_models_that_cannot_be_loaded_are_named_in_the_answer(table: Table, dataplane: FakeDataplane) -> None:
    dataplane.outcome = Reconfiguration(changed=True, failures=("a: corrupt", "b: no such layer"))
    assert _reload(table, _reload_request(("a", "/a"))) == (2, "a: corrupt; b: no such layer")


def test_a_refused_configuration_is_an_error_of_the_call(table: Table, dataplane: FakeDataplane) -> None:
    dataplane.failure = FailedPreconditionError("not now")
    message = _reload_request(("a", "/a")).SerializeToString()
    assert _refusal(table, _RELOAD, message, FailedPreconditionError) == "not now"


def test_a_configuration_is_awaited_until_the_clients_deadline(
    table: Table, dataplane: FakeDataplane
) -> None:
    deadline = time.monotonic_ns() + 7_000_000_000
    _reload(table, _reload_request(), deadline)
    before = time.monotonic_ns()
    _reload(table, _reload_request())
    assert dataplane.deadlines[0] == deadline
    assert before <= dataplane.deadlines[1] - int(_TIMEOUT_S * 1e9) <= time.monotonic_ns()


def _refused_configurations() -> dict[str, tuple[Any, str]]:
    custom = model_management_pb2.ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    specific, below, label, empty_label = (_reload_request(("a", "/a")) for _ in range(4))
    specific.config.model_config_list.config[0].model_version_policy.specific.SetInParent()
    below.config.model_config_list.config[0].model_version_policy.specific.versions.extend([1, 0])
    label.config.model_config_list.config[0].version_labels["stable"] = 0
    empty_label.config.model_config_list.config[0].version_labels[""] = 1
    return {
        "nothing": (model_management_pb2.ReloadConfigRequest(), "holds no model_config_list"),
        "custom": (custom, "holds no model_config_list"),
        "no name": (_reload_request(("", "/a")), "A model's name: it must not be empty"),
        "no path": (_reload_request(("a", "")), "Model a: base_path: it must not be empty"),
        "relative": (_reload_request(("a", "models/a")), "a local path must be absolute, not 'models/a'"),
        "unknown store": (
            _reload_request(("a", "ftp://host/a")),
            "Model a: base_path: a local path and s3://",
        ),
        "no bucket": (_reload_request(("a", "s3:///a")), "a bucket or container must be named"),
        "NUL": (_reload_request(("a", "/models\0/a")), "Model a: base_path: control characters"),
        "twice": (_reload_request(("a", "/a"), ("b", "/b"), ("a", "/c")), "more than once: ['a']"),
        "no versions": (specific, "Model a: model_version_policy: versions must be a list that is not empty"),
        "version 0": (below, "Model a: model_version_policy: 0 is not a whole number from 1"),
        "label of 0": (label, "Model a: version_labels: 'stable': a whole number from 1"),
        "label without text": (empty_label, "Model a: version_labels: '': it must not be empty"),
    }


@pytest.mark.parametrize(
    ("request_", "text"), _refused_configurations().values(), ids=_refused_configurations()
)
def test_configurations_that_are_refused(
    table: Table, dataplane: FakeDataplane, request_: Any, text: str
) -> None:
    assert text in _refusal(table, _RELOAD, request_.SerializeToString(), InvalidArgumentError)
    assert dataplane.configurations == []


def test_a_configuration_that_is_none_or_too_long_is_refused(table: Table, dataplane: FakeDataplane) -> None:
    _refusal(table, _RELOAD, b"\xff\xff", InvalidArgumentError)
    long = _reload_request(("a", "/" + "a" * MAX_CONFIG_BYTES)).SerializeToString()
    assert str(MAX_CONFIG_BYTES) in _refusal(table, _RELOAD, long, InvalidArgumentError)
    assert dataplane.configurations == []
