"""grpcio's clients, the synchronous and the asynchronous one, served by both transports."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import uvloop

from frontends.grpc.listening import Tls
from tests.support.certificates import Authority
from tests.support.grpc_table import TIMEOUT_S, TableServer
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
@pytest.mark.largest
def test_the_largest_message(channel: grpc.Channel) -> None:
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


@pytest.mark.parametrize(
    ("name", "run"), [*((name, uvloop.run) for name in TRANSPORTS), ("native", asyncio.run)]
)
def test_an_encrypted_connection_carries_as_much(
    tmp_path: Path, name: str, run: Callable[[Any], object]
) -> None:
    """asyncio's own loop encrypts by other code than uvloop, which is what servers run on; grpcio by its own."""
    authority = Authority(tmp_path)
    server = TableServer(name, 1 << 30, Tls(*map(str, authority.sign("server"))), run)
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
    with grpc.secure_channel(f"{HOST}:{server.port}", credentials, _OPTIONS) as channel:
        for size in (8, 100_000, 20 * _MB):
            _carries(channel, size)
        calls = [_unary(channel, "Big").future(b"300000", timeout=TIMEOUT_S) for _ in range(30)]
        assert [len(call.result()) for call in calls] == [300_000] * 30
    server.close()
