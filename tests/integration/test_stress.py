"""Everything at once, at random: shapes, values, deadlines, cancellations, clients that leave, workers that die.

Every answer is held against its own request. In the end nothing is queued, lent, mapped or open that was not before.
"""

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support import models, processes
from tests.support.clients import GrpcClient, RestClient, to_array
from tests.support.load import unique
from tests.support.server import Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

MB = 1 << 20
ARENA_MB = 4
KILL_PAUSE_S = 1.5
"""A request that was running at one worker's death runs again alone; only a death right then would convict it."""
GROWTH = {"grpc": 32 * MB}
OTHERS_GROWTH = 8 * MB
"""Of a process's own memory from one burst to the next. What is seen is one or two, except where grpcio receives:
its allocator's share goes up and down by 20."""

_EXPECTED_LATE = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class Stressor(threading.Thread):
    """One client that does a random thing after the other until `until_s`."""

    def __init__(self, server: Server, seed: int, until_s: float) -> None:
        super().__init__(name=f"stressor {seed}", daemon=True)
        self._server = server
        self._random = random.Random(seed)
        self._until_s = until_s
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> None:
        actions: list[tuple[int, Callable[[], None]]] = [
            (6, self._plain),
            (2, self._many),
            (2, self._late),
            (2, self._cancelled),
            (3, self._rest),
            (1, self._rest_gone),
            (1, self._channel_gone),
        ]
        weights = [weight for weight, _ in actions]
        with GrpcClient(self._server.grpc_port) as client, RestClient(self._server.rest_port) as web:
            self._client, self._web = client, web
            while time.monotonic() < self._until_s:
                ((_, action),) = self._random.choices(actions, weights)
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - whatever it is, the test is to see it
                    self.wrong.append(f"{action.__name__}: {type(error).__name__}: {error}"[:400])

    def _array(self) -> np.ndarray:
        """Mostly small; now and then larger than the arena."""
        columns = int(2 ** self._random.uniform(0, 14))
        rows = self._random.choice([1, 1, 2, 3, 8])
        if self._random.random() < 0.02:
            rows, columns = 1, ARENA_MB * MB // 4 + 1000
        return unique((rows, columns))

    def _check(self, kind: str, sent: np.ndarray, found: np.ndarray) -> None:
        self.outcomes[kind] += 1
        if not np.array_equal(found, sent + np.float32(1)):
            self.wrong.append(
                f"{kind}: sent {sent.shape} {sent.flat[0]}, got {found.shape} {found.ravel()[:3]}"
            )

    def _plain(self) -> None:
        sent = self._array()
        self._check("plain", sent, self._client.predict({"x": sent})["y"])

    def _many(self) -> None:
        sent = [self._array() for _ in range(8)]
        asked = [self._client.start({"x": array}) for array in sent]
        for array, each in zip(sent, asked, strict=True):
            self._check("many", array, to_array(each.result().outputs["y"]))

    def _late(self) -> None:
        sent = self._array()
        asked = self._client.start({"x": sent}, timeout_s=self._random.uniform(0.0002, 0.01))
        self._either(asked, "late", sent)

    def _cancelled(self) -> None:
        sent = self._array()
        asked = self._client.start({"x": sent})
        time.sleep(self._random.uniform(0, 0.004))
        asked.cancel()
        self._either(asked, "cancelled", sent)

    def _either(self, asked: Any, kind: str, sent: np.ndarray) -> None:
        try:
            answer = asked.result()
        except grpc.FutureCancelledError:
            self.outcomes[kind] += 1
        except grpc.RpcError as error:
            if error.code() not in _EXPECTED_LATE:
                raise
            self.outcomes[kind] += 1
        else:
            self._check(f"{kind}, but answered", sent, to_array(answer.outputs["y"]))

    def _rest(self) -> None:
        sent = self._array()[:, :2000]
        status, answer = self._web.predict({"inputs": sent.tolist()})
        assert status == 200, answer
        self._check("REST", sent, np.array(answer["outputs"], np.float32))

    def _rest_gone(self) -> None:
        """Leaves before the answer, or in the middle of the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.rest_port, timeout=20)
        body = b'{"inputs": [[%s1]]}' % (b"1," * self._random.randrange(1, 5000))
        whole = self._random.random() < 0.5
        with contextlib.closing(connection):
            connection.putrequest("POST", "/v1/models/model:predict")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body if whole else body[: len(body) // 2])
        self.outcomes["REST, gone"] += 1

    def _channel_gone(self) -> None:
        client = GrpcClient(self._server.grpc_port)
        asked = client.start({"x": self._array()})
        time.sleep(self._random.uniform(0, 0.01))
        client.channel.close()
        asked.cancel()
        self.outcomes["channel, gone"] += 1


def _burst(server: Server, seed: int, seconds: float, clients: int, *, broker: bool) -> Counter[str]:
    """Clients for so long, workers killed meanwhile and perhaps the broker; what came of it, all of it right."""
    chance = random.Random(seed)
    end = time.monotonic() + seconds
    stressors = [Stressor(server, seed * 100 + index, end) for index in range(clients)]
    for stressor in stressors:
        stressor.start()
    kills = 0
    while time.monotonic() + KILL_PAUSE_S < end:
        time.sleep(chance.uniform(0.2, 0.6) if not kills else KILL_PAUSE_S + chance.uniform(0, 0.5))
        alive = list(server.worker_pids().values())
        if alive:
            os.kill(chance.choice(alive), signal.SIGKILL)
            kills += 1
        if broker and kills == 1:
            # At once: the worker's death may be news to the old broker, or to the new one.
            time.sleep(chance.uniform(0, 0.01))
            server.kill("broker")
    for stressor in stressors:
        stressor.join(40)
    hanging = [stressor.name for stressor in stressors if stressor.is_alive()]
    assert not hanging, f"without an answer: {hanging}"
    assert [text for stressor in stressors for text in stressor.wrong] == []
    assert kills
    outcomes: Counter[str] = Counter()
    for stressor in stressors:
        outcomes += stressor.outcomes
    return outcomes


def _settle(server: Server) -> dict[int, tuple[int, int]]:
    """When all is quiet: by process its open descriptors and its own memory; shared memory is the arenas alone."""
    server.wait_serving()
    server.wait_idle()
    frontends = server.pids("grpc") + server.pids("rest")
    arenas = {segment for pid in frontends for segment in processes.segments(pid)}

    def clean() -> bool:
        own = all(processes.segment_bytes(pid) == ARENA_MB * MB for pid in frontends)
        return own and all(set(processes.segments(pid)) <= arenas for pid in server.pids("worker"))

    until(clean, "no segment is left but the arenas")
    # Sockets of clients that have left are closed a moment later.
    until(lambda: _stand(server) == _stand(server), "descriptors are at rest")
    return {pid: (count, processes.own_bytes(pid)) for pid, count in _stand(server).items()}


def _stand(server: Server) -> dict[int, int]:
    time.sleep(0.1)
    return {one.pid: processes.descriptors(one.pid) for one in server.processes()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """OpenVINO, y = x + 1 of any shape, in two workers with two slots each."""
    directory = tmp_path_factory.mktemp("stress")
    path = models.add(directory / "models")
    with Server(directory, path, device="CPU", workers=2, nireq=2, arena_mb=ARENA_MB) as started:
        yield started


@pytest.mark.parametrize(
    ("seconds", "clients"),
    [(3.0, 6), pytest.param(6.0, 10, marks=[pytest.mark.slow, pytest.mark.timeout(200)])],
)
def test_no_answer_is_wrong_or_missing_and_nothing_leaks(
    server: Server, seconds: float, clients: int
) -> None:
    seen: list[dict[int, tuple[int, int]]] = []
    outcomes: Counter[str] = Counter()
    seed = int(seconds)
    for burst in range(3):
        outcomes += _burst(server, seed + burst, seconds, clients, broker=burst == 0)
        seen.append(_settle(server))
    assert outcomes["plain"] > 20
    assert outcomes["REST"] > 10
    assert {"many", "late", "cancelled"} <= set(outcomes)
    same = [one for one in server.processes() if one.pid in seen[1]]
    assert {"command", "broker", "storekeeper", "grpc", "rest"} <= {one.kind for one in same}
    for process in same:
        (descriptors, memory), (descriptors_after, _) = (each[process.pid] for each in seen[1:])
        assert descriptors_after <= descriptors + 4, process
        bound = memory + GROWTH.get(process.kind, OTHERS_GROWTH)
        # What it took for the burst is given back when its objects are looked through, not at once.
        until(lambda: processes.own_bytes(process.pid) <= bound, f"no more than {bound} bytes in {process}")  # noqa: B023


def test_what_one_frontend_holds_does_not_grow_with_requests(server: Server, tmp_path: Path) -> None:
    pid = server.pid("grpc")
    with GrpcClient(server.grpc_port) as client:
        found: list[int] = []
        for _ in range(3):
            for _ in range(150):
                sent = unique((4, 1000))
                assert np.array_equal(client.predict({"x": sent})["y"], sent + np.float32(1))
            found.append(processes.own_bytes(pid))
    assert found[2] <= found[1] + MB
