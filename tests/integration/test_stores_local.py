"""The storekeeper's process with local models: what it costs, and what it does not load. No other server is wanted."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.config import ServerConfig
from common.messages import Snapshot
from tests.support.storekeeping import ROOT, BrokerEnd, StorekeeperProcess, watch

pytestmark = pytest.mark.integration

MODELS = 100
SECONDS = 5.0

_MEMORY = """
import json, sys
from pathlib import Path
import broker.storekeeper
from common.config import StoreEnvironment
from common.storage.interface import StorageError
from common.storage.stores import open_store

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

heavy = [name for name in ("boto3", "google.cloud", "azure", "requests", "grpc") if name in sys.modules]
before = resident()
account = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=QUJD;BlobEndpoint=http://127.0.0.1:1/a;"
try:
    open_store(sys.argv[1], StoreEnvironment("127.0.0.1:1", azure_connection=account)).list_versions()
except StorageError as error:
    print(json.dumps([heavy, before, resident(), str(error)]))
"""


def test_a_hundred_models_cost_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    paths = {}
    for number in range(MODELS):
        paths[f"m{number}"] = base = tmp_path / "models" / str(number)
        for version in (1, 2):
            directory = base / str(version)
            directory.mkdir(parents=True)
            for name in ("model.xml", "model.bin"):
                (directory / name).touch()
    broker = BrokerEnd(tmp_path)
    keeper = StorekeeperProcess(ServerConfig((), str(tmp_path), poll_wait_s=1.0), {}, tmp_path / "log")
    try:
        broker.welcome(watch(paths))
        found = broker.until(Snapshot, MODELS)
        assert all(set(snapshot.versions) == {1, 2} for snapshot in found)
        # Until what was just made is old enough to be looked at cheaply.
        assert broker.during(3.0) == []
        before, began = keeper.cpu_s(), time.monotonic()
        assert broker.during(SECONDS) == []
        share = (keeper.cpu_s() - before) / (time.monotonic() - began)
        print(f"{MODELS} local models, looked at every second: {share:.2%} of a core")
        assert share < 0.01
    finally:
        keeper.kill()
        broker.close()


@pytest.mark.parametrize("base_path", ["s3://b/m", "gs://b/m", "az://c/m"])
def test_a_stores_library_is_loaded_when_it_is_used(base_path: str, tmp_path: Path) -> None:
    environment = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "CLOUDSDK_CONFIG": str(tmp_path / "none"),
        "NO_GCE_CHECK": "true",
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1",
    }
    output = subprocess.run(
        [sys.executable, "-c", _MEMORY, base_path],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    ).stdout
    heavy, before, after, error = json.loads(output)
    print(f"{base_path}: {before >> 20} MB, with its library {after >> 20} MB")
    assert heavy == []
    assert "the store cannot be reached" in error
