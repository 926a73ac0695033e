"""common.storage.objects and stores: objects as versions, names that are refused, complete files or none."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.config import StoreEnvironment
from common.storage import objects
from common.storage.interface import Cancelled, StorageError, StoredFile, StoredVersion
from common.storage.objects import Address, ObjectStore, StoredObject, candidates, refusal
from common.storage.stores import is_remote, lane_of, open_store, parse_address

ADDRESS = Address("s3", "b", "models/m")


class MemoryBucket:
    """A bucket in a dictionary, in which every call may be told to fail first."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content
        self.failures: list[Exception] = []
        self.cut = 0
        """Bytes that the next reads leave out, once each."""
        self.calls = 0

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        self._call()
        for key, data in sorted(self.content.items()):
            if key.startswith(prefix):
                yield StoredObject(key, len(data), f"mark of {key}")

    def read(self, key: str, mark: str, sink: Callable[[bytes], None]) -> None:
        self._call()
        assert mark == f"mark of {key}"
        data = self.content[key]
        end = len(data) - self.cut
        self.cut = 0
        for start in range(0, end, 3):
            sink(data[start : min(start + 3, end)])

    def _call(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAUSES_S", (0.0, 0.0))


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket(
        {
            "models/m/1/model.xml": b"<net/>",
            "models/m/1/model.bin": b"0123456789",
            "models/m/2/variables/variables.index": b"",
            "models/m/2/variables/variables.data-00000-of-00001": b"weights",
            "models/m/2/saved_model.pb": b"graph",
            "models/m/readme.txt": b"",
            "models/m2/3/model.onnx": b"another model's",
        }
    )


def always() -> bool:
    return True


def never() -> bool:
    return False


def test_versions_of_a_prefix(bucket: MemoryBucket) -> None:
    listing = ObjectStore(ADDRESS, bucket).list_versions()
    assert set(listing.versions) == {1, 2}
    assert listing.versions[1] == StoredVersion(
        "1",
        "s3://b/models/m/1",
        (
            StoredFile("model.bin", 10, "mark of models/m/1/model.bin"),
            StoredFile("model.xml", 6, "mark of models/m/1/model.xml"),
        ),
    )
    assert listing.warnings == ()


def test_a_bucket_may_be_a_base_path_itself() -> None:
    store = ObjectStore(Address("s3", "b", ""), MemoryBucket({"1/model.onnx": b"x", "readme": b""}))
    version = store.list_versions().versions[1]
    assert version.location == "s3://b/1"


def test_a_version_is_fetched_with_its_directories(bucket: MemoryBucket, tmp_path: Path) -> None:
    store = ObjectStore(ADDRESS, bucket)
    store.fetch(store.list_versions().versions[2], tmp_path, never)
    found = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    assert found == {
        "saved_model.pb": b"graph",
        "variables/variables.index": b"",
        "variables/variables.data-00000-of-00001": b"weights",
    }


def test_what_may_pass_is_tried_three_times(bucket: MemoryBucket, tmp_path: Path) -> None:
    store = ObjectStore(ADDRESS, bucket)
    bucket.failures = [StorageError("slow", transient=True)] * 2
    listing = store.list_versions()
    bucket.failures = [StorageError("slow", transient=True)] * 3
    with pytest.raises(StorageError, match="slow"):
        store.list_versions()
    bucket.failures = [StorageError("slow", transient=True)]
    bucket.cut = 4
    store.fetch(listing.versions[1], tmp_path, never)
    assert (tmp_path / "model.bin").read_bytes() == b"0123456789"


def test_what_will_not_pass_is_tried_once(bucket: MemoryBucket) -> None:
    bucket.failures = [StorageError("no such bucket")]
    with pytest.raises(StorageError, match="no such bucket"):
        ObjectStore(ADDRESS, bucket).list_versions()
    assert bucket.calls == 1


def test_a_librarys_own_exception_is_not_shown(bucket: MemoryBucket) -> None:
    bucket.failures = [KeyError("secret")] * 3
    with pytest.raises(StorageError) as caught:
        ObjectStore(ADDRESS, bucket).list_versions()
    assert str(caught.value) == "s3://b/models/m: it cannot be read (KeyError)"


def test_an_object_that_stays_short_is_an_error(bucket: MemoryBucket, tmp_path: Path) -> None:
    store = ObjectStore(ADDRESS, bucket)
    version = store.list_versions().versions[1]
    bucket.content["models/m/1/model.bin"] = b"0123"
    with pytest.raises(StorageError, match=r"s3://b/models/m/1/model.bin broke off after 4 of 10 bytes"):
        store.fetch(version, tmp_path, never)
    bucket.content["models/m/1/model.bin"] = b"0123456789abc"
    with pytest.raises(StorageError, match="longer than its listing says"):
        store.fetch(version, tmp_path, never)


def test_an_object_that_drips_is_given_up(
    bucket: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(ADDRESS, bucket)
    monkeypatch.setattr(objects, "SLOWEST_START_S", -10.0)
    with pytest.raises(StorageError, match="comes too slowly"):
        store.fetch(store.list_versions().versions[1], tmp_path, never)


def test_a_fetch_can_be_called_off(bucket: MemoryBucket, tmp_path: Path) -> None:
    store = ObjectStore(ADDRESS, bucket)
    with pytest.raises(Cancelled):
        store.fetch(store.list_versions().versions[1], tmp_path, always)


def test_a_disk_that_cannot_be_written_is_an_error(bucket: MemoryBucket, tmp_path: Path) -> None:
    (tmp_path / "variables").touch()
    store = ObjectStore(ADDRESS, bucket)
    with pytest.raises(StorageError, match="cannot be written"):
        store.fetch(store.list_versions().versions[2], tmp_path, never)


def test_too_many_objects_are_an_error(bucket: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_OBJECTS", 3)
    with pytest.raises(StorageError, match="s3://b/models/m holds more than 3 objects"):
        ObjectStore(ADDRESS, bucket).list_versions()


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../x", "..", ".", "./x", "/etc/passwd", "a//b", "a/", "a\\..\\b", "a\0b", "a\nb", "x" * 256,
     "/".join(["y" * 200] * 6)],
)  # fmt: skip
def test_names_that_do_not_become_files(name: str) -> None:
    assert refusal(name)
    held = [StoredObject(f"models/m/1/{name}", 1, ""), StoredObject("models/m/1/model.onnx", 1, "")]
    store = ObjectStore(ADDRESS, MemoryBucket({item.key: b"x" for item in held}))
    listing = store.list_versions()
    assert listing.versions == {}
    (warning,) = listing.warnings
    assert warning.startswith("s3://b/models/m/1 is refused: it holds an object whose name ")
    assert "\n" not in warning


@pytest.mark.parametrize("name", ["model.xml", "a/b/c", "..a", "a..b", "Größe.bin", "-", "a b"])
def test_names_that_do(name: str) -> None:
    assert refusal(name) == ""


def test_placeholders_of_empty_directories_do_not_count() -> None:
    held = [
        StoredObject("models/m/", 0, ""),
        StoredObject("models/m/1/", 0, ""),
        StoredObject("models/m/1/variables/", 0, ""),
        StoredObject("models/m/1/model.onnx", 1, ""),
    ]
    (found,) = candidates(ADDRESS, held)
    assert [file.name for file in found.files] == ["model.onnx"]


@pytest.mark.parametrize(
    ("base_path", "address", "text"),
    [
        ("s3://bucket/models/resnet/", Address("s3", "bucket", "models/resnet"), "s3://bucket/models/resnet"),
        ("s3://bucket", Address("s3", "bucket", ""), "s3://bucket"),
        ("GS://bucket/m", Address("gs", "bucket", "m"), "gs://bucket/m"),
        ("az://container/m", Address("az", "container", "m"), "az://container/m"),
        ("azfs://container//m", Address("azfs", "container", "m"), "azfs://container/m"),
    ],
)
def test_addresses(base_path: str, address: Address, text: str) -> None:
    assert is_remote(base_path)
    assert parse_address(base_path) == address
    assert str(address) == text


@pytest.mark.parametrize("base_path", ["/models/m", "models/m", "./s3:/m", "C:/m", "", "s3:/m"])
def test_paths(base_path: str) -> None:
    assert not is_remote(base_path)


@pytest.mark.parametrize(
    ("base_path", "text"),
    [
        ("ftp://host/m", "no store is known for ftp://; known are s3://, gs://, az://, azfs://"),
        ("s3:///m", "the name of the bucket or container is missing"),
    ],
)
def test_addresses_that_nobody_has(base_path: str, text: str) -> None:
    assert is_remote(base_path)
    with pytest.raises(StorageError, match=text):
        open_store(base_path, StoreEnvironment())


def test_models_of_one_bucket_share_a_lane() -> None:
    assert lane_of("s3://bucket/a") == lane_of("s3://bucket/b/c") == "s3://bucket"
    assert lane_of("gs://bucket/a") != lane_of("s3://bucket/a")


def test_secrets_of_the_environment_are_not_shown() -> None:
    assert "hunter2" not in repr(StoreEnvironment(azure_connection="AccountKey=hunter2"))
