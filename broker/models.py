"""What is known of models and their versions: the records that the registry keeps. Pure.

A version is named by its number and a *revision*. The revision is raised when the model's configuration changes in a
way that loading depends on, and when storage shows other content under the same number; so the same number can be
loaded anew before the old one goes. The revisions of one server never repeat.

    START ─▶ LOADING ─▶ AVAILABLE ─▶ UNLOADING ─▶ END ─▶ START (wanted again)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from common.config import ModelConfig
from common.errors import Code, WireError
from common.messages import VersionId
from common.states import VersionState
from common.tensors import Signature

LOAD_ERROR_TEXT = "Error occurred while loading version"

TRANSITIONS: dict[VersionState, frozenset[VersionState]] = {
    VersionState.START: frozenset({VersionState.LOADING, VersionState.AVAILABLE, VersionState.END}),
    VersionState.LOADING: frozenset({VersionState.AVAILABLE, VersionState.UNLOADING}),
    VersionState.AVAILABLE: frozenset({VersionState.UNLOADING}),
    VersionState.UNLOADING: frozenset({VersionState.END}),
    VersionState.END: frozenset({VersionState.START}),
}
"""START to AVAILABLE directly: a new broker finds a version loaded already."""

_NOT_LOADED = frozenset({"name", "version_policy", "labels", "workers"})
"""Options of a model that say nothing about how its versions are loaded."""


def needs_reload(old: ModelConfig, new: ModelConfig) -> bool:
    """Whether what was loaded under the one configuration is not what the other asks for."""
    return any(
        getattr(old, name) != getattr(new, name)
        for name in ModelConfig.__struct_fields__
        if name not in _NOT_LOADED
    )


class LoadState(Enum):
    """Of a version in one worker."""

    LOADING = "loading"
    LOADED = "loaded"
    FAILED = "failed"
    UNLOADING = "unloading"


@dataclass(slots=True, eq=False)
class Version:
    """A version that storage or a worker has shown."""

    id: VersionId
    config: ModelConfig
    """By which it is loaded."""
    state: VersionState = VersionState.START
    path: str = ""
    wanted: bool = False
    reason: str = ""
    """Of the last failed load; empty after a successful one."""
    fetch_error: str = ""
    """Why the storekeeper could not fetch it; empty once it could."""
    signature: Signature | None = None
    loads: dict[str, LoadState] = field(default_factory=dict)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By worker: what an operator should know of it."""
    noted: set[str] = field(default_factory=set)
    """Notes that were logged."""
    retry_at: int = 0
    load_deaths: int = 0
    """Workers that died while loading it, since it last could be loaded."""
    left_generation: int = 0
    """First catalogue without it; 0 before that one is made."""
    left_at: int = 0
    dispatchable: bool = True
    history: list[VersionState] = field(default_factory=list)

    def move(self, state: VersionState) -> None:
        """The one writer of `state`. Raises AssertionError, with the version's story, for what cannot happen."""
        story = " → ".join(one.name for one in [*self.history, self.state])
        assert state in TRANSITIONS[self.state], f"{self.id}: {story} → {state.name}"
        self.history = [*self.history[-7:], self.state]
        self.state = state

    def start_again(self) -> None:
        """From END, as if it had just been seen."""
        self.move(VersionState.START)
        self.dispatchable = True
        self.left_generation = 0
        self.retry_at = 0
        self.load_deaths = 0
        self.noted.clear()

    def end(self) -> None:
        """Nobody has it any more."""
        self.move(VersionState.END)
        self.loads.clear()
        self.notes.clear()
        self.reason = ""

    @property
    def device(self) -> str:
        """Whose workers load it."""
        return self.config.target_device

    @property
    def trouble(self) -> str:
        """Why it cannot be served, or could not be when that was last tried."""
        return self.reason or self.fetch_error

    @property
    def error(self) -> WireError | None:
        """As GetModelStatus shows it."""
        if not self.trouble or self.state in (VersionState.AVAILABLE, VersionState.END):
            return None
        return WireError(Code.UNKNOWN, f"{LOAD_ERROR_TEXT}: {self.trouble}")

    @property
    def is_in_workers(self) -> bool:
        """Whether any worker has it loaded, loads it, or is about to forget it."""
        return any(state is not LoadState.FAILED for state in self.loads.values())

    @property
    def is_settled(self) -> bool:
        """Whether loading it has come to a result."""
        return self.state is VersionState.AVAILABLE or bool(self.trouble)


@dataclass(slots=True, eq=False)
class Model:
    """A configured model, or one that is leaving."""

    config: ModelConfig
    revision: int = 0
    """Of the present configuration."""
    awaited: bool = True
    """The server is not ready before this model was tried: it is one that the server started with."""
    removed: bool = False
    """Not configured any more; forgotten when its last version has ended."""
    versions: dict[tuple[int, int], Version] = field(default_factory=dict)
    """By number and revision."""
    own_revisions: dict[int, int] = field(default_factory=dict)
    """Of numbers whose content in storage has changed under the present configuration."""
    listed_path: str | None = None
    """Base path of the last listing."""
    listing_error: str = ""
    """Why that could not be made."""
    known_path: str | None = None
    """Base path of the last listing that could be made, which showed `stored` and `missing`."""
    stored: dict[int, str] = field(default_factory=dict)
    """Version → directory."""
    missing: dict[int, str] = field(default_factory=dict)
    """Version → why it could not be fetched."""
    left_generation: int = 0
    """Of a removed model: first catalogue that says that all of it has ended; 0 before that one is made."""
    left_at: int = 0

    @property
    def name(self) -> str:
        """By which clients ask for it."""
        return self.config.name

    @property
    def listed(self) -> bool:
        """Whether the present base path was listed at least once, with or without success."""
        return self.listed_path == self.config.base_path

    @property
    def known(self) -> bool:
        """Whether the present base path was listed with success, so that it is known which versions are not wanted."""
        return self.known_path == self.config.base_path

    def revision_of(self, number: int) -> int:
        """The present revision of a version."""
        return self.own_revisions.get(number, self.revision)

    def is_current(self, version: Version) -> bool:
        """Whether the version is what configuration and storage say now."""
        id_ = version.id
        return not self.removed and id_.revision == self.revision_of(id_.version)

    def rank(self, version: Version) -> tuple[bool, int]:
        """Of several revisions of one number the one of the highest rank supersedes the others."""
        return self.is_current(version), version.id.revision

    def wanted(self) -> Iterator[Version]:
        """What should be served."""
        return (version for version in self.versions.values() if version.wanted)

    def is_served(self) -> bool:
        """Whether any version of it can be asked."""
        return any(version.state is VersionState.AVAILABLE for version in self.versions.values())

    def is_tried(self) -> bool:
        """Whether its storage was listed, and each wanted version loaded or failed at least once."""
        return self.listed and all(version.is_settled for version in self.wanted())

    def shown(self) -> dict[int, Version]:
        """One revision of each number, ascending: the one that serves if there is one, else the latest."""
        best: dict[int, Version] = {}
        for version in self.versions.values():
            other = best.get(version.id.version)
            if other is None or self._shows_rather(version, other):
                best[version.id.version] = version
        return dict(sorted(best.items()))

    def _shows_rather(self, one: Version, other: Version) -> bool:
        serves = one.state is VersionState.AVAILABLE, other.state is VersionState.AVAILABLE
        if serves[0] is not serves[1]:
            return serves[0]
        return self.rank(one) > self.rank(other)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new configuration changes: names of models."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reloaded: tuple[str, ...] = ()
    """Their versions are loaded anew."""
    adjusted: tuple[str, ...] = ()
    """Otherwise changed: in policy, labels or workers."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.reloaded or self.adjusted)


@dataclass(slots=True, eq=False)
class Host:
    """A connected worker as the registry sees it."""

    device: str
    trial: bool
    loading_since: int = 0
    draining: bool = False
    """Loads nothing new, and is not waited for: it is about to be stopped."""


def all_versions(models: dict[str, Model]) -> Iterator[Version]:
    """Of all models, in their order."""
    for model in models.values():
        yield from model.versions.values()
