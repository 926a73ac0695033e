"""The application over the fake data plane: every row of the table of errors, and the answers that are none."""

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from falcon import testing
from google.protobuf import json_format

from common.config import ServerConfig
from common.dtypes import STORAGE
from common.errors import (
    INTERNAL_TEXT,
    Code,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    WireError,
)
from common.messages import VersionId
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.grpc import tensorflow_protos as protos
from frontends.interface import Reconfiguration, Served
from frontends.rest.app import RestApp, create_app
from frontends.rest.model_json import metadata_document, status_document
from tests.unit.frontends.fake_dataplane import FakeDataplane, FakeVersion, add_one, sum_and_difference

LIMIT = 2000
ROW = b'{"instances": [[1, 2, 3]]}'


def total() -> FakeVersion:
    """A model whose output has no dimension for its rows."""
    signature = Signature((TensorSpec("x", "float32", (-1,)),), (TensorSpec("y", "float32", ()),))
    return FakeVersion(signature, lambda inputs: {"y": inputs["x"].sum()})


@pytest.fixture
def dataplane() -> FakeDataplane:
    one = add_one(shape=(1, 3))
    failed = FakeVersion(
        one.signature, one.compute, VersionState.LOADING, WireError(Code.UNKNOWN, "no such file")
    )
    ended = FakeVersion(one.signature, one.compute, VersionState.END)
    return FakeDataplane(
        {
            "one": {1: one, 2: one, 3: failed, 4: ended},
            "two": {1: sum_and_difference()},
            "loading": {1: failed},
            "a/b:predict": {1: one},
            "scalar": {1: add_one(shape=())},
            "total": {1: total()},
        },
        labels={"one": {"stable": 1, "mended": 3, "a/b": 2}},
    )


@pytest.fixture
def app(dataplane: FakeDataplane) -> RestApp:
    config = ServerConfig(models=(), run_dir="", message_bytes=LIMIT, request_timeout_s=5.0)
    return create_app(dataplane, config)


@pytest.fixture
def client(app: RestApp) -> testing.TestClient:
    return testing.TestClient(app)


def predict(
    client: testing.TestClient, body: bytes | str, path: str = "/v1/models/one:predict"
) -> testing.Result:
    return client.simulate_post(path, body=body)


def error_of(result: testing.Result) -> str:
    assert result.headers["content-type"] == "application/json"
    assert list(result.json) == ["error"]
    return str(result.json["error"])


# ---- predict


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("one:predict", ROW, {"predictions": [[2.0, 3.0, 4.0]]}),
        ("one/versions/1:predict", ROW, {"predictions": [[2.0, 3.0, 4.0]]}),
        (
            "one:predict",
            b'{"inputs": [[1, 2, NaN]]}',
            {"outputs": [[2.0, 3.0, pytest.approx(float("nan"), nan_ok=True)]]},
        ),
        ("a%2Fb%3Apredict:predict", ROW, {"predictions": [[2.0, 3.0, 4.0]]}),
        ("scalar:predict", b'{"inputs": 1}', {"outputs": 2.0}),
        (
            "two:predict",
            b'{"instances": [{"a": [1, 2], "b": [3, 4]}, {"a": [5, 6], "b": [7, 8]}]}',
            {
                "predictions": [
                    {"sum": [4.0, 6.0], "difference": [-2.0, -2.0]},
                    {"sum": [12.0, 14.0], "difference": [-2.0, -2.0]},
                ]
            },
        ),
        (
            "two:predict",
            b'{"inputs": {"a": [[1, 2]], "b": [[3, 4]]}}',
            {"outputs": {"sum": [[4.0, 6.0]], "difference": [[-2.0, -2.0]]}},
        ),
    ],
)
def test_predict(
    client: testing.TestClient, dataplane: FakeDataplane, path: str, body: bytes, answer: Any
) -> None:
    for content_type in ("application/json", "application/x-www-form-urlencoded", "nonsense"):
        result = client.simulate_post(f"/v1/models/{path}", body=body, headers={"Content-Type": content_type})
        assert (result.status_code, result.headers["content-type"]) == (200, "application/json")
        assert result.json == answer
    assert [prediction.released for prediction in dataplane.predictions] == [1, 1, 1]


def test_predictions_are_released_when_the_answer_cannot_be_written(
    client: testing.TestClient, dataplane: FakeDataplane
) -> None:
    result = predict(client, b'{"instances": [1, 2]}', "/v1/models/total:predict")
    assert (result.status_code, "columnar" in error_of(result)) == (400, True)
    assert predict(client, b'{"inputs": [1, 2]}', "/v1/models/total:predict").json == {"outputs": 3.0}
    assert [prediction.released for prediction in dataplane.predictions] == [1, 1]


def test_the_deadline_counts_from_arrival(client: testing.TestClient, dataplane: FakeDataplane) -> None:
    before = time.monotonic_ns()
    predict(client, ROW)
    after = time.monotonic_ns()
    assert before + 5_000_000_000 <= dataplane.deadlines[0] <= after + 5_000_000_000


# ---- errors


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("name", "version", "text"),
    [
        ("none", None, "none, 0"),
        ("none", "3", "none, 3"),
        ("one", "9", "one, 9"),
        ("none", "0", "none, 0"),
        ("one", "x1", "one, x1"),
        ("one", "-1", "one, -1"),
        ("one", "1.0", "one, 1.0"),
        ("one", "%D9%A1", "one, \u0661"),
        ("one", "9" * 300, f"one, {'9' * 300}"),
        ("na%20me", None, "na me, 0"),
        ("%22%0A", None, '"\n, 0'),
    ],
)
def test_unknown_servable(
    client: testing.TestClient, method: str, name: str, version: str | None, text: str
) -> None:
    path = f"/v1/models/{name}" + (f"/versions/{version}" if version else "")
    for end in [":predict"] if method == "POST" else ["", "/metadata"]:
        result = client.simulate_request(method, path + end, body=ROW if method == "POST" else None)
        assert result.status_code == 404
        assert error_of(result) == f"Servable not found for request: Specific({text})"


def test_version_0_is_none_in_particular(client: testing.TestClient) -> None:
    path = "/v1/models/one"
    for end in ("", "/metadata"):
        assert client.simulate_get(f"{path}/versions/0{end}").json == client.simulate_get(path + end).json
    assert client.simulate_post(f"{path}/versions/0:predict", body=ROW).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"{", b"[1]", b"null", b"\xff\xfe", b'{"inputs":' + b"[" * 1900]
)
def test_invalid_json(client: testing.TestClient, body: bytes) -> None:
    result = predict(client, body)
    assert result.status_code == 400
    assert error_of(result).startswith("Invalid JSON: ")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"instances": [[1, 2, 3]], "inputs": [[1, 2, 3]]}',
        b'{"instances": []}',
        b'{"instances": {}}',
        b'{"inputs": []}',
        b'{"instances": [[1, 2], [3]]}',
        b'{"instances": ["a"]}',
        b'{"instances": [{"b64": "AAAA"}]}',
        b'{"inputs": null}',
    ],
)
def test_invalid_inputs(client: testing.TestClient, body: bytes) -> None:
    result = predict(client, body)
    assert result.status_code == 400
    assert error_of(result).startswith("Invalid inputs in request body: ")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            '{"inputs": {"x": [[1, 2, 3]]}}',
            "input tensor alias not found in signature: ['x']. Inputs expected to be in the set {['data']}.",
        ),
        (
            '{"inputs": {"\u00e9": [[1]]}}',
            "input tensor alias not found in signature: ['\u00e9']. Inputs expected to be in the set {['data']}.",
        ),
        ('{"inputs": [[1, 2]]}', "The input data is incorrect. Obtained shape [1, 2], required shape [1, 3]"),
        (
            '{"inputs": [[1, 2, 3]], "signature_name": "other"}',
            "Serving signature key 'other' not found. Signatures expected to be in the set {['serving_default']}.",
        ),
    ],
)
def test_the_data_planes_refusals_keep_their_text(client: testing.TestClient, body: str, text: str) -> None:
    result = predict(client, body.encode())
    assert (result.status_code, error_of(result)) == (400, text)


def test_a_name_that_is_no_unicode_is_answered(client: testing.TestClient) -> None:
    result = predict(client, rb'{"inputs": {"\ud800": [[1]]}}')
    assert result.status_code == 400
    assert "d800" in error_of(result)


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (InvalidArgumentError("why"), 400),
        (ResourceExhaustedError("why"), 503),
        (UnavailableError("why"), 503),
        (DeadlineExceededError("why"), 504),
        (InternalError("why"), 500),
    ],
)
def test_codes(
    client: testing.TestClient, dataplane: FakeDataplane, failure: ServingError, status: int
) -> None:
    dataplane.failure = failure
    result = predict(client, ROW)
    assert (result.status_code, error_of(result)) == (status, "why")
    assert ("retry-after" in result.headers) == isinstance(failure, ResourceExhaustedError)


def test_an_unknown_exception_is_a_constant_text_and_a_line_in_the_log(
    client: testing.TestClient, dataplane: FakeDataplane, caplog: pytest.LogCaptureFixture
) -> None:
    dataplane.failure = RuntimeError("an internal")
    with caplog.at_level(logging.ERROR, "frontends.rest"):
        result = predict(client, ROW)
    assert (result.status_code, error_of(result)) == (500, INTERNAL_TEXT)
    assert "an internal" in caplog.text
    assert predict(client, b"").status_code == 400


def test_a_version_that_is_loading_is_unavailable(client: testing.TestClient) -> None:
    for result in (
        predict(client, ROW, "/v1/models/loading:predict"),
        client.simulate_get("/v1/models/loading/metadata"),
    ):
        assert result.status_code == 503
        assert "LOADING" in error_of(result)


@pytest.mark.parametrize(
    "path", ["/", "/v1/models", "/v1/configs", "/v1/config/x", "/v1/models/one/", "/v1/models/one/x"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE"])
def test_unknown_paths(client: testing.TestClient, path: str, method: str) -> None:
    result = client.simulate_request(method, path, body=ROW if method == "POST" else None)
    assert result.status_code == 404
    if method != "HEAD":
        assert path in error_of(result)


@pytest.mark.parametrize(
    ("path", "wrong", "allowed"),
    [
        ("/v1/models/one", "POST", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/models/one/metadata", "PUT", {"GET", "HEAD", "OPTIONS"}),
        ("/v1/models/one:predict", "GET", {"POST", "OPTIONS"}),
        ("/v1/models/one:predict", "HEAD", {"POST", "OPTIONS"}),
        ("/v1/models/one:classify", "GET", {"POST", "OPTIONS"}),
    ],
)
def test_methods(client: testing.TestClient, path: str, wrong: str, allowed: set[str]) -> None:
    result = client.simulate_request(wrong, path)
    assert result.status_code == 405
    assert set(re.split(", *", result.headers["allow"])) == allowed
    if wrong != "HEAD":
        assert wrong in error_of(result)
    options = client.simulate_options(path)
    assert options.status_code == 200
    assert set(re.split(", *", options.headers["allow"])) == allowed - {"OPTIONS"}


def test_head_is_get_without_the_body(client: testing.TestClient) -> None:
    for path in ("/v1/models/one", "/v1/models/one/metadata"):
        got, head = client.simulate_get(path), client.simulate_head(path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["content-length"] == str(len(got.content))


# ---- the body, event by event


def scope(**headers: str) -> dict[str, Any]:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    made: dict[str, Any] = testing.create_scope(path="/v1/models/one:predict", method="POST")
    return {**made, "raw_path": b"/v1/models/one:predict", "headers": raw}


class Exchange:
    """One request by hand: events that the server would give, and what the application sends."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self.events: Iterator[dict[str, Any]] = iter(events)
        self.taken = 0
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        event = next(self.events, None)
        if event is None:
            await asyncio.Event().wait()
            raise AssertionError("nothing ends this wait but a cancellation")
        self.taken += 1
        return event

    async def send(self, event: dict[str, Any]) -> None:
        self.sent.append({**event, "taken": self.taken})

    @property
    def answer(self) -> tuple[int, Any, dict[bytes, bytes]]:
        return self.sent[0]["status"], json.loads(self.sent[1]["body"]), dict(self.sent[0]["headers"])


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_pieces(app: RestApp) -> None:
    exchange = Exchange(piece(ROW[:5]), piece(b""), piece(ROW[5:]), piece(b"", more=False))
    asyncio.run(app(scope(transfer_encoding="chunked"), exchange.receive, exchange.send))
    assert exchange.answer[:2] == (200, {"predictions": [[2.0, 3.0, 4.0]]})


def test_a_body_that_is_declared_too_long_is_refused_unread_and_then_dropped(app: RestApp) -> None:
    exchange = Exchange(piece(b"x" * 1500), piece(b"x" * 1500, more=False))
    asyncio.run(app(scope(content_length="3000"), exchange.receive, exchange.send))
    status, document, headers = exchange.answer
    assert (status, headers[b"connection"]) == (413, b"close")
    assert str(LIMIT) in document["error"]
    assert exchange.sent[0]["taken"] == 0
    assert exchange.taken == 2


def test_a_client_that_waits_for_continue_is_not_told_to_send_too_much(app: RestApp) -> None:
    exchange = Exchange()
    asyncio.run(app(scope(content_length="3000", expect="100-continue"), exchange.receive, exchange.send))
    assert exchange.answer[0] == 413


def test_a_body_without_a_length_is_read_up_to_the_limit(app: RestApp) -> None:
    exchange = Exchange(*[piece(b"x" * 600) for _ in range(10)], piece(b"", more=False))
    asyncio.run(app(scope(transfer_encoding="chunked"), exchange.receive, exchange.send))
    assert exchange.answer[0] == 413
    assert exchange.sent[0]["taken"] == 4


def test_an_unread_body_closes_the_connection_whatever_the_error(app: RestApp) -> None:
    exchange = Exchange(piece(ROW, more=False))
    wrong = {**scope(content_length=str(len(ROW))), "raw_path": b"/v1/models/none:predict"}
    wrong["method"] = "PUT"
    asyncio.run(app(wrong, exchange.receive, exchange.send))
    assert exchange.answer[0] == 405
    assert exchange.answer[2][b"connection"] == b"close"
    assert exchange.taken == 1


def test_a_body_that_stops_coming(dataplane: FakeDataplane) -> None:
    app = create_app(dataplane, ServerConfig(models=(), run_dir="", request_timeout_s=0.05))
    exchange = Exchange(piece(b"{"))
    body = scope(content_length="30")
    asyncio.run(asyncio.wait_for(_answer_of(app, body, exchange), 5))
    assert exchange.answer[0] == 504


async def _answer_of(app: RestApp, made: dict[str, Any], exchange: Exchange) -> None:
    task = asyncio.ensure_future(app(made, exchange.receive, exchange.send))
    while len(exchange.sent) < 2:
        await asyncio.wait({task}, timeout=0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_client_that_has_gone_in_the_middle_of_its_body(app: RestApp, dataplane: FakeDataplane) -> None:
    exchange = Exchange(piece(b"{"), {"type": "http.disconnect"})
    asyncio.run(app(scope(content_length="30"), exchange.receive, exchange.send))
    assert exchange.answer[0] == 408
    assert not dataplane.deadlines


def test_a_cancelled_request_cancels_its_predict(app: RestApp, dataplane: FakeDataplane) -> None:
    async def run() -> None:
        dataplane.gate = asyncio.Event()
        exchange = Exchange(piece(ROW, more=False))
        task = asyncio.ensure_future(
            app(scope(content_length=str(len(ROW))), exchange.receive, exchange.send)
        )
        while not dataplane.waiting:
            await asyncio.wait({task}, timeout=0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(asyncio.wait_for(run(), 5))
    assert (dataplane.waiting, dataplane.cancelled) == (0, 1)


def test_the_deadline_ends_a_predict(dataplane: FakeDataplane) -> None:
    async def run() -> Exchange:
        dataplane.gate = asyncio.Event()
        app = create_app(dataplane, ServerConfig(models=(), run_dir="", request_timeout_s=0.05))
        exchange = Exchange(piece(ROW, more=False))
        await app(scope(content_length=str(len(ROW))), exchange.receive, exchange.send)
        return exchange

    assert asyncio.run(asyncio.wait_for(run(), 5)).answer[0] == 504


def test_websockets_are_refused(app: RestApp) -> None:
    exchange = Exchange({"type": "websocket.connect"})
    asyncio.run(app({"type": "websocket"}, exchange.receive, exchange.send))
    assert exchange.sent[0]["type"] == "websocket.close"


# ---- status and metadata, held against protobuf's own JSON


def test_status(client: testing.TestClient) -> None:
    ok = {"error_code": "OK", "error_message": ""}
    versions = client.simulate_get("/v1/models/one").json["model_version_status"]
    assert versions == [
        {"version": "1", "state": "AVAILABLE", "status": ok},
        {"version": "2", "state": "AVAILABLE", "status": ok},
        {
            "version": "3",
            "state": "LOADING",
            "status": {"error_code": "UNKNOWN", "error_message": "no such file"},
        },
        {"version": "4", "state": "END", "status": ok},
    ]
    for path in ("/v1/models/one/versions/2", "/v1/models/one/versions/002"):
        assert client.simulate_get(path).json == {"model_version_status": [versions[1]]}


def test_status_is_protobufs(dataplane: FakeDataplane) -> None:
    versions = dataplane.models["one"]
    document = status_document([version.status(number) for number, version in versions.items()])
    response = protos.get_model_status_pb2.GetModelStatusResponse()
    json_format.ParseDict(document, response)
    assert document == json_format.MessageToDict(
        response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def test_metadata_is_protobufs() -> None:
    inputs = [TensorSpec(f"in_{dtype}", dtype, (-1, 3)) for dtype in STORAGE]
    signature = Signature(
        (*inputs, TensorSpec("any", "float32", (), unranked=True)), (TensorSpec("y", "bool", ()),)
    )
    document = metadata_document(Served(VersionId("m", 7), 1, signature))
    response = protos.get_model_metadata_pb2.GetModelMetadataResponse()
    json_format.ParseDict(document, response)
    printed = json_format.MessageToDict(response, always_print_fields_with_no_presence=True)
    printed["metadata"]["signature_def"]["signatureDef"]["serving_default"].pop("defaults", None)
    assert printed == document


def test_metadata(client: testing.TestClient) -> None:
    document = client.simulate_get("/v1/models/one/metadata").json
    assert document["modelSpec"] == {"name": "one", "signatureName": "", "version": "2"}
    assert client.simulate_get("/v1/models/one/versions/1/metadata").json["modelSpec"]["version"] == "1"


# ---- labels


def test_labels_choose_versions(client: testing.TestClient) -> None:
    for label, version in (("stable", "1"), ("a%2Fb", "2")):
        document = client.simulate_get(f"/v1/models/one/labels/{label}").json
        assert [one["version"] for one in document["model_version_status"]] == [version]
        document = client.simulate_get(f"/v1/models/one/labels/{label}/metadata").json
        assert document["modelSpec"]["version"] == version
        answer = predict(client, ROW, f"/v1/models/one/labels/{label}:predict")
        assert (answer.status_code, answer.json) == (200, {"predictions": [[2.0, 3.0, 4.0]]})


def test_labels_that_are_not_there_or_not_ready(client: testing.TestClient) -> None:
    for path in ("/v1/models/one/labels/x", "/v1/models/one/labels/x/metadata"):
        refused = client.simulate_get(path)
        assert refused.status_code == 404
        assert error_of(refused) == "Unrecognized servable version label: x"
    assert predict(client, ROW, "/v1/models/one/labels/x:predict").status_code == 404
    assert predict(client, ROW, "/v1/models/one/labels/mended:predict").status_code == 503


# ---- the configuration


def test_the_configuration_is_every_models_status(client: testing.TestClient) -> None:
    result = client.simulate_get("/v1/config")
    assert (result.status_code, result.headers["content-type"]) == (200, "application/json")
    assert list(result.json) == ["one", "two", "loading", "a/b:predict", "scalar", "total"]
    for name in ("one", "loading"):
        assert result.json[name] == client.simulate_get(f"/v1/models/{name}").json
    assert client.simulate_head("/v1/config").status_code == 200


def test_a_configuration_without_models(app: RestApp, dataplane: FakeDataplane) -> None:
    dataplane.models = {"waiting": {}}
    assert testing.TestClient(app).simulate_get("/v1/config").json == {
        "waiting": {"model_version_status": []}
    }
    dataplane.models = {}
    assert testing.TestClient(app).simulate_get("/v1/config").json == {}


@pytest.mark.parametrize("body", ["", "{}", "what is this"])
@pytest.mark.parametrize(("changed", "status"), [(True, 201), (False, 200)])
def test_reload(
    client: testing.TestClient, dataplane: FakeDataplane, changed: bool, status: int, body: str
) -> None:
    dataplane.outcome = Reconfiguration(changed, ("two: corrupt",))
    before = time.monotonic_ns()
    result = client.simulate_post("/v1/config/reload", body=body)
    assert (result.status_code, result.json) == (status, client.simulate_get("/v1/config").json)
    assert dataplane.configurations == [None]
    assert before + 5e9 <= dataplane.deadlines[0] <= time.monotonic_ns() + 5e9


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (FailedPreconditionError("no configuration file is watched"), 400),
        (InvalidArgumentError("config.json: unknown key"), 400),
        (UnavailableError("ask again"), 503),
        (DeadlineExceededError("loading goes on"), 504),
        (ResourceExhaustedError("16"), 503),
    ],
)
def test_a_reload_that_fails(
    client: testing.TestClient, dataplane: FakeDataplane, failure: ServingError, status: int
) -> None:
    dataplane.failure = failure
    result = client.simulate_post("/v1/config/reload")
    assert result.status_code == status
    assert error_of(result) == failure.message


def test_wrong_methods_for_the_configuration(client: testing.TestClient) -> None:
    for method, path, allowed in (("POST", "/v1/config", "GET"), ("GET", "/v1/config/reload", "POST")):
        result = client.simulate_request(method, path)
        assert result.status_code == 405
        assert allowed in result.headers["allow"]
        error_of(result)
