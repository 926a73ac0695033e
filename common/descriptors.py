"""Descriptors of segments on their way from a frontend to a worker, by SCM_RIGHTS over a unix socket.

A worker that meets a segment for the first time connects to its owner's socket in the run directory, sends the
segment's number (8 bytes, little-endian) and receives one byte with the descriptor attached. The path holds the
owner's instance name, so that a successor of a dead frontend can never be asked by mistake.
"""

import array
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

_REQUEST = struct.Struct("<Q")
_BACKLOG = 64


class SegmentUnavailableError(Exception):
    """The owner is gone, did not answer in time, or does not know the segment."""


def socket_path(run_dir: Path, owner: str) -> Path:
    """Where the frontend instance `owner` hands out its descriptors."""
    return run_dir / f"{owner}.fds"


class DescriptorServer:
    """The owner's end. Non-blocking: `accept` and `answer` are called when the loop says that they can be."""

    def __init__(self, path: Path, lookup: Callable[[int], int | None]) -> None:
        self._lookup = lookup
        self._path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self.listener.bind(str(path))
        self.listener.listen(_BACKLOG)

    def accept(self) -> socket.socket | None:
        """A new connection, non-blocking, or None when there is none after all."""
        try:
            connection, _ = self.listener.accept()
        except (BlockingIOError, ConnectionError):
            return None
        connection.setblocking(False)
        return connection

    def answer(self, connection: socket.socket) -> None:
        """Read one question, answer it, and close."""
        with connection, contextlib.suppress(OSError, struct.error):
            (segment,) = _REQUEST.unpack(connection.recv(_REQUEST.size))
            descriptor = self._lookup(segment)
            if descriptor is None:
                connection.send(b"-")
            else:
                socket.send_fds(connection, [b"+"], [descriptor])

    def close(self) -> None:
        """Stop listening and remove the socket's file."""
        self.listener.close()
        self._path.unlink(missing_ok=True)


def fetch_descriptor(path: Path, segment: int, timeout_s: float) -> int:
    """Ask a frontend for a segment's descriptor. Raises SegmentUnavailableError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.send(_REQUEST.pack(segment))
            _, descriptors, _, _ = _receive(connection)
    except OSError as error:
        raise SegmentUnavailableError(f"{path.name}: {error}") from error
    if len(descriptors) != 1:
        for descriptor in descriptors:
            os.close(descriptor)
        raise SegmentUnavailableError(f"{path.name} has no segment {segment}")
    return descriptors[0]


def _receive(connection: socket.socket) -> tuple[bytes, list[int], int, object]:
    """socket.recv_fds, but with MSG_CMSG_CLOEXEC, so that a child process never inherits a segment."""
    room = socket.CMSG_LEN(4 * array.array("i").itemsize)
    data, ancillary, flags, address = connection.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    return data, list(descriptors), flags, address
