"""A whole server whose models are inferred by batches: right answers, clear refusals, and deaths under load."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from openvino import opset13 as op

from tests.support import models
from tests.support.clients import GrpcClient, RestClient, predict_request, to_array
from tests.support.load import Load
from tests.support.models import CRASH, FAIL, HANG, SLEEP
from tests.support.repositories import ConfigServer
from tests.support.server import NAME
from tests.support.waiting import until
from tests.unit.workers.models import named, parameter, save
from workers.fake_engine import ECHO

pytestmark = pytest.mark.integration

BATCHING = {"max_batch_size": 8}
SHAPES = ((1, 16), (3, 16), (2, 16), (8, 16))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigServer]:
    """OpenVINO: y = x + 1 for rows of 16, two workers; and a model that cannot be batched."""
    directory = tmp_path_factory.mktemp("batching")
    x = parameter("x", "float32", (2, 3))
    save(directory / "rigid" / "1", [named(op.reshape(x, np.array([3, 2]), False), "y")], [x])
    entries: dict[str, dict[str, Any]] = {
        NAME: {"base_path": str(models.add(directory / "add", shape=(1, 16))), "nireq": 2},
        "rigid": {"base_path": str(directory / "rigid")},
    }
    options = {"target_device": "CPU", "batching_parameters": BATCHING}
    with ConfigServer(
        directory, {name: {**options, **keys} for name, keys in entries.items()}, workers=2
    ) as started:
        yield started


@pytest.fixture(scope="module")
def faked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigServer]:
    """The fake engine, one worker, one batch at a time."""
    with fake(tmp_path_factory.mktemp("batching-fake")) as started:
        yield started


def fake(directory: Path, batching: dict[str, int] | None = None, **options: Any) -> ConfigServer:
    """The fake engine, one worker, one batch at a time."""
    path = models.echo(directory / "models", commands=True, shape=(1, 1))
    entry = {"base_path": str(path), "batching_parameters": batching or BATCHING}
    return ConfigServer(directory, {NAME: entry}, **options)


def told(command: int, value: float, argument: int = 0) -> dict[str, np.ndarray]:
    """A request of one row."""
    words = {"command": np.array([command], np.int32), "argument": np.array([argument], np.int32)}
    return {"x": np.array([[value]], np.float32), **words}


# ---- answers


def test_rows_are_as_many_as_the_client_brings(server: ConfigServer) -> None:
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        for count in range(1, 9):
            x = np.random.default_rng(count).random((count, 16), np.float32)
            assert np.array_equal(client.predict({"x": x})["y"], x + np.float32(1))
            status, answer = web.predict({"instances": x.tolist()})
            assert status == 200
            assert np.array_equal(np.array(answer["predictions"], np.float32), x + np.float32(1))


def test_metadata_leave_the_rows_open(server: ConfigServer) -> None:
    with GrpcClient(server.grpc_port) as client:
        signature = client.signature()
        for tensor in (signature.inputs["x"], signature.outputs["y"]):
            assert [dim.size for dim in tensor.tensor_shape.dim] == [-1, 16]


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((9, 16), "Obtained batch size 9, required batch size 1 to 8 (max_batch_size)"),
        ((0, 16), "Obtained batch size 0, required batch size 1 to 8 (max_batch_size)"),
        ((1, 15), "The input data is incorrect. Obtained shape [1, 15], required shape [-1, 16]"),
    ],
)
def test_what_no_batch_can_hold_is_refused(server: ConfigServer, shape: tuple[int, int], text: str) -> None:
    with GrpcClient(server.grpc_port) as client:
        code, details = client.refusal({"x": np.zeros(shape, np.float32)})
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert text in details


def test_a_model_that_cannot_be_batched_is_served_without_and_says_why(server: ConfigServer) -> None:
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    with GrpcClient(server.grpc_port) as client:
        assert np.array_equal(client.predict({"x": x}, model="rigid")["y"], x.reshape(3, 2))
    assert "model rigid version 1: batching_parameters have no effect: it cannot be reshaped" in server.log()


def test_requests_that_wait_together_are_inferred_together(faked: ConfigServer) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(GrpcClient(faked.grpc_port)) for _ in range(8)]
        begun = time.monotonic()
        calls = [clients[number % 8].start(told(SLEEP + 1000, number), timeout_s=30) for number in range(25)]
        found = [to_array(call.result(timeout=30).outputs["y"]).item() for call in calls]
        assert found == list(range(25))
        assert time.monotonic() - begun < 12, "25 seconds one by one, some 5 by batches"


def _known(server: ConfigServer) -> int:
    """Requests that the broker knows."""
    status = server.status()
    return status.queued + sum(worker.in_hand for worker in status.workers)


def test_past_max_enqueued_batches_requests_are_refused_at_once(tmp_path: Path) -> None:
    batching = {"max_batch_size": 2, "max_enqueued_batches": 1}
    with fake(tmp_path, batching) as server, GrpcClient(server.grpc_port) as client:
        asked = client.start(told(HANG, 0.0, argument=30))
        until(lambda: any(worker.in_hand for worker in server.status().workers), "it runs")
        # Two wait ready, as one batch, and two are queued. One after the other: what comes together is judged together.
        taken = []
        for number in range(4):
            taken.append(client.start(told(ECHO, number), 30.0))
            until(lambda: _known(server) == len(taken) + 1, "it is queued")
        refused = [client.start(told(ECHO, number), 30.0) for number in range(8)]
        assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert refused[0].details() == "2 rows wait for model model, and max_enqueued_batches allows 2"
        with RestClient(server.rest_port) as web:
            columns = {name: array.tolist() for name, array in told(ECHO, 1.0).items()}
            assert web.predict({"inputs": columns})[0] == 503
        asked.cancel()
        server.kill("worker")
        assert [call.code() for call in taken] == [grpc.StatusCode.OK] * 4
        server.wait_serving()


# ---- who fails, who does not


def test_a_request_that_fails_does_not_fail_those_in_its_batch(faked: ConfigServer) -> None:
    with GrpcClient(faked.grpc_port) as client:
        blocker = client.start(told(SLEEP + 700, 0.0))
        until(lambda: any(worker.in_hand for worker in faked.status().workers), "it runs")
        calls = [client.start(told(FAIL if number == 2 else ECHO, number)) for number in range(5)]
        assert calls[2].code() is grpc.StatusCode.INTERNAL
        assert "told to fail" in calls[2].details()
        for number in (0, 1, 3, 4):
            assert to_array(calls[number].result(timeout=10).outputs["y"]).item() == number
        assert blocker.code() is grpc.StatusCode.OK


def test_a_request_that_kills_its_worker_is_found_among_those_in_its_batch(faked: ConfigServer) -> None:
    with GrpcClient(faked.grpc_port) as client:
        blocker = client.start(told(SLEEP + 700, 0.0))
        until(lambda: any(worker.in_hand for worker in faked.status().workers), "it runs")
        calls = [client.start(told(CRASH if number == 1 else ECHO, number), 40.0) for number in range(4)]
        for number in (0, 2, 3):
            assert to_array(calls[number].result(timeout=40).outputs["y"]).item() == number
        assert calls[1].code() is grpc.StatusCode.INTERNAL
        assert blocker.code() is grpc.StatusCode.OK
        faked.wait_serving()


def test_a_request_that_hangs_is_found_among_those_in_its_batch(tmp_path: Path) -> None:
    with (
        fake(tmp_path, inference_timeout_seconds=1.5) as server,
        GrpcClient(server.grpc_port) as client,
    ):
        blocker = client.start(told(SLEEP + 700, 0.0))
        until(lambda: any(worker.in_hand for worker in server.status().workers), "it runs")
        calls = [client.start(told(HANG if number == 1 else ECHO, number), 40.0) for number in range(4)]
        for number in (0, 2, 3):
            assert to_array(calls[number].result(timeout=40).outputs["y"]).item() == number
        assert calls[1].code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert blocker.code() is grpc.StatusCode.OK


def test_cancelled_members_and_those_too_late_disturb_nobody(faked: ConfigServer) -> None:
    with GrpcClient(faked.grpc_port) as client:
        blocker = client.start(told(SLEEP + 1000, 0.0))
        until(lambda: any(worker.in_hand for worker in faked.status().workers), "it runs")
        late = client.start(told(ECHO, 1.0), 0.3)
        cancelled = client.start(told(ECHO, 2.0))
        running = [client.start(told(SLEEP + 500, number)) for number in (3.0, 4.0)]
        cancelled.cancel()
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for number, call in zip((3.0, 4.0), running, strict=True):
            assert to_array(call.result(timeout=10).outputs["y"]).item() == number
        assert blocker.code() is grpc.StatusCode.OK
        faked.wait_idle()


# ---- deaths under load


def test_killing_workers_fails_no_request(server: ConfigServer) -> None:
    with Load(server, grpc=8, shapes=SHAPES, added=(1.0,)) as load:
        for _ in range(2):
            victim = next(iter(server.worker_pids().values()))
            os.kill(victim, signal.SIGKILL)
            server.wait_replaced("worker", victim)
            load.wait_more()
    assert load.failures == []


def test_killing_the_broker_fails_no_request(server: ConfigServer) -> None:
    workers = server.worker_pids()
    with Load(server, grpc=8, shapes=SHAPES, added=(1.0,)) as load:
        server.wait_replaced("broker", server.kill("broker"))
        load.wait_more()
    assert load.failures == []
    assert server.worker_pids() == workers
    server.wait_idle()


def test_killing_a_frontend_fails_no_request_of_the_other(server: ConfigServer) -> None:
    with (
        Load(server, grpc=6, rest=0, shapes=SHAPES, added=(1.0,)) as load,
        ThreadPoolExecutor(4) as pool,
    ):
        rest = [pool.submit(_ask_rest, server.rest_port) for _ in range(4)]
        (victim,) = server.pids("rest")
        os.kill(victim, signal.SIGKILL)
        for call in rest:
            call.exception(timeout=30)
        load.wait_more()
        server.wait_replaced("rest", victim)
    assert load.failures == []


def _ask_rest(port: int) -> None:
    with RestClient(port) as web:
        web.predict({"instances": [[1.0] * 16]})


def test_a_change_of_batching_under_load_fails_no_request(tmp_path: Path) -> None:
    base = {"base_path": str(models.add(tmp_path / "add", shape=(1, 16))), "target_device": "CPU"}
    with ConfigServer(tmp_path, {NAME: base}) as server, GrpcClient(server.grpc_port) as client:

        def rows() -> int:
            return int(client.signature().inputs["x"].tensor_shape.dim[0].size)

        assert rows() == 1
        with Load(server, shapes=((1, 16),), added=(1.0,)) as load:
            for batching, wanted in (({"batching_parameters": BATCHING}, -1), ({}, 1)):
                server.configure({NAME: {**base, **batching}})
                until(lambda wanted=wanted: rows() == wanted, "the new configuration", 30)  # type: ignore[misc]
                load.wait_more()
        assert load.failures == []
        stub = client.stub.Predict(predict_request({"x": np.zeros((1, 16), np.float32)}), timeout=10)
        assert to_array(stub.outputs["y"]).tolist() == [[1.0] * 16]
