import socket
from pathlib import Path

import pytest

from ie_serving.errors import CommandError
from ie_serving.sockets import hold_socket


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_what_is_left_is_removed_at_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    listen(path).close()
    with hold_socket(str(path), "--grpc_socket"):
        assert not path.exists()
        listen(path).close()
    assert not path.exists()


def test_a_socket_that_another_server_has_taken_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with hold_socket(str(path), "--grpc_socket"):
        other = listen(path)
    with other:
        assert path.is_socket()


def test_a_socket_on_which_another_process_listens(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    text = rf"^--rest_socket: another process listens on {path}$"
    with listen(path), pytest.raises(CommandError, match=text), hold_socket(str(path), "--rest_socket"):
        pass
    assert path.is_socket()


def test_something_else_is_neither_used_nor_removed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("kept")
    text = rf"^--grpc_socket: {path} is there and not a socket; choose another path or remove it$"
    with pytest.raises(CommandError, match=text), hold_socket(str(path), "--grpc_socket"):
        pass
    assert path.read_text() == "kept"


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "socket"
    text = rf"^--grpc_socket: there is no directory {path.parent}$"
    with pytest.raises(CommandError, match=text), hold_socket(str(path), "--grpc_socket"):
        pass
