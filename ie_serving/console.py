"""The way of the children's output to standard output, on which nobody ever waits.

    children ─pipes─▶ supervisord ─▶ pipe ─▶ reader ─▶ bounded buffer ─▶ writer ─▶ standard output
                                                          full: whole lines are dropped, and counted

supervisord opens its log files by name and writes to them with its only thread. Standard output itself cannot be opened
by name when it is a socket or another user's pipe, and a terminal that does not read would stop supervision; so
supervisord is given the name of a pipe that is always read. The writer may be stuck for ever; nothing waits for it.
"""

import contextlib
import os
import select
import threading
from collections import deque

_CHUNK = 1 << 16
_BUFFER_BYTES = 1 << 20
_MAX_LINE = 1 << 16
"""Of a line without an end; past it, it is passed on in parts."""


class LineBuffer:
    """Whole lines up to a number of bytes; what does not fit is dropped and, once there is room, told."""

    def __init__(self, limit: int = _BUFFER_BYTES) -> None:
        self._limit = limit
        self._held: deque[bytes] = deque()
        self._bytes = 0
        self._partial = b""
        self._dropped = 0
        self._ended = False
        self._changed = threading.Condition()

    def put(self, data: bytes) -> None:
        """Take what came; never waits."""
        whole, newline, rest = (self._partial + data).rpartition(b"\n")
        if len(rest) > _MAX_LINE:
            whole, newline, rest = whole + newline + rest, b"\n", b""
        self._partial = rest
        if newline:
            self._hold(whole + newline)

    def end(self) -> None:
        """Nothing more comes: a last line without an end is passed on, and `take` returns None in the end."""
        if self._partial:
            self._hold(self._partial + b"\n")
            self._partial = b""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self) -> bytes | None:
        """The oldest piece, waiting for one; None at the end."""
        with self._changed:
            while not self._held and not self._dropped:
                if self._ended:
                    return None
                self._changed.wait()
            if not self._held:
                return self._note()
            data = self._held.popleft()
            self._bytes -= len(data)
            return data

    def _hold(self, lines: bytes) -> None:
        with self._changed:
            room = self._limit - self._bytes
            if self._dropped and room > self._limit // 2:
                self._held.append(self._note())
                self._bytes += len(self._held[-1])
            if self._dropped or len(lines) > room:
                self._dropped += lines.count(b"\n")
            else:
                self._held.append(lines)
                self._bytes += len(lines)
            self._changed.notify()

    def _note(self) -> bytes:
        count, self._dropped = self._dropped, 0
        return f"{count} lines of output were dropped because the console did not take them\n".encode()


class Console:
    """The pipe, its reader and its writer. `target` is the descriptor that is written to."""

    def __init__(self, target: int = 1) -> None:
        self._target = target
        self._source, self._sink = os.pipe()
        os.set_blocking(self._source, False)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._buffer = LineBuffer()
        self._reader = threading.Thread(target=self._read, name="console reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="console writer", daemon=True)
        self._reader.start()
        self._writer.start()

    @property
    def path(self) -> str:
        """What to open, in this process only, to write to the console."""
        return f"/dev/fd/{self._sink}"

    def close(self, timeout_s: float) -> None:
        """Pass on what is there already; waits for `timeout_s` at most in all."""
        os.eventfd_write(self._stop, 1)
        self._reader.join(timeout_s)
        self._writer.join(timeout_s)

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._source, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        stopping = False
        while not stopping:
            stopping = any(descriptor == self._stop for descriptor, _ in poll.poll())
            with contextlib.suppress(BlockingIOError):
                # Bounded, so that a child that never stops writing cannot keep `close` waiting.
                for _ in range(64):
                    self._buffer.put(os.read(self._source, _CHUNK))
        self._buffer.end()

    def _write(self) -> None:
        while (data := self._buffer.take()) is not None:
            _write_all(self._target, data)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write, waiting as long as it takes; what a target that is gone does not take is lost."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            # Somebody else set the shared terminal or pipe to non-blocking.
            select.select([], [descriptor], [])
        except OSError:
            return


def open_standard_descriptors() -> None:
    """Where standard input, output or error are closed, open /dev/null: no pipe or socket may get their numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
