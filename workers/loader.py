"""The thread that loads and unloads, one at a time: both may take minutes, and the message loop has milliseconds."""

import ctypes
import gc
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from common.messages import VersionId
from workers.engine import Engine, LoadError, LoadOptions, Model

_log = logging.getLogger("workers")


class LoadEnded(NamedTuple):
    """A version is loaded, or (`model` is None) why it is not."""

    version: VersionId
    model: Model | None
    nireq: int
    reason: str = ""


class CloseEnded(NamedTuple):
    """A version's memory is given back."""

    version: VersionId


Report: TypeAlias = Callable[[LoadEnded | CloseEnded], None]


class Loader:
    """Works off loads and closes in the order given; `report` is called by its thread."""

    def __init__(self, engine: Engine, report: Report) -> None:
        self._engine = engine
        self._report = report
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="loader", daemon=True).start()

    def load(self, version: VersionId, path: Path, options: LoadOptions) -> None:
        """Load a version; LoadEnded will be reported."""
        self._work.put(lambda: self._load(version, path, options))

    def close(self, version: VersionId, model: Model) -> None:
        """Close a model; CloseEnded will be reported. The caller keeps no reference to it."""
        # In a list, so that the reference can be taken out: what still refers to a model keeps its memory.
        holder = [model]
        self._work.put(lambda: self._close(version, holder))

    def _run(self) -> None:
        while True:
            self._work.get()()

    def _load(self, version: VersionId, path: Path, options: LoadOptions) -> None:
        begun = time.monotonic()
        _log.info("loading model %s, version %d", version.model, version.version)
        try:
            model = self._engine.load(path, options)
        except LoadError as error:
            _log.error("model %s, version %d: %s", version.model, version.version, error.reason)
            self._report(LoadEnded(version, None, options.nireq, error.reason))
        except Exception as error:  # noqa: BLE001 - the answer must come in any case
            _log.exception("model %s, version %d", version.model, version.version)
            self._report(LoadEnded(version, None, options.nireq, f"unexpected {type(error).__name__}"))
        else:
            seconds = time.monotonic() - begun
            _log.info("loaded model %s, version %d in %.2f s", version.model, version.version, seconds)
            self._report(LoadEnded(version, model, options.nireq))

    def _close(self, version: VersionId, holder: list[Model]) -> None:
        try:
            holder.pop().close()
        except Exception:  # noqa: BLE001 - likewise
            _log.exception("closing model %s, version %d", version.model, version.version)
        gc.collect()
        _trim()
        _log.info("unloaded model %s, version %d", version.model, version.version)
        self._report(CloseEnded(version))


def _trim() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise (malloc_trim(3), absent from other libraries)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
