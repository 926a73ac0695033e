"""Workers run by another interpreter with an OpenVINO of another release: the one that has the device.

No machine of a test has a MYRIAD; that the release which knew it serves `MULTI:MYRIAD,CPU` is what can be shown.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino import opset13 as op

from broker.supervisor import link_packages
from common import config
from common.errors import Code
from common.messages import Load, LoadFailed, Unload, Unloaded, VersionId
from tests.support.clients import GrpcClient
from tests.support.interpreters import with_openvino
from tests.support.model_formats import onnx
from tests.support.models import add
from tests.support.server import Server
from tests.support.worker import Broker, Frontend, Worker
from tests.unit.workers.models import model_config, named, parameter, save

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
DEVICE = "MULTI:MYRIAD,CPU"
RELEASES = [("2022.3.2", "3.10"), ("2023.3.0", "3.11")]


@pytest.fixture(params=RELEASES, ids=[release for release, _ in RELEASES])
def release(request: pytest.FixtureRequest) -> str:
    return str(request.param[0])


@pytest.fixture
def python(release: str, pytestconfig: pytest.Config) -> str:
    assert pytestconfig.cache is not None
    return with_openvino(release, dict(RELEASES)[release], pytestconfig.cache.mkdir("interpreters"))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    settings = config.ServerConfig(
        models=(), run_dir=str(path), log_level="DEBUG", cache_dir=str(tmp_path / "cache")
    )
    config.save(settings)
    return path


@pytest.fixture
def broker(run_dir: Path) -> Iterator[Broker]:
    broker = Broker(run_dir)
    yield broker
    broker.close()


@pytest.fixture
def frontend(run_dir: Path) -> Iterator[Frontend]:
    frontend = Frontend(run_dir, "grpc-0.1")
    yield frontend
    frontend.close()


@pytest.fixture
def worker(run_dir: Path, broker: Broker, python: str) -> Iterator[Worker]:
    worker = Worker(run_dir, DEVICE, python=python, packages=link_packages(run_dir))
    broker.hello()
    yield worker
    worker.stop()


def test_server_answers_by_it(tmp_path: Path, python: str, release: str) -> None:
    base = add(tmp_path / "models", shape=(1, 4), number=2.0)
    with (
        Server(tmp_path, base, device=DEVICE, rest=False, device_python=f"{DEVICE}={python}") as server,
        GrpcClient(server.grpc_port) as client,
    ):
        (pid,) = server.worker_pids().values()
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert f"openvino-{release}" in maps, "its libraries"
        for number in range(5):
            given = np.full((1, 4), number, np.float32)
            np.testing.assert_array_equal(client.predict({"x": given})["y"], given + 2)
        assert "MYRIAD of MULTI:MYRIAD,CPU is not available, so it is served on CPU" in server.log()


def test_everything_that_a_worker_does(
    worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path, release: str
) -> None:
    """In place, by frames, by shapes that requests bring, from OpenVINO's cache, and the ends of all that."""
    x = parameter("x", "float32", (2, 3))
    path = save(tmp_path / "1", [named(op.relu(x), "y")], [x])
    onnx(tmp_path / "onnx", (-1, 3))
    (path / "mapping_config.json").write_text('{"inputs": {"x": "data"}}')
    ways: list[tuple[Path, dict[str, Any], tuple[int, ...]]] = [
        (path, {}, (2, 3)),
        (path, {"batch_size": 4}, (4, 3)),
        (path, {"shape": {"data": (-1, 3)}}, (5, 3)),
        (path, {"shape": "auto"}, (6, 7)),
        (path, {"plugin_config": {"CPU_BIND_THREAD": "NO", "CPU_THROUGHPUT_STREAMS": "1"}}, (2, 3)),
        (tmp_path / "onnx", {}, (3, 3)),
    ]
    for number, (directory, options, shape) in enumerate(ways, 1):
        version = VersionId("m", number)
        loaded = broker.load(directory, nireq=2, version=version, **options).loaded
        assert loaded.notes == (f"MYRIAD of {DEVICE} is not available, so it is served on CPU",)
        given = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 3
        requests = [frontend.request(loaded.signature, given, version=version) for _ in range(4)]
        broker.send(*requests)
        for request in requests:
            done, frames = broker.done_frames(request.key)
            assert done.error is None
            (output,) = done.outputs
            if output.frame < 0:
                produced = frontend.output(request, loaded.signature.outputs[0])
            else:
                produced = np.frombuffer(frames[output.frame], np.float32).reshape(output.shape)
            np.testing.assert_array_equal(produced, np.maximum(given, 0))
        broker.send(Unload(version))
        broker.expect(Unloaded)
    assert list((tmp_path / "cache").glob(f"MULTI*{release}*/*.blob"))


def test_failures_have_their_reasons(
    worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    x, y = parameter("x", "float32", (-1, -1)), parameter("y", "float32", (-1, -1))
    path = save(tmp_path / "1", [named(op.add(x, y), "sum")], [x, y])
    signature = broker.load(path).loaded.signature
    for _ in range(2):
        bad = frontend.request(signature, np.ones((2, 3), np.float32), np.ones((5, 7), np.float32))
        broker.send(bad)
        error = broker.done(bad.key).error
        assert error is not None
        assert error.code is Code.INVALID_ARGUMENT
    failures: list[tuple[dict[str, Any], str]] = [
        ({"plugin_config": {"NO_SUCH_THING": "1"}}, "NO_SUCH_THING"),
        ({"shape": {"z": (1,)}}, "no input of the model"),
    ]
    for options, text in failures:
        failing = model_config(**options)
        broker.send(Load(VersionId("failing", 1), str(path), failing))
        assert text in broker.expect(LoadFailed).reason
    (path / "model.bin").unlink()
    broker.send(Load(VersionId("failing", 2), str(path), model_config()))
    assert "model.xml has no model.bin" in broker.expect(LoadFailed).reason


def test_device_that_it_does_not_know(
    run_dir: Path, broker: Broker, python: str, release: str, tmp_path: Path
) -> None:
    worker = Worker(run_dir, "MYRIAD", python=python, packages=link_packages(run_dir))
    broker.hello()
    x = parameter("x", "float32", (2,))
    path = save(tmp_path / "1", [named(op.relu(x), "y")], [x])
    broker.send(Load(VersionId("m", 1), str(path), model_config()))
    reason = broker.expect(LoadFailed).reason
    worker.stop()
    assert reason == f"device MYRIAD is not available: OpenVINO {release} here knows CPU"
