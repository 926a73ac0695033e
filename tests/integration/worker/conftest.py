"""For the tests of a real worker process: the broker is played by the test, and memory is owned as by a frontend."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from common import config
from tests.support.worker import Broker, Frontend, Worker


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """With a configuration without models."""
    path = tmp_path / "run"
    path.mkdir()
    config.save(config.ServerConfig(models=(), run_dir=str(path), log_level="DEBUG"))
    return path


@pytest.fixture
def broker(run_dir: Path) -> Iterator[Broker]:
    """Its workers' end."""
    broker = Broker(run_dir)
    yield broker
    broker.close()


@pytest.fixture
def frontend(run_dir: Path) -> Iterator[Frontend]:
    """With an arena of its own."""
    frontend = Frontend(run_dir, "grpc-0.1")
    yield frontend
    frontend.close()


@pytest.fixture
def fake_worker(run_dir: Path, broker: Broker) -> Iterator[Worker]:
    """Of the fake engine, linked."""
    worker = Worker(run_dir, "FAKE")
    assert broker.hello().slot == "FAKE-0"
    yield worker
    worker.stop()


@pytest.fixture
def cpu_worker(run_dir: Path, broker: Broker) -> Iterator[Worker]:
    """Of OpenVINO, linked."""
    worker = Worker(run_dir, "CPU")
    assert broker.hello().slot == "CPU-0"
    yield worker
    worker.stop()
