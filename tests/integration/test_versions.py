"""Versions that come and go in storage while requests flow."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.support import models
from tests.support.clients import GrpcClient, RestClient
from tests.support.load import Load
from tests.support.server import NAME, Server
from tests.support.waiting import until

pytestmark = pytest.mark.integration

FAST_POLL = {"FILE_SYSTEM_POLL_WAIT_SECONDS": "0.2"}
X = np.array([[1.0]], np.float32)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 to 4 of an OpenVINO model: version n adds n."""
    directory = tmp_path_factory.mktemp("source")
    for version in range(1, 5):
        models.add(directory, version, number=float(version))
    return directory


@pytest.fixture
def base(tmp_path: Path, source: Path) -> Path:
    """A base path that holds version 1."""
    path = tmp_path / "models"
    path.mkdir()
    models.appear(path, 1, source / "1")
    return path


@pytest.fixture
def server(tmp_path: Path, base: Path) -> Iterator[Server]:
    """Two workers, the latest version, a quick poll."""
    with Server(tmp_path, base, device="CPU", workers=2, environment=FAST_POLL) as started:
        yield started


def _remove(base: Path, version: int) -> None:
    """As careful operators do: out of sight at once, then away."""
    shutil.rmtree((base / str(version)).rename(base / f"gone-{version}"))


def test_versions_change_under_load_without_a_failed_request(
    server: Server, base: Path, source: Path
) -> None:
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        with Load(server, grpc=4, rest=2, added=(1.0, 2.0)) as load:
            models.appear(base, 2, source / "2")
            until(lambda: client.states().get(1, ("",))[0] == "END", "version 1 has gone")
            load.wait_more(5)
        assert load.failures == []
        assert client.states() == {1: ("END", 0, ""), 2: ("AVAILABLE", 0, "")}
        assert client.predict({"x": X})["y"].item() == 3.0
        assert client.refusal({"x": X}, version=1)[0] in (
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.UNAVAILABLE,
        )
        # Deleted, the one before it is the latest again.
        with Load(server, grpc=4, rest=2, added=(1.0, 2.0)) as load:
            _remove(base, 2)
            until(lambda: client.states()[2][0] == "END", "version 2 has gone")
            load.wait_more(5)
        assert load.failures == []
        assert client.states() == {1: ("AVAILABLE", 0, ""), 2: ("END", 0, "")}
        assert client.predict({"x": X})["y"].item() == 2.0
        status, document = web.send("GET", f"/v1/models/{NAME}")
        assert status == 200
        assert [(one["version"], one["state"]) for one in document["model_version_status"]] == [
            ("1", "AVAILABLE"),
            ("2", "END"),
        ]
        _check_vanishing(server, base, client)
    server.wait_idle()


def _check_vanishing(server: Server, base: Path, client: GrpcClient) -> None:
    """The base path goes, and comes back."""
    away = base.rename(base.with_name("away"))
    until(lambda: client.states()[1][0] == "END", "version 1 has gone")
    assert client.refusal({"x": X}) == (
        grpc.StatusCode.NOT_FOUND,
        f"Servable not found for request: Specific({NAME}, 0)",
    )
    assert not server.status().ready
    away.rename(base)
    until(lambda: client.states()[1][0] == "AVAILABLE", "version 1 is back")
    assert client.predict({"x": X})["y"].item() == 2.0
    server.wait_serving()


def test_a_corrupt_newer_version_changes_nothing_until_it_is_mended(
    server: Server, base: Path, source: Path
) -> None:
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        with Load(server, grpc=2, rest=1, added=(1.0, 3.0)) as load:
            models.corrupt(base.parent / "bad", 3)
            (base.parent / "bad" / "3").rename(base / "3")
            state, code, text = until(lambda: client.load_error(3), "an error") or ("", 0, "")
            assert (state, code) == ("LOADING", grpc.StatusCode.UNKNOWN.value[0])
            assert text.startswith("Error occurred while loading version")
            assert len(text) > len("Error occurred while loading version: ")
            load.wait_more(5)
            assert client.states()[1] == ("AVAILABLE", 0, "")
            assert client.predict({"x": X})["y"].item() == 2.0
            assert server.status().ready
            refused, text = client.refusal({"x": X}, version=3)
            assert refused is grpc.StatusCode.UNAVAILABLE
            assert "LOADING" in text
            _, document = web.send("GET", f"/v1/models/{NAME}/versions/3")
            (stated,) = document["model_version_status"]
            assert (stated["state"], stated["status"]["error_code"]) == ("LOADING", "UNKNOWN")
            _remove(base, 3)
            models.appear(base, 3, source / "3")
            until(lambda: client.states()[3][0] == "AVAILABLE", "version 3")
            until(lambda: client.states()[1][0] == "END", "version 1 has gone")
            load.wait_more(5)
        assert load.failures == []
        assert client.predict({"x": X})["y"].item() == 4.0
    assert {worker.restarts for worker in server.status().workers} == {0}


def test_all_versions_side_by_side(tmp_path: Path, base: Path, source: Path) -> None:
    models.appear(base, 2, source / "2")
    (base / "0").mkdir()
    for name in ("-1", "1a", "v7", "9"):
        (base / name).mkdir()
    policy = '{"all": {}}'
    with (
        Server(tmp_path, base, device="CPU", environment=FAST_POLL, model_version_policy=policy) as server,
        GrpcClient(server.grpc_port) as client,
        Load(server, grpc=2, rest=1, added=(1.0,), version=1) as load,
    ):
        models.appear(base, 4, source / "4")
        until(lambda: client.states().get(4, ("",))[0] == "AVAILABLE", "version 4")
        assert {version: state for version, (state, _, _) in client.states().items()} == {
            1: "AVAILABLE",
            2: "AVAILABLE",
            4: "AVAILABLE",
        }
        for version, expected in ((0, 5.0), (1, 2.0), (2, 3.0), (4, 5.0)):
            assert client.predict({"x": X}, version)["y"].item() == expected
        assert client.refusal({"x": X}, 3) == (
            grpc.StatusCode.NOT_FOUND,
            f"Servable not found for request: Specific({NAME}, 3)",
        )
        _remove(base, 2)
        until(lambda: client.states()[2][0] == "END", "version 2")
        load.wait_more(5)
        assert load.failures == []
        assert "version 0 is not served" in server.log()
        assert "9 holds no model" in server.log()


def test_a_version_that_kills_its_worker_while_loading_harms_no_request(tmp_path: Path) -> None:
    path = models.echo(tmp_path / "models")
    models.echo(tmp_path / "bad", load_crashes=True)
    with (
        Server(tmp_path, path, environment=FAST_POLL, workers=2) as server,
        GrpcClient(server.grpc_port) as client,
    ):
        with Load(server, grpc=3, rest=1) as load:
            models.appear(path, 2, tmp_path / "bad" / "1")
            found = until(lambda: client.load_error(2), "an error") or ("", 0, "")
            assert found[0] == "LOADING"
            assert found[2].startswith("Error occurred while loading version")
            load.wait_more(10)
            _remove(path, 2)
            until(lambda: client.states()[2][0] == "END", "version 2 has gone")
            load.wait_more(5)
        assert load.failures == []
        assert client.states()[1][0] == "AVAILABLE"
        server.wait_serving()
