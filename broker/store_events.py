"""Hints from the file system that something has changed in a directory, by watchdog.

Events may be lost, and network file systems send none: whoever asks here polls as well. Directories are watched for
what appears in them, disappears or has been written, not for what is in the directories below.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Mapping

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

_logger = logging.getLogger("storekeeper")

_KINDS: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
]
"""Not that something was opened: looking would cause the next look."""


class DirectoryEvents:
    """Watches directories on behalf of owners. `watch` and `forget` may be called by any thread, and may block."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        """Readable when `touched` has something to tell."""
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        """Held for moments only, unlike the other."""
        self._touched: set[str] = set()
        self._observer: BaseObserver | None = None
        self._watches: dict[str, _Watch] = {}
        self._closed = False
        self._failed = False

    def watch(self, owner: str, directories: Mapping[str, str]) -> None:
        """Watch these directories for this owner, and no others.

        With each goes the one path in it that counts, `""` for all. One that cannot be watched is left to polling.
        """
        with self._lock:
            if self._closed:
                return
            for path in [path for path, watch in self._watches.items() if owner in watch.handler.owners]:
                if path not in directories:
                    self._leave(owner, path)
            for path, only in directories.items():
                self._join(owner, path, only)

    def forget(self, owner: str) -> None:
        """Watch nothing for this owner any more."""
        self.watch(owner, {})

    def touched(self) -> set[str]:
        """The owners in whose directories something has happened since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        with self._telling:
            found, self._touched = self._touched, set()
        return found

    def close(self) -> None:
        """Stop watching."""
        with self._lock:
            self._closed = True
            if self._observer is not None:
                self._observer.stop()
                self._observer.join(timeout=1.0)

    def _join(self, owner: str, path: str, only: str) -> None:
        inode = _inode(path)
        known = self._watches.get(path)
        if known is not None and known.inode != inode:
            # Made anew: the kernel watches the directory that had the name before.
            owners = known.handler.owners
            self._stop(path)
            known = None
        else:
            owners = {}
        if known is None and inode is not None:
            known = self._begin(path, inode)
            if known is not None:
                known.handler.owners.update(owners)
        if known is not None:
            known.handler.owners[owner] = only

    def _leave(self, owner: str, path: str) -> None:
        owners = self._watches[path].handler.owners
        del owners[owner]
        if not owners:
            self._stop(path)

    def _begin(self, path: str, inode: int) -> "_Watch | None":
        handler = _Handler(self)
        try:
            if self._observer is None:
                self._observer = Observer()
                self._observer.start()
            watch = self._observer.schedule(handler, path, event_filter=_KINDS, follow_symlink=True)
        except (OSError, RuntimeError) as error:
            if not self._failed:
                self._failed = True
                _logger.info("Some directories are polled only: %s cannot be watched (%s)", path, error)
            return None
        self._watches[path] = _Watch(inode, watch, handler)
        return self._watches[path]

    def _stop(self, path: str) -> None:
        watch = self._watches.pop(path)
        if self._observer is not None:
            self._observer.unschedule(watch.observed)

    def happened(self, owners: Mapping[str, str], paths: set[str]) -> None:
        """Called by watchdog's thread."""
        found = {owner for owner, only in list(owners.items()) if not only or only in paths}
        if found:
            with self._telling:
                self._touched |= found
            os.eventfd_write(self.descriptor, 1)


class _Handler(FileSystemEventHandler):
    """Of one directory."""

    def __init__(self, events: DirectoryEvents) -> None:
        self._events = events
        self.owners: dict[str, str] = {}

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Whatever has happened."""
        self._events.happened(self.owners, {os.fsdecode(event.src_path), os.fsdecode(event.dest_path)})


class _Watch:
    """A directory that is watched."""

    def __init__(self, inode: int, observed: ObservedWatch, handler: _Handler) -> None:
        self.inode = inode
        self.observed = observed
        self.handler = handler


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - called at every look
    except OSError:
        return None
