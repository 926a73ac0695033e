"""The digits model served by the whole server: what users of the example do over both APIs, and what operators see."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from examples.digits import png, train
from tests.support.clients import GrpcClient, RestClient
from tests.support.server import NAME, Server

pytestmark = pytest.mark.e2e

IMAGES = sorted(train.IMAGES.glob("*.png"))
BASE = train.MODEL.parent.parent
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
"""Where the CPU has bfloat16 OpenVINO uses it, and then answers depend on the number of threads."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As the example is served, with two of everything."""
    directory = tmp_path_factory.mktemp("serving")
    options: dict[str, Any] = {
        "workers": 2,
        "grpc_workers": 2,
        "rest_workers": 2,
        "nireq": 2,
        "plugin_config": json.dumps(PRECISION),
    }
    with Server(directory, BASE, device="CPU", **options) as started:
        yield started


@pytest.fixture(scope="module")
def direct() -> dict[str, np.ndarray]:
    """The probabilities that OpenVINO, called directly, gives for each image."""
    compiled = openvino.Core().compile_model(train.MODEL, "CPU", PRECISION)
    return {path.stem: compiled(_image(path))[0] for path in IMAGES}


def _image(path: Path) -> np.ndarray:
    return np.array([png.read(path)], np.float32)


def test_images_are_classified_as_openvino_does(server: Server, direct: dict[str, np.ndarray]) -> None:
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        for path in IMAGES:
            expected = direct[path.stem]
            assert int(expected.argmax()) == int(path.stem)
            by_grpc = client.predict({"image": _image(path)})["probabilities"]
            assert by_grpc.dtype == np.float32
            np.testing.assert_allclose(by_grpc, expected, rtol=1e-5, atol=1e-7)
            status, answer = web.predict({"instances": _image(path).tolist()})
            assert status == 200
            np.testing.assert_array_equal(np.array(answer["predictions"], np.float32), by_grpc)
            status, answer = web.predict({"inputs": {"image": _image(path).tolist()}}, version=1)
            assert status == 200
            np.testing.assert_array_equal(np.array(answer["outputs"], np.float32), by_grpc)
            # Python's numbers are float64.
            doubles = client.predict({"image": _image(path).astype(np.float64)})["probabilities"]
            np.testing.assert_array_equal(doubles, by_grpc)


def test_many_clients_at_once(server: Server, direct: dict[str, np.ndarray]) -> None:
    images = {path.stem: _image(path) for path in IMAGES}

    def ask(index: int) -> list[str]:
        wrong = []
        with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
            for step in range(20):
                name = list(images)[(index + step) % len(images)]
                if index % 2:
                    found = client.predict({"image": images[name]})["probabilities"]
                else:
                    found = np.array(web.predict({"inputs": images[name].tolist()})[1]["outputs"], np.float32)
                if not np.allclose(found, direct[name], rtol=1e-5, atol=1e-7):
                    wrong.append(name)
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert [wrong for wrong in pool.map(ask, range(8)) if wrong] == []
    server.wait_idle()


def test_a_wrong_batch_is_refused_in_the_known_words(server: Server) -> None:
    text = "Input batch size is incorrect. Obtained batch size 2, required batch size 1"
    image = np.zeros((2, 8, 8), np.float32)
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        assert client.refusal({"image": image})[1] == text
        assert web.predict({"instances": image.tolist()}) == (400, {"error": text})


def test_status_and_health(server: Server) -> None:
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        assert client.states() == {1: ("AVAILABLE", 0, "")}
        expected = {
            "model_version_status": [
                {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        }
        assert web.send("GET", f"/v1/models/{NAME}") == (200, expected)
        assert web.send("GET", f"/v1/models/{NAME}/versions/1") == (200, expected)
        health = health_pb2_grpc.HealthStub(client.channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_what_operators_see(server: Server) -> None:
    done = server.command("status", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ready"] is True
    (pool,) = document["pools"]
    assert (pool["device"], pool["wanted"], pool["serving"]) == ("CPU", 2, 2)
    assert sorted(one["kind"] for one in document["frontends"]) == ["grpc", "grpc", "rest", "rest"]
    assert {one["pid"] for one in document["workers"]} == set(server.pids("worker"))
    table = server.command("status").stdout
    assert table.startswith("ready, 0 requests queued\n")
    assert server.command("status", "--check").returncode == 0
