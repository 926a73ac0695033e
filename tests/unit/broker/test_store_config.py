"""broker.store_config: a changed configuration file is told once, a broken one when it stays so."""

import json
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store_config import CONFIRM_NS, REPEAT_NS, ConfigWatch
from broker.store_pool import Pool
from common.config import ModelConfig, ServerConfig
from common.messages import ConfigRead

SECOND = 1_000_000_000


def write(path: Path, *models: str) -> None:
    """By rename, as editors do."""
    entries = [{"config": {"name": name, "base_path": f"/models/{name}"}} for name in models]
    new = path.with_name("new")
    new.write_text(json.dumps({"model_config_list": entries}))
    new.rename(path)


def models(*names: str) -> tuple[ModelConfig, ...]:
    return tuple(ModelConfig(name, f"/models/{name}") for name in names)


class Watched:
    """A watch with a clock of the test's own."""

    def __init__(self, path: Path, poll_wait_s: float = 1.0) -> None:
        self.now = SECOND
        self.pool = Pool()
        self.told: list[ConfigRead] = []
        config = ServerConfig(models("a"), str(path.parent), poll_wait_s=poll_wait_s, config_path=str(path))
        self.watch = ConfigWatch(config, self.pool, None, self.told.append, lambda: self.now)

    def look(self, later_ns: int = SECOND) -> list[ConfigRead]:
        """What is told after one look."""
        self.now += later_ns
        self.watch.step(self.now)
        if self.watch._busy:
            self.pool.start()
            assert select.select([self.pool.descriptor], [], [], 10.0)[0]
            self.pool.settle()
        told = list(self.told)
        self.told.clear()
        return told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.json"
    write(path, "a")
    return path


@pytest.fixture
def watched(path: Path) -> Iterator[Watched]:
    watched = Watched(path)
    yield watched
    watched.pool.close()


def test_what_the_server_was_started_with_is_no_news(watched: Watched) -> None:
    assert watched.look() == []
    assert watched.look() == []


def test_a_file_that_was_changed_meanwhile_is(watched: Watched, path: Path) -> None:
    write(path, "a", "b")
    assert watched.look() == [ConfigRead(models("a", "b"))]


def test_a_change_is_told_once(watched: Watched, path: Path) -> None:
    watched.look()
    write(path, "b")
    assert watched.look() == [ConfigRead(models("b"))]
    assert watched.look() == []
    write(path, "b")
    assert watched.look() == [], "it says the same"
    write(path, "a")
    assert watched.look() == [ConfigRead(models("a"))]


def test_a_broken_file_is_told_once_and_when_it_stays_so(watched: Watched, path: Path) -> None:
    watched.look()
    path.write_text("{")
    assert watched.look() == []
    (told,) = watched.look(CONFIRM_NS)
    assert str(path) in told.error
    assert (told.models, told.id) == ((), 0)
    assert watched.look() == []
    path.write_text("{")
    assert watched.look() == []
    assert watched.look(CONFIRM_NS) == []
    write(path, "a")
    assert watched.look() == [ConfigRead(models("a"))], "what was wrong is right again"


def test_a_file_that_is_being_written_is_not_told_of(watched: Watched, path: Path) -> None:
    watched.look()
    text = path.read_text()
    for length in (0, 5, len(text) - 1):
        path.write_text(text[:length])
        assert watched.look(CONFIRM_NS) == []
    path.write_text(text)
    assert watched.look(CONFIRM_NS) == []


def test_a_file_that_is_gone_and_comes_back(watched: Watched, path: Path) -> None:
    watched.look()
    path.unlink()
    assert watched.look() == []
    (told,) = watched.look(CONFIRM_NS)
    assert "No such file" in told.error
    for _ in range(3):
        assert watched.look() == []
    write(path, "b")
    assert watched.look() == [ConfigRead(models("b"))]


def test_who_asks_is_answered_and_nothing_is_told_twice(watched: Watched, path: Path) -> None:
    watched.watch.ask(3)
    assert watched.look(0) == [ConfigRead(models("a"), id=3)]
    write(path, "b")
    watched.watch.ask(4)
    watched.watch.ask(5)
    assert watched.look(0) == [ConfigRead(models("b"), id=4), ConfigRead(models("b"), id=5)]
    assert watched.look() == []
    path.write_text("{")
    watched.watch.ask(6)
    (answer,) = watched.look(0)
    assert answer.id == 6
    assert answer.error


def test_a_new_broker_gets_no_answers_to_the_last_ones_questions(watched: Watched) -> None:
    watched.look()
    watched.watch.ask(3)
    watched.watch.step(watched.now)
    watched.watch.linked_anew()
    assert watched.look(0) == []


def test_what_was_told_in_a_brokers_last_moments_is_told_the_next_one(watched: Watched, path: Path) -> None:
    write(path, "b")
    assert watched.look() == [ConfigRead(models("b"))]
    watched.watch.linked_anew()
    assert watched.told == [ConfigRead(models("b"))]
    watched.told.clear()
    write(path, "c")
    watched.watch.ask(3)
    assert watched.look() == [ConfigRead(models("c"), id=3)]
    watched.watch.linked_anew()
    assert watched.told == [ConfigRead(models("c"))]
    watched.told.clear()
    watched.now += REPEAT_NS
    watched.watch.linked_anew()
    assert watched.told == []


def test_with_updates_switched_off_nobody_looks_unasked(path: Path) -> None:
    watched = Watched(path, poll_wait_s=0)
    write(path, "b")
    assert watched.look() == []
    watched.watch.ask(1)
    assert watched.look(0) == [ConfigRead(models("b"), id=1)]
    write(path, "c")
    assert watched.look() == []
    watched.pool.close()
