"""The gRPC rim over a real socket: real stubs, a real server on uvloop, a dataplane in memory.

The server runs in a thread with a loop of its own; clients are grpcio's synchronous ones, and
a bare socket where a client must misbehave in ways that grpcio cannot.
"""

import asyncio
import functools
import importlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import grpc
import hpack
import numpy as np
import pytest
import uvloop
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from common.errors import INTERNAL_TEXT, ResourceExhaustedError, UnavailableError
from frontends.grpc.calls import Table
from frontends.grpc.health import Health
from frontends.grpc.listening import Listening
from frontends.grpc.methods import make_health, method_table
from frontends.grpc.tensorflow_protos import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from frontends.grpc.wire import DATA_TYPES, shape_proto
from tests.support.server import TRANSPORTS
from tests.unit.frontends.fake_dataplane import FakeDataplane, add_one

pytestmark = pytest.mark.integration

_PREDICT = "/tensorflow.serving.PredictionService/Predict"
_MESSAGE_BYTES = 1 << 20
_TIMEOUT_S = 20
_ROOT = Path(__file__).parents[2]

Result = TypeVar("Result")


class Server:
    """A transport over a fake dataplane, in a thread."""

    def __init__(self, transport: str) -> None:
        self.make = functools.partial(_make, transport)
        self.dataplane = FakeDataplane(
            {"adder": {1: add_one(shape=(-1, -1))}, "small": {1: add_one(), 2: add_one()}}
        )
        self.port = 0
        self.health: Health
        self.transport: Any
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=uvloop.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        self._ready.result(_TIMEOUT_S)

    async def _serve(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            self.health = make_health(self.dataplane)
            table = method_table(self.dataplane, self.health, request_timeout_s=60)
            self.transport = self.make(table, 0)
            self.port = await self.transport.start()
        except BaseException as error:
            self._ready.set_exception(error)
            raise
        self._ready.set_result(None)
        await self._stop.wait()
        self.health.shut_down()
        await self.transport.stop(0)

    def run(self, function: Callable[[], Result]) -> Result:
        """Call in the server's loop."""

        async def call() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(_TIMEOUT_S)

    def await_(self, function: Callable[[], Awaitable[Result]]) -> "Future[Result]":
        """Start in the server's loop."""

        async def call() -> Result:
            return await function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop)

    def hold_requests(self) -> None:
        """From now on requests wait until `let_go`."""
        self.dataplane.gate = self.run(asyncio.Event)

    def let_go(self) -> None:
        """The waiting requests go on."""
        assert self.dataplane.gate is not None
        self.run(self.dataplane.gate.set)

    def close(self) -> None:
        """End the server and its thread."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_TIMEOUT_S)
        assert not self._thread.is_alive()


def _make(transport: str, table: Table, port: int) -> Any:
    module = importlib.import_module(f"frontends.grpc.{transport}_transport")
    return getattr(module, f"{transport.capitalize()}Transport")(
        table, Listening("127.0.0.1", port), _MESSAGE_BYTES
    )


@pytest.fixture(params=TRANSPORTS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server on a free port, by each transport."""
    running = Server(request.param)
    yield running
    running.close()


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    """A client's connection to it."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as opened:
        yield opened


@pytest.fixture
def prediction(channel: grpc.Channel) -> Any:
    """The stub of the prediction service."""
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _request(array: np.ndarray, model: str = "adder") -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["data"]
    tensor.dtype = DATA_TYPES[str(array.dtype)]
    tensor.tensor_shape.CopyFrom(shape_proto(array.shape))
    tensor.tensor_content = array.tobytes()
    return request


_SMALL = np.ones((2, 3), np.float32)


def _refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def _until(condition: Callable[[], object]) -> None:
    """Poll: what a client does reaches the server when it does."""
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


# ---- calls


def test_predict(prediction: Any) -> None:
    response = prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S)
    assert response.model_spec.version.value == 1
    assert np.frombuffer(response.outputs["sum"].tensor_content, np.float32).tolist() == [2] * 6


def test_predict_of_a_large_tensor(prediction: Any, server: Server) -> None:
    array = np.arange(250_000, dtype=np.float32).reshape(500, 500)
    response = prediction.Predict(_request(array), timeout=_TIMEOUT_S)
    assert response.outputs["sum"].tensor_content == (array + 1).tobytes()
    assert [answer.released for answer in server.dataplane.predictions] == [1]


def test_an_answer_may_be_longer_than_a_request_may(prediction: Any) -> None:
    request = _request(_SMALL)
    tensor = request.inputs["data"]
    tensor.ClearField("tensor_content")
    tensor.float_val.append(1)
    tensor.tensor_shape.CopyFrom(shape_proto((1024, 1024)))
    response = prediction.Predict(request, timeout=_TIMEOUT_S)
    assert len(response.outputs["sum"].tensor_content) == 4 * _MESSAGE_BYTES


def test_many_calls_at_once_keep_to_their_own_answers(prediction: Any) -> None:
    calls = [
        prediction.Predict.future(_request(np.full((1, 4), index, np.float32)), timeout=_TIMEOUT_S)
        for index in range(200)
    ]
    for index, call in enumerate(calls):
        content = call.result().outputs["sum"].tensor_content
        assert np.frombuffer(content, np.float32).tolist() == [index + 1] * 4


def test_metadata_and_status(prediction: Any, channel: grpc.Channel) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "small"
    assert prediction.GetModelMetadata(request, timeout=_TIMEOUT_S).model_spec.version.value == 2
    model = model_service_pb2_grpc.ModelServiceStub(channel)
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "small"
    response = model.GetModelStatus(status, timeout=_TIMEOUT_S)
    assert [entry.version for entry in response.model_version_status] == [1, 2]


# ---- refusals


def test_refusals_carry_code_and_text(
    prediction: Any, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    code, text = _refusal(lambda: prediction.Predict(_request(_SMALL, "nobody"), timeout=_TIMEOUT_S))
    assert (code, text) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(nobody, 0)",
    )
    for error, expected in (
        (ResourceExhaustedError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (UnavailableError("no worker"), grpc.StatusCode.UNAVAILABLE),
    ):
        server.dataplane.failure = error
        assert _refusal(lambda: prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S)) == (
            expected,
            error.message,
        )
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_an_unexpected_error_is_internal_and_logged(
    prediction: Any, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.dataplane.failure = ZeroDivisionError("secret")
    refused = _refusal(lambda: prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S))
    assert refused == (grpc.StatusCode.INTERNAL, INTERNAL_TEXT)
    assert "ZeroDivisionError: secret" in caplog.text


def test_a_text_of_any_length_and_language_arrives(prediction: Any) -> None:
    for name in ("語" * 20_000, "x" * 100_000, "a\nb\x00c"):
        request = _request(_SMALL, name)
        code, text = _refusal(functools.partial(prediction.Predict, request, timeout=_TIMEOUT_S))
        assert code is grpc.StatusCode.NOT_FOUND
        assert text.startswith(f"Servable not found for request: Specific({name[:5]}")


def test_the_other_calls_are_there(prediction: Any) -> None:
    for call, request in (
        (prediction.Classify, classification_pb2.ClassificationRequest()),
        (prediction.Regress, regression_pb2.RegressionRequest()),
        (prediction.MultiInference, inference_pb2.MultiInferenceRequest()),
    ):
        assert (
            _refusal(functools.partial(call, request, timeout=_TIMEOUT_S))[0]
            is grpc.StatusCode.INVALID_ARGUMENT
        )


def test_unknown_methods(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary("/tensorflow.serving.PredictionService/Guess")
    assert _refusal(lambda: call(b"", timeout=_TIMEOUT_S))[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("message", [b"\xff", b"\x0a\x05ab", b"\x0f" * 1000])
def test_bytes_that_are_no_message(channel: grpc.Channel, message: bytes) -> None:
    call: Any = channel.unary_unary(_PREDICT)
    code, text = _refusal(lambda: call(message, timeout=_TIMEOUT_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("The request is not a tensorflow.serving.PredictRequest")


def test_a_message_that_is_too_long(prediction: Any) -> None:
    array = np.zeros((1, _MESSAGE_BYTES), np.uint8)
    code, _ = _refusal(lambda: prediction.Predict(_request(array), timeout=_TIMEOUT_S))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S).outputs


def test_a_compressed_message_that_is_too_long_unpacked(prediction: Any) -> None:
    """A megabyte of zeros is a kilobyte on the wire; the bound holds for what comes out."""
    array = np.zeros((1, 64 * _MESSAGE_BYTES), np.uint8)
    code, _ = _refusal(
        lambda: prediction.Predict(_request(array), timeout=_TIMEOUT_S, compression=grpc.Compression.Gzip)
    )
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_compressed_message_is_read(prediction: Any) -> None:
    response = prediction.Predict(
        _request(np.zeros((10, 1000), np.float32)), timeout=_TIMEOUT_S, compression=grpc.Compression.Gzip
    )
    assert response.outputs["sum"].tensor_content == np.ones((10, 1000), np.float32).tobytes()


# ---- deadlines and clients that go away


def test_a_clients_deadline_reaches_the_dataplane(prediction: Any, server: Server) -> None:
    before = time.monotonic_ns()
    prediction.Predict(_request(_SMALL), timeout=7)
    assert 6.9e9 < server.dataplane.deadlines[0] - before < 7.2e9


def test_a_deadline_that_passes(prediction: Any, server: Server) -> None:
    server.hold_requests()
    code, _ = _refusal(lambda: prediction.Predict(_request(_SMALL), timeout=0.2))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    _until(lambda: server.dataplane.waiting == 0)


def test_a_client_that_cancels(prediction: Any, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.hold_requests()
    call = prediction.Predict.future(_request(_SMALL), timeout=_TIMEOUT_S)
    _until(lambda: server.dataplane.waiting == 1)
    call.cancel()
    _until(lambda: server.dataplane.cancelled == 1)
    server.let_go()
    assert prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S).outputs
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_client_whose_connection_ends(server: Server) -> None:
    server.hold_requests()
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        call = stub.Predict.future(_request(_SMALL), timeout=_TIMEOUT_S)
        _until(lambda: server.dataplane.waiting == 1)
    assert call.done()
    _until(lambda: server.dataplane.cancelled == 1)


# ---- clients that misbehave


class _RawClient:
    """HTTP/2 by hand: https://www.rfc-editor.org/rfc/rfc9113, without flow control."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self._encoder = hpack.Encoder()
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self._frame(4, 0, 0, b""))

    @staticmethod
    def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def call(self, path: bytes, *more: tuple[bytes, bytes], message: bytes = b"") -> None:
        """Send one complete unary call on stream 1."""
        headers = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path),
            (b":authority", b"here"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *more,
        ]
        body = b"\0" + len(message).to_bytes(4, "big") + message
        self._socket.sendall(self._frame(1, 4, 1, self._encoder.encode(headers)) + self._frame(0, 1, 1, body))

    def received(self) -> bytes:
        """What the server sends until it is silent for a while or hangs up."""
        self._socket.settimeout(0.5)
        received = b""
        try:
            while more := self._socket.recv(65536):
                received += more
        except TimeoutError:
            pass
        return received

    def __enter__(self) -> "_RawClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (b"/\xff\xfe/\x80", []),
        (b"/tensorflow.serving.PredictionService/Predict\xff", []),
        (b"", []),
        (b"no-slash", []),
        (b"/" + b"x" * 5000, []),
        (_PREDICT.encode(), [(b"x-name", b"\xff\xfe")]),
        (_PREDICT.encode(), [(b"x-name-bin", b"!!!not base64!!!")]),
        (_PREDICT.encode(), [(b"x-\xff", b"value")]),
        (_PREDICT.encode(), [(b"grpc-timeout", b"soon")]),
        (_PREDICT.encode(), [(b"grpc-timeout", b"99999999H")]),
        (_PREDICT.encode(), [(b"grpc-encoding", b"rot13")]),
    ],
)
def test_no_header_ends_the_server(
    server: Server, prediction: Any, path: bytes, more: list[tuple[bytes, bytes]]
) -> None:
    server.hold_requests()
    running = prediction.Predict.future(_request(_SMALL), timeout=_TIMEOUT_S)
    _until(lambda: server.dataplane.waiting == 1)
    with _RawClient(server.port) as client:
        client.call(path, *more)
        client.received()
        server.let_go()
        assert running.result().outputs
        assert prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S).outputs


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff"]
)
def test_other_protocols_do_no_harm(server: Server, prediction: Any, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=_TIMEOUT_S) as client:
        client.sendall(sent)
        assert prediction.Predict(_request(_SMALL), timeout=_TIMEOUT_S).outputs


# ---- health


def test_health(server: Server, channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"):
        request = health_pb2.HealthCheckRequest(service=service)
        server.dataplane.ready = True
        assert stub.Check(request, timeout=_TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
        server.dataplane.ready = False
        assert stub.Check(request, timeout=_TIMEOUT_S).status == health_pb2.HealthCheckResponse.NOT_SERVING
    unknown = health_pb2.HealthCheckRequest(service="unknown")
    assert _refusal(lambda: stub.Check(unknown, timeout=_TIMEOUT_S))[0] is grpc.StatusCode.NOT_FOUND


def test_watching_health(server: Server, channel: grpc.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    server.dataplane.ready = False
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    other = health_pb2.HealthCheckRequest(service="unknown")
    watch = health_pb2_grpc.HealthStub(channel).Watch(other, timeout=_TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


# ---- reflection


def test_a_client_can_call_by_reflection_alone(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "tensorflow.serving.PredictionService" in database.get_services()
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("tensorflow.serving.PredictionService")
    method = service.FindMethodByName("Predict")
    assert method.input_type.full_name == "tensorflow.serving.PredictRequest"
    entry = method.input_type.fields_by_name["inputs"].message_type
    assert entry is not None
    assert entry.fields_by_name["value"].message_type is not None
    with pytest.raises(KeyError):
        pool.FindServiceByName("tensorflow.serving.Nothing")


def test_reflection_answers_under_its_newer_name_too(channel: grpc.Channel) -> None:
    call = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = call(iter([question]), timeout=_TIMEOUT_S)
    assert len(answer.list_services_response.service) == 4
    assert reflection_pb2_grpc.ServerReflectionStub(channel)


# ---- the port, and the end


def test_two_servers_share_a_port(server: Server) -> None:
    async def second() -> int:
        table = method_table(server.dataplane, server.health, request_timeout_s=60)
        transport = server.make(table, server.port)
        try:
            return int(await transport.start())
        finally:
            await transport.stop(0)

    assert server.await_(second).result(_TIMEOUT_S) == server.port


def test_a_port_that_is_taken_is_an_error(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        async def start() -> int:
            return int(await server.make({}, port).start())

        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            server.await_(start).result(_TIMEOUT_S)


def test_a_stop_lets_running_calls_finish(server: Server, prediction: Any, channel: grpc.Channel) -> None:
    server.hold_requests()
    call = prediction.Predict.future(_request(_SMALL), timeout=_TIMEOUT_S)
    _until(lambda: server.dataplane.waiting == 1)
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    server.run(server.health.shut_down)
    stopped = server.await_(lambda: server.transport.stop(_TIMEOUT_S))
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert _refusal(lambda: next(watch))[0] is grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as late:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(late)
        assert _refusal(lambda: stub.Predict(_request(_SMALL), timeout=1))[0] in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )
    assert not stopped.done()
    server.let_go()
    assert call.result().outputs
    stopped.result(_TIMEOUT_S)


def test_a_stop_ends_calls_that_take_too_long(server: Server, prediction: Any) -> None:
    server.hold_requests()
    call = prediction.Predict.future(_request(_SMALL), timeout=_TIMEOUT_S)
    _until(lambda: server.dataplane.waiting == 1)
    server.await_(lambda: server.transport.stop(0.1)).result(_TIMEOUT_S)
    assert _refusal(call.result)[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    _until(lambda: server.dataplane.cancelled == 1)


# ---- the messages


_PROBE = """
import sys, time
began = time.process_time()
import frontends.grpc.tensorflow_protos as protos
spent = time.process_time() - began
assert protos.predict_pb2.PredictRequest(output_filter=["x"]).output_filter == ["x"]
assert protos.prediction_service_pb2_grpc.PredictionServiceStub
generated = [name for name in sys.modules if name.startswith("tensorflow.") and name.endswith("_pb2")]
others = [name for name in sys.modules if name.startswith("tensorflow.") and name not in generated]
assert generated
assert all(any(known.startswith(other + ".") for known in generated) for other in others), others
assert spent < 0.5, spent
"""


def test_messages_are_imported_without_tensorflow() -> None:
    """In a process of its own, to see its imports: generated modules and the packages that hold them, nothing else."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _PROBE],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
