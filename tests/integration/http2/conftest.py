"""One native server a file, and a client beside the one that misbehaves."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.support.grpc_table import TIMEOUT_S, TableServer
from tests.support.http2_peer import Connect, Peer
from tests.support.server import HOST
from tests.support.waiting import until


@pytest.fixture(scope="module")
def server() -> Iterator[TableServer]:
    """By the native transport."""
    running = TableServer()
    yield running
    running.close()


@pytest.fixture(scope="module")
def _witness(server: TableServer) -> Iterator[Any]:
    with grpc.insecure_channel(f"{HOST}:{server.port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield channel.unary_unary("/test.Test/Echo")


@pytest.fixture(autouse=True)
def undisturbed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does to its connection, another one serves on, and no call is left."""
    if "server" not in request.fixturenames:
        yield
        return
    running: TableServer = request.getfixturevalue("server")
    witness: Any = request.getfixturevalue("_witness")
    yield
    assert witness(b"undisturbed", timeout=TIMEOUT_S) == b"undisturbed"
    until(lambda: running.methods.waiting == 0, "no handler runs any more")
    until(lambda: running.methods.lent == 0, "no answer is held any more")
    until(lambda: running.memory.used == 0, "no shared memory is lent any more")
    until(lambda: running.transport._shared.budget.used == 0, "no message is counted any more")


@pytest.fixture
def connect(server: TableServer, undisturbed: None) -> Iterator[Connect]:
    """Makes connections that are closed at the end."""
    peers: list[Peer] = []

    def make(*pairs: tuple[int, int], **more: Any) -> Peer:
        peers.append(Peer(server.port, *pairs, **more))
        return peers[-1]

    yield make
    for peer in peers:
        peer.socket.close()


@pytest.fixture
def peer(connect: Connect) -> Peer:
    """One that has greeted."""
    return connect()
