"""Clients that exist: grpcio's two, h2, and the tools of nghttp2 and curl; by both transports."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest
import uvloop

from frontends.grpc.listening import Tls
from tests.support.certificates import Authority
from tests.support.grpc_table import TIMEOUT_S, TableServer
from tests.support.http2_peer import Connect, Peer, message, request_headers
from tests.support.server import HOST, TRANSPORTS
from tests.support.waiting import until

pytestmark = pytest.mark.integration

_MB = 1 << 20
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
_KEEPALIVE = [
    *_OPTIONS,
    ("grpc.keepalive_time_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


@pytest.fixture(scope="module", params=TRANSPORTS)
def either(request: pytest.FixtureRequest) -> Iterator[TableServer]:
    """A server by each transport, for messages of up to 1 GiB."""
    running = TableServer(request.param, 1 << 30)
    yield running
    running.close()


@pytest.fixture
def channel(either: TableServer) -> Iterator[grpc.Channel]:
    """A connection."""
    with grpc.insecure_channel(f"{HOST}:{either.port}", _OPTIONS) as opened:
        yield opened


def _unary(channel: grpc.Channel, name: str = "Echo") -> Any:
    return channel.unary_unary(f"/test.Test/{name}")


def _code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_a_hundred_calls_at_once(channel: grpc.Channel, either: TableServer) -> None:
    slow = _unary(channel, "Slow")
    calls = [slow.future(b"%d" % index, timeout=TIMEOUT_S) for index in range(100)]
    until(lambda: either.methods.waiting == 100, "all run at once")
    either.open_gate()
    assert [call.result() for call in calls] == [b"%d" % index for index in range(100)]


def test_many_channels(either: TableServer) -> None:
    with contextlib.ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(f"{HOST}:{either.port}", _OPTIONS)) for _ in range(50)
        ]
        calls = [
            _unary(channel).future(b"%d" % index, timeout=TIMEOUT_S) for index, channel in enumerate(channels)
        ]
        assert [call.result() for call in calls] == [b"%d" % index for index in range(50)]


def test_pings_of_a_client_that_keeps_its_connection_alive(either: TableServer) -> None:
    with grpc.insecure_channel(f"{HOST}:{either.port}", _KEEPALIVE) as channel:
        call = _unary(channel, "Slow").future(b"x", timeout=TIMEOUT_S)
        until(lambda: either.methods.waiting == 1, "it runs")
        with contextlib.suppress(grpc.FutureTimeoutError):
            call.result(timeout=2.5)
        either.open_gate()
        assert call.result() == b"x"


def test_calls_that_are_given_up(channel: grpc.Channel, either: TableServer) -> None:
    before = either.methods.cancelled
    slow = _unary(channel, "Slow")
    calls = [slow.future(b"x", timeout=TIMEOUT_S) for _ in range(20)]
    until(lambda: either.methods.waiting == 20, "all run")
    for call in calls:
        call.cancel()
    until(lambda: either.methods.cancelled == before + 20, "all are cancelled")
    assert _code(lambda: slow(b"x", timeout=0.3)) is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: either.methods.cancelled == before + 21, "the deadline cancels too")
    assert _unary(channel)(b"on", timeout=TIMEOUT_S) == b"on"


def test_streams_both_ways(channel: grpc.Channel, either: TableServer) -> None:
    call: Any = channel.stream_stream("/test.Test/Stream")
    sent = [b"%d" % index * (index % 7 * 1000) for index in range(200)]
    assert list(call(iter(sent), timeout=TIMEOUT_S)) == sent
    endless: Any = channel.stream_stream("/test.Test/Many")
    many = endless(iter([b"go"]), timeout=TIMEOUT_S)
    assert [len(next(many)) for _ in range(50)] == [65_536] * 50
    many.cancel()
    until(lambda: either.methods.waiting == 0, "the handler ends")


def _carries(channel: grpc.Channel, size: int) -> None:
    data = np.arange(size // 8, dtype=np.int64).tobytes()
    assert _unary(channel)(data, timeout=100) == data


@pytest.mark.parametrize("size", [16_384, 65_536, 5 * _MB, 64 * _MB])
def test_large_messages(channel: grpc.Channel, size: int) -> None:
    _carries(channel, size)


@pytest.mark.slow
def test_the_largest_message(request: pytest.FixtureRequest, channel: grpc.Channel) -> None:
    if not request.config.getoption("--largest-messages"):
        pytest.skip("needs several GB of memory: --largest-messages")
    _carries(channel, (1 << 30) - 64)


def test_the_asynchronous_client(either: TableServer) -> None:
    async def talk() -> None:
        channel: Any
        async with grpc.aio.insecure_channel(f"{HOST}:{either.port}", _OPTIONS) as channel:
            echo = channel.unary_unary("/test.Test/Echo")
            sent = [b"%d" % index for index in range(200)]
            assert await asyncio.gather(*(echo(data, timeout=TIMEOUT_S) for data in sent)) == sent
            stream = channel.stream_stream("/test.Test/Stream")(timeout=TIMEOUT_S)
            for data in sent[:10]:
                await stream.write(data)
                assert await stream.read() == data
            await stream.done_writing()
            assert await stream.code() is grpc.StatusCode.OK
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/test.Test/Fail")("ünï %".encode(), timeout=TIMEOUT_S)
            assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.NOT_FOUND, "ünï %")
            slow = channel.unary_unary("/test.Test/Slow")(b"x", timeout=TIMEOUT_S)
            await asyncio.sleep(0.1)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow

    asyncio.run(asyncio.wait_for(talk(), 60))


def test_metadata_of_grpcio(channel: grpc.Channel) -> None:
    sent = (("x-text", "a"), ("x-text", "b"), ("x-bytes-bin", bytes(range(256))))
    found = _unary(channel, "Seen")(b"", timeout=30, metadata=sent).decode()
    assert '["x-text", "a"], ["x-text", "b"], ["x-bytes-bin", [0, 1, 2,' in found


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.NoCompression])
def test_compression_of_grpcio(channel: grpc.Channel, compression: grpc.Compression) -> None:
    data = bytes(3 * _MB)
    assert _unary(channel)(data, timeout=TIMEOUT_S, compression=compression) == data


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_stop_lets_calls_finish(name: str) -> None:
    server = TableServer(name)
    with grpc.insecure_channel(f"{HOST}:{server.port}", _OPTIONS) as channel:
        call = _unary(channel, "Slow").future(b"last", timeout=TIMEOUT_S)
        until(lambda: server.methods.waiting == 1, "it runs")
        stopped = server.await_(lambda: server.transport.stop(TIMEOUT_S))
        until(lambda: not _connects(server.port), "nobody listens any more")
        server.open_gate()
        assert call.result() == b"last"
        stopped.result(TIMEOUT_S)
    server.close()


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def test_calls_that_begin_while_the_server_stops_are_answered_or_untouched() -> None:
    """None is lost between: what the server has not taken, the client may send elsewhere (UNAVAILABLE)."""
    server = TableServer()
    codes: set[grpc.StatusCode] = set()
    stopping = threading.Event()

    def ask() -> None:
        with grpc.insecure_channel(f"{HOST}:{server.port}", _OPTIONS) as channel:
            echo = _unary(channel)
            while True:
                try:
                    assert echo(b"x", timeout=TIMEOUT_S) == b"x"
                except grpc.RpcError as error:
                    codes.add(error.code())
                    return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: server.methods.begun > 200, "they are busy")
    stopping.set()
    server.await_(lambda: server.transport.stop(TIMEOUT_S)).result(TIMEOUT_S)
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert codes == {grpc.StatusCode.UNAVAILABLE}
    server.close()


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_an_encrypted_connection_carries_as_much(
    tmp_path: Path, name: str, run: Callable[[Any], object]
) -> None:
    """asyncio's own loop encrypts by other code than uvloop, which is what servers run on."""
    if name == "grpcio" and run is not uvloop.run:
        pytest.skip("grpcio does not encrypt by the loop")
    authority = Authority(tmp_path)
    server = TableServer(name, 1 << 30, Tls(*map(str, authority.sign("server"))), run)
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
    with grpc.secure_channel(f"{HOST}:{server.port}", credentials, _OPTIONS) as channel:
        for size in (8, 100_000, 20 * _MB):
            _carries(channel, size)
        calls = [_unary(channel, "Big").future(b"300000", timeout=TIMEOUT_S) for _ in range(30)]
        assert [len(call.result()) for call in calls] == [300_000] * 30
    server.close()


# ---- others than grpcio, by the native transport


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
