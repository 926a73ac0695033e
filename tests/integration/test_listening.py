"""Whole servers that listen on unix sockets, and that encrypt: by the clients that users have."""

import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support import models
from tests.support.certificates import Authority
from tests.support.clients import GrpcClient, predict_request
from tests.support.server import HOST, TRANSPORTS, Server, run_command
from tests.support.waiting import until

pytestmark = pytest.mark.integration

_X = {"x": np.array([[1, 2, 3]], np.float32)}


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path."""
    return models.echo(tmp_path_factory.mktemp("echo") / "models")


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each of them."""
    return str(request.param)


def _answers(client: GrpcClient) -> bool:
    return all(value.tolist() == [[1, 2, 3]] for value in client.predict(_X).values())


def _curl(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["curl", "-sS", "--max-time", "20", "--unix-socket", path, "http://localhost/v1/models/model"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _asked(path: Path) -> str:
    """The status of the model, asked over REST's socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET /v1/models/model HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        answer = b""
        while more := client.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), answer
    return str(json.loads(body)["model_version_status"][0]["state"])


def test_sockets_serve_beside_the_ports_and_come_back(tmp_path: Path, echo: Path, transport: str) -> None:
    grpc_path, rest_path = tmp_path / "grpc socket%20", tmp_path / "rest.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(grpc_path))
    sockets: dict[str, Any] = {"grpc_socket": grpc_path, "rest_socket": rest_path}
    with Server(
        tmp_path, echo, grpc_transport=transport, grpc_workers=2, rest_workers=2, **sockets
    ) as server:
        for path in (grpc_path, rest_path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with (
            GrpcClient(f"unix:{str(grpc_path).replace('%', '%25')}") as by_socket,
            GrpcClient(server.grpc_port) as by_port,
        ):
            assert _answers(by_socket)
            assert _answers(by_port)
            assert _asked(rest_path) == "AVAILABLE"
            if shutil.which("curl"):
                assert json.loads(_curl(rest_path).stdout)["model_version_status"]
            first = min(server.pids("grpc"))
            for pid in (first, server.pid("arbiter")):
                os.kill(pid, 9)
            until(lambda: pid not in server.pids("arbiter") and first not in server.pids("grpc"), "they end")
            server.wait_serving()
            until(lambda: _tried(by_socket), "the socket serves again")
            assert _asked(rest_path) == "AVAILABLE"
        assert server.stop() == 0
        assert not grpc_path.exists()
        assert not rest_path.exists()


def _tried(client: GrpcClient) -> bool:
    try:
        return _answers(client)
    except grpc.RpcError:
        return False


def test_an_encrypted_port(tmp_path: Path, echo: Path, transport: str) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    tls: dict[str, Any] = {
        "grpc_tls_certificate": certificate,
        "grpc_tls_key": key,
        "grpc_socket": tmp_path / "grpc.sock",
    }
    trusted = grpc.ssl_channel_credentials(authority.path.read_bytes())
    foreign = grpc.ssl_channel_credentials(Authority(tmp_path, "foreign").path.read_bytes())
    with Server(tmp_path, echo, grpc_transport=transport, rest=False, **tls) as server:
        with GrpcClient(server.grpc_port, trusted) as client:
            assert _answers(client)
        with GrpcClient(f"unix:{tmp_path / 'grpc.sock'}") as client:
            assert _answers(client)
        for credentials in (None, foreign):
            with GrpcClient(server.grpc_port, credentials) as client:
                assert client.refusal(_X, timeout_s=2)[0] is grpc.StatusCode.UNAVAILABLE


def test_clients_that_must_show_a_certificate(tmp_path: Path, echo: Path, transport: str) -> None:
    server_authority, client_authority = Authority(tmp_path, "servers"), Authority(tmp_path, "clients")
    certificate, key = server_authority.sign("server")
    tls: dict[str, Any] = {
        "grpc_tls_certificate": certificate,
        "grpc_tls_key": key,
        "grpc_tls_client_ca": client_authority.path,
    }

    def credentials(signed_by: Authority | None) -> grpc.ChannelCredentials:
        root = server_authority.path.read_bytes()
        if signed_by is None:
            return grpc.ssl_channel_credentials(root)
        shown, shown_key = signed_by.sign("client")
        return grpc.ssl_channel_credentials(root, shown_key.read_bytes(), shown.read_bytes())

    with Server(tmp_path, echo, grpc_transport=transport, rest=False, **tls) as server:
        with GrpcClient(server.grpc_port, credentials(client_authority)) as client:
            assert _answers(client)
        for stranger in (None, server_authority):
            with GrpcClient(server.grpc_port, credentials(stranger)) as client:
                assert client.refusal(_X, timeout_s=2)[0] is grpc.StatusCode.UNAVAILABLE


def test_what_clients_send_is_never_logged(tmp_path: Path, echo: Path, transport: str) -> None:
    debug = {"LOG_LEVEL": "DEBUG"}
    with Server(tmp_path, echo, grpc_transport=transport, rest=False, environment=debug) as server:
        with GrpcClient(server.grpc_port) as client:
            metadata = (("authorization", "Bearer sesame"),)
            client.stub.Predict(predict_request(_X), timeout=20, metadata=metadata)
        assert "sesame" not in server.log()
        assert "authorization" not in server.log()
        assert " - DEBUG - " in server.log()


def test_what_is_wrong_with_files_and_paths_is_said_in_one_line(tmp_path: Path, echo: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    _, other = authority.sign("other")
    taken = tmp_path / "taken.sock"
    run_dir = Path(tempfile.mkdtemp(prefix="ie-"))
    for options, line in (
        (
            [f"--grpc_tls_certificate={certificate}", f"--grpc_tls_key={other}"],
            f"--grpc_tls_key: {other} is not the key of the certificate in {certificate}",
        ),
        (
            [f"--grpc_tls_certificate={tmp_path / 'none'}", f"--grpc_tls_key={key}"],
            f"--grpc_tls_certificate: cannot read {tmp_path / 'none'}: No such file or directory",
        ),
        ([f"--grpc_socket={taken}"], f"--grpc_socket: another process listens on {taken}"),
        (
            [f"--grpc_socket={certificate}"],
            f"--grpc_socket: {certificate} is there and not a socket; choose another path or remove it",
        ),
    ):
        with socket.socket(socket.AF_UNIX) as listener:
            taken.unlink(missing_ok=True)
            listener.bind(str(taken))
            listener.listen()
            with socket.create_server((HOST, 0)) as probe:
                port = probe.getsockname()[1]
            done = run_command(
                *("model", "--model_name=m", f"--model_path={echo}", "--target_device=FAKE"),
                *(f"--run_dir={run_dir}", f"--port={port}", f"--bind_address={HOST}"),
                *options,
            )
        assert (done.returncode, done.stderr) == (1, f"ie_serving: {line}\n")
    run_dir.rmdir()
