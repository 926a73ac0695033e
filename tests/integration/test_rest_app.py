"""The REST frontend in real processes: gunicorn, its workers, sockets, signals."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.config import ServerConfig, save

pytestmark = pytest.mark.integration

LIMIT = 64 << 20
HOST = "127.0.0.1"
LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [\w.]+ - [A-Z]+ - ")


def wait_until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """A running frontend."""

    def __init__(self, run_dir: Path, workers: int = 1, port: int | None = None) -> None:
        self.run_dir = run_dir
        self.port = port or free_port()
        config = ServerConfig(
            models=(),
            run_dir=str(run_dir),
            rest_port=self.port,
            rest_workers=workers,
            bind_address=HOST,
            message_bytes=LIMIT,
        )
        save(config)
        self.log = run_dir / "console"
        with self.log.open("wb") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.rest_server", str(run_dir)],
                stdout=console,
                stderr=console,
            )

    def wait_listening(self, workers: int = 1) -> "Server":
        wait_until(lambda: self.process.poll() is not None or len(self.marks("listening")) >= workers, 30)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def marks(self, kind: str) -> list[Path]:
        return list(self.run_dir.glob(f"{kind}-*"))

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(HOST, self.port, timeout=20)

    def open_socket(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=20)

    def workers(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def ask(self, model: str, numbers: str = "[[1, 2, 3]]") -> Any:
        with contextlib.closing(self.connect()) as connection:
            return predict(connection, model, numbers)

    def kill(self) -> None:
        if self.process.poll() is None:
            for worker in self.workers():
                with contextlib.suppress(ProcessLookupError):  # one that a test has killed
                    os.kill(worker, signal.SIGKILL)
            self.process.kill()
        self.process.wait()


def predict(connection: http.client.HTTPConnection, model: str, numbers: str = "[[1, 2, 3]]") -> Any:
    connection.request("POST", f"/v1/models/{model}:predict", f'{{"inputs": {numbers}}}')
    response = connection.getresponse()
    document = json.loads(response.read())
    assert response.status == 200, document
    return document["outputs"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it alive."""
    running = Server(tmp_path_factory.mktemp("rest"))
    try:
        yield running.wait_listening()
        assert running.process.poll() is None, running.log.read_text()
    finally:
        running.kill()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """One for a test that ends it."""
    running = Server(tmp_path)
    try:
        yield running.wait_listening()
    finally:
        running.kill()


def test_a_connection_is_kept(server: Server) -> None:
    with contextlib.closing(server.connect()) as connection:
        connection.connect()
        kept = connection.sock
        for number in range(5):
            assert predict(connection, "one", f"[[{number}, 0, 0.5]]") == [[number + 1.0, 1.0, 1.5]]
        for path, status in (("/v1/models/none", 404), ("/nowhere", 404), ("/v1/models/one:predict", 405)):
            connection.request("GET", path)
            response = connection.getresponse()
            assert (response.status, list(json.loads(response.read()))) == (status, ["error"])
        connection.request("POST", "/v1/models/one:predict", '{"inputs": ')
        assert connection.getresponse().read().startswith(b'{"error":"Invalid JSON')
        assert predict(connection, "one") == [[2.0, 3.0, 4.0]]
        assert connection.sock is kept


def test_a_chunked_body(server: Server) -> None:
    with contextlib.closing(server.connect()) as connection:
        pieces = [b'{"inputs"', b": [[1,", b" 2, 3]]}"]
        connection.request("POST", "/v1/models/one:predict", iter(pieces), encode_chunked=True)
        assert json.loads(connection.getresponse().read()) == {"outputs": [[2.0, 3.0, 4.0]]}
        assert predict(connection, "one") == [[2.0, 3.0, 4.0]]


def test_pipelined_requests(server: Server) -> None:
    head = b"GET /v1/models/one HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1/models/one HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with server.open_socket() as connection:
        connection.sendall(head + head + last)
        assert read_all(connection).count(b'"AVAILABLE"') == 3


def test_a_body_that_is_too_large_gets_its_answer(server: Server) -> None:
    """Also for a client that sends all of it before it reads."""
    with contextlib.closing(server.connect()) as connection:
        connection.request("POST", "/v1/models/one:predict", b" " * (LIMIT + (32 << 20)))
        response = connection.getresponse()
        assert response.status == 413
        assert str(LIMIT) in json.loads(response.read())["error"]


def test_a_body_that_is_too_large_is_not_asked_for(server: Server) -> None:
    with server.open_socket() as connection:
        head = f"POST /v1/models/one:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {LIMIT + 1}\r\n"
        connection.sendall(head.encode() + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_is_asked_for(server: Server) -> None:
    body = b'{"inputs": [[1, 2, 3]]}'
    with server.open_socket() as connection:
        head = f"POST /v1/models/one:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert read_all(connection).endswith(b'{"outputs":[[2.0,3.0,4.0]]}')


def read_all(connection: socket.socket) -> bytes:
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def test_a_client_that_goes_away_cancels_its_request(server: Server) -> None:
    before = server.ask("cancelled", "[0]")[0]
    connection = server.connect()
    connection.request("POST", "/v1/models/slow:predict", '{"inputs": [[30, 0, 0]]}')
    assert server.ask("one") == [[2.0, 3.0, 4.0]]
    connection.close()
    wait_until(lambda: server.ask("cancelled", "[0]")[0] == before + 1, 2)


def test_a_client_that_goes_away_in_the_middle_of_its_body(server: Server) -> None:
    for sent in (b"", b'{"inputs": [[1, '):
        with server.open_socket() as connection:
            head = b"POST /v1/models/one:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
            connection.sendall(head + sent)
        assert server.ask("one") == [[2.0, 3.0, 4.0]]


@pytest.mark.parametrize("start", [b"", b'{"inputs": ', b'{"inputs": [NaN, '])
def test_50_mb_of_brackets(server: Server, start: bytes) -> None:
    pid = server.ask("pid", "[0]")
    with contextlib.closing(server.connect()) as connection:
        began = time.monotonic()
        connection.request("POST", "/v1/models/one:predict", start + b"[" * 50_000_000)
        response = connection.getresponse()
        assert response.status == 400
        assert json.loads(response.read())["error"].startswith("Invalid JSON: ")
        assert time.monotonic() - began < 15
    assert server.ask("pid", "[0]") == pid


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"get /v1/models/one HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models/one HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v1/models/one HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/models/one:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models/one:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/models/one:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_malformed_requests(server: Server, request_bytes: bytes) -> None:
    with server.open_socket() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)
        assert not received or re.match(rb"HTTP/1.[01] [45]\d\d ", received), received
    assert server.ask("one") == [[2.0, 3.0, 4.0]]


def test_websockets_are_refused(server: Server) -> None:
    with server.open_socket() as connection:
        connection.sendall(
            b"GET /v1/models/one HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_a_name_of_4_kb(server: Server) -> None:
    assert server.ask("m" * 4096) == [[2.0, 3.0, 4.0]]


def test_a_killed_worker_is_replaced_and_what_waits_is_served(own_server: Server) -> None:
    (killed,) = own_server.ask("pid", "[0]")
    os.kill(killed, signal.SIGKILL)
    (successor,) = own_server.ask("pid", "[0]")  # waits in the arbiter's socket until the successor accepts
    assert successor != killed
    assert own_server.process.poll() is None


def test_sigterm_ends_everything_and_answers_what_is_in_flight(own_server: Server) -> None:
    idle, busy = own_server.connect(), own_server.connect()
    assert predict(idle, "one") == [[2.0, 3.0, 4.0]]
    busy.request("POST", "/v1/models/slow:predict", '{"inputs": [[0.7, 0, 0]]}')
    time.sleep(0.1)
    worker = own_server.workers()[0]
    began = time.monotonic()
    own_server.process.send_signal(signal.SIGTERM)
    assert json.loads(busy.getresponse().read())["outputs"][0][1:] == [1.0, 1.0]
    assert own_server.process.wait(5) == 0
    assert time.monotonic() - began < 3
    assert not psutil.pid_exists(worker)
    assert own_server.marks("drained")
    assert own_server.marks("closed")
    assert own_server.log.read_text() == ""
    idle.close()
    busy.close()


def test_a_request_that_does_not_end_does_not_hold_up_the_end(own_server: Server) -> None:
    busy = own_server.connect()
    busy.request("POST", "/v1/models/slow:predict", '{"inputs": [[30, 0, 0]]}')
    time.sleep(0.1)
    began = time.monotonic()
    own_server.process.send_signal(signal.SIGTERM)
    assert own_server.process.wait(5) == 0
    assert time.monotonic() - began < 3
    busy.close()


def test_workers_end_with_their_arbiter(own_server: Server) -> None:
    workers = own_server.workers()
    own_server.process.kill()
    own_server.process.wait()
    wait_until(lambda: not any(psutil.pid_exists(worker) for worker in workers), 4)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind((HOST, own_server.port))


def test_log_lines_have_the_documented_format(own_server: Server) -> None:
    killed = own_server.workers()[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: own_server.workers() not in ([], [killed]))
    own_server.wait_listening(2)
    lines = own_server.log.read_text().splitlines()
    assert lines
    assert all(LINE.match(line) for line in lines), lines
    assert str(killed) in lines[0]


def test_two_workers_share_the_port(tmp_path: Path) -> None:
    running = Server(tmp_path, workers=2)
    try:
        running.wait_listening(2)
        seen: set[int] = set()
        connections = [running.connect() for _ in range(32)]
        for connection in connections:
            seen.update(predict(connection, "pid", "[0]"))
        for connection in connections:
            connection.close()
        assert seen <= set(running.workers())
        os.kill(running.workers()[0], signal.SIGKILL)
        assert running.ask("one") == [[2.0, 3.0, 4.0]]
    finally:
        running.kill()


def test_a_start_that_fails_is_an_exit_code_and_a_line(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    running = Server(tmp_path)
    try:
        assert running.process.wait(30) != 0
        lines = running.log.read_text().splitlines()
        assert any("there is no memory for the arena" in line for line in lines)
        assert all(LINE.match(line) for line in lines), lines
    finally:
        running.kill()


def test_a_port_that_is_taken_is_an_exit_code_and_a_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        config = ServerConfig(
            models=(), run_dir=str(tmp_path), rest_port=taken.getsockname()[1], bind_address=HOST
        )
        save(config)
        command = [sys.executable, "-m", "tests.integration.rest_server", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"cannot listen on {HOST}:{config.rest_port}" in ended.stdout
    assert LINE.match(ended.stdout)


def test_a_reserved_port_can_be_shared(tmp_path: Path) -> None:
    """The command holds the port with a socket that has SO_REUSEPORT set and never listens."""
    with socket.socket() as reservation:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((HOST, 0))
        running = Server(tmp_path, port=int(reservation.getsockname()[1]))
        try:
            running.wait_listening()
            for _ in range(20):
                assert running.ask("one") == [[2.0, 3.0, 4.0]]
        finally:
            running.kill()
