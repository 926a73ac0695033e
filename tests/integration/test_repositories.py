"""The configuration changes while requests flow: by its file, by gRPC, by REST; and the versions that policies want."""

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from frontends.grpc.tensorflow_protos import model_management_pb2
from tests.support import models
from tests.support.clients import GrpcClient, RestClient, refusal
from tests.support.load import Load
from tests.support.repositories import FAST_POLL, ConfigServer, replace, wait_state
from tests.support.server import NAME, Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

X = np.array([[1.0, 2.0]], np.float32)
UPDATES_OFF = {"FILE_SYSTEM_POLL_WAIT_SECONDS": "0"}
NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT

Options = dict[str, Any]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake model `echo`; the OpenVINO models `add1` and `add2`; `broken`, a corrupt one."""
    directory = tmp_path_factory.mktemp("source")
    models.echo(directory / "echo")
    models.add(directory / "add1", number=1.0)
    models.add(directory / "add2", number=2.0)
    models.corrupt(directory / "broken", 1)
    return directory


@pytest.fixture(scope="module")
def steady(source: Path) -> Options:
    """A model that is never touched."""
    return {"base_path": str(source / "echo")}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, steady: Options) -> Iterator[ConfigServer]:
    """One server whose file each test writes anew; `steady` is always in it."""
    with ConfigServer(tmp_path_factory.mktemp("config"), {"steady": steady}) as started:
        yield started


@pytest.fixture
def client(server: ConfigServer) -> Iterator[GrpcClient]:
    with GrpcClient(server.grpc_port) as opened:
        yield opened


@pytest.fixture
def web(server: ConfigServer) -> Iterator[RestClient]:
    with RestClient(server.rest_port) as opened:
        yield opened


def _names(web: RestClient) -> list[str]:
    """Of the models that GET /v1/config shows."""
    status, document = web.send("GET", "/v1/config")
    assert status == 200
    return list(document)


def _not_found(model: str, version: int = 0) -> tuple[grpc.StatusCode, str]:
    return NOT_FOUND, f"Servable not found for request: Specific({model}, {version})"


# ---- the file


def test_models_come_change_and_go_while_another_serves(
    server: ConfigServer, steady: Options, source: Path, client: GrpcClient, web: RestClient
) -> None:
    other = {"base_path": str(source / "add1"), "target_device": "CPU"}
    with Load(server, grpc=3, rest=1, model="steady") as load:
        server.configure({"steady": steady, "other": other})
        wait_state(client, "other", 1, "AVAILABLE")
        assert np.array_equal(client.predict({"x": X}, model="other")["y"], X + 1)
        until(lambda: _names(web) == ["steady", "other"], "REST knows it")
        assert web.predict({"inputs": X.tolist()}, model="other") == (200, {"outputs": (X + 1).tolist()})
        # Another base path under the same name.
        server.configure({"steady": steady, "other": {**other, "base_path": str(source / "add2")}})
        until(lambda: _sum(client, "other") == 2.0, "the other base path is served")
        server.configure({"steady": steady})
        until(lambda: client.known_states("other") is None, "it is forgotten")
        assert client.refusal({"x": X}, model="other") == _not_found("other")
        until(lambda: _names(web) == ["steady"], "REST has forgotten it")
        assert web.predict({"inputs": X.tolist()}, model="other")[0] == 404
        until(lambda: [one.device for one in server.status().pools] == ["FAKE"], "its device has no workers")
        load.wait_more(5)
    assert load.failures == []
    server.wait_serving()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "line 1"),
        ("", "empty"),
        ('{"model_config_list": [{"config": {"name": "m", "base_path": "/m", "nireqs": 2}}]}', "nireq"),
        ('{"model_config_list": [{"config": {"name": "m"}}]}', "base_path"),
        ('{"model_config_list": [{"config": {"name": "m", "base_path": "/m", "nireq": 0}}]}', "nireq"),
    ],
    ids=["not JSON", "empty", "unknown key", "missing key", "wrong value"],
)
def test_a_file_that_does_not_validate_changes_nothing_and_is_reported(
    server: ConfigServer, steady: Options, web: RestClient, text: str, part: str
) -> None:
    server.configure({"steady": steady})
    until(lambda: not server.status().config_error and _names(web) == ["steady"], "a good file")
    before = web.send("GET", "/v1/config")
    replace(server.config_path, text)
    error = until(lambda: server.status().config_error, "the error is in the status")
    assert str(server.config_path) in error
    assert part in error
    assert "\n" not in error
    assert error in server.log()
    status, answer = web.send("POST", "/v1/config/reload")
    assert (status, list(answer)) == (400, ["error"])
    assert part in answer["error"]
    assert web.send("GET", "/v1/config") == before
    assert web.predict({"inputs": X.tolist()}, model="steady") == (200, {"outputs": X.tolist()})
    server.configure({"steady": steady})
    until(lambda: not server.status().config_error, "the error has gone")


def test_a_changed_model_is_loaded_anew_before_the_old_one_goes(
    server: ConfigServer, steady: Options, source: Path, client: GrpcClient
) -> None:
    changing: Options = {"base_path": str(source / "add1"), "target_device": "CPU"}
    server.configure({"steady": steady, "changing": changing})
    wait_state(client, "changing", 1, "AVAILABLE")
    with (
        Load(server, grpc=3, rest=1, model="changing", added=(1.0, 2.0)) as load,
        Load(server, grpc=1, rest=0, model="steady") as others,
    ):
        for change in ({"nireq": 3}, {"shape": "(-1,16)"}, {"plugin_config": {"NUM_STREAMS": 1}}):
            loads = _loads(server, "changing")
            changing = {**changing, **change}
            server.configure({"steady": steady, "changing": changing})
            until(partial(_loaded_since, server, "changing", loads), f"it is loaded with {change}")
            load.wait_more(10)
        # Another place, and then a device of its own.
        changing["base_path"] = str(source / "add2")
        server.configure({"steady": steady, "changing": changing})
        until(lambda: _sum(client, "changing") == 2.0, "the other base path is served")
        changing["target_device"] = "AUTO:CPU"
        server.configure({"steady": steady, "changing": changing})
        until(lambda: [one.device for one in server.status().pools] == ["FAKE", "AUTO:CPU"], "other workers")
        load.wait_more(10)
        assert client.states("changing") == {1: ("AVAILABLE", 0, "")}
        # What needs no loading.
        loads = _loads(server, "changing")
        changing |= {"labels": {"stable": 1}, "model_version_policy": {"all": {}}}
        server.configure({"steady": steady, "changing": changing})
        until(lambda: _answers(client, "changing", "stable"), "the label is known")
        assert _loads(server, "changing") == loads
    assert load.failures == []
    assert others.failures == []


def _loads(server: Server, model: str) -> int:
    """How often a worker was told to load a version of the model."""
    return server.log().count(f"loads model {model} ")


def _loaded_since(server: Server, model: str, loads: int) -> bool:
    return _loads(server, model) > loads


def _sum(client: GrpcClient, model: str) -> float:
    """What the model adds."""
    zeros = np.zeros((1, 16), np.float32)
    return float(client.predict({"x": zeros}, model=model)["y"][0, 0])


def _answers(client: GrpcClient, model: str, label: str) -> bool:
    try:
        client.predict({"x": np.zeros((1, 16), np.float32)}, model=model, label=label)
    except grpc.RpcError as error:
        if error.code() is NOT_FOUND:
            return False
        raise
    return True


def test_a_new_configuration_that_cannot_be_loaded_leaves_the_old_one_serving(
    server: ConfigServer, steady: Options, source: Path, client: GrpcClient
) -> None:
    kept: Options = {"base_path": str(source / "add1"), "target_device": "CPU"}
    server.configure({"steady": steady, "kept": kept})
    until(lambda: client.known_states("kept") == {1: ("AVAILABLE", 0, "")}, "it is served")
    with Load(server, grpc=2, rest=1, model="kept", added=(1.0,)) as load:
        server.configure({"steady": steady, "kept": {**kept, "base_path": str(source / "broken")}})
        until(lambda: _load_error(server, "kept"), "the error is in the status")
        load.wait_more(10)
        server.configure({"steady": steady, "kept": kept})
        until(lambda: not _load_error(server, "kept"), "the error has gone")
        load.wait_more(10)
    assert load.failures == []


def _load_error(server: Server, model: str) -> str:
    """What the status says of failed loads of a model."""
    versions = next((one.versions for one in server.status().models if one.name == model), ())
    return next((one.error for one in versions if one.error), "")


def test_a_broker_that_dies_while_the_configuration_changes(
    server: ConfigServer, steady: Options, tmp_path: Path, client: GrpcClient, web: RestClient
) -> None:
    slow = {"base_path": str(models.echo(tmp_path / "slow", load_seconds=1.0))}
    with Load(server, grpc=2, rest=1, model="steady") as load, ThreadPoolExecutor(1) as pool:
        server.configure({"steady": steady, "slow": slow})
        asked = pool.submit(web.send, "POST", "/v1/config/reload")
        until(partial(_loaded_since, server, "slow", 0), "it is being loaded")
        server.wait_replaced("broker", server.kill("broker"))
        status, answer = asked.result(timeout=10)
        assert status == 503
        assert "ask again" in answer["error"]
        status, document = web.send("POST", "/v1/config/reload")
        assert (status, list(document)) == (200, ["steady", "slow"])
        assert np.array_equal(client.predict({"x": X}, model="slow")["y"], X)
        load.wait_more(5)
    assert load.failures == []


# ---- labels


def test_labels(
    server: ConfigServer, steady: Options, tmp_path: Path, client: GrpcClient, web: RestClient
) -> None:
    base = tmp_path / "labelled"
    for version in (1, 2, 3):
        models.add(base, version, number=float(version))
    labelled: Options = {
        "base_path": str(base),
        "target_device": "CPU",
        "model_version_policy": {"specific": {"versions": [1, 2]}},
        "labels": {"stable": 1, "canary/new": 2, "later": 3},
    }
    server.configure({"steady": steady, "labelled": labelled})
    for version in (1, 2):
        wait_state(client, "labelled", version, "AVAILABLE")
    zero = np.zeros((1, 1), np.float32)
    for label, quoted, number in (("stable", "stable", 1.0), ("canary/new", "canary%2Fnew", 2.0)):
        assert client.predict({"x": zero}, model="labelled", label=label)["y"].tolist() == [[number]]
        path = f"/v1/models/labelled/labels/{quoted}"
        until(partial(_is_there, web, path), "REST knows it")
        (status,) = web.send("GET", path)[1]["model_version_status"]
        assert (status["version"], status["state"]) == (f"{number:g}", "AVAILABLE")
        assert web.send("GET", f"{path}/metadata")[1]["modelSpec"]["version"] == f"{number:g}"
        answer = web.send("POST", f"{path}:predict", b'{"instances": [[0]]}')
        assert answer == (200, {"predictions": [[number]]})
    unknown = "Unrecognized servable version label: none of model labelled"
    assert client.refusal({"x": zero}, model="labelled", label="none") == (NOT_FOUND, unknown)
    assert web.send("GET", "/v1/models/labelled/labels/none") == (404, {"error": unknown})
    assert client.refusal({"x": zero}, model="labelled", label="later")[0] is NOT_FOUND
    # A label moves without anything being loaded, and may name a version that was not wanted before.
    labelled["labels"] = {"stable": 2}
    server.configure({"steady": steady, "labelled": labelled})
    until(lambda: _labelled_sum(client, "stable") == 2.0, "the label has moved")
    assert client.refusal({"x": zero}, model="labelled", label="canary/new")[0] is NOT_FOUND


def _is_there(web: RestClient, path: str) -> bool:
    return web.send("GET", path)[0] == 200


def _labelled_sum(client: GrpcClient, label: str) -> float:
    zero = np.zeros((1, 1), np.float32)
    return float(client.predict({"x": zero}, model="labelled", label=label)["y"].item())


# ---- versions


def test_each_policy_gets_its_versions_as_they_come_and_go(
    server: ConfigServer, steady: Options, source: Path, tmp_path: Path, client: GrpcClient
) -> None:
    base, echo = tmp_path / "versions", source / "echo" / "1"
    base.mkdir()
    for version in (1, 2, 3):
        models.appear(base, version, echo)
    policies = {
        "every": {"all": {}},
        "newest": {"latest": {"num_versions": 2}},
        "chosen": {"specific": {"versions": [2, 5]}},
    }
    entries = {
        name: {"base_path": str(base), "model_version_policy": policy} for name, policy in policies.items()
    }
    server.configure({"steady": steady, **entries})

    def serve(every: set[int], newest: set[int], chosen: set[int]) -> None:
        until(
            lambda: [_served(client, name) for name in policies] == [every, newest, chosen],
            f"{every}, {newest} and {chosen} are served",
        )

    serve({1, 2, 3}, {2, 3}, {2})
    with (
        Load(server, grpc=2, rest=0, model="newest") as newest,
        Load(server, grpc=2, model="chosen") as chosen,
    ):
        models.appear(base, 5, echo)
        serve({1, 2, 3, 5}, {3, 5}, {2, 5})
        shutil.rmtree((base / "3").rename(base / "gone"))
        serve({1, 2, 5}, {2, 5}, {2, 5})
        shutil.rmtree((base / "5").rename(base / "gone"))
        serve({1, 2}, {1, 2}, {2})
        newest.wait_more(5)
        chosen.wait_more(5)
    assert newest.failures == chosen.failures == []
    assert client.states("every")[3] == ("END", 0, "")


def _served(client: GrpcClient, model: str) -> set[int]:
    states = client.known_states(model) or {}
    return {version for version, (state, _, _) in states.items() if state == "AVAILABLE"}


def test_a_half_copied_version_is_served_when_it_is_whole(
    server: ConfigServer, steady: Options, source: Path, tmp_path: Path, client: GrpcClient
) -> None:
    base, whole = tmp_path / "copied", source / "add2" / "1"
    base.mkdir()
    models.appear(base, 1, source / "add1" / "1")
    server.configure({"steady": steady, "copied": {"base_path": str(base), "target_device": "CPU"}})
    wait_state(client, "copied", 1, "AVAILABLE")
    with Load(server, grpc=2, rest=1, model="copied", added=(1.0, 2.0)) as load:
        (base / "2").mkdir()
        data = (whole / "model.bin").read_bytes()
        parts = [
            ("model.xml", (whole / "model.xml").read_bytes()),
            ("model.bin", data[: len(data) // 2]),
            ("model.bin", data[len(data) // 2 :]),
        ]
        for name, part in parts:
            with (base / "2" / name).open("ab") as file:
                file.write(part)
            # As slow as a copy over a network; what is seen of it meanwhile must do no harm.
            time.sleep(0.4)
        wait_state(client, "copied", 2, "AVAILABLE")
        load.wait_more(5)
    assert load.failures == []
    assert _sum(client, "copied") == 2.0


def test_a_base_path_that_is_removed_and_made_again(
    server: ConfigServer, steady: Options, source: Path, tmp_path: Path, client: GrpcClient
) -> None:
    base, echo = tmp_path / "place", source / "echo" / "1"
    server.configure({"steady": steady, "placed": {"base_path": str(base)}})
    with Load(server, grpc=2, rest=1, model="steady") as load:
        for _ in range(2):
            until(lambda: _unserved(client, "placed"), "nothing is served")
            base.mkdir()
            models.appear(base, 1, echo)
            wait_state(client, "placed", 1, "AVAILABLE")
            assert np.array_equal(client.predict({"x": X}, model="placed")["y"], X)
            shutil.rmtree(base)
        until(lambda: _unserved(client, "placed"), "nothing is served")
        load.wait_more(5)
    assert load.failures == []


def _unserved(client: GrpcClient, model: str) -> bool:
    return not _served(client, model) and client.refusal({"x": X}, model=model)[0] is NOT_FOUND


def test_a_load_that_fails_tells_why_and_is_tried_again(
    server: ConfigServer, steady: Options, source: Path, tmp_path: Path, client: GrpcClient
) -> None:
    base = models.echo(tmp_path / "failing", load_fails="no such layer: Frobnicate")
    server.configure({"steady": steady, "failing": {"base_path": str(base)}})
    found = until(lambda: _error_of(client, "failing"), "an error")
    expected = "Error occurred while loading version: no such layer: Frobnicate"
    assert found == ("LOADING", grpc.StatusCode.UNKNOWN.value[0], expected)
    code, text = client.refusal({"x": X}, model="failing")
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "1 is LOADING" in text
    replace(base / "1" / "model.bin", (source / "echo" / "1" / "model.bin").read_text())
    wait_state(client, "failing", 1, "AVAILABLE")
    assert client.states("failing") == {1: ("AVAILABLE", 0, "")}
    assert np.array_equal(client.predict({"x": X}, model="failing")["y"], X)


def _error_of(client: GrpcClient, model: str) -> tuple[str, int, str] | None:
    found = (client.known_states(model) or {}).get(1)
    return found if found is not None and found[1] else None


@pytest.mark.slow
def test_versions_flip_under_load_without_a_failed_request(
    tmp_path: Path, source: Path, pytestconfig: pytest.Config
) -> None:
    base = tmp_path / "models"
    base.mkdir()
    models.appear(base, 1, source / "add1" / "1")
    flips = 0
    with Server(tmp_path, base, device="CPU", environment=FAST_POLL) as started:
        with Load(started, grpc=4, rest=2, added=(1.0, 2.0)) as load:
            ends = time.monotonic() + float(pytestconfig.getoption("flip_seconds"))
            while time.monotonic() < ends:
                if flips % 2:
                    shutil.rmtree((base / "2").rename(base / "gone"))
                else:
                    models.appear(base, 2, source / "add2" / "1")
                flips += 1
                time.sleep(1)
        assert load.failures == []
        # It has followed: each version was loaded again and again.
        until(lambda: _loads(started, NAME) > flips, "the last one is loaded")
        started.wait_idle()
    assert load.done > 100 * flips


# ---- calls


def _reload(client: GrpcClient, bases: dict[str, Path], **options: Any) -> tuple[int, str]:
    """HandleReloadConfigRequest: code and text of its answer."""
    answer = client.models.HandleReloadConfigRequest(_reload_request(bases), timeout=20, **options)
    return answer.status.error_code, answer.status.error_message


def _reload_request(bases: dict[str, Path]) -> Any:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.SetInParent()
    for name, base in bases.items():
        request.config.model_config_list.config.add(name=name, base_path=str(base))
    return request


def test_a_configuration_by_grpc(tmp_path: Path, source: Path) -> None:
    first = {NAME: source / "add1"}
    with (
        Server(tmp_path, source / "add1", device="CPU", environment=FAST_POLL, nireq=2) as server,
        GrpcClient(server.grpc_port) as client,
        RestClient(server.rest_port) as web,
    ):
        with Load(server, grpc=2, rest=1, added=(1.0,)) as load:
            # When the call is answered, the models are there; those that stay are not touched.
            assert _reload(client, {**first, "second": source / "add2"}) == (0, "")
            assert _sum(client, "second") == 2.0
            assert _loads(server, NAME) == 1
            until(lambda: _names(web) == [NAME, "second"], "REST knows it")
            code, text = _reload(client, {**first, "second": source / "add2", "third": source / "broken"})
            assert code == grpc.StatusCode.UNKNOWN.value[0]
            assert "third" in text
            assert "second" not in text
            _check_refused_configurations(client, source)
            assert _names(web) == [NAME, "second", "third"]
            # The next broker goes on with it.
            assert _reload(client, {**first, "second": source / "add1"}) == (0, "")
            server.wait_replaced("broker", server.kill("broker"))
            assert _sum(client, "second") == 1.0
            until(lambda: _names(web) == [NAME, "second"], "REST knows it")
            load.wait_more(5)
        assert load.failures == []
        status, answer = web.send("POST", "/v1/config/reload")
        assert status == 400
        assert "configuration file" in answer["error"]
        _check_empty_configuration(client, web, first)


def _check_refused_configurations(client: GrpcClient, source: Path) -> None:
    twice = _reload_request({"a": source, "b": source})
    twice.config.model_config_list.config[1].name = "a"
    custom = model_management_pb2.ReloadConfigRequest()
    custom.config.custom_model_config.SetInParent()
    for request, part in (
        (twice, "more than once"),
        (custom, "model_config_list"),
        (_reload_request({"a": Path("relative")}), "absolute"),
        (_reload_request({"": source}), "name"),
    ):
        code, text = refusal(client.models.HandleReloadConfigRequest, request)
        assert code is INVALID
        assert part in text


def _check_empty_configuration(client: GrpcClient, web: RestClient, first: dict[str, Path]) -> None:
    """Nothing is served, and then something again."""
    assert _reload(client, {}) == (0, "")
    until(lambda: client.known_states() is None, "nothing is served")
    assert client.refusal({"x": X}) == _not_found(NAME)
    until(lambda: _names(web) == [], "REST knows it")
    assert _reload(client, first) == (0, "")
    assert _sum(client, NAME) == 1.0


def test_a_configuration_by_rest(tmp_path: Path, source: Path, steady: Options) -> None:
    with (
        ConfigServer(tmp_path, {"steady": steady}, environment=UPDATES_OFF) as server,
        RestClient(server.rest_port) as web,
        Load(server, grpc=1, rest=1, model="steady") as load,
    ):
        assert web.send("POST", "/v1/config/reload") == (200, web.send("GET", "/v1/config")[1])
        server.configure({"steady": steady, "other": {"base_path": str(source / "echo")}})
        status, document = web.send("POST", "/v1/config/reload")
        ok = {"error_code": "OK", "error_message": ""}
        available = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": ok}]}
        assert (status, document) == (201, {"steady": available, "other": available})
        assert web.predict({"inputs": X.tolist()}, model="other") == (200, {"outputs": X.tolist()})
        assert web.send("POST", "/v1/config/reload") == (200, document)
        replace(server.config_path, json.dumps({"model_config": []}))
        status, answer = web.send("POST", "/v1/config/reload")
        assert status == 400
        assert "model_config_list" in answer["error"]
        assert web.send("GET", "/v1/config") == (200, document)
        load.wait_more(5)
        assert load.failures == []
