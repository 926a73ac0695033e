"""broker.store_cache: complete versions or none, within the bound, in directories that never collide."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from broker import store_cache
from broker.store_cache import GRACE_NS, Cache, delete, fetch, open_directory
from common.storage.interface import Cancelled, Listing, StorageError, StoredFile, StoredVersion

VERSION = StoredVersion("7", "s3://b/m/7", (StoredFile("model.onnx", 5, "mark"),))


class OneFile:
    """A store that writes five bytes, and fails after them if it is told to."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure

    def list_versions(self) -> Listing:
        return Listing({7: VERSION})

    def fetch(self, version: StoredVersion, directory: Path, cancelled: Callable[[], bool]) -> None:
        (directory / "deeper").mkdir()
        (directory / "deeper" / "model.onnx").write_bytes(b"12345")
        if cancelled():
            raise Cancelled
        if self.failure is not None:
            raise self.failure


def names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def never() -> bool:
    return False


def opened(directory: Path, limit: int = 1000) -> Cache:
    cache = Cache(directory, limit)
    cache.opened(open_directory(directory, "a test"))
    return cache


def test_a_version_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    path = cache.path_of("m", "s3://b/m", 7, VERSION)
    for failure in (StorageError("broke off"), Cancelled()):
        with pytest.raises(type(failure)):
            fetch(OneFile(failure), VERSION, path, never)
        assert names(Path(path).parent) == []
    fetch(OneFile(), VERSION, path, never)
    assert (Path(path) / "deeper" / "model.onnx").read_bytes() == b"12345"
    assert names(Path(path).parent) == [Path(path).name]
    cache.close()


def test_directories_never_collide_and_can_be_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    places = {
        str(cache.model_directory(model, base))
        for model in ("m", "../m", "m/", "M", "ü" * 300)
        for base in ("s3://b/m", "gs://b/m", "s3://b/m/x")
    }
    assert len(places) == 15
    for place in places:
        assert Path(place).parent == tmp_path
        assert len(Path(place).name) < 100
    assert cache.model_directory("resnet", "s3://b/m").name.startswith("resnet-")


def test_other_content_has_another_directory(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    other = StoredVersion("7", VERSION.location, (StoredFile("model.onnx", 5, "another mark"),))
    assert cache.path_of("m", "s3://b/m", 7, VERSION) != cache.path_of("m", "s3://b/m", 7, other)


def test_what_an_earlier_process_left(tmp_path: Path) -> None:
    first = opened(tmp_path)
    path = first.path_of("m", "s3://b/m", 7, VERSION)
    fetch(OneFile(), VERSION, path, never)
    half = Path(path).with_name(".8-0123456789abcdef.part")
    half.mkdir()
    (half / "model.onnx").write_bytes(b"123")
    empty = first.model_directory("gone", "s3://b/gone")
    empty.mkdir()
    foreign = tmp_path / "notes.txt"
    foreign.touch()
    first.close()
    second = opened(tmp_path)
    assert second.has(path)
    assert second.used == 5
    assert second.versions("m", "s3://b/m") == {7: [path]}
    assert second.versions("m", "s3://b/other") == {}
    assert not half.exists()
    assert not empty.exists()
    assert foreign.exists()
    second.close()


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    first = opened(tmp_path)
    with pytest.raises(StorageError, match=r"is in use by another server \(a test\)"):
        open_directory(tmp_path, "another")
    first.close()
    opened(tmp_path).close()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used: Not a directory"):
        open_directory(tmp_path / "file" / "cache", "a test")


def test_the_bound_holds_for_what_is_there_and_what_is_coming(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 << 20)
    assert cache.take_room("/c/a", 2 << 20) == ""
    assert (
        cache.take_room("/c/b", 2 << 20)
        == "it takes 2.0 MB, and of the model cache's 3.0 MB only 1.0 MB are free"
    )
    assert not cache.has("/c/a")
    cache.fetched("/c/a")
    assert cache.has("/c/a")
    assert cache.take_room("/c/b", 2 << 20)
    cache.dropped("/c/a")
    assert cache.take_room("/c/b", 2 << 20) == ""


def test_what_is_being_deleted_still_takes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.take_room("/c/a", 600)
    cache.fetched("/c/a")
    cache.entries["/c/a"].deleting = True
    assert not cache.has("/c/a")
    assert cache.take_room("/c/b", 600)
    assert cache.take_room("/c/a", 600) == "its last copy is still being deleted"


def test_grace_begins_anew_when_a_version_is_wanted_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 1000)
    cache.take_room("/c/a", 1)
    cache.fetched("/c/a")
    assert not cache.mark_unwanted("/c/a", 10)
    assert not cache.mark_unwanted("/c/a", 9 + GRACE_NS)
    cache.mark_wanted("/c/a")
    assert not cache.mark_unwanted("/c/a", 10 + GRACE_NS)
    assert cache.mark_unwanted("/c/a", 10 + 2 * GRACE_NS)


def test_deleting_takes_the_models_directory_with_the_last_version(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    paths = [cache.path_of("m", "s3://b/m", number, VERSION) for number in (7, 8)]
    for path in paths:
        fetch(OneFile(), VERSION, path, never)
    delete(paths[0])
    assert not Path(paths[0]).exists()
    assert Path(paths[1]).exists()
    delete(paths[1])
    assert not Path(paths[1]).parent.exists()
    delete(paths[1])
    cache.close()


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_seen_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, store_cache.FREE_BYTES))
    with pytest.raises(StorageError, match=r"it takes 0.0 MB, and the disk of .* has 64.0 MB free"):
        fetch(OneFile(), VERSION, str(tmp_path / "m" / "7-0"), never)
    assert names(tmp_path / "m") == []
