"""Load that checks every answer: clients in threads, each request with numbers that nobody else sends."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from tests.support.clients import GrpcClient, RestClient
from tests.support.server import NAME, Server
from tests.support.waiting import until

_STOP_S = 30.0
_SERIALS = itertools.count(1)

Call = Callable[[np.ndarray], np.ndarray]
"""Sends the array as x and returns y."""


def unique(shape: Sequence[int]) -> np.ndarray:
    """A float32 array that no other call returns: a serial number, and numbers that follow from it."""
    serial = next(_SERIALS)
    array = np.arange(np.prod(shape, dtype=int)) % 1024 + serial % (1 << 22)
    return array.reshape(shape).astype(np.float32)


class Client(threading.Thread):
    """Sends one request after another and compares."""

    def __init__(
        self, name: str, call: Call, shapes: Sequence[Sequence[int]], added: Sequence[float]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._call = call
        self._shapes = itertools.cycle(shapes)
        self._added = [np.float32(number) for number in added]
        self.stopping = threading.Event()
        self.done = 0
        self.failures: list[str] = []
        self.slowest_s = 0.0
        self.last_at = 0.0

    def run(self) -> None:
        while not self.stopping.is_set():
            sent = unique(next(self._shapes))
            begun = time.monotonic()
            try:
                found = self._call(sent)
                if not any(np.array_equal(found, sent + number) for number in self._added):
                    self.failures.append(f"{self.name}: sent {sent.ravel()[:4]}, got {found.ravel()[:4]}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the test is to see it
                self.failures.append(
                    f"{self.name}: {type(error).__name__}: {' '.join(str(error).split())}"[:500]
                )
                # What refuses at once would otherwise fill the list.
                self.stopping.wait(0.05)
            self.last_at = time.monotonic()
            self.slowest_s = max(self.slowest_s, self.last_at - begun)
            self.done += 1


class Load:
    """Clients that run as long as the context; `added`: what the model may add to its input."""

    def __init__(
        self,
        server: Server,
        *,
        grpc: int = 4,
        rest: int = 2,
        shapes: Sequence[Sequence[int]] = ((1, 16),),
        added: Sequence[float] = (0.0,),
        version: int = 0,
        model: str = NAME,
        connections: Sequence[GrpcClient] = (),
        extra: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """`connections`: clients of the test's own, instead of `grpc` new ones. `extra`: further inputs."""
        self._open: list[GrpcClient | RestClient] = []
        self.clients: list[Client] = []
        more = extra or {}
        if not connections:
            connections = [GrpcClient(server.grpc_port) for _ in range(grpc)]
            self._open += connections
        for index, connection in enumerate(connections):
            call = _over_grpc(connection, model, version, more)
            self.clients.append(Client(f"gRPC {index}", call, shapes, added))
        for index in range(rest if server.rest_port else 0):
            web = RestClient(server.rest_port)
            self._open.append(web)
            call = _over_rest(web, model, version, more)
            self.clients.append(Client(f"REST {index}", call, shapes, added))

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        self.wait_more(2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for client in self.clients:
            client.stopping.set()
        for client in self.clients:
            client.join(_STOP_S)
        for connection in self._open:
            connection.__exit__()
        if kind is None:
            hanging = [client.name for client in self.clients if client.is_alive()]
            assert not hanging, f"never answered: {hanging}"

    def wait_more(self, each: int = 20) -> None:
        """Until every client has been answered `each` times more."""
        goals = [(client, client.done + each) for client in self.clients]
        until(
            lambda: all(client.done >= goal for client, goal in goals), f"{each} more answers for each client"
        )

    @property
    def done(self) -> int:
        """Requests that ended, in whatever way."""
        return sum(client.done for client in self.clients)

    @property
    def failures(self) -> list[str]:
        """What was not answered rightly."""
        return [text for client in self.clients for text in client.failures]

    @property
    def slowest_s(self) -> float:
        """The longest wait of all."""
        return max(client.slowest_s for client in self.clients)


def _over_grpc(client: GrpcClient, model: str, version: int, extra: Mapping[str, np.ndarray]) -> Call:
    return lambda array: client.predict({"x": array, **extra}, version, model=model)["y"]


def _over_rest(client: RestClient, model: str, version: int, extra: Mapping[str, np.ndarray]) -> Call:
    lists = {name: array.tolist() for name, array in extra.items()}

    def call(array: np.ndarray) -> np.ndarray:
        status, answer = client.predict({"inputs": {"x": array.tolist(), **lists}}, version, model)
        assert status == 200, f"{status}: {answer}"
        outputs: Any = answer["outputs"]
        return np.array(outputs, np.float32).reshape(array.shape)

    return call
