"""The server with its hot modules compiled, as users are told to run it, and with nothing compiled."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest

from common import build
from examples.digits import train
from tests.support import interpreted
from tests.support.clients import GrpcClient, RestClient
from tests.support.server import Server

pytestmark = pytest.mark.e2e

BASE = train.MODEL.parent.parent
IMAGE = np.zeros((1, 8, 8), np.float32)
SERVING = ("broker", "grpc", "rest", "worker")
"""Kinds of process that requests go through."""


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    """A tree with nothing in it that was compiled."""
    tree = tmp_path / "tree"
    for package in (*interpreted.PACKAGES, "ie_serving"):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(interpreted.ROOT / package, tree / package, ignore=ignored)
    yield tree
    shutil.rmtree(tree)


def _check_answers(server: Server) -> None:
    expected = openvino.Core().compile_model(train.MODEL, "CPU")(IMAGE)[0]
    with GrpcClient(server.grpc_port) as client, RestClient(server.rest_port) as web:
        by_grpc = client.predict({"image": IMAGE})["probabilities"]
        status, answer = web.predict({"instances": IMAGE.tolist()})
    assert status == 200
    np.testing.assert_allclose(by_grpc, expected, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(np.array(answer["predictions"]), by_grpc, rtol=1e-5)


def _with_library(server: Server) -> set[str]:
    """The kinds of process that have loaded the compiled modules."""
    return {
        kind
        for kind in SERVING
        for pid in server.pids(kind)
        if build.LIBRARY in Path(f"/proc/{pid}/maps").read_text()
    }


def test_compiled_modules_serve_where_there_are_any(tmp_path: Path) -> None:
    if not interpreted.compiled():
        pytest.skip(
            "nothing is compiled: `make compile` wants a C compiler (package gcc) and Python's headers"
        )
    with Server(tmp_path, BASE, device="CPU") as server:
        _check_answers(server)
        assert _with_library(server) == set(SERVING)


def test_the_sources_serve_as_well(tmp_path: Path, sources: Path) -> None:
    with Server(
        tmp_path, BASE, device="CPU", root=sources, environment={"PYTHONPATH": str(sources)}
    ) as server:
        _check_answers(server)
        assert _with_library(server) == set()
