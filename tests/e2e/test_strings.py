"""Strings through the whole server with OpenVINO, over gRPC and REST, held against OpenVINO called directly."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from openvino import opset15 as op

from frontends.grpc.tensorflow_protos import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    regression_pb2,
    tensor_pb2,
    types_pb2,
)
from tests.support.clients import (
    TIMEOUT_S,
    GrpcClient,
    RestClient,
    predict_request,
    refusal,
    to_array,
    to_proto,
)
from tests.support.pictures import plain
from tests.support.repositories import ConfigServer
from tests.support.string_models import infer, judge, shout, shouted, strings_of, text, weigh
from tests.unit.workers.models import named, parameter, save

pytestmark = pytest.mark.e2e

SHOWN = [b"plain", b"", b"in\0side", b"\xff\xfe\x80", "schön".encode(), b"x" * 100_000]
"""Strings that OpenVINO's own bindings carry too."""
AWKWARD = [*SHOWN, b"zeros\0\0", b"\0"]


def text_proto(array: np.ndarray) -> Any:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=array.reshape(-1).tolist())
    for length in array.shape:
        proto.tensor_shape.dim.add(size=length)
    return proto


def strings_in(proto: Any) -> np.ndarray:
    assert proto.dtype == types_pb2.DT_STRING
    return strings_of(list(proto.string_val), tuple(dim.size for dim in proto.tensor_shape.dim))


def b64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def json_of(value: bytes) -> Any:
    """As an answer is to show it."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64(value)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("strings")
    shout(base / "shout" / "1")
    shout(base / "raw" / "1", output="y_bytes")
    weigh(base / "weigh" / "1")
    weigh(base / "auto" / "1", (1, 2))
    judge(base / "judge" / "1")
    x = text("x", (4,))
    save(base / "refused" / "1", [op.split(x, op.constant(0), 2).output(1)], [x])
    pixels = parameter("x", "float32", (-1, 3, 2, 2))
    save(base / "picture" / "1", [named(op.add(pixels, op.constant(np.float32(1))), "y")], [pixels])
    return base


@pytest.fixture(scope="module")
def server(base: Path) -> Iterator[ConfigServer]:
    names = [path.name for path in sorted(base.iterdir())]
    entries: dict[str, dict[str, Any]] = {
        name: {"base_path": str(base / name), "target_device": "CPU"} for name in names
    }
    entries["auto"]["batch_size"] = "auto"
    entries["judge"] |= {
        "classification": {"output": "scores", "top_k": 1},
        "regression": {"output": "value"},
    }
    with ConfigServer(base, entries) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: ConfigServer) -> Iterator[GrpcClient]:
    with GrpcClient(server.grpc_port) as client:
        yield client


@pytest.fixture(scope="module")
def web(server: ConfigServer) -> Iterator[RestClient]:
    with RestClient(server.rest_port) as web:
        yield web


def ask(client: GrpcClient, model: str, inputs: Mapping[str, np.ndarray]) -> Any:
    protos = {
        name: text_proto(array) if array.dtype == np.object_ else to_proto(array)
        for name, array in inputs.items()
    }
    return client.stub.Predict(predict_request(protos, model=model), timeout=TIMEOUT_S).outputs


def test_metadata_says_string(client: GrpcClient, web: RestClient) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "weigh"
    found = get_model_metadata_pb2.SignatureDefMap()
    client.stub.GetModelMetadata(request, timeout=TIMEOUT_S).metadata["signature_def"].Unpack(found)
    inputs = found.signature_def["serving_default"].inputs
    assert {name: info.dtype for name, info in inputs.items()} == {
        "x": types_pb2.DT_STRING,
        "n": types_pb2.DT_FLOAT,
    }
    status, document = web.send("GET", "/v1/models/weigh/metadata")
    assert status == 200
    shown = document["metadata"]["signature_def"]["signatureDef"]["serving_default"]
    assert {name: info["dtype"] for name, info in shown["inputs"].items()} == {
        "x": "DT_STRING",
        "n": "DT_FLOAT",
    }
    assert shown["outputs"]["x"]["dtype"] == "DT_STRING"


@pytest.mark.parametrize("values", [SHOWN, SHOWN[:1], SHOWN[::-1]], ids=["all", "one", "reversed"])
def test_grpc_answers_as_openvino_does(base: Path, client: GrpcClient, values: list[bytes]) -> None:
    sent = strings_of(values)
    found = strings_in(ask(client, "shout", {"x": sent})["y"]).tolist()
    assert found == infer(base / "shout" / "1", {"x": sent})["y"] == shouted(values)


def test_grpc_carries_any_bytes(client: GrpcClient) -> None:
    sent = strings_of([bytes([byte]) for byte in range(256)] + AWKWARD)
    assert strings_in(ask(client, "shout", {"x": sent})["y"]).tolist() == shouted(sent.tolist())


@pytest.mark.parametrize("model", ["weigh", "auto"])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_strings_beside_numbers(
    base: Path, client: GrpcClient, web: RestClient, model: str, rows: int
) -> None:
    values = (SHOWN * 2)[: 2 * rows]
    sent = {"x": strings_of(values, (rows, 2)), "n": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)}
    direct = infer(base / "weigh" / "1", sent)
    found = ask(client, model, sent)
    assert to_array(found["total"]).tolist() == direct["total"]
    assert strings_in(found["x"]).tolist() == direct["x"] == sent["x"].tolist()
    columns = {"x": [[json_of(value) for value in row] for row in sent["x"]], "n": sent["n"].tolist()}
    status, answer = web.predict({"inputs": columns}, model=model)
    assert status == 200, answer
    assert answer == {"outputs": {"total": direct["total"], "x": columns["x"]}}
    instances = [{name: column[row] for name, column in columns.items()} for row in range(rows)]
    status, answer = web.predict({"instances": instances}, model=model)
    assert status == 200, answer
    shown = [{"total": total, "x": x} for total, x in zip(direct["total"], columns["x"], strict=True)]
    assert answer == {"predictions": shown}


@pytest.mark.parametrize("values", [AWKWARD, [b"", b"abc"]], ids=["awkward", "texts"])
def test_rest_shows_text_and_else_base64(web: RestClient, values: list[bytes]) -> None:
    shown = [json_of(value) for value in shouted(values)]
    for sent in ([json_of(value) for value in values], [b64(value) for value in values]):
        assert web.predict({"instances": sent}, model="shout") == (200, {"predictions": shown})
        assert web.predict({"inputs": sent}, model="shout") == (200, {"outputs": shown})
        assert web.predict({"inputs": {"x": sent}}, model="raw") == (
            200,
            {"outputs": [b64(value) for value in shouted(values)]},
        )


def test_many_requests_at_a_time_keep_apart(client: GrpcClient) -> None:
    sent = [[b"%d" % number * 50, b"", b"%d" % -number] for number in range(100)]
    calls = [
        client.stub.Predict.future(
            predict_request({"x": text_proto(strings_of(values))}, model="shout"), timeout=TIMEOUT_S
        )
        for values in sent
    ]
    for call, values in zip(calls, sent, strict=True):
        assert strings_in(call.result().outputs["y"]).tolist() == shouted(values)


def _refused(client: GrpcClient, model: str, inputs: Mapping[str, Any]) -> str:
    code, words = refusal(client.stub.Predict, predict_request(inputs, model=model))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    return words


def test_what_does_not_fit_is_refused(client: GrpcClient, web: RestClient) -> None:
    words = _refused(client, "shout", {"x": np.zeros(3, np.float32)})
    assert words == "Input 'x' is of type float32, which cannot be converted to the model's type string"
    status, answer = web.predict({"instances": [1.5, 2.5]}, model="shout")
    assert status == 400
    assert "float64, which cannot be converted to the model's type string" in answer["error"]
    sent = {"x": text_proto(strings_of(SHOWN[:2], (1, 2))), "n": text_proto(strings_of([b"1", b"2"], (1, 2)))}
    assert "'n' takes no strings" in _refused(client, "weigh", sent)
    status, answer = web.predict({"inputs": {"x": [["a", "b"]], "n": [["1", "2"]]}}, model="weigh")
    assert status == 400
    assert "it holds strings" in answer["error"]
    shape = _refused(client, "shout", {"x": text_proto(strings_of(SHOWN[:2], (1, 2)))})
    assert "Obtained shape [1, 2], required shape [-1]" in shape


def test_nothing_is_never_answered_with_what_another_request_was(client: GrpcClient, web: RestClient) -> None:
    for _ in range(3):
        assert strings_in(ask(client, "shout", {"x": strings_of([b"secret"])})["y"]).tolist() == [b"tfdsfu"]
        assert "must have elements" in _refused(client, "shout", {"x": text_proto(strings_of([]))})
        status, answer = web.predict({"inputs": {"x": []}}, model="shout")
        assert status == 400
        assert "must have elements" in answer["error"]


def test_an_image_for_an_input_of_numbers_is_decoded_still(client: GrpcClient, web: RestClient) -> None:
    png = plain(4, 4, (10, 20, 30))
    pixels = [[[[31.0] * 2] * 2, [[21.0] * 2] * 2, [[11.0] * 2] * 2]]
    assert to_array(ask(client, "picture", {"x": strings_of([png])})["y"]).tolist() == pixels
    assert web.predict({"instances": [b64(png)]}, model="picture") == (200, {"predictions": pixels})
    assert strings_in(ask(client, "shout", {"x": strings_of([png])})["y"]).tolist() == shouted([png])


def test_a_model_that_openvino_cannot_run_is_refused_at_load(client: GrpcClient) -> None:
    state, _, words = client.states("refused")[1]
    assert state == "LOADING"
    assert "operation Split on strings" in words


# ---- examples


def _with_examples(request: Any, values: Sequence[bytes]) -> Any:
    for value in values:
        example = request.input.example_list.examples.add()
        example.features.feature["x"].bytes_list.value.append(value)
    return request


def test_examples_over_grpc(base: Path, client: GrpcClient) -> None:
    direct = infer(base / "judge" / "1", {"x": strings_of(SHOWN, (len(SHOWN), 1))})
    lengths = [row[0] for row in direct["value"]]
    assert lengths == [len(value) for value in SHOWN]
    request = _with_examples(classification_pb2.ClassificationRequest(), SHOWN)
    request.model_spec.name = "judge"
    classified = client.stub.Classify(request, timeout=TIMEOUT_S).result.classifications
    assert [(one.classes[0].label, one.classes[0].score) for one in classified] == [
        ("0", size) for size in lengths
    ]
    request = _with_examples(regression_pb2.RegressionRequest(), SHOWN)
    request.model_spec.name = "judge"
    regressed = client.stub.Regress(request, timeout=TIMEOUT_S).result.regressions
    assert [one.value for one in regressed] == lengths
    both = _with_examples(inference_pb2.MultiInferenceRequest(), SHOWN)
    for method, signature in (("classify", "classification"), ("regress", "regression")):
        task = both.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = "judge", signature
    results = client.stub.MultiInference(both, timeout=TIMEOUT_S).results
    assert [one.value for one in results[1].regression_result.regressions] == lengths
    assert list(results[0].classification_result.classifications) == list(classified)


def test_examples_over_rest(web: RestClient) -> None:
    examples = [{"x": json_of(value)} for value in SHOWN]
    body = json.dumps({"examples": examples}).encode()
    status, answer = web.send("POST", "/v1/models/judge:regress", body)
    assert (status, answer) == (200, {"results": [len(value) for value in SHOWN]})
    status, answer = web.send("POST", "/v1/models/judge:classify", body)
    assert (status, answer) == (200, {"results": [[["0", len(value)]] for value in SHOWN]})


def test_strings_are_no_scores(client: GrpcClient, web: RestClient) -> None:
    request = _with_examples(classification_pb2.ClassificationRequest(), [b"a"])
    request.model_spec.name = "shout"
    code, words = refusal(client.stub.Classify, request)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "output 'y' is of type string" in words
    status, answer = web.send("POST", "/v1/models/shout:regress", b'{"examples": [{"x": "a"}]}')
    assert status == 400
    assert "output 'y' is of type string" in answer["error"]
