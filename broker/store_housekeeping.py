"""The model cache's keeper: opens its directory when it is needed first, and deletes what nobody needs any more."""

from pathlib import Path

from broker.store_cache import Cache, Opened, delete, open_directory
from broker.store_pool import Lane, Pool
from broker.store_remote import RemoteModel
from common.backoff import delay_ns
from common.config import ServerConfig
from common.storage.interface import StorageError

CACHE_DIRECTORY = "models"
"""In the run directory, where no other place is named for models from stores."""

_EVERY_NS = 250_000_000
_LANE = Lane("model cache", 1)


class Housekeeping:
    """Opens the model cache when it is needed, and deletes what nobody needs any more."""

    def __init__(self, config: ServerConfig, pool: Pool) -> None:
        self._pool = pool
        self._owner = f"run directory {config.run_dir}"
        directory = Path(config.model_cache_dir) if config.model_cache_dir else None
        self.cache = Cache(directory or Path(config.run_dir) / CACHE_DIRECTORY, config.model_cache_bytes)
        self._kept: frozenset[str] = frozenset()
        self._opening = False
        self._failures = 0
        self._now = 0
        self._next = 0

    def keep(self, paths: tuple[str, ...]) -> None:
        """These directories are in use."""
        self._kept = frozenset(paths)

    def begin_again(self) -> None:
        """Nobody has said yet what is in use: every time of grace begins anew."""
        for path in self.cache.entries:
            self.cache.mark_wanted(path)

    def step(self, models: list[RemoteModel], now: int) -> list[str]:
        """To be called at every turn; the models whose versions have become fewer."""
        if self.cache.is_open or self.cache.problem:
            for model in models:
                model.cache_changed()
        self._now = now
        if now < self._next:
            return []
        self._next = now + _EVERY_NS
        if not self.cache.is_open:
            self._open()
            return []
        deleted = False
        needed = set(self._kept).union(*(model.needs() for model in models))
        for entry in list(self.cache.entries.values()):
            if entry.path in needed or not entry.complete or entry.deleting:
                self.cache.mark_wanted(entry.path)
            elif self.cache.mark_unwanted(entry.path, now):
                self._delete(entry.path)
                entry.deleting = deleted = True
        return [model.name for model in models] if deleted else []

    def _open(self) -> None:
        if self._opening:
            return
        self._opening = True
        directory, owner = self.cache.directory, self._owner

        def work() -> Opened | str:
            try:
                return open_directory(directory, owner)
            except StorageError as error:
                return str(error)

        def then(found: Opened | str) -> None:
            self._opening = False
            if isinstance(found, str):
                self._failures += 1
                self.cache.problem = found
                self._next = self._now + max(_EVERY_NS, delay_ns(self._failures))
            else:
                self.cache.opened(found)

        self._pool.submit(_LANE, work, then, lambda error: then(f"the model cache is lost ({error})"))

    def _delete(self, path: str) -> None:
        self._pool.submit(
            _LANE,
            lambda: delete(path),
            lambda _: self.cache.dropped(path),
            lambda _: self.cache.dropped(path),
        )
