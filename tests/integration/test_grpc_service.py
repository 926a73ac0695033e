"""The gRPC frontend's process on its own: no broker ever answers it."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.config import MEGABYTE, ServerConfig, save
from frontends.grpc.tensorflow_protos import predict_pb2, prediction_service_pb2_grpc

pytestmark = pytest.mark.integration

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 20
_START = [sys.executable, "-m", "frontends.grpc.service", "--index", "0", "--run-dir"]

_ORPHAN = """
import json, subprocess, sys
child = subprocess.Popen(json.loads(sys.argv[1]))
sys.stdin.readline()
"""
"""A parent that starts the frontend and dies when it is told to, without a word to its child."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """Written into a run directory of its own."""
    made = ServerConfig(
        models=(),
        run_dir=str(tmp_path),
        grpc_port=_free_port(),
        bind_address="127.0.0.1",
        arena_bytes=MEGABYTE,
    )
    save(made)
    return made


@pytest.fixture
def process(config: ServerConfig) -> Iterator[subprocess.Popen[str]]:
    """The running process."""
    with subprocess.Popen(
        [*_START, config.run_dir], cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as started:
        yield started
        started.kill()


@pytest.fixture
def channel(config: ServerConfig) -> Iterator[grpc.Channel]:
    """A client's connection, which waits for the port."""
    with grpc.insecure_channel(f"127.0.0.1:{config.grpc_port}") as opened:
        yield opened


def _refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


def _listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_without_a_broker_it_listens_and_is_not_ready(
    process: subprocess.Popen[str], channel: grpc.Channel
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S, wait_for_ready=True)
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    stub: Any = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    code, text = _refusal(lambda: stub.Predict(predict_pb2.PredictRequest(), timeout=_TIMEOUT_S))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    process: subprocess.Popen[str], channel: grpc.Channel, config: ServerConfig, number: signal.Signals
) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S, wait_for_ready=True)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    before = time.monotonic()
    process.send_signal(number)
    assert _refusal(lambda: next(watch))[0] is grpc.StatusCode.UNAVAILABLE
    output, _ = process.communicate(timeout=_TIMEOUT_S)
    assert time.monotonic() - before < 3
    assert process.returncode == 0
    assert "Traceback" not in output
    assert not _listening(config.grpc_port)
    assert not list(Path(config.run_dir).glob("*.fds"))


def test_a_port_that_is_taken_ends_it_with_one_line(config: ServerConfig) -> None:
    with socket.create_server(("127.0.0.1", config.grpc_port)):
        done = subprocess.run(
            [*_START, config.run_dir], cwd=_ROOT, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    address = f"127.0.0.1:{config.grpc_port}"
    text = f"The gRPC frontend cannot start: cannot listen on {address}: Address already in use"
    assert line.endswith(f" - frontends.grpc - ERROR - {text}")
    assert "Traceback" not in done.stderr


def test_it_ends_with_its_parent(config: ServerConfig) -> None:
    command = json.dumps([*_START, config.run_dir])
    with subprocess.Popen(
        [sys.executable, "-c", _ORPHAN, command], cwd=_ROOT, stdin=subprocess.PIPE
    ) as parent:
        _until(lambda: _listening(config.grpc_port))
        parent.kill()
    _until(lambda: not _listening(config.grpc_port))
