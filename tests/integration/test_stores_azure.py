"""Models from Azure Blob Storage, against Azurite, Microsoft's own emulator.

It is an npm package: `npm install -g azurite@3.35.0`, or elsewhere, with AZURITE naming its program azurite-blob.
Started here as `azurite-blob --inMemoryPersistence --blobHost 127.0.0.1 --blobPort PORT`, once for the file, and ended
by its process. It checks keys. Without it these tests are skipped.
"""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from broker import store_remote
from common.config import ServerConfig, StoreEnvironment, VersionPolicy
from common.storage import objects
from common.storage.interface import StorageError
from common.storage.stores import open_store
from tests.support.server import free_ports
from tests.support.storekeeping import Pair, watch
from tests.support.tcp_proxy import TcpProxy, accepts
from tests.support.waiting import until

PROGRAM = os.environ.get("AZURITE", "") or shutil.which("azurite-blob")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        not PROGRAM or not shutil.which("node"),
        reason="wants Azurite and node: npm install -g azurite@3.35.0",
    ),
]

ACCOUNT = "devstoreaccount1"
# The emulator's account has this key for everyone.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def connection(port: int, key: str = KEY) -> str:
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )


class Azurite:
    """The server."""

    def __init__(self, directory: Path) -> None:
        for _ in range(3):
            self._start(directory)
            # A minute and a half: Node starts slowly on a busy machine. It ends where the port was taken meanwhile.
            until(lambda: self.process.poll() is not None or accepts(self.port), "Azurite accepts", 90)
            if self.process.poll() is None:
                return
        raise AssertionError((directory / "log").read_text())

    def _start(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        assert PROGRAM
        arguments = ["--inMemoryPersistence", "--blobHost", "127.0.0.1", "--blobPort", str(self.port)]
        with (directory / "log").open("wb") as output:
            self.process = subprocess.Popen(
                [PROGRAM, *arguments, "--skipApiVersionCheck"],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def container(self) -> ContainerClient:
        """A new one."""
        service = BlobServiceClient.from_connection_string(connection(self.port))
        return service.create_container(f"c-{uuid.uuid4().hex[:12]}")


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    server = Azurite(tmp_path_factory.mktemp("azurite"))
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[TcpProxy]:
    proxy = TcpProxy(azurite.port)
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAUSES_S", (0.05, 0.05))
    monkeypatch.setattr(store_remote, "MIN_POLL_NS", 200_000_000)


def put(container: ContainerClient, version: int, content: bytes) -> None:
    for name, data in {"model.xml": b"<net/>", "model.bin": content}.items():
        container.upload_blob(f"models/m/{version}/{name}", data, overwrite=True)


def error_of(base_path: str, connection_string: str) -> str:
    with pytest.raises(StorageError) as caught:
        open_store(base_path, StoreEnvironment(azure_connection=connection_string)).list_versions()
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["az", "azfs"])
def test_versions_are_listed_with_the_key_of_the_connection_string(azurite: Azurite, scheme: str) -> None:
    container = azurite.container()
    put(container, 1, b"first")
    base_path = f"{scheme}://{container.container_name}/models/m"
    store = open_store(base_path, StoreEnvironment(azure_connection=connection(azurite.port)))
    (version,) = store.list_versions().versions.values()
    assert version.location == f"{base_path}/1"


def test_what_is_said_of_bad_access(azurite: Azurite) -> None:
    name = azurite.container().container_name
    assert error_of(f"az://{name}/m", "") == f"az://{name}/m: AZURE_STORAGE_CONNECTION_STRING is not set"
    text = error_of(f"az://{name}/m", "AccountKey=hunter2")
    assert text == f"az://{name}/m: AZURE_STORAGE_CONNECTION_STRING cannot be understood"
    wrong = "A" * 86 + "=="
    text = error_of(f"az://{name}/m", connection(azurite.port, wrong))
    assert text == f"az://{name}/m: the key in AZURE_STORAGE_CONNECTION_STRING is not accepted"
    assert (
        error_of("az://missing/m", connection(azurite.port)) == "az://missing/m: there is no such container"
    )
    (port,) = free_ports(1)
    assert error_of("az://c/m", connection(port)) == "az://c/m: the store cannot be reached"


def test_versions_come_change_and_go_and_cut_downloads_are_begun_again(
    azurite: Azurite, proxy: TcpProxy, tmp_path: Path
) -> None:
    container = azurite.container()
    put(container, 1, b"x" * 300_000)
    environment = StoreEnvironment(azure_connection=connection(proxy.port))
    pair = Pair(ServerConfig((), str(tmp_path), poll_wait_s=0.1), environment)
    broker = pair.broker
    base_path = f"az://{container.container_name}/models/m"
    try:
        proxy.cut_after = 100_000
        broker.welcome(watch({"m": base_path}, VersionPolicy("all")))
        failed = broker.until_snapshot("m", lambda found: found.failures)
        assert f"{base_path}/1/model.bin: " in failed.failures[1]
        proxy.cut_after = None
        first = broker.until_snapshot("m", lambda found: found.versions)
        assert (Path(first.versions[1]) / "model.bin").stat().st_size == 300_000
        put(container, 2, b"second")
        second = broker.until_snapshot("m", lambda found: 2 in found.versions)
        assert (Path(second.versions[2]) / "model.bin").read_bytes() == b"second"
        container.upload_blob("models/m/2/model.bin", b"anew", overwrite=True)
        path = second.versions[2]
        third = broker.until_snapshot("m", lambda found: found.versions.get(2, path) != path)
        assert (Path(third.versions[2]) / "model.bin").read_bytes() == b"anew"
        for name in ("model.xml", "model.bin"):
            container.delete_blob(f"models/m/1/{name}")
        broker.until_snapshot("m", lambda found: set(found.versions) == {2})
        proxy.close()
        broker.until_snapshot("m", lambda found: found.error)
        assert Path(third.versions[2]).exists()
    finally:
        pair.close()


def test_a_blob_that_was_written_anew_since_its_listing_is_an_error(azurite: Azurite, tmp_path: Path) -> None:
    container = azurite.container()
    put(container, 1, b"before")
    base_path = f"az://{container.container_name}/models/m"
    store = open_store(base_path, StoreEnvironment(azure_connection=connection(azurite.port)))
    version = store.list_versions().versions[1]
    put(container, 1, b"behind")
    with pytest.raises(StorageError, match=r"1/model.bin: it has been written anew since it was listed"):
        store.fetch(version, tmp_path, lambda: False)
