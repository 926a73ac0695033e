"""The client of load_mix and crowd, against grpcio's server, which knows HTTP/2 well."""

import asyncio
from pathlib import Path

import pytest

from perf import load_mix
from perf.http2_client import MOST_BYTES, Connection, connect, frame
from perf.server import echo_server
from perf.target import LoadFailedError
from perf.target import frame as grpc_frame

pytestmark = pytest.mark.integration


def bodies(directory: Path, *sizes: int) -> Path:
    found = directory / "bodies"
    found.mkdir()
    for number, size in enumerate(sizes):
        (found / str(number)).write_bytes(grpc_frame(bytes(size)))
    return found


def test_every_client_goes_through_all_messages(tmp_path: Path) -> None:
    with echo_server(0) as echo:
        found = bodies(tmp_path, 10, 10, 500)
        samples = load_mix.run(echo.port, found, 15, 4, 300, 60, tmp_path / "samples.npy")
    assert len(samples.ok) == 300
    assert samples.ok.sum() == 200  # a third of the messages is longer, and so are their answers
    assert (samples.latencies > 0).all()


def test_nobody_listening_is_a_failed_run(tmp_path: Path) -> None:
    with pytest.raises(LoadFailedError):
        load_mix.run(1, bodies(tmp_path, 10), 15, 1, 1, 60, tmp_path / "samples.npy")


def test_a_server_that_goes_fails_what_is_under_way_once() -> None:
    async def scenario() -> list[int]:
        told: asyncio.Queue[int] = asyncio.Queue()
        with echo_server(0) as echo:
            connection, _ = await connect(echo.port, "/a/b", 2, lambda _, length: told.put_nowait(length))
            connection.send(grpc_frame(b"whole"))
            first = await told.get()
            connection.send(grpc_frame(bytes(100))[:50], whole=False)
            connection.send_more(b"x")
        second = await told.get()
        connection.close()
        return [first, second, told.qsize()]

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == [10, -1, 0]


def test_frames_that_come_in_pieces_are_put_together() -> None:
    told: list[int] = []
    connection = Connection("host", "/a/b", lambda _, length: told.append(length))
    connection._stream, connection._under_way = 1, True
    answer = frame(1, 4, 1, b"\x88") + frame(0, 0, 1, bytes(7)) + frame(0, 0, 3, bytes(9)) + frame(1, 5, 1)
    for byte in answer:
        connection.data_received(bytes((byte,)))
    assert told == [7]


def test_a_message_that_needs_flow_control_is_refused() -> None:
    connection = Connection("host", "/a/b", lambda *_: None)
    connection._transport = object()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="does not go into one frame"):
        connection.send(bytes(MOST_BYTES + 1))
