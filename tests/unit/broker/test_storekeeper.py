"""broker.storekeeper: tells the broker what storage holds, when that has changed, and on every new link."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.storekeeper import Storekeeper, look
from common.config import ServerConfig, VersionPolicy, peers_socket
from common.link import Link
from common.messages import (
    Message,
    RestartLink,
    Snapshot,
    StorekeeperHello,
    Watch,
    Watched,
    Welcome,
    decode,
    encode,
)
from common.process import this_process
from common.transport import Router, Transport

PATIENCE_S = 15.0


def add(base: Path, number: int) -> str:
    directory = base / str(number)
    directory.mkdir(parents=True)
    for name in ("model.xml", "model.bin"):
        (directory / name).touch()
    return str(directory)


def watch(paths: dict[str, str]) -> Watch:
    return Watch(tuple(Watched(model, path, VersionPolicy()) for model, path in paths.items()))


class Broker:
    """The other end: a real router, and the storekeeper's loop taken step by step in the same thread."""

    def __init__(self, run_dir: Path, poll_wait_s: float) -> None:
        self.transport = Transport()
        self.router: Router = self.transport.router(peers_socket(run_dir))
        self.storekeeper = Storekeeper(ServerConfig((), str(run_dir), poll_wait_s=poll_wait_s))
        self.storekeeper.start()
        self.identity = b""
        self.link = Link(1)
        self.came: list[Message] = []

    def until(self, kind: type[Message], count: int = 1) -> list[Message]:
        """Go on until so many messages of this kind have come; all that have."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            for identity, head in self.router.drain():
                self.identity = identity
                self.came += decode(head).messages
            found = [message for message in self.came if isinstance(message, kind)]
            if len(found) >= count:
                self.came = []
                return found
            self.storekeeper.step()
        raise AssertionError(f"no {kind.__name__} came")

    def go_on(self, rounds: int = 20) -> list[Message]:
        for _ in range(rounds):
            self.storekeeper.step()
        return [message for _, head in self.router.drain() for message in decode(head).messages]

    def say(self, *messages: Message) -> None:
        assert self.router.send(self.identity, [encode(self.link.stamp(list(messages)))])

    def welcome(self, paths: dict[str, str]) -> None:
        self.until(StorekeeperHello)
        self.link = Link(1)
        self.say(Welcome(this_process()), watch(paths))

    def close(self) -> None:
        self.storekeeper.close()
        self.router.close()
        self.transport.close()


@pytest.fixture(autouse=True)
def _one_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not make a test greet twice where it expects once."""
    monkeypatch.setattr("common.session.HELLO_TIMEOUT_NS", 1 << 61)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path, poll_wait_s=0.001)
    yield broker
    broker.close()


def test_look_says_what_is_there_and_what_is_wrong(base: Path, tmp_path: Path) -> None:
    path = add(base, 1)
    (base / "2").mkdir()
    snapshot = look("m", str(base))
    assert (snapshot.model, snapshot.versions, snapshot.error) == ("m", {1: path}, "")
    assert len(snapshot.warnings) == 1
    (tmp_path / "file").touch()
    snapshot = look("m", str(tmp_path / "file"))
    assert snapshot.versions == {}
    assert "cannot be listed" in snapshot.error


def test_every_model_is_told_at_once_and_then_only_changes(broker: Broker, base: Path) -> None:
    path = add(base / "a", 1)
    broker.welcome({"a": str(base / "a"), "b": str(base / "b")})
    first, second = broker.until(Snapshot, 2)
    assert first == Snapshot("a", {1: path}, base_path=str(Path(path).parent))
    assert isinstance(second, Snapshot)
    assert (second.model, second.versions) == ("b", {})
    assert "does not exist" in second.warnings[0]
    assert broker.go_on() == []
    added = add(base / "b", 7)
    assert broker.until(Snapshot) == [Snapshot("b", {7: added}, base_path=str(Path(added).parent))]


def test_a_base_path_that_vanishes_holds_nothing(broker: Broker, base: Path) -> None:
    add(base, 1)
    broker.welcome({"m": str(base)})
    broker.until(Snapshot)
    shutil.rmtree(base)
    (snapshot,) = broker.until(Snapshot)
    assert isinstance(snapshot, Snapshot)
    assert (snapshot.versions, snapshot.error) == ({}, "")


def test_on_a_new_link_everything_is_told_again(broker: Broker, base: Path) -> None:
    path = add(base, 1)
    broker.welcome({"m": str(base)})
    assert broker.until(Snapshot) == [Snapshot("m", {1: path}, base_path=str(Path(path).parent))]
    broker.say(RestartLink())
    broker.welcome({"m": str(base)})
    assert broker.until(Snapshot) == [Snapshot("m", {1: path}, base_path=str(Path(path).parent))]


def test_other_paths_replace_the_first_ones(broker: Broker, base: Path) -> None:
    broker.welcome({"a": str(base / "a")})
    broker.until(Snapshot)
    broker.say(watch({"b": str(base / "b")}))
    (snapshot,) = broker.until(Snapshot)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.model == "b"
    add(base / "a", 1)
    assert broker.go_on() == []


def test_with_updates_switched_off_it_looks_once(tmp_path: Path, base: Path) -> None:
    broker = Broker(tmp_path, poll_wait_s=0)
    add(base, 1)
    broker.welcome({"m": str(base)})
    broker.until(Snapshot)
    assert broker.storekeeper._next_poll is None
    broker.close()
