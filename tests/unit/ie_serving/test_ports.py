import socket

import pytest

from ie_serving.errors import CommandError
from ie_serving.ports import hold_port


def bound(address: str = "127.0.0.1", *, reuse_port: bool) -> socket.socket:
    """A frontend's socket."""
    found = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
    return found


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        number: int = found.getsockname()[1]
        return number


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])  # noqa: S104
def test_a_held_port_is_held_once(port: int, address: str) -> None:
    with hold_port(address, port, "--port"):
        for other in ("127.0.0.1", address):
            with pytest.raises(
                CommandError, match=f"^port {port} is in use; choose another with --rest_port$"
            ):
                hold_port(other, port, "--rest_port")
    hold_port(address, port, "--port").close()


def test_frontends_bind_beside_it_and_get_every_connection(port: int) -> None:
    with hold_port("127.0.0.1", port, "--port"), bound(reuse_port=True) as one, bound(reuse_port=True) as two:
        for listener in (one, two):
            listener.bind(("127.0.0.1", port))
            listener.listen(64)
            listener.setblocking(False)
        clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(40)]
        accepted = 0
        for listener in (one, two):
            while True:
                try:
                    listener.accept()[0].close()
                except BlockingIOError:
                    break
                accepted += 1
        assert accepted == len(clients)
        for client in clients:
            client.close()


def test_while_no_frontend_listens_connections_are_refused(port: int) -> None:
    with hold_port("127.0.0.1", port, "--port"), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_listener_of_somebody_else_is_seen(port: int) -> None:
    with bound(reuse_port=True) as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with pytest.raises(CommandError, match="is in use"):
            hold_port("0.0.0.0", port, "--port")  # noqa: S104


def test_connections_in_time_wait_do_not_matter(port: int) -> None:
    with bound(reuse_port=False) as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            listener.accept()[0].close()
    hold_port("127.0.0.1", port, "--port").close()


def test_address_of_another_machine(port: int) -> None:
    with pytest.raises(CommandError, match=r"192\.0\.2\.1 is not an address of this machine"):
        hold_port("192.0.2.1", port, "--port")
