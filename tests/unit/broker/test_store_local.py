"""broker.store_local: what is being copied does not count yet, what counts goes on counting, a second look is cheap."""

import shutil
from pathlib import Path

import pytest

from broker import store_local
from broker.store_local import Look, Looker


def add(base: Path, name: str) -> Path:
    directory = base / name
    directory.mkdir(parents=True)
    for file in ("model.xml", "model.bin"):
        (directory / file).write_bytes(b"content")
    return directory


class Hand:
    """Looks, with clocks that stand still between the moments that a test names."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.watched: dict[str, str] = {}
        self.looker = Looker(str(base), self._watch)
        self._monkeypatch = monkeypatch
        self._monotonic = 0

    def look(self, *, later_ns: int = 0, files_old: bool = False) -> Look | None:
        """`files_old`: everything on the disk has changed long ago."""
        self._monotonic += later_ns
        monotonic = self._monotonic
        with self._monkeypatch.context() as patch:
            patch.setattr("time.monotonic_ns", lambda: monotonic)
            if files_old:
                patch.setattr("time.time_ns", lambda: 1 << 62)
            return self.looker.look()

    def _watch(self, directories: dict[str, str]) -> None:
        self.watched = directories


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "m"


@pytest.fixture
def hand(base: Path, monkeypatch: pytest.MonkeyPatch) -> Hand:
    return Hand(base, monkeypatch)


def seen(look: Look | None) -> set[int]:
    assert look is not None
    return set(look.versions)


def test_a_young_version_counts_at_the_second_look(hand: Hand, base: Path) -> None:
    add(base, "1")
    assert hand.look() == Look({}, unsettled=True)
    assert hand.look(later_ns=store_local.SETTLE_NS - 1) == Look({}, unsettled=True)
    assert hand.look(later_ns=1) == Look({1: str(base / "1")})


def test_an_old_one_counts_at_once(hand: Hand, base: Path) -> None:
    add(base, "1")
    assert hand.look(files_old=True) == Look({1: str(base / "1")})


def test_every_write_makes_the_wait_begin_anew(hand: Hand, base: Path) -> None:
    directory = add(base, "1")
    for size in range(3):
        (directory / "model.bin").write_bytes(b"x" * size)
        assert seen(hand.look(later_ns=store_local.SETTLE_NS)) == set()
    assert seen(hand.look(later_ns=store_local.SETTLE_NS)) == {1}


def test_what_counts_is_not_taken_away_by_a_write(hand: Hand, base: Path) -> None:
    directory = add(base, "1")
    hand.look(files_old=True)
    (directory / "model.bin").write_bytes(b"written over")
    hand.looker.forget()
    assert seen(hand.look()) == {1}


def test_a_directory_that_is_made_anew_has_to_settle_anew(hand: Hand, base: Path) -> None:
    add(base, "1")
    assert seen(hand.look(files_old=True)) == {1}
    (base / "1").rename(base / "old")  # so that its inode is not used again
    add(base, "1")
    assert seen(hand.look()) == set()
    assert seen(hand.look(later_ns=store_local.SETTLE_NS)) == {1}


def test_one_that_is_being_copied_keeps_no_other_back(hand: Hand, base: Path) -> None:
    add(base, "1")
    hand.look(files_old=True)
    add(base, "2")
    look = hand.look()
    assert look == Look({1: str(base / "1")}, unsettled=True)


def test_nothing_new_is_seen_without_a_listing(
    hand: Hand, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(base, "1")
    hand.look(files_old=True)
    monkeypatch.setattr(store_local, "list_versions", None)
    assert hand.look() is None


def test_a_listing_of_what_has_just_changed_is_made_again(hand: Hand, base: Path) -> None:
    add(base, "1")
    hand.look()
    assert hand.look(later_ns=store_local.SETTLE_NS) == Look({1: str(base / "1")})
    assert hand.look() == Look({1: str(base / "1")})


@pytest.mark.parametrize("change", ["add", "remove", "empty", "unreadable", "gone"])
def test_changes_are_seen(hand: Hand, base: Path, change: str) -> None:
    directory = add(base, "1")
    hand.look(files_old=True)
    assert hand.look() is None
    if change == "add":
        add(base, "2")
    elif change == "remove":
        shutil.rmtree(directory)
    elif change == "empty":
        (directory / "model.bin").unlink()
    elif change == "unreadable":
        directory.chmod(0o500)
    else:
        base.rename(base.with_name("elsewhere"))
    assert hand.look() is not None


def test_an_error_keeps_what_counted(hand: Hand, base: Path) -> None:
    add(base, "1")
    hand.look(files_old=True)
    base.rename(base.with_name("elsewhere"))
    base.touch()
    look = hand.look()
    assert look is not None
    assert "cannot be listed: Not a directory" in look.error
    base.unlink()
    base.with_name("elsewhere").rename(base)
    assert seen(hand.look()) == {1}


def test_what_is_watched(hand: Hand, base: Path, tmp_path: Path) -> None:
    hand.look()
    assert hand.watched == {str(tmp_path): str(base)}
    add(base, "1")
    (base / "2").mkdir()
    hand.look()
    assert hand.watched == dict.fromkeys([str(base), str(base / "1"), str(base / "2")], "")
    hand.look(later_ns=store_local.SETTLE_NS)
    assert hand.watched == dict.fromkeys([str(base), str(base / "2")], "")
