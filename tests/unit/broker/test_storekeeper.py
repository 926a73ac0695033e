"""broker.storekeeper: tells the broker what storage holds, when that has changed, and on every new link."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import ModelConfig, ServerConfig, VersionPolicy
from common.messages import ConfigRead, Message, ReadConfig, RestartLink, Snapshot, Watch, Watched
from tests.support.storekeeping import BrokerEnd, Pair, watch


def add(base: Path, number: int) -> str:
    directory = base / str(number)
    directory.mkdir(parents=True)
    for name in ("model.xml", "model.bin"):
        (directory / name).touch()
    return str(directory)


def holds(*paths: str) -> Snapshot:
    """Of the model `m`, and of versions that lie in these directories of one base path."""
    base = Path(paths[0]).parent
    return Snapshot("m", {int(Path(path).name): path for path in paths}, base_path=str(base))


@pytest.fixture(autouse=True)
def _one_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not make a test greet twice where it expects once."""
    monkeypatch.setattr("common.session.HELLO_TIMEOUT_NS", 1 << 61)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerEnd]:
    pair = Pair(ServerConfig((), str(tmp_path), poll_wait_s=0.001))
    yield pair.broker
    pair.close()


def snapshots(messages: list[Message]) -> list[Message]:
    return [message for message in messages if isinstance(message, Snapshot)]


def test_every_model_is_told_at_once_and_then_only_changes(broker: BrokerEnd, base: Path) -> None:
    path = add(base / "a", 1)
    broker.welcome(watch({"a": base / "a", "b": base / "b"}))
    told = {snapshot.model: snapshot for snapshot in broker.until(Snapshot, 2)}
    assert told["a"] == Snapshot("a", {1: path}, base_path=str(base / "a"))
    assert told["b"].versions == {}
    assert "does not exist" in told["b"].warnings[0]
    assert snapshots(broker.during(0.1)) == []
    added = add(base / "b", 7)
    found = broker.until_snapshot("b", lambda snapshot: snapshot.versions)
    assert found == Snapshot("b", {7: added}, base_path=str(base / "b"))


def test_what_is_wrong_with_a_version_is_told_beside_the_others(broker: BrokerEnd, base: Path) -> None:
    path = add(base, 1)
    (base / "2").mkdir()
    broker.welcome(watch({"m": base}))
    (snapshot,) = broker.until(Snapshot)
    assert (snapshot.model, snapshot.versions, snapshot.error) == ("m", {1: path}, "")
    (warning,) = snapshot.warnings
    assert warning.startswith(f"{base / '2'} holds no model")


def test_why_a_base_path_cannot_be_listed(broker: BrokerEnd, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broker.welcome(watch({"m": tmp_path / "file", "n": "ftp://host/n"}))
    told = {snapshot.model: snapshot for snapshot in broker.until(Snapshot, 2)}
    assert told["m"].versions == {}
    assert "cannot be listed" in told["m"].error
    assert "no store is known for ftp://" in told["n"].error


def test_a_base_path_that_vanishes_holds_nothing_until_it_comes_back(broker: BrokerEnd, base: Path) -> None:
    path = add(base, 1)
    broker.welcome(watch({"m": base}))
    broker.until_snapshot("m", lambda snapshot: snapshot.versions)
    shutil.rmtree(base)
    snapshot = broker.until_snapshot("m", lambda snapshot: not snapshot.versions and not base.exists())
    assert snapshot.error == ""
    add(base, 1)
    assert broker.until_snapshot("m", lambda snapshot: snapshot.versions).versions == {1: path}


def test_on_a_new_link_everything_is_told_again(broker: BrokerEnd, base: Path) -> None:
    path = add(base, 1)
    broker.welcome(watch({"m": base}))
    assert broker.until(Snapshot) == [holds(path)]
    broker.say(RestartLink())
    broker.welcome(watch({"m": base}))
    assert broker.until(Snapshot) == [holds(path)]


def test_a_watch_is_answered_even_if_nothing_has_changed(broker: BrokerEnd, base: Path) -> None:
    path = add(base, 1)
    broker.welcome(watch({"m": base}))
    broker.until(Snapshot)
    broker.say(Watch((Watched("m", str(base), VersionPolicy("all")),)))
    assert broker.until(Snapshot) == [holds(path)]


def test_other_paths_replace_the_first_ones(broker: BrokerEnd, base: Path) -> None:
    broker.welcome(watch({"a": base / "a"}))
    broker.until(Snapshot)
    broker.say(watch({"b": base / "b"}))
    (snapshot,) = broker.until(Snapshot)
    assert snapshot.model == "b"
    add(base / "a", 1)
    assert broker.during(0.1) == []


def test_a_model_of_the_same_name_elsewhere_is_another(broker: BrokerEnd, base: Path) -> None:
    broker.welcome(watch({"m": base / "a"}))
    broker.until(Snapshot)
    path = add(base / "b", 3)
    broker.say(watch({"m": base / "b"}))
    found = broker.until_snapshot("m", lambda snapshot: snapshot.base_path == str(base / "b"))
    assert found.versions == {3: path}


def test_with_updates_switched_off_it_looks_once(tmp_path: Path, base: Path) -> None:
    path = add(base, 1)
    pair = Pair(ServerConfig((), str(tmp_path), poll_wait_s=0))
    try:
        pair.broker.welcome(watch({"m": base}))
        assert pair.broker.until(Snapshot) == [holds(path)]
        later = add(base, 2)
        assert pair.broker.during(0.1) == []
        pair.broker.say(watch({"m": base}))
        # What is known is told at once; the new version when it has been seen twice.
        assert pair.broker.until_snapshot("m", lambda snapshot: 2 in snapshot.versions) == holds(path, later)
    finally:
        pair.close()


def test_an_event_is_quicker_than_the_next_poll(tmp_path: Path, base: Path) -> None:
    path = add(base, 1)
    pair = Pair(ServerConfig((), str(tmp_path), poll_wait_s=3600.0))
    try:
        pair.broker.welcome(watch({"m": base, "n": base / "later"}))
        pair.broker.until(Snapshot, 2)
        added = add(base, 2)
        assert pair.broker.until_snapshot("m", lambda found: 2 in found.versions) == holds(path, added)
        shutil.rmtree(added)
        assert pair.broker.until_snapshot("m", lambda found: 2 not in found.versions) == holds(path)
        first = add(base / "later", 1)
        assert pair.broker.until_snapshot("n", lambda found: found.versions).versions == {1: first}
    finally:
        pair.close()


def test_a_model_that_is_written_into_its_directory_file_by_file(tmp_path: Path, base: Path) -> None:
    pair = Pair(ServerConfig((), str(tmp_path), poll_wait_s=3600.0))
    try:
        base.mkdir()
        pair.broker.welcome(watch({"m": base}))
        pair.broker.until(Snapshot)
        (base / "1").mkdir()
        pair.broker.until_snapshot(
            "m", lambda found: found.warnings and "holds no model" in found.warnings[0]
        )
        for name in ("model.xml", "model.bin"):
            (base / "1" / name).write_bytes(b"content")
        assert pair.broker.until_snapshot("m", lambda found: found.versions) == holds(str(base / "1"))
    finally:
        pair.close()


def test_the_configuration_file_is_read_when_it_is_asked_for(tmp_path: Path, base: Path) -> None:
    file = tmp_path / "models.json"
    text = json.dumps({"model_config_list": [{"config": {"name": "m", "base_path": str(base)}}]})
    file.write_text(text)
    config = ServerConfig((), str(tmp_path), poll_wait_s=0, config_path=str(file))
    pair = Pair(config)
    try:
        pair.broker.welcome(watch({}), ReadConfig(7))
        (answer,) = pair.broker.until(ConfigRead)
        assert (answer.id, answer.error) == (7, "")
        assert answer.models == (ModelConfig("m", str(base)),)
        file.write_text(text.replace("name", "nome"))
        assert pair.broker.during(0.1) == []
        pair.broker.say(ReadConfig(8), ReadConfig(9))
        first, second = pair.broker.until(ConfigRead, 2)
        assert (first.id, second.id, first.models) == (8, 9, ())
        assert "nome" in first.error
        assert first.error == second.error
    finally:
        pair.close()


def test_without_a_configuration_file_there_is_nothing_to_read(broker: BrokerEnd) -> None:
    broker.welcome(watch({}), ReadConfig(1))
    assert broker.until(ConfigRead) == [
        ConfigRead(error="the server was started without a configuration file", id=1)
    ]
