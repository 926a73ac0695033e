"""`python -m perf.load` against the whole server, as its users run it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perf import models
from perf.target import ROOT
from tests.support.server import Server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("load")
    models.write("tiny", directory)
    with Server(directory, directory / "tiny", device="CPU", model_name="tiny") as started:
        yield started


def tool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "perf.load", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("api", ["grpc", "rest"])
@pytest.mark.parametrize("rate", [(), ("--rate=50",)])
def test_a_real_server_under_load(server: Server, api: str, rate: tuple[str, ...], tmp_path: Path) -> None:
    port = server.grpc_port if api == "grpc" else server.rest_port
    file = tmp_path / "figures.json"
    done = tool(
        *(f"--{api}=localhost:{port}", "--model=tiny", "--clients=3", "--seconds=1", f"--json={file}", *rate)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "p99.9" in done.stdout
    found = json.loads(file.read_bytes())
    assert found["answered"] == found["requests"] > 10
    assert found["errors"] == {}
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["max"]
    assert sum(count for _, _, count in found["histogram_ms"]) == found["answered"]
    if rate:
        assert found["answered"] + found["unsent"] == 50
    assert found["options"]["model"] == "tiny"


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_refusals_are_counted_by_code(server: Server, api: str, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 3)))
    port = server.grpc_port if api == "grpc" else server.rest_port
    where = f"--{api}=localhost:{port}"
    wrong = tool(
        *(where, "--model=tiny", "--clients=1", "--seconds=0.2", f"--input=input={tmp_path / 'x.npy'}")
    )
    assert wrong.returncode == 1
    assert f"× {'INVALID_ARGUMENT' if api == 'grpc' else 'HTTP 400'}: " in wrong.stdout
    unknown = tool(where, "--model=nobody")
    assert unknown.returncode == 2
    assert "nobody" in unknown.stderr


def test_an_interrupt_prints_what_was_measured(server: Server) -> None:
    line = [sys.executable, "-m", "perf.load", f"--grpc=localhost:{server.grpc_port}", "--model=tiny"]
    process = subprocess.Popen([*line, "--seconds=60"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "input float32[1, 10]" in process.stdout.readline()  # the load begins
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert "answered" in out
    assert process.returncode in (0, 1)


def test_nobody_there_is_said() -> None:
    done = tool("--rest=127.0.0.1:1", "--model=tiny")
    assert done.returncode == 2
    assert "tiny at 127.0.0.1:1" in done.stderr
