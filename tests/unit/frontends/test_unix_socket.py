import os
import socket
import stat
from pathlib import Path

import pytest

from frontends import unix_socket


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_user_and_group_may_connect_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "a socket%20"
    before = os.umask(0o777)
    try:
        with unix_socket.bind(str(path)) as listener:
            listener.listen()
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert connects(path)
    finally:
        os.umask(before)


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    unix_socket.bind(str(path)).close()
    assert path.is_socket()
    with unix_socket.bind(str(path)) as listener:
        listener.listen()
        assert connects(path)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "path"
    if kind == "file":
        path.write_text("kept")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")
    with pytest.raises(OSError, match=rf"^cannot listen on {path}: it is there and not a socket$"):
        unix_socket.bind(str(path))
    assert path.is_symlink() or path.exists()


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"^cannot listen on .*/missing/socket: No such file or directory$"):
        unix_socket.bind(str(tmp_path / "missing" / "socket"))
