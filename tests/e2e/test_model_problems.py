"""Models that cannot be served, or not as they were meant to: each says why, and none harms another."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from ie_serving.control import ModelStatus
from tests.support import models
from tests.support.clients import GrpcClient, RestClient
from tests.support.load import Load
from tests.support.repositories import ConfigServer
from tests.support.server import READY_LINE
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

X = np.zeros((1, 16), np.float32)
UNKNOWN = grpc.StatusCode.UNKNOWN.value[0]


def _without_bin(base: Path) -> None:
    models.add(base)
    (base / "1" / "model.bin").unlink()


def _corrupt(base: Path) -> None:
    models.corrupt(base, 1)


def _huge(base: Path) -> None:
    models.add(base)
    shutil.copytree(base / "1", base / str(1 << 63))


def _twice(base: Path) -> None:
    models.add(base)
    shutil.copytree(base / "1", base / "001")


def _mapped(base: Path) -> None:
    models.add(base)
    mapping = {"inputs": {"nothing": "alias"}, "outputs": {}}
    (base / "1" / "mapping_config.json").write_text(json.dumps(mapping))


def _unreadable_mapping(base: Path) -> None:
    models.add(base)
    (base / "1" / "mapping_config.json").write_text("{")


def _loop(base: Path) -> None:
    base.symlink_to(base.name)


def _loop_inside(base: Path) -> None:
    models.add(base)
    (base / "2").symlink_to("2")


def _file(base: Path) -> None:
    base.write_text("no directory")


def _missing(base: Path) -> None:
    """Nothing at all."""


def _good(base: Path) -> None:
    models.add(base)


def _rigid(base: Path) -> None:
    models.rigid(base)


WRITERS: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "good": (_good, {}),
    "without_bin": (_without_bin, {}),
    "corrupt": (_corrupt, {}),
    "huge": (_huge, {"model_version_policy": {"all": {}}}),
    "twice": (_twice, {"model_version_policy": {"all": {}}}),
    "mapped": (_mapped, {}),
    "unreadable_mapping": (_unreadable_mapping, {}),
    "loop": (_loop, {}),
    "loop_inside": (_loop_inside, {}),
    "file": (_file, {}),
    "missing": (_missing, {}),
    "rigid": (_rigid, {"shape": "(1,17)"}),
    "rigid_auto": (_rigid, {"shape": "auto"}),
    "unknown_input": (_good, {"shape": {"nothing": [1, 16]}}),
    "unknown_property": (_good, {"plugin_config": {"NO_SUCH_PROPERTY": 1}}),
    "gpu": (_good, {"target_device": "GPU"}),
    "multi": (_good, {"target_device": "MULTI:MYRIAD,CPU"}),
}
"""By model: what its storage holds, and what the configuration says of it."""

FAILS = {
    "corrupt": "",
    "mapped": "nothing",
    "unreadable_mapping": "mapping_config.json",
    "unknown_input": "nothing",
    "unknown_property": "NO_SUCH_PROPERTY",
    "gpu": "GPU",
}
"""Models of which a load fails, and what the reason names."""

ABSENT = ("without_bin", "loop", "file", "missing")
"""Models of which there is no version."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigServer]:
    """All of them in one server, which starts in spite of them."""
    directory = tmp_path_factory.mktemp("problems")
    entries = {}
    for name, (write, options) in WRITERS.items():
        write(directory / name)
        entries[name] = {"base_path": str(directory / name), "target_device": "CPU", **options}
    with ConfigServer(directory, entries, ready=False) as started:
        started.wait_log(READY_LINE, 2)
        yield started
        assert "Traceback" not in started.log()


@pytest.fixture
def client(server: ConfigServer) -> Iterator[GrpcClient]:
    """After each test the good model must still serve."""
    with GrpcClient(server.grpc_port) as opened:
        yield opened
        assert _sum(opened, "good") == 1.0


def _sum(client: GrpcClient, model: str) -> float:
    return float(client.predict({"x": X}, model=model)["y"][0, 0])


def _status(server: ConfigServer, model: str) -> ModelStatus:
    return next(one for one in server.status().models if one.name == model)


@pytest.mark.parametrize("model", FAILS)
def test_a_load_that_fails_says_why(server: ConfigServer, client: GrpcClient, model: str) -> None:
    state, code, text = until(lambda: client.load_error(1, model), "an error") or ("", 0, "")
    assert (state, code) == ("LOADING", UNKNOWN)
    assert text.startswith("Error occurred while loading version: ")
    assert len(text) > len("Error occurred while loading version: ")
    assert FAILS[model] in text
    assert client.refusal({"x": X}, model=model)[0] is grpc.StatusCode.UNAVAILABLE
    (version,) = _status(server, model).versions
    assert version.error


def test_an_unknown_device_is_told_the_known_ones(server: ConfigServer, client: GrpcClient) -> None:
    _, _, text = until(lambda: client.load_error(1, "gpu"), "an error") or ("", 0, "")
    assert "CPU" in text


@pytest.mark.parametrize("model", ABSENT)
def test_what_holds_no_version_is_not_found(server: ConfigServer, client: GrpcClient, model: str) -> None:
    assert client.refusal({"x": X}, model=model) == (
        grpc.StatusCode.NOT_FOUND,
        f"Servable not found for request: Specific({model}, 0)",
    )
    with RestClient(server.rest_port) as web:
        status, document = web.send("GET", "/v1/config")
        assert status == 200
        assert document[model] == {"model_version_status": []}


def test_what_cannot_be_listed_says_why(server: ConfigServer) -> None:
    assert os.strerror(40) in _status(server, "loop").error
    assert os.strerror(20) in _status(server, "file").error


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("huge", str(1 << 63)),
        ("twice", "001"),
        ("loop_inside", "/loop_inside/2"),
        ("without_bin", "/without_bin/1"),
        ("missing", "does not exist"),
    ],
)
def test_what_is_passed_over_is_warned_of(server: ConfigServer, model: str, part: str) -> None:
    warnings = [line for line in server.log().splitlines() if "WARNING" in line and model in line]
    assert [line for line in warnings if part in line], warnings


@pytest.mark.parametrize("model", ["huge", "twice", "loop_inside", "multi", "rigid"])
def test_what_is_sound_of_it_is_served(client: GrpcClient, model: str) -> None:
    until(lambda: client.known_states(model) == {1: ("AVAILABLE", 0, "")}, "version 1 is served")
    assert _sum(client, model) == 1.0


def test_what_is_not_as_it_was_meant_is_told_in_the_status(server: ConfigServer) -> None:
    said = server.command("status", "--json").stdout
    notes = {
        one["name"]: " ".join(note for version in one["versions"] for note in version.get("notes", ()))
        for one in json.loads(said)["models"]
    }
    assert "MYRIAD" in notes["multi"]
    assert "17" in notes["rigid"]
    assert notes["good"] == ""


def test_a_shape_that_the_model_cannot_take_is_the_clients_error(client: GrpcClient) -> None:
    until(lambda: client.known_states("rigid_auto") == {1: ("AVAILABLE", 0, "")}, "it is served")
    code, text = client.refusal({"x": np.zeros((1, 17), np.float32)}, model="rigid_auto")
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text
    assert _sum(client, "rigid_auto") == 1.0
    # Another shape that it can take, while the first is served.
    rows = np.zeros((3, 16), np.float32)
    assert client.predict({"x": rows}, model="rigid_auto")["y"].shape == (3, 16)


def test_what_is_mended_is_served_and_the_others_have_not_noticed(
    server: ConfigServer, client: GrpcClient
) -> None:
    with Load(server, grpc=2, rest=1, model="good", added=(1.0,)) as load:
        models.add(server.config_path.parent / "missing")
        for name in ("model.xml", "model.bin"):
            source, target = (server.config_path.parent / one / "1" / name for one in ("good", "corrupt"))
            shutil.copyfile(source, target)
        for model in ("missing", "corrupt"):
            _wait_served(client, model)
            assert _sum(client, model) == 1.0
        load.wait_more(5)
    assert load.failures == []


def _wait_served(client: GrpcClient, model: str) -> None:
    until(lambda: client.known_states(model) == {1: ("AVAILABLE", 0, "")}, f"{model} is served")
