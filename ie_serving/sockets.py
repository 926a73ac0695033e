"""Paths of unix sockets for clients: fit for it at the start, and gone at the end."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ie_serving.errors import CommandError


@contextlib.contextmanager
def hold_socket(path: str, option: str) -> Iterator[None]:
    """As long as the frontends may bind `path`. Raises CommandError where they could not; `option` names it."""
    try:
        if _listens(path, option):
            raise CommandError(f"{option}: another process listens on {path}")
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{option}: cannot use {path}: {os.strerror(error.errno or 0)}") from error
    directory = Path(path).parent
    if not directory.is_dir():
        raise CommandError(f"{option}: there is no directory {directory}")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise CommandError(f"{option}: cannot write to {directory}")
    try:
        yield
    finally:
        # A frontend that was killed leaves its socket.
        with contextlib.suppress(OSError, CommandError):
            if not _listens(path, option):
                Path(path).unlink(missing_ok=True)


def _listens(path: str, option: str) -> bool:
    """Whether somebody does. Raises CommandError where there is something that is no socket, and OSError."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISSOCK(mode):
        raise CommandError(f"{option}: {path} is there and not a socket; choose another path or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # One whose queue of connections is full is not waited for.
        probe.setblocking(False)
        found = probe.connect_ex(path)
    if found in (errno.ECONNREFUSED, errno.ENOENT):
        return False
    if found in (0, errno.EAGAIN, errno.EPROTOTYPE):
        return True
    raise OSError(found, os.strerror(found))
