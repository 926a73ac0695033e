"""common.storage.local: which directories are versions, and what is said about those that are not."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.storage.interface import Listing, StorageError
from common.storage.layout import MAX_VERSION
from common.storage.local import list_versions, nearest_directory, stamp

NOBODY = 65534


def add(base: Path, name: str, *files: str) -> Path:
    directory = base / name
    directory.mkdir(parents=True)
    for file in files or ("model.xml", "model.bin"):
        (directory / file).touch()
    return directory


def located(listing: Listing) -> dict[int, str]:
    return {number: version.location for number, version in listing.versions.items()}


def versions(base: Path) -> dict[int, str]:
    return located(list_versions(str(base)))


def warnings(base: Path) -> tuple[str, ...]:
    return list_versions(str(base)).warnings


def test_directories_of_digits_are_versions(tmp_path: Path) -> None:
    for name in ("1", "2", "10", str(MAX_VERSION)):
        add(tmp_path, name)
    listing = list_versions(str(tmp_path))
    assert located(listing) == {number: str(tmp_path / str(number)) for number in (1, 2, 10, MAX_VERSION)}
    assert listing.warnings == ()


def test_leading_zeros_do_not_count(tmp_path: Path) -> None:
    path = add(tmp_path, "001")
    assert versions(tmp_path) == {1: str(path)}


@pytest.mark.parametrize(
    "name", ["-1", "+1", "1a", "v1", "1.0", " 1", "1_0", "¹", "\N{ARABIC-INDIC DIGIT ONE}", "0x1", ".1"]
)
def test_other_names_are_no_versions_and_nobodys_business(tmp_path: Path, name: str) -> None:
    add(tmp_path, "3")
    add(tmp_path, name)
    listing = list_versions(str(tmp_path))
    assert set(listing.versions) == {3}
    assert listing.warnings == ()


@pytest.mark.parametrize("name", ["0", "000"])
def test_zero_is_refused_with_a_warning(tmp_path: Path, name: str) -> None:
    add(tmp_path, name)
    listing = list_versions(str(tmp_path))
    assert listing.versions == {}
    (warning,) = listing.warnings
    assert "version 0 is not served" in warning


@pytest.mark.parametrize("number", [1 << 63, 10**200])
def test_a_number_that_the_api_cannot_hold_is_refused_with_a_warning(tmp_path: Path, number: int) -> None:
    add(tmp_path, str(number))
    listing = list_versions(str(tmp_path))
    assert listing.versions == {}
    (warning,) = listing.warnings
    assert str(MAX_VERSION) in warning


@pytest.mark.parametrize(
    "files",
    [
        ("readme.txt",),
        ("model.xml",),
        ("model.bin",),
        ("model.xml", "other.bin"),
        ("model.xml.bak", "model.bin"),
        ("model.XML", "model.bin"),
    ],
)
def test_a_directory_without_a_pair_of_one_name_is_no_version(tmp_path: Path, files: tuple[str, ...]) -> None:
    add(tmp_path, "1", *files)
    listing = list_versions(str(tmp_path))
    assert listing.versions == {}
    (warning,) = listing.warnings
    assert "holds no model" in warning


def test_an_empty_directory_is_no_version(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    assert versions(tmp_path) == {}
    assert "holds no model" in warnings(tmp_path)[0]


def test_a_pair_may_have_company(tmp_path: Path) -> None:
    add(tmp_path, "1", "a.xml", "b.bin", "model.v2.xml", "model.v2.bin", "mapping_config.json")
    assert set(versions(tmp_path)) == {1}
    assert warnings(tmp_path) == ()


def test_directories_are_no_model_files(tmp_path: Path) -> None:
    directory = add(tmp_path, "1", "model.xml")
    (directory / "model.bin").mkdir()
    assert versions(tmp_path) == {}


def test_a_file_whose_name_is_a_number_is_no_version(tmp_path: Path) -> None:
    (tmp_path / "1").touch()
    assert versions(tmp_path) == {}
    assert len(warnings(tmp_path)) == 1


def test_links_to_directories_and_files_are_followed(tmp_path: Path) -> None:
    real = add(tmp_path / "store", "resnet")
    base = tmp_path / "base"
    base.mkdir()
    (base / "4").symlink_to(real)
    linked_files = base / "5"
    linked_files.mkdir()
    for name in ("model.xml", "model.bin"):
        (linked_files / name).symlink_to(real / name)
    assert versions(base) == {4: str(base / "4"), 5: str(base / "5")}


def test_loops_and_dangling_links_cost_nothing_but_a_warning(tmp_path: Path) -> None:
    add(tmp_path, "1")
    (tmp_path / "2").symlink_to(tmp_path / "2")
    (tmp_path / "3").symlink_to(tmp_path / "nowhere")
    looping_file = add(tmp_path, "4", "model.bin")
    (looping_file / "model.xml").symlink_to(looping_file / "model.xml")
    listing = list_versions(str(tmp_path))
    assert set(listing.versions) == {1}
    assert len(listing.warnings) == 3
    for number, warning in zip((2, 3, 4), listing.warnings, strict=True):
        assert str(tmp_path / str(number)) in warning


def test_two_names_of_one_number(tmp_path: Path) -> None:
    first = add(tmp_path, "01")
    second = add(tmp_path, "1")
    listing = list_versions(str(tmp_path))
    assert located(listing) == {1: str(first)}
    assert listing.warnings == (f"{second} has the same number as {first}, which is served",)


def test_of_two_names_of_one_number_the_one_with_a_model_counts(tmp_path: Path) -> None:
    (tmp_path / "01").mkdir()
    second = add(tmp_path, "1")
    assert versions(tmp_path) == {1: str(second)}


def test_a_base_path_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    base = tmp_path / "later"
    assert versions(base) == {}
    assert warnings(base) == (f"{base} does not exist; it is picked up when it appears",)


def test_a_base_path_that_is_a_dangling_link_holds_nothing(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.symlink_to(tmp_path / "unmounted")
    assert versions(base) == {}
    assert len(warnings(base)) == 1


def test_an_empty_base_path_holds_nothing(tmp_path: Path) -> None:
    assert versions(tmp_path) == {}
    assert "holds no version" in warnings(tmp_path)[0]


def test_a_base_path_that_vanishes_and_comes_back(tmp_path: Path) -> None:
    base = tmp_path / "base"
    add(base, "1")
    assert set(versions(base)) == {1}
    base.rename(tmp_path / "elsewhere")
    assert versions(base) == {}
    (tmp_path / "elsewhere").rename(base)
    assert set(versions(base)) == {1}


def test_a_base_path_that_is_a_file_cannot_be_listed(tmp_path: Path) -> None:
    base = tmp_path / "file"
    base.touch()
    with pytest.raises(StorageError, match="Not a directory"):
        list_versions(str(base))


def test_a_base_path_that_is_a_loop_cannot_be_listed(tmp_path: Path) -> None:
    base = tmp_path / "loop"
    base.symlink_to(base)
    with pytest.raises(StorageError, match="symbolic links"):
        list_versions(str(base))


@pytest.fixture
def users_path() -> Iterator[Path]:
    """A directory in which permissions count: while the test runs, root gives up its right to read everything."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        if os.geteuid() != 0:
            yield path
            return
        os.chown(path, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield path
        finally:
            os.seteuid(0)


def test_a_base_path_without_permission_cannot_be_listed(users_path: Path) -> None:
    base = users_path / "base"
    add(base, "1")
    base.chmod(0o000)
    try:
        with pytest.raises(StorageError, match="Permission denied"):
            list_versions(str(base))
    finally:
        base.chmod(0o700)


def test_a_version_without_permission_is_skipped_with_a_warning(users_path: Path) -> None:
    add(users_path, "1")
    closed = add(users_path, "2")
    closed.chmod(0o000)
    try:
        listing = list_versions(str(users_path))
    finally:
        closed.chmod(0o700)
    assert set(listing.versions) == {1}
    assert "Permission denied" in listing.warnings[0]


def test_weights_of_a_saved_model_are_looked_for_one_level_below(tmp_path: Path) -> None:
    directory = add(tmp_path, "1", "saved_model.pb")
    (directory / "variables").mkdir()
    (directory / "variables" / "variables.index").touch()
    assert versions(tmp_path) == {}
    (directory / "variables" / "variables.data-00000-of-00001").touch()
    assert versions(tmp_path) == {1: str(directory)}


def test_files_say_when_they_changed(tmp_path: Path) -> None:
    directory = add(tmp_path, "1")
    (directory / "model.bin").write_bytes(b"12345")
    before = list_versions(str(tmp_path)).versions[1]
    assert [(file.name, file.size) for file in before.files] == [("model.bin", 5), ("model.xml", 0)]
    assert before.files[0].changed_ns == (directory / "model.bin").stat().st_ctime_ns
    os.utime(directory / "model.bin", ns=(1, 1))
    after = list_versions(str(tmp_path)).versions[1]
    assert after.fingerprint != before.fingerprint


def test_directories_that_are_no_versions_are_named(tmp_path: Path) -> None:
    add(tmp_path, "1")
    (tmp_path / "2").mkdir()
    assert list_versions(str(tmp_path)).refused == (str(tmp_path / "2"),)


def test_a_stamp_changes_with_what_a_listing_depends_on(tmp_path: Path) -> None:
    directory = add(tmp_path, "1", "saved_model.pb")
    variables = directory / "variables"
    variables.mkdir()
    for name in ("variables.index", "variables.data-00000-of-00001"):
        (variables / name).touch()
    listing = list_versions(str(tmp_path))
    for place in (tmp_path, directory, variables):
        before = stamp(str(tmp_path), listing)
        assert stamp(str(tmp_path), listing) == before
        # Times of the file system advance in steps: until it shows, the change is made again.
        new = place / "new"
        for _ in range(10_000):
            new.touch()
            new.unlink()
            if stamp(str(tmp_path), listing) != before:
                break
        else:
            raise AssertionError(f"a change of {place} does not show")
    variables.rename(directory / "elsewhere")
    assert (str(variables), -1, -1) in stamp(str(tmp_path), listing)


def test_the_nearest_directory_is_where_a_missing_path_will_appear(tmp_path: Path) -> None:
    assert nearest_directory(str(tmp_path)) == str(tmp_path)
    assert nearest_directory(str(tmp_path / "a" / "b" / "c")) == str(tmp_path)
    assert nearest_directory("/nowhere/at/all") == "/"
