"""Short Predicts over REST in a whole server, of clients that send them again and again: under way while things end."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import models
from tests.support.clients import RestClient
from tests.support.server import HOST, NAME, STOP_S, Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

RUN_S = 0.4
BODY = b'{"instances": [[1.5, 2.0, 3.0]]}'
REQUEST = b"POST /v1/models/%b:predict HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (
    NAME.encode(),
    len(BODY),
    BODY,
)
ANSWER = b'{"predictions":[[1.5,2.0,3.0]]}'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The fake engine, one worker, slow."""
    path = models.echo(tmp_path / "models", shape=(1, 3), run_seconds=RUN_S)
    with Server(tmp_path, path, nireq=4, rest_workers=1) as started:
        yield started


class Client:
    """A connection whose requests the frontend knows."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection((HOST, server.rest_port), timeout=STOP_S)
        self._server = server
        for _ in range(3):
            self.socket.sendall(REQUEST)
            assert self.answer().endswith(ANSWER)

    def answer(self) -> bytes:
        """All of it; they have one length."""
        text = b""
        while not text.endswith(b"}"):
            piece = self.socket.recv(1 << 16)
            assert piece, text
            text += piece
        return text

    def begin(self) -> None:
        """Have a request run."""
        self.socket.sendall(REQUEST)
        until(lambda: self.in_hand() == 1, "it runs")

    def in_hand(self) -> int:
        return sum(worker.in_hand for worker in self._server.status().workers)


def test_what_ends_while_a_request_is_under_way(server: Server) -> None:
    """A worker, the broker, the client, and the server itself, one after another."""
    with contextlib.closing(Client(server).socket):
        client = Client(server)
        for kind in ("worker", "broker"):
            client.begin()
            server.wait_replaced(kind, server.kill(kind))
            assert client.answer().endswith(ANSWER)
        client.begin()
        client.socket.close()
        server.wait_idle()

        client = Client(server)
        with contextlib.closing(client.socket):
            client.begin()
            os.killpg(server.process.pid, signal.SIGTERM)
            last = client.answer()
            assert last.endswith(ANSWER)
            assert b"\r\nConnection: close\r\n" in last
            assert client.socket.recv(1) == b""
        assert server.wait_ended() == 0
    assert "Traceback" not in server.log()


def test_the_server_ends_in_time_whatever_runs(tmp_path: Path) -> None:
    path = models.echo(tmp_path / "models", shape=(1, 3), run_seconds=1.5)
    with Server(tmp_path, path, rest_workers=1) as server:
        client = Client(server)
        with contextlib.closing(client.socket):
            client.begin()
            os.killpg(server.process.pid, signal.SIGTERM)
            assert server.wait_ended() == 0
            with contextlib.suppress(ConnectionError):
                assert client.socket.recv(1) == b"", "no answer that was not given"
    assert "Traceback" not in server.log()


def test_python_clients_get_the_same(server: Server) -> None:
    """http.client sends a body apart from its head."""
    with RestClient(server.rest_port) as web:
        for number in range(5):
            rows = [[number, 0.1, 2.0]]
            assert web.predict({"instances": rows}) == (200, {"predictions": rows})
        assert web.predict({"instances": [[1.0, 2.0]]})[0] == 400
        assert web.predict({"inputs": [[1.0, 2.0, 3.0]]}) == (200, {"outputs": [[1.0, 2.0, 3.0]]})
    server.wait_idle()
