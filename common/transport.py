"""ZeroMQ, and nothing else of the project knows it: DEALER and ROUTER sockets that never block and never linger.

A message is a list of frames. Sends fail at once when the peer is gone or its pipe is full (the caller's protocol makes
up for it). ZeroMQ's descriptor is edge-triggered: whoever waits on it looks at the queue again after every send and
every drain, which is what `drain` and `has_input` are for.
"""

import select
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import zmq

_HIGH_WATER_MARK = 100_000
"""Messages a pipe; far above what the credits and bounds of the protocol can bring about."""

MAX_DRAIN = 512
"""Messages taken in one go, so that a flood on one socket does not starve the rest of a loop."""

# Plain numbers and names of this module: all of these stand in the way of every message.
_EVENTS: Final = zmq.EVENTS
_POLLIN: Final = int(zmq.POLLIN)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_SNDMORE: Final = int(zmq.SNDMORE)


class Transport:
    """The ZeroMQ context of a process. Made after any fork; one thread a socket."""

    def __init__(self) -> None:
        self._context = zmq.Context(io_threads=1)

    def dealer(self, path: Path, identity: str) -> "Dealer":
        """A socket of a peer, connected to the broker's."""
        return Dealer(self._context, path, identity)

    def router(self, path: Path) -> "Router":
        """The broker's socket."""
        return Router(self._context, path)

    def close(self) -> None:
        """End the context; sockets still open are closed, dropping what they hold."""
        self._context.destroy(linger=0)


def _configure(socket: "zmq.Socket[bytes]") -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
    socket.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)


class _Socket:
    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        _configure(socket)
        self.socket = socket
        self._get: Callable[[int], Any] = socket.get
        self._receive: Callable[..., Any] = socket.recv
        # The method in C, without the one in Python around it that looks for options that none of ours has.
        self._send: Callable[..., Any] = super(zmq.Socket, socket).send
        self.left = False
        """Whether the last `drain` stopped at its bound: the descriptor does not tell of what is left."""

    @property
    def descriptor(self) -> int:
        """To wait on; see the module's text."""
        return int(self.socket.getsockopt(zmq.FD))

    def has_input(self) -> bool:
        """Whether `drain` would yield something."""
        return bool(self._get(_EVENTS) & _POLLIN)

    def drain(self) -> Iterator[list[bytes]]:
        """The messages that are there, MAX_DRAIN at most. Looks at EVENTS after each, until there are none."""
        # Who drains has been told that there is something: it is asked for only behind the first message. Asking costs
        # half of what the exception does with which an empty queue answers.
        self.left = True
        for _ in range(MAX_DRAIN):
            try:
                frames = self._take()
            except zmq.Again:
                self.left = False
                return
            yield frames
            if not self.has_input():
                self.left = False
                return

    def _take(self) -> list[bytes]:
        """The next message. Raises zmq.Again when there is none."""
        receive = self._receive
        # A Frame knows whether another follows; asking the socket costs as much again as receiving.
        frame = receive(_NOBLOCK, False)
        frames: list[bytes] = [frame.bytes]
        while frame.more:
            frame = receive(_NOBLOCK, False)
            frames.append(frame.bytes)
        return frames

    def close(self) -> None:
        """Close, dropping what was not sent."""
        self.socket.close(linger=0)


class Dealer(_Socket):
    """A peer's socket. A new identity each time: see common.session."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", path: Path, identity: str) -> None:
        super().__init__(context.socket(zmq.DEALER))
        self.socket.setsockopt(zmq.IDENTITY, identity.encode())
        self.socket.connect(f"ipc://{path}")

    def send(self, frames: list[bytes]) -> bool:
        """Whether the message was taken."""
        try:
            if len(frames) == 1:
                self._send(frames[0], _NOBLOCK)
            else:
                self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True


class Router(_Socket):
    """The broker's socket: the first frame of each message is the peer's identity."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", path: Path) -> None:
        super().__init__(context.socket(zmq.ROUTER))
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        path.unlink(missing_ok=True)
        self.socket.bind(f"ipc://{path}")

    def _take(self) -> list[bytes]:
        # The first frame, the identity, is never the last one.
        receive = self._receive
        frames: list[bytes] = [receive(_NOBLOCK)]
        frame = receive(_NOBLOCK, False)
        frames.append(frame.bytes)
        while frame.more:
            frame = receive(_NOBLOCK, False)
            frames.append(frame.bytes)
        return frames

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        """Whether the message was taken; False also when the peer is unknown, where a plain router would be silent."""
        if len(frames) > 1:
            return self._send_all([identity, *frames])
        try:
            # What send_multipart would do, at half its cost; only the first part can fail.
            self._send(identity, _NOBLOCK | _SNDMORE)
            self._send(frames[0], _NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def _send_all(self, frames: list[bytes]) -> bool:
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True


class Waiter:
    """Waits for ZeroMQ sockets and plain descriptors together, for loops that are not asyncio's.

    Not zmq_poll: that asks every socket twice and the kernel twice a wait, some ten system calls where three do.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, _Socket] = {}

    def add(self, source: _Socket | int) -> None:
        """Wait for input on this socket or descriptor from now on."""
        if isinstance(source, _Socket):
            self._sockets[source.descriptor] = source
        self._epoll.register(_descriptor(source), select.EPOLLIN)

    def remove(self, source: _Socket | int) -> None:
        """Wait for it no longer. Before it is closed."""
        descriptor = _descriptor(source)
        self._sockets.pop(descriptor, None)
        self._epoll.unregister(descriptor)

    def wait(self, timeout_ns: int) -> set[int]:
        """Which plain descriptors have input (sockets are to be drained anyway). Never waits past `timeout_ns`."""
        # A socket's descriptor tells only that something has changed since the socket was last looked at.
        timeout_s = timeout_ns / 1e9 if timeout_ns > 0 else 0.0
        for socket in self._sockets.values():
            if socket.has_input():
                timeout_s = 0.0
                break
        ready: set[int] = set()
        for descriptor, _ in self._epoll.poll(timeout_s):
            if descriptor not in self._sockets:
                ready.add(descriptor)
        return ready

    def close(self) -> None:
        """Close; the sources are their owners'."""
        self._epoll.close()


def _descriptor(source: _Socket | int) -> int:
    return source if isinstance(source, int) else source.descriptor
