"""A hundred models in one configuration: all are there, each answers for itself."""

from pathlib import Path

import numpy as np
import pytest

from tests.support import models
from tests.support.clients import GrpcClient, RestClient
from tests.support.repositories import ConfigServer
from tests.support.waiting import until

pytestmark = pytest.mark.e2e

MODELS = 100


def test_a_hundred_models(tmp_path: Path) -> None:
    entries = {}
    for index in range(MODELS):
        base = models.add(tmp_path / f"m{index}", shape=(1, 4), number=float(index))
        entries[f"m{index}"] = {"base_path": str(base), "target_device": "CPU"}
    zeros = np.zeros((1, 4), np.float32)
    with (
        ConfigServer(tmp_path, entries) as server,
        GrpcClient(server.grpc_port) as client,
        RestClient(server.rest_port) as web,
    ):
        found = {name: client.predict({"x": zeros}, model=name)["y"].tolist() for name in entries}
        assert found == {f"m{index}": [[float(index)] * 4] for index in range(MODELS)}
        status, document = web.send("GET", "/v1/config")
        assert status == 200
        states = {
            name: [one["state"] for one in model["model_version_status"]] for name, model in document.items()
        }
        assert states == {name: ["AVAILABLE"] for name in entries}
        for name in ("m0", "m99"):
            answer = web.predict({"inputs": zeros.tolist()}, model=name)
            assert answer == (200, {"outputs": found[name]})
        # One fewer: the others stay as they are.
        del entries["m50"]
        loads = server.log().count(" loads model ")
        server.configure(entries)
        until(lambda: client.known_states("m50") is None, "it is forgotten")
        assert server.log().count(" loads model ") == loads == MODELS
