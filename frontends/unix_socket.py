"""Unix sockets for clients on the same host: bound anew whenever their process starts, whatever the last one left.

One process serves a path. The command has seen to it, before any process started, that nobody else does.
"""

import os
import socket
import stat
from pathlib import Path

MODE = 0o660
"""User and group of the server may connect, others may not."""


def bind(path: str) -> socket.socket:
    """A socket of that path which does not listen yet. Raises OSError."""
    clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        # Nobody can connect before it listens.
        Path(path).chmod(MODE)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {path}: {error.strerror or error}") from None
    return listener


def clear(path: str) -> None:
    """Remove the socket that a process which is dead has left. Raises OSError, also for what is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(f"cannot listen on {path}: it is there and not a socket")
        Path(path).unlink(missing_ok=True)
    except FileNotFoundError:
        pass
