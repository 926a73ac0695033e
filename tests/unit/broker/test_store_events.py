"""broker.store_events: real events of real directories."""

import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store_events import DirectoryEvents

PATIENCE_S = 10.0


@pytest.fixture
def events() -> Iterator[DirectoryEvents]:
    events = DirectoryEvents()
    yield events
    events.close()


def wait(events: DirectoryEvents) -> set[str]:
    """Who is told next."""
    found: set[str] = set()
    while not found:
        assert select.select([events.descriptor], [], [], PATIENCE_S)[0], "no event came"
        found = events.touched()
    return found


def wait_past(events: DirectoryEvents, passed: str) -> set[str]:
    """Who is told next beside one of whom several events may come."""
    found = wait(events)
    while found == {passed}:
        found = wait(events)
    return found - {passed}


def is_silent(events: DirectoryEvents, told: Path) -> bool:
    """Whether nothing was said before an event that is certain to come after."""
    events.watch("last", {str(told): ""})
    (told / "last").touch()
    return wait(events) == {"last"}


def test_owners_are_told_of_their_own_directories(events: DirectoryEvents, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        events.watch(name, {str(tmp_path / name): ""})
    (tmp_path / "a" / "1").mkdir()
    assert wait(events) == {"a"}
    (tmp_path / "b" / "file").write_text("content")
    assert wait(events) == {"b"}
    events.watch("c", {str(tmp_path / "b"): ""})
    (tmp_path / "b" / "2").mkdir()
    found = wait(events)
    while found != {"b", "c"}:
        found |= wait(events)


def test_looking_is_no_event(events: DirectoryEvents, tmp_path: Path) -> None:
    place, other = tmp_path / "a", tmp_path / "b"
    place.mkdir()
    other.mkdir()
    (place / "file").write_text("content")
    events.watch("a", {str(place): ""})
    list(place.iterdir())
    (place / "file").read_text()
    assert is_silent(events, other)


def test_in_a_directory_above_only_the_path_itself_counts(events: DirectoryEvents, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    events.watch("a", {str(tmp_path): str(tmp_path / "models")})
    (tmp_path / "noise").mkdir()
    assert is_silent(events, other)
    (tmp_path / "models").mkdir()
    assert wait_past(events, "last") == {"a"}


def test_a_directory_that_is_made_anew_is_watched_anew(events: DirectoryEvents, tmp_path: Path) -> None:
    place = tmp_path / "a"
    place.mkdir()
    events.watch("a", {str(place): ""})
    place.rename(tmp_path / "old")
    place.mkdir()
    events.watch("a", {str(place): ""})
    (place / "1").mkdir()
    assert wait(events) == {"a"}


def test_who_is_forgotten_is_told_nothing(events: DirectoryEvents, tmp_path: Path) -> None:
    place, other = tmp_path / "a", tmp_path / "b"
    place.mkdir()
    other.mkdir()
    events.watch("a", {str(place): ""})
    events.forget("a")
    (place / "1").mkdir()
    assert is_silent(events, other)


def test_what_cannot_be_watched_is_left_to_polling(events: DirectoryEvents, tmp_path: Path) -> None:
    events.watch("a", {str(tmp_path / "missing"): ""})
    (tmp_path / "missing").mkdir()
    events.watch("a", {str(tmp_path / "missing"): ""})
    (tmp_path / "missing" / "1").mkdir()
    assert wait(events) == {"a"}
