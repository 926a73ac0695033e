"""SIGKILL of each process of a whole server under load: no request of the others is lost, and nothing of it stays."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from tests.support import models, processes
from tests.support.clients import GrpcClient, predict_request, to_array
from tests.support.load import Load
from tests.support.models import NO_COMMAND, SLEEP, commanded
from tests.support.server import Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ADDED = (1.0,)
SHAPES = ((1, 16), (3, 40), (2, 500))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenVINO, y = x + 1 of any shape, two workers, one frontend of each kind."""
    directory = tmp_path_factory.mktemp("kills")
    with Server(directory, models.add(directory / "models"), device="CPU", workers=2) as started:
        yield started


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The fake engine, one worker: while it is dead, nobody can answer."""
    directory = tmp_path_factory.mktemp("kills-fake")
    path = models.echo(directory / "models", commands=True, run_seconds=0.002)
    with Server(directory, path, nireq=4) as started:
        yield started


def test_killing_a_worker_fails_no_request(server: Server) -> None:
    with Load(server, shapes=SHAPES, added=ADDED) as load:
        victim = next(iter(server.worker_pids().values()))
        os.kill(victim, signal.SIGKILL)
        load.wait_more()
        server.wait_replaced("worker", victim)
    assert load.failures == []


def test_killing_the_only_worker_fails_no_request(fake: Server) -> None:
    with Load(fake, grpc=8, extra=NO_COMMAND) as load:
        for _ in range(2):
            victim = fake.kill("worker")
            fake.wait_replaced("worker", victim)
            load.wait_more()
    assert load.failures == []


@pytest.mark.parametrize("openvino", [True, False])
def test_killing_the_broker_fails_no_request(server: Server, fake: Server, openvino: bool) -> None:
    killed = server if openvino else fake
    workers = killed.worker_pids()
    added, extra = (ADDED, None) if openvino else ((0.0,), NO_COMMAND)
    with Load(killed, shapes=SHAPES, added=added, extra=extra) as load:
        killed.wait_replaced("broker", killed.kill("broker"))
        load.wait_more()
    assert load.failures == []
    assert killed.worker_pids() == workers, "a broker's death is no worker's"
    killed.wait_idle()


def test_what_runs_while_the_broker_dies_is_adopted_and_not_run_again(fake: Server) -> None:
    with GrpcClient(fake.grpc_port) as client:
        begun = time.monotonic()
        asked = client.start(commanded(SLEEP + 2500, 7.0))
        until(lambda: any(worker.in_hand for worker in fake.status().workers), "it runs")
        fake.wait_replaced("broker", fake.kill("broker"))
        assert to_array(asked.result(timeout=10).outputs["y"]).tolist() == [[7.0]]
        assert time.monotonic() - begun < 4.5, "run a second time"


def test_a_storekeeper_that_was_killed_goes_on_finding_versions(fake: Server, tmp_path: Path) -> None:
    with GrpcClient(fake.grpc_port) as client:
        fake.wait_replaced("storekeeper", fake.kill("storekeeper"))
        models.echo(tmp_path, commands=True, run_seconds=0.002)
        models.appear(fake.model_path, 2, tmp_path / "1")
        until(lambda: client.states().get(2, ("",))[0] == "AVAILABLE", "version 2")


def test_killing_a_grpc_frontend_touches_only_its_own_clients(tmp_path: Path) -> None:
    path = models.echo(tmp_path / "models", commands=True)
    with Server(tmp_path, path, rest=False, grpc_workers=2, nireq=2) as server, ExitStack() as stack:
        clients = [stack.enter_context(GrpcClient(server.grpc_port)) for _ in range(12)]
        by_frontend: dict[int, list[GrpcClient]] = {pid: [] for pid in server.pids("grpc")}
        for client in clients:
            by_frontend[_frontend_of(server, client)].append(client)
        assert all(by_frontend.values()), "12 connections, all to one of two frontends"
        victim, other = by_frontend
        worker = server.pid("worker")
        until(lambda: len(processes.segments(worker)) == 2, "both arenas are mapped")
        with Load(server, rest=0, connections=by_frontend[other], extra=NO_COMMAND) as load:
            # What runs in the dead one's memory must end in peace.
            asked = by_frontend[victim][0].start(commanded(SLEEP + 1000))
            until(
                lambda: any(each.requests and each.pid == victim for each in server.status().frontends),
                "runs",
            )
            os.kill(victim, signal.SIGKILL)
            assert asked.code() is grpc.StatusCode.UNAVAILABLE
            load.wait_more()
            server.wait_replaced("grpc", victim)
            until(lambda: len(processes.segments(worker)) == 1, "the dead one's arena is given back")
            load.wait_more()
        assert load.failures == []
        assert processes.exists(worker)
        for client in by_frontend[victim]:
            answer = client.stub.Predict(predict_request(commanded(0, 5.0)), timeout=10, wait_for_ready=True)
            assert to_array(answer.outputs["y"]).tolist() == [[5.0]]
        until(lambda: len(processes.segments(worker)) in (1, 2), "segments")
        server.wait_idle()


def _frontend_of(server: Server, client: GrpcClient) -> int:
    """Which process serves this connection: the one that has a request while this client alone asks."""
    asked = client.start(commanded(SLEEP + 200))
    found = until(
        lambda: [each.pid for each in server.status().frontends if each.requests], "it has a request"
    )
    asked.result(timeout=10)
    server.wait_idle()
    return found[0]


@pytest.mark.parametrize("kind", ["storekeeper", "rest", "arbiter"])
def test_killing_a_bystander_fails_no_grpc_request(server: Server, kind: str) -> None:
    workers = server.worker_pids()
    with Load(server, shapes=SHAPES, added=ADDED, rest=0) as load:
        victim = server.kill(kind)
        server.wait_replaced(kind, victim)
        load.wait_more()
    assert load.failures == []
    assert server.worker_pids() == workers
    with Load(server, grpc=0, rest=2, shapes=SHAPES, added=ADDED) as load:
        load.wait_more(5)
    assert load.failures == []


def test_when_the_command_is_killed_all_end_and_a_new_start_succeeds(server: Server) -> None:
    with Load(server, shapes=SHAPES, added=ADDED) as load:
        server.process.kill()
        assert server.process.wait() == -signal.SIGKILL
        begun = time.monotonic()
        server.wait_alone_gone()
        assert time.monotonic() - begun < 5
        server.log_path.write_text("")
        server.start()
        server.wait_ready()
        # A client may still be told by its channel of the connection that it had tried last.
        load.wait_more()
        before = len(load.failures)
        load.wait_more()
        assert len(load.failures) == before
