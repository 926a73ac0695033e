"""broker.store_remote and store_housekeeping, with a store in memory: what is fetched, told and deleted, and when."""

import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.store_cache import GRACE_NS
from broker.store_housekeeping import Housekeeping
from broker.store_model import Surroundings
from broker.store_pool import Pool
from broker.store_remote import MIN_POLL_NS, RemoteModel
from common.config import ServerConfig, VersionPolicy
from common.messages import Snapshot, Watched
from common.storage.interface import Cancelled, Listing, StorageError, StoredFile, StoredVersion

BASE = "s3://b/m"
PATIENCE_S = 10.0
SECOND = 1_000_000_000


def version(number: int, mark: str = "a", size: int = 10) -> StoredVersion:
    return StoredVersion(str(number), f"{BASE}/{number}", (StoredFile("model.onnx", size, mark),))


class MemoryStore:
    """A store that holds what a test says."""

    def __init__(self) -> None:
        self.versions: dict[int, StoredVersion] = {}
        self.error: StorageError | None = None
        self.broken: set[int] = set()
        """Versions that cannot be fetched."""
        self.fetched: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        """Fetches go on while it is set."""
        self.entered = threading.Event()

    def list_versions(self) -> Listing:
        if self.error is not None:
            raise self.error
        return Listing(dict(self.versions))

    def fetch(self, version: StoredVersion, directory: Path, cancelled: Callable[[], bool]) -> None:
        self.entered.set()
        (directory / "model.onnx").write_text(version.files[0].mark)
        while not self.gate.wait(0.01):
            if cancelled():
                raise Cancelled
        number = int(version.name)
        if number in self.broken:
            raise StorageError(f"{version.location} broke off")
        self.fetched.append(number)


class Keeper:
    """The storekeeper's loop without a broker, and with a clock of the test's own."""

    def __init__(self, directory: Path, limit: int = 1 << 20) -> None:
        self.now = SECOND
        self.store = MemoryStore()
        self.pool = Pool()
        self.changes = 0
        config = ServerConfig((), str(directory), model_cache_bytes=limit)
        self.house = Housekeeping(config, self.pool)
        self.around = Surroundings(self.pool, SECOND, self._changed, lambda: self.now)
        self.models: list[RemoteModel] = []
        self.model = self.add("m")

    def add(self, name: str, base: str = BASE) -> RemoteModel:
        watched = Watched(name, base, VersionPolicy())
        model = RemoteModel(watched, self.around, self.house.cache, "s3://b", lambda: self.store)
        self.models.append(model)
        return model

    def step(self) -> None:
        self.pool.settle()
        for model in self.models:
            model.step(self.now)
        self.house.step(self.models, self.now)
        self.pool.start()

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(1000):
            self.step()
            if condition():
                return
            select.select([self.pool.descriptor], [], [], 0.05)
        raise AssertionError(f"it did not come about; {self.model.snapshot()}")

    def round(self, wait_ns: int = MIN_POLL_NS) -> Snapshot:
        """One more listing, and everything that follows from it; what is told then."""
        self.now += wait_ns
        self.step()
        self.until(lambda: not any(model.busy for model in self.models) and self.house.cache.is_open)
        self.until(lambda: not any(model.busy for model in self.models))
        snapshot = self.model.snapshot()
        assert snapshot is not None
        return snapshot

    def close(self) -> None:
        self.store.gate.set()
        for model in self.models:
            model.close()
        self.pool.close()
        self.house.cache.close()

    def _changed(self, _: str) -> None:
        self.changes += 1


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    keeper.close()


def mark(path: str) -> str:
    return (Path(path) / "model.onnx").read_text()


def test_only_what_the_policy_wants_is_fetched(keeper: Keeper) -> None:
    keeper.store.versions = {number: version(number) for number in (1, 2, 3)}
    snapshot = keeper.round()
    assert set(snapshot.versions) == {3}
    assert keeper.store.fetched == [3]
    assert (snapshot.failures, snapshot.error, snapshot.base_path) == ({}, "", BASE)
    assert mark(snapshot.versions[3]) == "a"


def test_nothing_is_told_before_what_is_wanted_was_tried(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    keeper.store.gate.clear()
    keeper.until(keeper.store.entered.is_set)
    assert keeper.model.snapshot() is None
    keeper.store.gate.set()
    keeper.until(lambda: keeper.model.snapshot() is not None)


def test_a_new_version_is_told_beside_the_old_one_which_goes_when_nobody_keeps_it(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    first = keeper.round().versions[1]
    keeper.store.versions[2] = version(2)
    assert set(keeper.round().versions) == {1}, "a version that has just appeared may be half there"
    both = keeper.round().versions
    assert set(both) == {1, 2}
    keeper.house.keep((first,))
    for _ in range(3):
        keeper.round(GRACE_NS)
    assert Path(first).exists()
    keeper.house.keep((both[2],))
    keeper.round()
    assert Path(first).exists()
    keeper.round(GRACE_NS)
    keeper.until(lambda: not Path(first).exists())
    snapshot = keeper.model.snapshot()
    assert snapshot is not None
    assert set(snapshot.versions) == {2}
    keeper.until(lambda: keeper.house.cache.used == 10)


def test_a_version_that_is_deleted_in_the_store_goes(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    path = keeper.round().versions[1]
    keeper.store.versions = {}
    assert keeper.round().versions == {}
    keeper.round()
    keeper.round(GRACE_NS)
    keeper.until(lambda: not Path(path).exists())


def test_objects_that_change_under_one_version_are_fetched_into_another_directory(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    before = keeper.round().versions[1]
    keeper.store.versions = {1: version(1, "b")}
    assert keeper.round().versions == {1: before}
    after = keeper.round().versions[1]
    assert after != before
    assert (mark(before), mark(after)) == ("a", "b")
    keeper.round()
    keeper.round(GRACE_NS)
    keeper.until(lambda: not Path(before).exists())
    assert mark(after) == "b"


def test_changed_objects_that_cannot_be_fetched_leave_the_old_copy(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    before = keeper.round().versions
    keeper.store.versions = {1: version(1, "b")}
    keeper.store.broken = {1}
    keeper.round()
    snapshot = keeper.round()
    assert snapshot.versions == before
    assert snapshot.failures == {}
    assert snapshot.warnings == ("s3://b/m/1 has changed and cannot be fetched anew: s3://b/m/1 broke off",)
    keeper.store.broken = set()
    keeper.round(60 * SECOND)
    assert mark(keeper.round().versions[1]) == "b"


def test_a_listing_that_fails_says_why_and_changes_nothing_else(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    before = keeper.round()
    keeper.store.error = StorageError("s3://b/m: the store cannot be reached")
    snapshot = keeper.round()
    assert (snapshot.error, snapshot.versions) == ("s3://b/m: the store cannot be reached", {})
    for _ in range(3):
        keeper.round(GRACE_NS)
    assert Path(before.versions[1]).exists()
    keeper.store.error = None
    assert keeper.round(60 * SECOND) == before


def test_a_store_that_refuses_is_asked_ever_less_often(keeper: Keeper) -> None:
    keeper.store.error = StorageError("refused")
    for _ in range(8):
        keeper.round(60 * SECOND)
    assert keeper.model.due == keeper.now + 13 * SECOND


def test_a_fetch_that_fails_is_told_and_tried_again_with_back_off(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1), 2: version(2)}
    keeper.model.change_policy(VersionPolicy("all"))
    keeper.store.broken = {2}
    snapshot = keeper.round()
    assert (set(snapshot.versions), snapshot.failures) == ({1}, {2: "s3://b/m/2 broke off"})
    for _ in range(3):
        keeper.round()
    keeper.store.broken = set()
    assert keeper.round().failures, "it has failed too often to be tried every second"
    snapshot = keeper.round(60 * SECOND)
    assert (set(snapshot.versions), snapshot.failures) == ({1, 2}, {})


def test_a_version_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, limit=3 << 20)
    try:
        keeper.store.versions = {1: version(1, size=1 << 20), 2: version(2, size=4 << 20)}
        keeper.model.change_policy(VersionPolicy("all"))
        snapshot = keeper.round()
        assert set(snapshot.versions) == {1}
        assert snapshot.failures == {
            2: "it takes 4.0 MB, and of the model cache's 3.0 MB only 3.0 MB are free"
        }
    finally:
        keeper.close()


def test_another_policy_is_told_of_once_it_was_tried(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1), 2: version(2)}
    keeper.round()
    keeper.store.gate.clear()
    keeper.store.entered.clear()
    keeper.model.change_policy(VersionPolicy("specific", versions=(1,)))
    assert keeper.model.snapshot() is None
    keeper.model.wake(keeper.now)
    keeper.until(keeper.store.entered.is_set)
    assert keeper.model.snapshot() is None
    keeper.store.gate.set()
    assert set(keeper.round().versions) == {1, 2}


def test_a_model_that_is_taken_away_calls_its_fetch_off(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    keeper.store.gate.clear()
    keeper.until(keeper.store.entered.is_set)
    keeper.models.remove(keeper.model)
    keeper.model.close()
    keeper.until(lambda: not keeper.house.cache.entries)
    assert keeper.store.fetched == []
    assert list(keeper.house.cache.directory.rglob("*.onnx")) == []


def test_versions_of_a_model_that_is_gone_are_deleted(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    path = keeper.round().versions[1]
    keeper.models.remove(keeper.model)
    keeper.model.close()
    for wait_ns in (SECOND, SECOND, GRACE_NS):
        keeper.now += wait_ns
        keeper.step()
    keeper.until(lambda: not Path(path).exists())


def test_what_an_earlier_storekeeper_has_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    first = Keeper(tmp_path)
    first.store.versions = {1: version(1)}
    before = first.round()
    first.close()
    second = Keeper(tmp_path)
    try:
        second.store.versions = {1: version(1)}
        assert second.round() == before
        assert second.store.fetched == []
    finally:
        second.close()


def test_while_the_store_cannot_be_listed_nothing_of_the_model_is_deleted(tmp_path: Path) -> None:
    first = Keeper(tmp_path)
    first.store.versions = {1: version(1)}
    path = first.round().versions[1]
    first.close()
    second = Keeper(tmp_path)
    try:
        second.store.error = StorageError("away")
        for _ in range(4):
            second.round(GRACE_NS)
        assert Path(path).exists()
    finally:
        second.close()


def test_a_cache_of_another_server_fails_every_version_until_it_is_free(tmp_path: Path) -> None:
    first = Keeper(tmp_path)
    first.store.versions = {1: version(1)}
    first.round()
    second = Keeper(tmp_path)
    try:
        second.store.versions = {1: version(1)}
        second.until(lambda: second.house.cache.problem and second.model.snapshot() is not None)
        snapshot = second.model.snapshot()
        assert snapshot is not None
        assert "is in use by another server" in snapshot.failures[1]
        first.close()
        second.now += 3600 * SECOND
        second.until(lambda: second.house.cache.is_open)
        snapshot = second.round(60 * SECOND)
        assert (set(snapshot.versions), snapshot.failures) == ({1}, {})
    finally:
        second.close()


def test_models_of_equal_files_do_not_share_a_directory(keeper: Keeper) -> None:
    keeper.store.versions = {1: version(1)}
    other = keeper.add("n")
    keeper.round()
    snapshot, others = keeper.model.snapshot(), other.snapshot()
    assert snapshot is not None
    assert others is not None
    assert snapshot.versions[1] != others.versions[1]
