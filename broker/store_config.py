"""The configuration file, watched: what it says is told when that has changed, or when somebody asks.

A file that cannot be used is looked at twice before that is told, because it may be in the middle of being written.
"""

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.store_events import DirectoryEvents
from broker.store_pool import Lane, Pool
from common.config import DeviceConfig, ModelConfig, ServerConfig
from common.config_file import ConfigFileError, read_config_file
from common.messages import ConfigRead
from common.storage.local import nearest_directory

OWNER = "configuration file"
"""Of its directory, when that is watched."""

CONFIRM_NS = 300_000_000
"""Until a file that cannot be used is looked at again."""

REPEAT_NS = 10_000_000_000
"""What was told in the last moments of a broker may be lost, and is told its successor once more."""

_LANE = Lane("configuration file", 1, quick=True)
_Content = tuple[tuple[ModelConfig, ...], dict[str, DeviceConfig]]
_Stamp = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Found:
    """One reading of the file."""

    stamp: _Stamp | None
    content: _Content | None
    error: str


_logger = logging.getLogger("storekeeper")


class ConfigWatch:
    """The loop's view; the file is read in the pool."""

    def __init__(
        self,
        config: ServerConfig,
        pool: Pool,
        events: DirectoryEvents | None,
        tell: Callable[[ConfigRead], None],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._config = config
        self._path = config.config_path
        self._pool = pool
        self._events = events
        self._tell = tell
        self._clock = clock
        self._poll_ns = int(config.poll_wait_s * 1e9) if config.poll_wait_s > 0 else None
        self.due: int | None = clock() if self._path and self._poll_ns is not None else None
        """When the file is to be looked at."""
        self._busy = False
        self._asked: list[int] = []
        self._link = 0
        """Counts links: who asked on an earlier one has gone."""
        self._stamp: _Stamp | None = None
        self._content: _Content = (config.models, config.devices)
        """What was told last, or what the server was started with."""
        self._suspect: tuple[_Stamp | None, str] | None = None
        """A file that cannot be used, seen once."""
        self._error = ""
        """What was told last."""
        self._last: ConfigRead | None = None
        self._last_at = 0

    def ask(self, number: int) -> None:
        """Read the file now, and tell under this number what it says."""
        if not self._path:
            self._tell(ConfigRead(error="the server was started without a configuration file", id=number))
            return
        self._asked.append(number)
        self.wake(self._clock())

    def wake(self, when: int) -> None:
        """Look at `when`, if not before."""
        if self._path:
            self.due = when if self.due is None else min(self.due, when)

    def linked_anew(self) -> None:
        """There may be a new broker."""
        self._asked = []
        self._link += 1
        if self._last is not None and self._clock() - self._last_at < REPEAT_NS:
            self._tell(self._last)

    def step(self, now: int) -> None:
        """Begin to read the file if that is due."""
        if self._busy or self.due is None or now < self.due:
            return
        self._busy = True
        # At the moments at which the models' storage is looked at: see store_model.
        self.due = None if self._poll_ns is None else (now // self._poll_ns + 1) * self._poll_ns
        asked, self._asked, link = self._asked, [], self._link
        known = None if asked or self._suspect is not None else self._stamp
        self._pool.submit(
            _LANE,
            lambda: self._read(known),
            lambda found: self._settle(found, asked if link == self._link else []),
            lambda error: self._settle(_Found(None, None, f"{self._path}: it cannot be read ({error})"), []),
        )

    def _read(self, known: _Stamp | None) -> _Found | None:
        """In a thread; None when the file is the one of this stamp."""
        path = Path(self._path)
        if self._events is not None:
            # Not for the file alone: what is mounted from a Kubernetes ConfigMap changes by a link beside it.
            self._events.watch(OWNER, {nearest_directory(str(path.parent)): ""})
        stamp = _stamp(path)
        if stamp is not None and stamp == known:
            return None
        try:
            found = read_config_file(path, self._config)
        except ConfigFileError as error:
            return _Found(stamp, None, str(error))
        for warning in found.warnings:
            _logger.warning("%s: %s", self._path, warning)
        return _Found(stamp, (found.models, found.devices), "")

    def _settle(self, found: _Found | None, asked: list[int]) -> None:
        self._busy = False
        if found is None:
            return
        self._stamp = found.stamp
        if found.content is not None:
            self._say_content(found.content, asked)
        else:
            self._say_error(found, asked)

    def _say_content(self, content: _Content, asked: list[int]) -> None:
        had_error, self._error, self._suspect = self._error, "", None
        changed = content != self._content or bool(had_error)
        self._content = content
        models, devices = content
        for number in asked:
            self._tell(ConfigRead(models, devices, id=number))
        if changed:
            self._remember(ConfigRead(models, devices), tell=not asked)

    def _say_error(self, found: _Found, asked: list[int]) -> None:
        for number in asked:
            self._tell(ConfigRead(error=found.error, id=number))
        if asked or self._poll_ns is None:
            return
        if found.error == self._error:
            self._suspect = None
            return
        seen = (found.stamp, found.error)
        if self._suspect != seen:
            self._suspect = seen
            self.wake(self._clock() + CONFIRM_NS)
            return
        self._suspect = None
        self._error = found.error
        self._remember(ConfigRead(error=found.error))

    def _remember(self, message: ConfigRead, *, tell: bool = True) -> None:
        """An answer to a question need not be told twice, but may have been lost like anything else."""
        self._last, self._last_at = message, self._clock()
        if tell:
            self._tell(message)


def _stamp(path: Path) -> _Stamp | None:
    """What changes whenever the file does; None when it cannot be looked at."""
    try:
        status = os.stat(path)  # noqa: PTH116 - one call for inode, size and both times
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
