"""The harness against real servers: the bare echo, servers that fail, and a stand-in for the server's command."""

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from perf import generate, load_h2, models, serving
from perf.bench import Bench
from perf.calls import PREDICT, call_grpc
from perf.generate import GeneratorName
from perf.plan import Settings, Setup
from perf.results import Results
from perf.server import Server, StartFailedError, bare_server, echo_server, model_options
from perf.target import LoadFailedError, Target, frame

pytestmark = pytest.mark.integration

GENERATORS = [
    pytest.param(
        "h2load",
        marks=pytest.mark.skipif(not load_h2.available(), reason="h2load is not installed (nghttp2-client)"),
    ),
    "python",
]
STAND_IN = (sys.executable, "-m", "tests.unit.perf.standin_server")


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body"
    path.write_bytes(frame(bytes(80)))
    return path


@contextlib.contextmanager
def refusing_server() -> Iterator[int]:
    """A gRPC server that knows no method: every answer is UNIMPLEMENTED, behind HTTP status 200."""
    ready, stop = threading.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        server = grpc.aio.server()
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        await server.start()
        ready.set()
        await asyncio.to_thread(stop.wait, 60)
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield ports[0]
    finally:
        stop.set()
        thread.join(10)


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_request_to_the_echo_is_answered_and_counted(
    generator: GeneratorName, body: Path, tmp_path: Path
) -> None:
    with echo_server(0) as echo:
        target = Target("grpc", echo.port, PREDICT, body, len(body.read_bytes()))
        measured = generate.measure(generator, target, 4, 400, 1.0, tmp_path)
    figures = measured.figures
    assert (figures.requests, figures.errors) == (400, 0)
    assert figures.rate > 10
    assert figures.p50_ms is not None
    assert figures.p99_ms is not None
    assert 0 < figures.p50_ms <= figures.p99_ms < 5000
    assert measured.generator_cpu_ms > 0


def test_the_echo_answers_the_message_or_so_many_bytes() -> None:
    with echo_server(0) as echo:
        assert call_grpc(echo.port, b"hello") == b"hello"
    with echo_server(7) as echo:
        assert call_grpc(echo.port, b"hello") == bytes(7)


def test_the_bare_parts_answer_the_message(tmp_path: Path) -> None:
    models.write("tiny", tmp_path)
    with bare_server(tmp_path / "tiny" / "1" / "tiny.xml") as bare:
        assert [call_grpc(bare.port, text) for text in (b"hello", b"again")] == [b"hello", b"again"]


@pytest.mark.parametrize("generator", GENERATORS)
def test_answers_of_a_wrong_length_are_errors(generator: GeneratorName, body: Path, tmp_path: Path) -> None:
    with echo_server(11) as echo:
        target = Target("grpc", echo.port, PREDICT, body, len(body.read_bytes()))
        errors = generate.measure(generator, target, 4, 40, 1.0, tmp_path).figures.errors
    # h2load tells the sum of all lengths alone: 40 answers lack 74 bytes each, which 33 missing ones would explain.
    assert errors == (40 if generator == "python" else 33)


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_grpc_status_behind_http_200_is_an_error(
    generator: GeneratorName, body: Path, tmp_path: Path
) -> None:
    with refusing_server() as port:
        target = Target("grpc", port, PREDICT, body, 85)
        assert generate.measure(generator, target, 4, 40, 1.0, tmp_path).figures.errors == 40
        with pytest.raises(LoadFailedError, match="all of 4 requests"):
            generate.pilot(generator, target, 4, 1.0, tmp_path)


@pytest.mark.parametrize("generator", GENERATORS)
def test_nobody_listening_is_a_failed_run_or_all_errors(
    generator: GeneratorName, body: Path, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        target = Target("rest", taken.getsockname()[1], "/", body)
        with pytest.raises(LoadFailedError):
            generate.pilot(generator, target, 2, 1.0, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("generator", GENERATORS)
def test_a_whole_case_against_a_stand_in(generator: GeneratorName, tmp_path: Path) -> None:
    models.write("tiny", tmp_path)
    tiny = next(case for case in serving.CASES if case.model == "tiny")
    # Not with one client: the processes of the Python generator take their time to start.
    steps = tuple(step for step in tiny.steps if step.clients == 16)
    case = serving.Case("tiny", (*steps, serving.Step("engine", 0, ("tiny-native",))))
    results = Results()
    ticks: list[str] = []
    settings = Settings(seconds=0.3, rounds=1 if generator == "python" else 2)
    bench = Bench(generator, settings, tmp_path, tmp_path, results, ticks.append, STAND_IN)
    serving.run_case(bench, case)
    assert results.problems == []
    assert set(results.absent) == {"tiny-native", "tiny-p50", "tiny-cpu"}  # it has no --grpc_transport
    assert len(ticks) == serving.count(bench, case) == len(results.records)
    found = {record.what: record for record in results.records}
    assert set(found) == {"bare", "echo", "engine", "grpcio", "rest"}
    assert all(record.figures.errors == 0 and record.figures.rate > 0 for record in results.records)
    assert found["grpcio"].memory_bytes["other"] > 1 << 20  # the stand-in is none of the known kinds


def test_only_what_the_lines_need_is_measured(tmp_path: Path) -> None:
    tiny = next(case for case in serving.CASES if case.model == "tiny")
    wanted = frozenset({"tiny-rest"})
    bench = Bench(
        "python", Settings(), tmp_path, tmp_path, Results(), lambda _: None, STAND_IN, wanted=wanted
    )
    assert [step.what for step in serving.steps_of(bench, tiny)] == ["echo", "rest"]


def test_a_server_that_does_not_start_is_a_problem_with_its_log(tmp_path: Path) -> None:
    models.write("tiny", tmp_path)
    results = Results()
    program = (sys.executable, "-c", "raise SystemExit('no such model')")
    bench = Bench("python", Settings(), tmp_path, tmp_path, results, lambda _: None, program)
    serving.run_case(bench, serving.CASES[0])
    assert results.records == []
    assert len(results.problems) == 1
    assert "no such model" in results.problems[0]


def test_a_missing_command_is_named(tmp_path: Path) -> None:
    options = model_options("tiny", tmp_path, Setup())
    server = Server(options, tmp_path, ("/nonexistent/ie_serving",))
    with pytest.raises(StartFailedError, match="/nonexistent/ie_serving is not installed"):
        server.__enter__()
