"""OpenVINO's cache of compiled models on disk, shared by the workers of a device.

OpenVINO writes an entry in place, under its final name, and reads whatever lies there. Workers that start together
would read what another is still writing. So one worker at a time compiles with the cache, and those behind it find
what it has written; the lock goes with its holder, however that ends. Who waits too long compiles without the cache.
"""

import contextlib
import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 120.0
_PAUSE_S = 0.05
_LOCK = "lock"
_log = logging.getLogger("workers")


class CompileCache:
    """The part of the cache that belongs to one device under one release of OpenVINO."""

    def __init__(self, directory: Path, device: str, release: str, patience_s: float = PATIENCE_S) -> None:
        self._directory = directory / re.sub(r"[^A-Za-z0-9_.-]", "_", f"{device}-{release}")
        self._patience_s = patience_s

    @contextlib.contextmanager
    def properties(self) -> Iterator[dict[str, str]]:
        """To compile with; nothing in them when the cache cannot be used now, for whatever reason."""
        try:
            descriptor = self._open()
        except OSError as error:
            _log.warning("compiling without the cache %s: %s", self._directory, error.strerror)
            yield {}
            return
        try:
            if self._lock(descriptor):
                yield {"CACHE_DIR": str(self._directory)}
            else:
                _log.warning(
                    "compiling without the cache: another worker has used it for %g s", self._patience_s
                )
                yield {}
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not os.access(self._directory, os.W_OK | os.X_OK):
            os.close(descriptor)
            raise PermissionError(0, "the directory cannot be written to")
        return descriptor

    def _lock(self, descriptor: int) -> bool:
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_PAUSE_S)
            else:
                return True
