"""Clients that are not grpcio: h2, which checks what it is sent, and the tools of nghttp2 and curl."""

import shutil
import subprocess
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest

from tests.support.grpc_table import TableServer
from tests.support.http2_peer import Connect, Peer, message, request_headers
from tests.support.server import HOST
from tests.support.waiting import until

pytestmark = pytest.mark.integration


def test_h2_finds_nothing_wrong_with_what_the_server_sends(connect: Connect) -> None:
    peer = connect(greet=False)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    peer.send(client.data_to_send())
    while (
        not client.remote_settings.initial_window_size > 65_535
        or client.outbound_flow_control_window == 65_535
    ):
        client.receive_data(peer.socket.recv(65_536))
    received: dict[int, bytes] = {}
    ended: set[int] = set()
    sent: dict[int, bytes] = {}
    for index in range(40):
        stream = client.get_next_available_stream_id()
        sent[stream] = message(b"%d" % index * 3000)
        client.send_headers(stream, request_headers("Echo" if index % 4 else "Stream"))
        client.send_data(stream, sent[stream][:16_000], end_stream=len(sent[stream]) <= 16_000)
        if index % 8 == 0:
            client.ping(b"%08d" % index)
    peer.send(client.data_to_send())
    while len(ended) < 40:
        data = peer.socket.recv(65_536)
        assert data
        for event in client.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                received[event.stream_id] = received.get(event.stream_id, b"") + event.data
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
            assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
        peer.send(client.data_to_send())
    assert received == sent


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


def _url(server: TableServer) -> str:
    return f"http://{HOST}:{server.port}/test.Test/Echo"


def _body(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "body"
    path.write_bytes(message(data))
    return path


def test_curl(server: TableServer, tmp_path: Path) -> None:
    _needs("curl")
    answer = tmp_path / "answer"
    command = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        "--http2-prior-knowledge",
        "-o",
        str(answer),
        "-w",
        "%{http_code}",
    ]
    url = _url(server)
    posted = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary"]
    done = subprocess.run(
        [*command, *posted, f"@{_body(tmp_path, b'hello')}", url], capture_output=True, check=True
    )
    assert (done.stdout, answer.read_bytes()) == (b"200", message(b"hello"))
    done = subprocess.run([*command, url], capture_output=True, check=True)
    assert done.stdout == b"405"


def test_nghttp(server: TableServer, tmp_path: Path) -> None:
    _needs("nghttp")
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    done = subprocess.run(
        ["nghttp", "-v", "-t", "20", *headers, "-d", _body(tmp_path, bytes(100_000)), _url(server)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"grpc-status: 0" in done.stdout
    assert b"error" not in done.stdout.lower().replace(b"error_code=no_error(0x00)", b"")


def test_h2load(server: TableServer, tmp_path: Path) -> None:
    _needs("h2load")
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    done = subprocess.run(
        [
            "h2load",
            "-n",
            "4000",
            "-c",
            "4",
            "-m",
            "50",
            *headers,
            "-d",
            _body(tmp_path, b"x" * 1000),
            _url(server),
        ],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    )
    assert "4000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    assert f"({4000 * 1005}) data" in done.stdout


def test_a_client_that_goes_while_it_is_answered(server: TableServer) -> None:
    for size in (b"10", b"1000000"):
        with Peer(server.port) as peer:
            peer.call(1, "Big", size)
    until(lambda: server.methods.lent == 0, "its answers are given back")
