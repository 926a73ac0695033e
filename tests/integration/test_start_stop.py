"""From the start of a whole server to its end: what it says, when it is ready, and how it ends under load."""

import os
import re
import signal
import time
from pathlib import Path

import grpc
import pytest

from tests.support import models
from tests.support.clients import GrpcClient, RestClient, to_array
from tests.support.models import SLEEP, commanded
from tests.support.server import NAME, READY_LINE, Server, free_ports, run_command
from tests.support.waiting import until

pytestmark = pytest.mark.integration

STOP_S = 5.0
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [\w.]+ - (DEBUG|INFO|WARNING|ERROR|CRITICAL) - .+")


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path."""
    return models.echo(tmp_path_factory.mktemp("echo") / "models", commands=True)


def _interrupt(server: Server, *, again: bool = False) -> float:
    """Ctrl-C, perhaps without end: SIGINT to the foreground process group; the seconds until the command has ended."""
    begun = time.monotonic()
    os.killpg(server.process.pid, signal.SIGINT)
    while again and server.process.poll() is None:
        os.killpg(server.process.pid, signal.SIGINT)
        time.sleep(0.01)
    server.wait_ended()
    return time.monotonic() - begun


def test_the_ready_lines_are_exact_and_printed_once(tmp_path: Path, echo: Path) -> None:
    with Server(tmp_path, echo, grpc_workers=2) as server:
        expected = [
            f"gRPC server listens on port {server.grpc_port} and will be serving models: ['{NAME}']",
            f"REST server listens on port {server.rest_port} and will be serving models: ['{NAME}']",
        ]

        def printed() -> list[str]:
            return [line.split(" - ", 3)[3] for line in server.log().splitlines() if READY_LINE in line]

        assert printed() == expected
        assert [line for line in server.log().splitlines() if not LINE.fullmatch(line)] == []
        for kind in ("broker", "arbiter"):
            server.wait_replaced(kind, server.kill(kind))
        assert printed() == expected, "a process that comes back is no start of the server"


def test_ready_lines_come_when_both_ports_accept_and_the_model_answers(tmp_path: Path) -> None:
    path = models.echo(tmp_path / "models", load_seconds=1.0)
    with Server(tmp_path, path, ready=False) as server, GrpcClient(server.grpc_port) as client:
        until(lambda: server.processes("worker"), "a worker")
        assert READY_LINE not in server.log()
        server.wait_log(READY_LINE, 2)
        sent = {"x": commanded(0, 2.0)["x"]}
        assert client.predict(sent)["y"].item() == 2.0
        with RestClient(server.rest_port) as web:
            assert web.predict({"instances": [[1.5]]})[1] == {"predictions": [[1.5]]}


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_it_ends_in_time_with_requests_in_flight(tmp_path: Path, echo: Path, number: signal.Signals) -> None:
    with Server(tmp_path, echo, nireq=4) as server, GrpcClient(server.grpc_port) as client:
        short = client.start(commanded(SLEEP + 400, 6.0))
        long = client.start(commanded(SLEEP + 30_000))
        until(lambda: sum(worker.in_hand for worker in server.status().workers) == 2, "both run")
        begun = time.monotonic()
        os.killpg(server.process.pid, number)
        assert to_array(short.result(timeout=STOP_S).outputs["y"]).item() == 6.0, "it is finished first"
        assert server.wait_ended() == 0
        assert time.monotonic() - begun < STOP_S
        assert long.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize(("delay_s", "again"), [(0.0, True), (0.05, True), (0.5, False), (1.0, True)])
def test_ctrl_c_during_the_start(tmp_path: Path, delay_s: float, again: bool) -> None:
    path = models.echo(tmp_path / "models", load_seconds=60)
    with Server(tmp_path, path, ready=False, workers=2, grpc_workers=2) as server:
        until(lambda: server.run_dir.exists(), "the command runs")
        time.sleep(delay_s)
        assert _interrupt(server, again=again) < STOP_S
        assert server.process.returncode == 0
        assert READY_LINE not in server.log()
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_ctrl_c_while_openvino_compiles(tmp_path: Path) -> None:
    path = models.add(tmp_path / "models")
    with Server(tmp_path, path, ready=False, device="CPU", workers=2) as server:
        until(lambda: server.processes("worker"), "a worker")
        assert _interrupt(server) < STOP_S
        assert server.process.returncode == 0
        assert "Traceback" not in server.log()


def test_a_model_that_is_none_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "corrupt"
    path.mkdir()
    models.corrupt(path, 1)
    with Server(tmp_path, path, ready=False, device="CPU") as server:
        assert server.wait_ended(30) == 1
        (line,) = [line for line in server.log().splitlines() if line.startswith("ie_serving: ")]
        beginning = f"ie_serving: no model can be served: model {NAME} version 1: "
        assert line.startswith(beginning)
        assert len(line) > len(beginning) + 10
        assert str(path) not in line
        assert READY_LINE not in server.log()


def test_a_model_path_that_comes_later_is_picked_up(tmp_path: Path) -> None:
    path = tmp_path / "later" / "models"
    environment = {"FILE_SYSTEM_POLL_WAIT_SECONDS": "0.2"}
    with (
        Server(tmp_path, path, ready=False, environment=environment) as server,
        GrpcClient(server.grpc_port) as client,
    ):
        server.wait_log(READY_LINE, 2)
        assert f"{path} does not exist; it is picked up when it appears" in server.log()
        assert not server.status().ready
        assert run_command("status", "--check", f"--run_dir={server.run_dir}").returncode == 1
        sent = {"x": commanded(0, 2.0)["x"]}
        assert client.refusal(sent) == (
            grpc.StatusCode.NOT_FOUND,
            f"Servable not found for request: Specific({NAME}, 0)",
        )
        models.echo(tmp_path / "staged")
        path.parent.mkdir()
        (tmp_path / "staged").rename(path)
        until(lambda: server.status().ready, "ready")
        assert client.predict(sent)["y"].item() == 2.0
        assert run_command("status", "--check", f"--run_dir={server.run_dir}").returncode == 0
        assert server.log().count(READY_LINE) == 2


def test_memory_that_is_not_there_is_named_before_anything_starts(tmp_path: Path, echo: Path) -> None:
    done = run_command(
        *("model", f"--model_name={NAME}", f"--model_path={echo}", f"--run_dir={tmp_path / 'r'}"),
        *(f"--port={free_ports(1)[0]}", "--arena_mb=1000000"),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("ie_serving: not enough memory: ")
    assert line.endswith("lower --arena_mb")
    assert not (tmp_path / "r").exists()


def test_log_level_and_log_path(tmp_path: Path, echo: Path) -> None:
    path = tmp_path / "log" / "server.log"
    path.parent.mkdir()
    environment = {"LOG_LEVEL": "DEBUG", "LOG_PATH": str(path)}
    with Server(tmp_path, echo, environment=environment) as server, GrpcClient(server.grpc_port) as client:
        secret = 12345.678
        client.predict(commanded(0, secret))
        words = ("deserialization", "inference", "serialization", f"model {NAME}", "version 1")
        server.wait_log("deserialization")
        (line,) = [line for line in server.log().splitlines() if "deserialization" in line]
        assert " - DEBUG - " in line
        assert all(word in line for word in words)
        assert str(secret) not in server.log()
    text = path.read_text()
    assert READY_LINE in text
    assert "deserialization" in text
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []


@pytest.mark.slow
def test_only_errors(tmp_path: Path, echo: Path) -> None:
    with Server(tmp_path, echo, ready=False, rest=False, environment={"LOG_LEVEL": "error"}) as server:
        until(lambda: server.run_dir.exists(), "the command runs")
        server.wait_serving()
    assert server.log() == ""


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--nireq=0",), "--nireq"),
        (("--no_such_option=1",), "--no_such_option"),
        (("--target_device=TPU",), "--target_device"),
        (("--model_version_policy={}",), "--model_version_policy"),
        (("--max_queue=none",), "--max_queue"),
        (("--inference_timeout_seconds=0",), "--inference_timeout_seconds"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    done = run_command("model", "--model_name=m", "--model_path=x", f"--run_dir={tmp_path / 'r'}", *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert part in line
    assert done.stdout == ""
