"""`ie_serving scale` while requests flow: none fails, and the workers share the cores as planned."""

import os
from collections.abc import Iterator

import pytest

from common.process import available_cores
from tests.support import models, processes
from tests.support.load import Load
from tests.support.server import Server
from tests.support.waiting import until
from workers.properties import Plan

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenVINO, y = x + 1, one worker."""
    directory = tmp_path_factory.mktemp("scaling")
    with Server(directory, models.add(directory / "models"), device="CPU") as started:
        yield started


def _cores(text: str) -> set[int]:
    """Of a Cpus_allowed_list, as in `0-3,6`."""
    ends = [part.partition("-") for part in text.split(",")]
    return {core for first, _, last in ends for core in range(int(first), int(last or first) + 1)}


def _shares(server: Server) -> list[set[int]]:
    """Cores of each worker, in the order of their slots."""
    workers = sorted(server.worker_pids().items(), key=lambda item: int(item[0].rpartition("-")[2]))
    return [_cores(processes.allowed_cores(pid)) for _, pid in workers]


def test_scaling_to_two_and_back_fails_no_request(server: Server) -> None:
    mine = sorted(os.sched_getaffinity(0))
    assert _shares(server) == [set(mine)]
    others = _bystanders(server)
    with Load(server, grpc=4, rest=2, shapes=((1, 16), (7, 33)), added=(1.0,)) as load:
        _scale(server, 2)
        shares = _shares(server)
        planned = [set(Plan(index, 2).cores(available_cores())) for index in range(2)]
        assert sorted(map(sorted, shares)) == sorted(map(sorted, planned))
        if len(available_cores()) > 1:
            assert not shares[0] & shares[1]
        pids = server.worker_pids()
        server.wait_replaced("broker", server.kill("broker"))
        assert server.worker_pids() == pids, "the new broker knows what was asked of the old one"
        load.wait_more(10)
        _scale(server, 1)
        assert _shares(server) == [set(mine)]
        load.wait_more(10)
    assert load.failures == []
    assert _bystanders(server) == others
    server.wait_idle()


def _bystanders(server: Server) -> set[int]:
    return {one.pid for one in server.processes() if one.kind not in ("worker", "broker")}


def _scale(server: Server, replicas: int) -> None:
    """And wait until the replaced workers have ended. A share of the cores is fixed at compile time: all are new."""
    before = set(server.pids("worker"))
    done = server.command("scale", "CPU", str(replicas))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"device CPU is served by {replicas} worker(s), after ")
    until(lambda: len(server.pids("worker")) == replicas, "the replaced ones have ended")
    assert not before & set(server.pids("worker"))


@pytest.mark.parametrize("crash", [False, True])
def test_changing_ones_mind_in_the_middle(server: Server, crash: bool) -> None:
    with Load(server, grpc=2, rest=0, added=(1.0,)) as load:
        for replicas in (3, 2, 1):
            assert server.command("scale", "CPU", str(replicas), "--no-wait").returncode == 0
            if crash and replicas == 2:
                server.wait_replaced("broker", server.kill("broker"))
        until(lambda: len(server.pids("worker")) == 1, "one worker in the end")
        server.wait_serving()
        load.wait_more(5)
    assert load.failures == []
    assert [pool.wanted for pool in server.status().pools] == [1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("GPU", "2"), "no model is served on device GPU; devices in use: CPU"),
        (("CPU", "0"), "a whole number from 1 to 64 is accepted, not 0"),
        (("CPU", "65"), "a whole number from 1 to 64 is accepted, not 65"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(server: Server, words: tuple[str, ...], text: str) -> None:
    pids = server.worker_pids()
    done = server.command("scale", *words)
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr
    assert server.worker_pids() == pids
