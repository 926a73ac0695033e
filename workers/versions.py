"""The versions that a worker has: loaded by a thread, served, and closed once nothing of them is in hand.

Load ──▶ LOADING ──LoadEnded──▶ LOADED ──Unload──▶ LEAVING ──idle──▶ closed by the thread (Unloaded)
             └──▶ LoadFailed       ▲                  │
                                   └───────Load───────┘
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.messages import Load, Loaded, LoadedVersion, LoadFailed, Message, Unloaded, VersionId
from workers.batched import BatchedModel
from workers.binding import Binder
from workers.engine import BatchableModel, Model, VariableModel
from workers.loader import LoadEnded, Loader
from workers.queue import RunQueue
from workers.shaped import ShapedModel, Shaping


class Version(NamedTuple):
    """A version that can run."""

    model: Model
    binder: Binder
    loaded: LoadedVersion


class Versions:
    """All of them. Called by the loop's thread; queue and shaping hear what comes and goes, the broker by `tell`."""

    def __init__(
        self, loader: Loader, queue: RunQueue, shaping: Shaping, tell: Callable[[Message], None]
    ) -> None:
        self._loader = loader
        self._queue = queue
        self._shaping = shaping
        self._tell = tell
        self.loaded: dict[VersionId, Version] = {}
        """Those that run, leaving ones included."""
        self.loading: dict[VersionId, None] = {}
        """In the order in which they were asked for."""
        self.leaving: set[VersionId] = set()
        """Versions to be unloaded once nothing of them is in hand."""

    def staying(self) -> tuple[LoadedVersion, ...]:
        """Those that run and are not about to leave."""
        return tuple(one.loaded for version, one in self.loaded.items() if version not in self.leaving)

    def load(self, message: Load) -> None:
        """Have a version loaded, unless it is or will be; one that was to leave stays."""
        version = message.version
        known = self.loaded.get(version)
        if known is not None:
            self.leaving.discard(version)
            self._tell(Loaded(known.loaded))
        elif version not in self.loading:
            self.loading[version] = None
            self._loader.load(version, Path(message.path), message.config)

    def load_ended(self, ended: LoadEnded) -> None:
        """The thread has loaded a version, or found that it cannot be."""
        version = ended.version
        self.loading.pop(version, None)
        if ended.model is None:
            self._tell(LoadFailed(version, ended.reason))
            return
        model: Model
        batching = None
        if isinstance(ended.model, VariableModel):
            model = shaped = ShapedModel(ended.model, ended.config.nireq or 1)
            self._shaping.add(version, shaped, ended.config.max_shapes)
        elif isinstance(ended.model, BatchableModel):
            model = BatchedModel(ended.model, ended.config.nireq or 1)
            batching = ended.config.batching_parameters
        else:
            model = ended.model
        loaded = LoadedVersion(version, model.nireq, model.signature, model.notes, batching)
        self.loaded[version] = Version(model, Binder(loaded.signature), loaded)
        self._queue.add(version, model.nireq)
        self._tell(Loaded(loaded))

    def unload(self, version: VersionId) -> None:
        """Have a version closed, now or when it is idle."""
        if version in self.loaded:
            self.leaving.add(version)
            self.close_if_idle(version)
        else:
            self._tell(Unloaded(version))

    def close_if_idle(self, version: VersionId) -> None:
        """To be asked of a version that is leaving whenever something of it has ended."""
        if not self._queue.is_idle(version) or self._shaping.is_compiling(version):
            return
        self.leaving.discard(version)
        self._queue.remove(version)
        self._shaping.remove(version)
        self._loader.close(version, self.loaded.pop(version).model)
