"""Whatever clients send: each refusal with its code and text, over both APIs, and the server serves on unharmed."""

import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from frontends.grpc.tensorflow_protos import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    tensor_pb2,
    types_pb2,
)
from tests.support import models
from tests.support.clients import GrpcClient, RestClient, predict_request, refusal, to_proto
from tests.support.server import HOST, NAME, Server

pytestmark = pytest.mark.integration

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
MB = 1 << 20
PREDICT = f"/v1/models/{NAME}:predict"
GOOD = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An echo of three rows of four; messages of 4 MB at most. The same processes serve to the end."""
    directory = tmp_path_factory.mktemp("bad")
    path = models.echo(directory / "models", shape=(3, 4))
    with Server(directory, path, max_message_mb=4) as started:
        family = {(one.pid, one.kind) for one in started.processes()}
        yield started
        assert {(one.pid, one.kind) for one in started.processes()} == family
        assert "Traceback" not in started.log()


@pytest.fixture
def client(server: Server) -> Iterator[GrpcClient]:
    """After each test the same connection must still serve."""
    with GrpcClient(server.grpc_port) as opened:
        yield opened
        assert np.array_equal(opened.predict({"x": GOOD})["y"], GOOD)
    server.wait_idle()


@pytest.fixture
def web(server: Server) -> Iterator[RestClient]:
    """Likewise."""
    with RestClient(server.rest_port) as opened:
        yield opened
        assert opened.predict({"inputs": GOOD.tolist()}) == (200, {"outputs": GOOD.tolist()})
    server.wait_idle()


# ---- gRPC


def _proto(shape: tuple[int, ...], content: bytes = b"", dtype: int = types_pb2.DT_FLOAT) -> Any:
    proto = tensor_pb2.TensorProto(dtype=dtype, tensor_content=content)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


GRPC_CASES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown input": (
        {"z": GOOD},
        "input tensor alias not found in signature: ['z']. Inputs expected to be in the set {['x']}.",
    ),
    "one input too many": (
        {"x": GOOD, "z": GOOD},
        "input tensor alias not found in signature: ['z']. Inputs expected to be in the set {['x']}.",
    ),
    "no input": ({}, "Missing inputs: ['x']. Inputs expected to be in the set {['x']}."),
    "batch": ({"x": GOOD[:2]}, "Input batch size is incorrect. Obtained batch size 2, required batch size 3"),
    "shape": ({"x": GOOD.T}, "The input data is incorrect. Obtained shape [4, 3], required shape [3, 4]"),
    "rank": ({"x": GOOD[0]}, "The input data is incorrect. Obtained shape [4], required shape [3, 4]"),
    "too little content": ({"x": _proto((3, 4), b"\0" * 47)}, ""),
    "too much content": ({"x": _proto((3, 4), b"\0" * 49)}, ""),
    "no content": ({"x": _proto((3, 4))}, ""),
    "negative dimension": ({"x": _proto((-1, 4), b"\0" * 48)}, ""),
    "overflowing shape": ({"x": _proto((1 << 62, 1 << 62), b"\0" * 48)}, ""),
    "huge claim": ({"x": _proto((1 << 40, 4), b"\0" * 48)}, ""),
    "string": (
        {"x": tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[b"a"])},
        "takes no strings",
    ),
    "no type": ({"x": _proto((3, 4), b"\0" * 48, types_pb2.DT_INVALID)}, ""),
    "complex": ({"x": _proto((3, 4), b"\0" * 96, types_pb2.DT_COMPLEX64)}, "DT_COMPLEX64"),
    "unheard-of type": ({"x": _proto((3, 4), b"\0" * 48, 99)}, "99"),
}


@pytest.mark.parametrize("case", GRPC_CASES)
def test_wrong_tensors_over_grpc(client: GrpcClient, case: str) -> None:
    inputs, text = GRPC_CASES[case]
    code, found = client.refusal(inputs)
    assert code is INVALID
    assert found
    assert found == text if text.endswith((".", "]", "3")) else text in found


@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nobody", 0, "Servable not found for request: Specific(nobody, 0)"),
        ("nobody", 7, "Servable not found for request: Specific(nobody, 7)"),
        (NAME, 7, f"Servable not found for request: Specific({NAME}, 7)"),
        ("", 0, "Servable not found for request: Specific(, 0)"),
    ],
)
def test_who_is_not_there(client: GrpcClient, web: RestClient, model: str, version: int, text: str) -> None:
    assert refusal(client.stub.Predict, predict_request({"x": GOOD}, version, model)) == (NOT_FOUND, text)
    status = get_model_status_pb2.GetModelStatusRequest()
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    for request in (status, metadata):
        request.model_spec.name = model
        if version:
            request.model_spec.version.value = version
    assert refusal(client.models.GetModelStatus, status) == (NOT_FOUND, text)
    assert refusal(client.stub.GetModelMetadata, metadata) == (NOT_FOUND, text)
    if model:
        path = f"/v1/models/{model}" + (f"/versions/{version}" if version else "")
        assert web.predict({"inputs": GOOD.tolist()}, version, model) == (404, {"error": text})
        assert web.send("GET", path) == (404, {"error": text})
        assert web.send("GET", f"{path}/metadata") == (404, {"error": text})


def test_names_in_a_grpc_request(client: GrpcClient) -> None:
    request = predict_request({"x": GOOD})
    request.output_filter.append("w")
    code, text = refusal(client.stub.Predict, request)
    assert code is INVALID
    assert "'w'" in text
    assert "'y'" in text
    request = predict_request({"x": GOOD})
    request.model_spec.signature_name = "other"
    code, text = refusal(client.stub.Predict, request)
    assert code is INVALID
    assert "other" in text
    assert "serving_default" in text
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["weights"])
    metadata.model_spec.name = NAME
    assert refusal(client.stub.GetModelMetadata, metadata) == (
        INVALID,
        "Metadata field weights is not supported",
    )


def test_no_protobuf(client: GrpcClient) -> None:
    for path in (
        "tensorflow.serving.PredictionService/Predict",
        "tensorflow.serving.PredictionService/GetModelMetadata",
        "tensorflow.serving.ModelService/GetModelStatus",
    ):
        call: Any = client.channel.unary_unary(f"/{path}")
        assert refusal(call, b"\xff\xfe\xfd no message")[0] is INVALID
    call = client.channel.unary_unary("/tensorflow.serving.PredictionService/Nothing")
    assert refusal(call, b"")[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_limit(client: GrpcClient) -> None:
    request = predict_request({"x": to_proto(np.zeros((1, 2 * MB), np.float32))})
    code, text = refusal(client.stub.Predict, request)
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(4 * MB) in text


def test_many_values_for_a_small_shape(client: GrpcClient) -> None:
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[1.0] * 13)
    for size in (3, 4):
        proto.tensor_shape.dim.add(size=size)
    assert client.refusal({"x": proto})[0] is INVALID
    del proto.float_val[1:]
    assert np.array_equal(client.predict({"x": proto})["y"], np.ones((3, 4)))


def test_a_message_that_nests_deeply(client: GrpcClient) -> None:
    # VariantTensorDataProto holds TensorProtos, which hold VariantTensorDataProtos.
    proto = tensor_pb2.TensorProto(dtype=types_pb2.DT_VARIANT)
    for _ in range(20):
        outer = tensor_pb2.TensorProto(dtype=types_pb2.DT_VARIANT)
        outer.variant_val.add().tensors.add().CopyFrom(proto)
        proto = outer
    assert client.refusal({"x": proto})[0] is INVALID
    level = b""
    for _ in range(5000):
        level = b"\x7a" + _varint(len(level)) + level
    call: Any = client.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refusal(call, level)[0] in (INVALID, NOT_FOUND)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\0" * 4096,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 4096,
    ],
    ids=["HTTP/1.1", "zeros", "no frames"],
)
def test_no_http2(server: Server, client: GrpcClient, first: bytes) -> None:
    with socket.create_connection((HOST, server.grpc_port), timeout=10) as connection:
        connection.sendall(first)
        connection.settimeout(10)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass


# ---- REST

JSON_CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "Invalid JSON"),
    "no JSON": (b"{what", "Invalid JSON"),
    "not closed": (b'{"inputs": [[1', "Invalid JSON"),
    "a number": (b"7", "Invalid JSON"),
    "an array": (b"[1, 2]", "Invalid JSON"),
    "null": (b"null", "Invalid JSON"),
    "no UTF-8": (b'{"inputs": "\xff\xfe"}', "Invalid JSON"),
    "a protobuf": (predict_pb2.PredictRequest().SerializeToString() + b"\0\1", "Invalid JSON"),
    "neither": (b"{}", "Invalid inputs in request body"),
    "both": (b'{"inputs": [1], "instances": [1]}', "Invalid inputs in request body"),
    "no instances": (b'{"instances": []}', "Invalid inputs in request body"),
    "instances no list": (b'{"instances": 3}', "Invalid inputs in request body"),
    "ragged": (b'{"inputs": [[1, 2, 3, 4], [1, 2, 3], [1, 2, 3, 4]]}', "Invalid inputs in request body"),
    "ragged, same number": (
        b'{"inputs": [[1, 2, 3, 4, 5], [1, 2, 3], [1, 2, 3, 4]]}',
        "Invalid inputs in request body",
    ),
    "ragged in depth": (b'{"inputs": [[1, 2, 3, [4]], 1, 2]}', "Invalid inputs in request body"),
    "strings": (b'{"inputs": ["a", "b"]}', "Invalid inputs in request body"),
    "null inside": (b'{"inputs": [[1, null, 3, 4]]}', "Invalid inputs in request body"),
    "bytes": (b'{"inputs": {"x": {"b64": "AAAA"}}}', "Invalid inputs in request body"),
    "shape": (
        b'{"inputs": [[1, 2], [3, 4]]}',
        "The input data is incorrect. Obtained shape [2, 2], required shape [3, 4]",
    ),
    "batch": (
        b'{"instances": [[1, 2, 3, 4]]}',
        "Input batch size is incorrect. Obtained batch size 1, required batch size 3",
    ),
    "unknown input": (
        b'{"inputs": {"z": [1]}}',
        "input tensor alias not found in signature: ['z']. Inputs expected to be in the set {['x']}.",
    ),
    "signature": (b'{"signature_name": "other", "inputs": [[1]]}', ""),
}


@pytest.mark.parametrize("case", JSON_CASES)
def test_wrong_bodies_over_rest(web: RestClient, case: str) -> None:
    body, text = JSON_CASES[case]
    status, answer = web.send("POST", PREDICT, body)
    assert (status, list(answer)) == (400, ["error"])
    assert answer["error"].startswith(text)


def test_brackets(web: RestClient) -> None:
    for start in (b"", b'{"inputs": '):
        status, answer = web.send("POST", PREDICT, start + b"[" * (4 * MB - 20))
        assert status == 400
        assert list(answer) == ["error"]


def test_fifty_megabytes_of_brackets_are_over_the_limit(server: Server, web: RestClient) -> None:
    connection = http.client.HTTPConnection(HOST, server.rest_port, timeout=30)
    connection.request("POST", PREDICT, b"[" * (50 * MB))
    response = connection.getresponse()
    document = json.loads(response.read())
    connection.close()
    assert (response.status, list(document)) == (413, ["error"])


def test_chunks_over_the_limit(server: Server, web: RestClient) -> None:
    connection = http.client.HTTPConnection(HOST, server.rest_port, timeout=30)
    connection.request(
        "POST", PREDICT, iter([b" " * MB] * 6), {"Transfer-Encoding": "chunked"}, encode_chunked=True
    )
    response = connection.getresponse()
    assert (response.status, list(json.loads(response.read()))) == (413, ["error"])
    connection.close()


def test_paths_and_methods(server: Server, web: RestClient) -> None:
    for path in ("/", "/v1", "/v2/models/model", f"/v1/models/{NAME}:guess", f"/v1/models/{NAME}/what"):
        status, answer = web.send("GET", path)
        assert (status, list(answer)) == (404, ["error"]), path
    connection = http.client.HTTPConnection(HOST, server.rest_port, timeout=30)
    for method, path, allowed in (("GET", PREDICT, "POST"), ("DELETE", f"/v1/models/{NAME}", "GET")):
        connection.request(method, path)
        response = connection.getresponse()
        assert (response.status, list(json.loads(response.read()))) == (405, ["error"])
        assert allowed in (response.getheader("Allow") or "")
    connection.close()
    for version in ("one", "-1", "1.0", str(1 << 70)):
        status, answer = web.send("GET", f"/v1/models/{NAME}/versions/{version}")
        assert status == 404
        assert answer == {"error": f"Servable not found for request: Specific({NAME}, {version})"}


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0" * 4096,
        b"POST " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    ],
    ids=["TLS", "zeros", "long line", "negative length", "two lengths", "many headers"],
)
def test_no_http(server: Server, web: RestClient, first: bytes) -> None:
    with socket.create_connection((HOST, server.rest_port), timeout=10) as connection:
        try:
            connection.sendall(first)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except ConnectionError:
            return
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer


def test_clients_that_stop_in_the_middle_hold_nobody_up(server: Server, web: RestClient) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{{".encode()
    idle = [socket.create_connection((HOST, server.rest_port)) for _ in range(50)]
    idle += [socket.create_connection((HOST, server.grpc_port)) for _ in range(50)]
    try:
        for index, connection in enumerate(idle[:50]):
            connection.sendall(head[: index * len(head) // 49])
        begun = time.monotonic()
        with GrpcClient(server.grpc_port) as client:
            for _ in range(20):
                assert np.array_equal(client.predict({"x": GOOD})["y"], GOOD)
                assert web.predict({"inputs": GOOD.tolist()})[0] == 200
        assert time.monotonic() - begun < 3
    finally:
        for connection in idle:
            connection.close()
