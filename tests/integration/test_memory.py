"""Shared memory from end to end: large requests, their bounds, and blocks that come back whatever clients do."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.support import models, processes
from tests.support.clients import GrpcClient, RestClient, predict_request, refusal, to_array
from tests.support.load import Load, unique
from tests.support.models import NO_COMMAND, SLEEP, commanded
from tests.support.server import HOST, NAME, Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

MB = 1 << 20
FLOATS = 2 * MB
"""Of the large model: 8 MB in and 8 MB out, of which the arena has 1."""
BOUND_MB = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An echo of 8 MB with an arena of 1 MB."""
    directory = tmp_path_factory.mktemp("memory")
    path = models.echo(directory / "models", shape=(1, FLOATS), commands=True)
    with Server(directory, path, arena_mb=1, large_requests_mb=BOUND_MB, nireq=2) as started:
        yield started


def _large(command: int = 0) -> dict[str, np.ndarray]:
    return {**commanded(command), "x": unique((1, FLOATS))}


def _is_given_back(server: Server) -> bool:
    """Nothing is mapped anywhere but the arenas, of 1 MB each."""
    worker = server.pid("worker")
    frontends = server.pids("grpc") + server.pids("rest")
    return (
        all(processes.segment_bytes(pid) == MB for pid in frontends)
        and processes.segment_bytes(worker) <= 2 * MB
    )


def _wait_given_back(server: Server) -> None:
    server.wait_idle()
    until(lambda: _is_given_back(server), "all segments but the arenas are gone")


def test_large_requests_are_served_in_segments_of_their_own(server: Server) -> None:
    with GrpcClient(server.grpc_port) as client:
        sent = _large(SLEEP + 400)
        asked = client.start(sent)
        worker = server.pid("worker")
        until(lambda: processes.segment_bytes(worker) >= 16 * MB, "the worker maps it")
        assert np.array_equal(to_array(asked.result(timeout=20).outputs["y"]), sent["x"])
    _wait_given_back(server)


def test_a_dozen_large_requests_at_once(server: Server) -> None:
    with Load(server, grpc=12, rest=0, shapes=((1, FLOATS),), extra=NO_COMMAND) as load:
        load.wait_more(2)
    assert load.failures == []
    _wait_given_back(server)


def test_the_bound_of_large_requests_is_named(server: Server) -> None:
    fitting = BOUND_MB // 16
    with GrpcClient(server.grpc_port) as client:
        # The first two occupy the worker until all are there.
        asked = [client.start(_large(SLEEP + (4000 if n < 2 else 50))) for n in range(fitting + 2)]
        codes = [each.code() for each in asked]
        refused = [each.details() for each in asked if each.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert codes.count(grpc.StatusCode.OK) >= fitting - 1
    assert refused
    assert codes.count(grpc.StatusCode.OK) + len(refused) == len(asked)
    assert all(f"may take {BOUND_MB * MB} together" in text for text in refused), refused
    _wait_given_back(server)


def test_rest_names_the_bound_too(server: Server) -> None:
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        # The bound is each frontend's own: what gRPC has taken does not count here.
        asked = client.start(_large(SLEEP + 300))
        sent = np.zeros((1, FLOATS), np.float32)
        status, answer = web.predict({"inputs": {"x": sent.tolist(), "command": [0], "argument": [0]}})
        assert status == 200
        assert np.array_equal(np.array(answer["outputs"], np.float32), sent)
        asked.result(timeout=20)
    _wait_given_back(server)


def test_a_grpc_client_that_goes_away_gives_everything_back(server: Server) -> None:
    pid = server.pid("grpc")
    _wait_given_back(server)
    for _ in range(2):
        client = GrpcClient(server.grpc_port)
        asked = [client.start(_large(SLEEP + 500)) for _ in range(4)]
        until(lambda: processes.segment_bytes(pid) >= 16 * MB, "a large request is there")
        client.channel.close()
        assert {each.code() for each in asked} == {grpc.StatusCode.CANCELLED}
        _wait_given_back(server)
    _check_serves(server)


def test_a_rest_client_that_goes_away_in_the_middle_of_its_body(server: Server) -> None:
    _wait_given_back(server)
    arbiter, worker = server.pid("arbiter"), server.pid("rest")
    before = processes.descriptors(worker)
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {16 * MB}\r\n\r\n".encode()
    for reset in (False, True):
        with socket.create_connection((HOST, server.rest_port)) as connection:
            connection.sendall(head + b'{"inputs": {"x": [[' + b"1.5," * MB)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: processes.descriptors(worker) <= before, "the connections' descriptors")
    assert (server.pid("arbiter"), server.pid("rest")) == (arbiter, worker)
    _wait_given_back(server)
    _check_serves(server)


def test_a_rest_client_that_goes_away_while_its_request_runs(server: Server) -> None:
    worker = server.pid("rest")
    body = b'{"inputs": {"x": [[%s]], "command": [%d], "argument": [0]}}' % (
        b"1," * (FLOATS - 1) + b"1",
        SLEEP + 500,
    )
    head = (
        f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    with socket.create_connection((HOST, server.rest_port)) as connection:
        connection.sendall(head + body)
        until(lambda: any(one.requests for one in server.status().frontends), "it runs")
        assert processes.segment_bytes(worker) >= 16 * MB
    _wait_given_back(server)
    _check_serves(server)


def _check_serves(server: Server) -> None:
    with GrpcClient(server.grpc_port) as client:
        sent = _large()
        assert np.array_equal(client.predict(sent)["y"], sent["x"])
    _wait_given_back(server)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An echo of any shape, an arena of 1 MB, and 1 MB beyond it."""
    directory = tmp_path_factory.mktemp("small")
    path = models.echo(directory / "models", commands=True)
    with Server(directory, path, rest=False, arena_mb=1, large_requests_mb=1, nireq=4) as started:
        yield started


def _of_kilobytes(size: int, command: int = 0) -> dict[str, np.ndarray]:
    return {**commanded(command), "x": unique((1, size * 256))}


def test_a_block_stays_lent_after_the_deadline_until_its_worker_is_done(small: Server) -> None:
    with GrpcClient(small.grpc_port) as client:
        begun = time.monotonic()
        code, _ = client.refusal(_of_kilobytes(600, SLEEP + 2500), timeout_s=0.4)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < 1.2, "late"
        beside = client.start(_of_kilobytes(900, SLEEP + 1000))
        until(lambda: sum(one.requests for one in small.status().frontends) == 2, "both are in hand")
        code, text = client.refusal(_of_kilobytes(600))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED, (
            "the block was given to another while a worker had it"
        )
        assert f"may take {MB} together" in text
        assert beside.result(timeout=10).outputs["y"].tensor_shape.dim[1].size == 900 * 256
        small.wait_idle()
        assert time.monotonic() - begun >= 2.5
        # The whole arena is one block again.
        sent = _of_kilobytes(1000)
        assert np.array_equal(client.predict(sent)["y"], sent["x"])
        assert processes.segment_bytes(small.pid("grpc")) == MB


@pytest.mark.slow
def test_answers_of_unknown_size_are_bounded(tmp_path: Path) -> None:
    path = models.echo(tmp_path / "models")
    with Server(tmp_path, path, rest=False) as server, GrpcClient(server.grpc_port) as client:
        code, text = refusal(client.stub.Predict, predict_request({"x": np.zeros((17, MB), np.float32)}))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(64 * MB) in text
        sent = unique((15, MB))
        assert np.array_equal(client.predict({"x": sent})["y"], sent)
        server.wait_idle()
        until(lambda: processes.segment_bytes(server.pid("grpc")) == 4 * MB, "given back")
