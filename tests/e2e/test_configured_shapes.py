"""One model under several names of one configuration file, each with a batch size or shape of its own."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.clients import GrpcClient
from tests.support.repositories import ConfigServer

pytestmark = pytest.mark.e2e

DIGITS = str(Path(__file__).resolve().parents[2] / "examples" / "digits" / "model")
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "three": {"batch_size": "3"},
    "two": {"shape": {"image": "(2,8,8)"}},
    "any": {"shape": "auto", "max_shapes": 2},
}


def test_the_shapes_of_a_configuration_file(tmp_path: Path) -> None:
    entries = {name: {"base_path": DIGITS, "target_device": "CPU", **keys} for name, keys in MODELS.items()}
    images = np.random.default_rng(5).random((3, 8, 8), dtype=np.float32)
    with ConfigServer(tmp_path, entries) as server, GrpcClient(server.grpc_port) as client:
        whole = client.predict({"image": images}, model="three")["probabilities"]
        assert whole.shape == (3, 10)
        for rows, model in ((2, "two"), (1, "any"), (2, "any"), (3, "any"), (1, "any")):
            found = client.predict({"image": images[:rows]}, model=model)["probabilities"]
            np.testing.assert_allclose(found, whole[:rows], rtol=1e-4, atol=1e-6)
        for rows, model in ((2, "three"), (3, "two")):
            code, _ = client.refusal({"image": images[:rows]}, model=model)
            assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert client.states("plain")[1][0] == "AVAILABLE"
