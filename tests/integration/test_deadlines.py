"""Requests that take too long, that kill their workers, and that are too many: each is answered, none harms others."""

import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.support import models
from tests.support.clients import GrpcClient, RestClient, predict_request, to_array
from tests.support.load import Load
from tests.support.models import CRASH, FAIL, HANG, NO_COMMAND, SLEEP, commanded
from tests.support.server import Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

INFERENCE_S = 1
REQUEST_S = 1.5
QUEUE = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two workers that do as they are told, one request at a time each."""
    directory = tmp_path_factory.mktemp("deadlines")
    path = models.echo(directory / "models", commands=True)
    options: dict[str, Any] = {
        "inference_timeout_seconds": INFERENCE_S,
        "request_timeout_seconds": REQUEST_S,
        "max_queue": QUEUE,
    }
    with Server(directory, path, workers=2, **options) as started:
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[GrpcClient]:
    """When everything has calmed down after the last test."""
    server.wait_serving()
    with GrpcClient(server.grpc_port) as opened:
        yield opened
    server.wait_idle()


def test_a_clients_deadline_is_kept(server: Server, client: GrpcClient) -> None:
    pids = server.worker_pids()
    for deadline_s in (0.05, 0.3):
        begun = time.monotonic()
        code, _ = client.refusal(commanded(SLEEP + 700), timeout_s=deadline_s)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - begun < deadline_s + 0.5
    assert client.predict(commanded(0, 3.0))["y"].tolist() == [[3.0]]
    assert server.worker_pids() == pids, "a client's deadline costs no worker"


def test_a_deadline_that_passes_in_the_queue(server: Server, client: GrpcClient) -> None:
    occupying = [client.start(commanded(SLEEP + 800, number)) for number in range(4)]
    until(lambda: sum(worker.in_hand for worker in server.status().workers) == 4, "all credits are taken")
    begun = time.monotonic()
    code, _ = client.refusal(commanded(0), timeout_s=0.3)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < 0.8
    assert [to_array(each.result().outputs["y"]).item() for each in occupying] == [0.0, 1.0, 2.0, 3.0]


def test_an_inference_that_hangs_costs_its_worker_and_fails_alone(server: Server, client: GrpcClient) -> None:
    before = server.worker_pids()
    with Load(server, grpc=3, rest=1, extra=NO_COMMAND) as load:
        begun = time.monotonic()
        code, text = client.refusal(commanded(HANG))
        took = time.monotonic() - begun
        load.wait_more(5)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert text == f"Inference took longer than {INFERENCE_S} s and was stopped"
    assert INFERENCE_S <= took < INFERENCE_S + 1.5
    assert load.failures == []
    server.wait_serving()
    assert len(set(server.worker_pids().values()) & set(before.values())) == 1


def test_a_request_that_kills_its_worker_twice_is_convicted(server: Server, client: GrpcClient) -> None:
    before = sum(worker.restarts for worker in server.status().workers)
    with Load(server, grpc=3, rest=1, extra=NO_COMMAND) as load:
        code, text = client.refusal(commanded(CRASH))
        load.wait_more(5)
    assert (code, text) == (
        grpc.StatusCode.INTERNAL,
        "Inference ended its worker process twice; the request will not be tried again",
    )
    assert load.failures == []
    server.wait_serving()
    assert sum(worker.restarts for worker in server.status().workers) == before + 2


def test_a_convicted_request_over_rest(server: Server, client: GrpcClient) -> None:
    with RestClient(server.rest_port) as web:
        status, answer = web.predict({"inputs": {"x": [[1.0]], "command": [CRASH], "argument": [0]}})
    assert status == 500
    assert answer == {
        "error": "Inference ended its worker process twice; the request will not be tried again"
    }


def test_a_failed_inference_harms_nothing(server: Server, client: GrpcClient) -> None:
    pids = server.worker_pids()
    code, text = client.refusal(commanded(FAIL))
    assert (code, text) == (
        grpc.StatusCode.INTERNAL,
        "Error occurred during inference execution: told to fail",
    )
    with RestClient(server.rest_port) as web:
        status, answer = web.predict({"inputs": {"x": [[1.0]], "command": [FAIL], "argument": [0]}})
    assert (status, answer) == (500, {"error": "Error occurred during inference execution: told to fail"})
    assert server.worker_pids() == pids


def test_the_queue_is_bounded(server: Server, client: GrpcClient) -> None:
    asked = [client.start(commanded(SLEEP + 150, number)) for number in range(QUEUE + 5)]
    until(lambda: sum(each.done() for each in asked) >= 5, "the refusals come at once", 0.8)
    with RestClient(server.rest_port) as web:
        # The bound is each frontend's own.
        assert web.predict({"inputs": {"x": [[1.0]], "command": [0], "argument": [0]}})[0] == 200
    found = {number: each.code() for number, each in enumerate(asked)}
    refused = [asked[number].details() for number, code in found.items() if code is not grpc.StatusCode.OK]
    assert len(refused) == 5
    text = f"The server has {QUEUE} requests in flight on this frontend, the most that it takes"
    assert set(refused) == {text}
    answered = [number for number, code in found.items() if code is grpc.StatusCode.OK]
    assert [to_array(asked[number].result().outputs["y"]).item() for number in answered] == answered


def test_without_a_clients_deadline_there_is_the_servers(server: Server, client: GrpcClient) -> None:
    # Six requests of 0.9 s each before it: the seventh waits for longer than the server lets it.
    occupying = [client.start(commanded(SLEEP + 900)) for _ in range(6)]
    until(lambda: server.status().queued == 2, "two of them wait")
    begun = time.monotonic()
    asked = client.stub.Predict.future(predict_request(commanded(0)))
    with RestClient(server.rest_port) as web:
        status, answer = web.predict({"inputs": {"x": [[1.0]], "command": [0], "argument": [0]}})
    assert (status, list(answer)) == (504, ["error"])
    assert asked.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begun < REQUEST_S + 1
    assert {each.code() for each in occupying} <= {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}
