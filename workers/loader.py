"""A thread that loads, compiles and closes, one at a time: each may take minutes, the message loop has milliseconds."""

import ctypes
import gc
import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

from common.config import ModelConfig
from common.messages import VersionId
from workers.engine import BatchableModel, Engine, LoadError, Model, ShapeError, VariableModel
from workers.ports import Shapes

_log = logging.getLogger("workers")


class LoadEnded(NamedTuple):
    """A version is loaded, or (`model` is None) why it is not."""

    version: VersionId
    model: Model | VariableModel | BatchableModel | None
    config: ModelConfig
    reason: str = ""


class CompileEnded(NamedTuple):
    """A version is compiled for these shapes, or (`model` is None) why it cannot be."""

    version: VersionId
    shapes: Shapes
    model: Model | None
    reason: str = ""


class CloseEnded(NamedTuple):
    """A version's memory is given back."""

    version: VersionId


Report: TypeAlias = Callable[[LoadEnded | CompileEnded | CloseEnded], None]


class Loader:
    """Works off what it is given, in that order; `report` is called by its thread."""

    def __init__(self, engine: Engine, report: Report, name: str = "loader") -> None:
        self._engine = engine
        self._report = report
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def load(self, version: VersionId, path: Path, config: ModelConfig) -> None:
        """Load a version; LoadEnded will be reported."""
        self._work.put(lambda: self._load(version, path, config))

    def compile(self, version: VersionId, model: VariableModel, shapes: Shapes) -> None:
        """Compile a version for these shapes; CompileEnded will be reported."""
        self._work.put(lambda: self._compile(version, model, shapes))

    def discard(self, models: list[Model]) -> None:
        """Close models of which nothing will be asked any more. The caller keeps no reference to them."""
        self._work.put(lambda: self._discard(models))

    def close(self, version: VersionId, model: Model) -> None:
        """Close a model; CloseEnded will be reported. The caller keeps no reference to it."""
        # In a list, so that the reference can be taken out: what still refers to a model keeps its memory.
        holder = [model]
        self._work.put(lambda: self._close(version, holder))

    def _run(self) -> None:
        while True:
            self._work.get()()

    def _load(self, version: VersionId, path: Path, config: ModelConfig) -> None:
        begun = time.monotonic()
        _log.debug("loading model %s, version %d", version.model, version.version)
        try:
            model = self._engine.load(path, config)
        except LoadError as error:
            # The broker reports it, once for each reason.
            _log.debug("model %s, version %d: %s", version.model, version.version, error.reason)
            self._report(LoadEnded(version, None, config, error.reason))
        except Exception as error:  # noqa: BLE001 - the answer must come in any case
            _log.exception("model %s, version %d", version.model, version.version)
            self._report(LoadEnded(version, None, config, f"unexpected {type(error).__name__}"))
        else:
            seconds = time.monotonic() - begun
            _log.info("loaded model %s, version %d in %.2f s", version.model, version.version, seconds)
            self._report(LoadEnded(version, model, config))

    def _compile(self, version: VersionId, source: VariableModel, shapes: Shapes) -> None:
        begun = time.monotonic()
        name, number, lists = version.model, version.version, [list(shape) for shape in shapes]
        try:
            model = source.compile(shapes)
        except ShapeError as error:
            _log.info("model %s, version %d cannot take shapes %s: %s", name, number, lists, error.reason)
            self._report(CompileEnded(version, shapes, None, error.reason))
        except Exception as error:  # noqa: BLE001 - likewise
            _log.exception("model %s, version %d, shapes %s", name, number, lists)
            self._report(CompileEnded(version, shapes, None, f"unexpected {type(error).__name__}"))
        else:
            seconds = time.monotonic() - begun
            _log.info("compiled model %s, version %d for %s in %.2f s", name, number, lists, seconds)
            self._report(CompileEnded(version, shapes, model))

    def _discard(self, models: list[Model]) -> None:
        try:
            while models:
                models.pop().close()
        except Exception:  # noqa: BLE001 - nobody waits for this, and the thread must go on
            _log.exception("closing compiled shapes")
        gc.collect()
        _trim()

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
