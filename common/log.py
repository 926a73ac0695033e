"""Logging for every process: the documented line format, and a bounded queue that drops rather than blocks.

A console that nobody reads (a full pipe) stops the thread that writes, never the one that serves; what did not fit in
the queue is counted and said once there is room again.
"""

import logging
import logging.handlers
import queue
import sys
from pathlib import Path

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
_QUEUE_LENGTH = 10_000
LEVELS = ("ERROR", "INFO", "DEBUG")


class _DroppingHandler(logging.handlers.QueueHandler):
    """Never waits: counts what does not fit."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self.dropped:
                text = f"{self.dropped} log lines were dropped because the console did not take them"
                note = logging.LogRecord(
                    record.name, logging.ERROR, record.pathname, record.lineno, text, None, None
                )
                self.queue.put_nowait(note)
                self.dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Listener(logging.handlers.QueueListener):
    """Its end waits for room in the queue, where the library's raises queue.Full."""

    def enqueue_sentinel(self) -> None:
        assert isinstance(self.queue, queue.Queue)
        self.queue.put(None)


class Logging:
    """The listener behind the root logger of a process. Made after any fork."""

    def __init__(self, level: str, path: Path | None) -> None:
        records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_LENGTH)
        targets: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
        if path is not None:
            targets.append(logging.FileHandler(path, mode="a", encoding="utf-8"))
        for target in targets:
            target.setFormatter(logging.Formatter(FORMAT))
        self._targets = targets
        self._handler = _DroppingHandler(records)
        self._listener = _Listener(records, *targets)
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        root.setLevel(level)
        self._listener.start()

    def close(self) -> None:
        """Write what is queued and stop."""
        logging.getLogger().removeHandler(self._handler)
        self._listener.stop()
        for target in self._targets:
            target.close()
