"""Models from Google Cloud Storage, against the emulator of PyPI (gcp-storage-emulator).

Started here as `python -m gcp_storage_emulator start --host 127.0.0.1 --port PORT --in-memory`, once for the file, and
ended by its process. It accepts whoever comes: that credentials are sent shows in what a TCP proxy before it hears,
and the token comes from a small server of the test's own.
"""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from broker import store_remote
from common.config import ServerConfig, StoreEnvironment, VersionPolicy
from common.storage import gcs, objects
from common.storage.interface import StorageError
from common.storage.stores import open_store
from tests.support.server import free_ports
from tests.support.storekeeping import Pair, watch
from tests.support.tcp_proxy import TcpProxy, accepts
from tests.support.waiting import until

pytestmark = pytest.mark.integration

TOKEN = b"a-token-of-the-test"


class Emulator:
    """The server."""

    def __init__(self, log: Path) -> None:
        (self.port,) = free_ports(1)
        arguments = ["start", "--host", "127.0.0.1", "--port", str(self.port), "--in-memory"]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gcp_storage_emulator", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until(lambda: accepts(self.port), "the emulator accepts")

    def bucket(self) -> Any:
        """A new one."""
        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
            client_options={"api_endpoint": f"http://127.0.0.1:{self.port}"},
        )
        return client.create_bucket(f"b-{uuid.uuid4().hex[:12]}")


class TokenServer:
    """What a service account's `token_uri` names."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.dumps({"access_token": TOKEN.decode(), "expires_in": 3600}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    server = Emulator(tmp_path_factory.mktemp("gcs") / "log")
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def proxy(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpProxy]:
    proxy = TcpProxy(emulator.port)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.port}")
    yield proxy
    proxy.close()


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of this machine's."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(objects, "PAUSES_S", (0.05, 0.05))
    monkeypatch.setattr(store_remote, "MIN_POLL_NS", 200_000_000)
    gcs._credentials.cache_clear()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A service account's file, named by the environment."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    server = TokenServer()
    path = tmp_path / "account.json"
    fields = {"type": "service_account", "project_id": "p", "private_key_id": "k", "private_key": text}
    path.write_text(json.dumps({**fields, "client_email": "reader@p.example", "token_uri": server.url}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    yield str(path)
    server.close()


def put(bucket: Any, version: int, content: bytes) -> None:
    for name, data in {"model.xml": b"<net/>", "model.bin": content}.items():
        bucket.blob(f"models/m/{version}/{name}").upload_from_string(data)


def listed(bucket: Any, credentials: str = "") -> set[int]:
    store = open_store(f"gs://{bucket.name}/models/m", StoreEnvironment(google_credentials=credentials))
    return set(store.list_versions().versions)


def error_of(base_path: str, credentials: str = "") -> str:
    with pytest.raises(StorageError) as caught:
        open_store(base_path, StoreEnvironment(google_credentials=credentials)).list_versions()
    return str(caught.value)


def test_without_credentials_requests_are_anonymous(emulator: Emulator, proxy: TcpProxy) -> None:
    bucket = emulator.bucket()
    put(bucket, 1, b"first")
    assert listed(bucket) == {1}
    assert b"authorization" not in proxy.requests.lower()


def test_the_credentials_that_the_environment_names_are_used(
    emulator: Emulator, proxy: TcpProxy, account: str
) -> None:
    bucket = emulator.bucket()
    put(bucket, 1, b"first")
    assert listed(bucket, account) == {1}
    assert b"Bearer " + TOKEN in proxy.requests


@pytest.mark.usefixtures("proxy")
def test_credentials_that_cannot_be_used_are_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, account: str
) -> None:
    missing = str(tmp_path / "missing.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", missing)
    text = error_of("gs://b/m", missing)
    assert text.startswith(f"GOOGLE_APPLICATION_CREDENTIALS names {missing}, which cannot be used")
    (port,) = free_ports(1)
    fields = json.loads(Path(account).read_text())
    Path(account).write_text(json.dumps({**fields, "token_uri": f"http://127.0.0.1:{port}/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", account)
    assert "no token could be had for the credentials" in error_of("gs://b/m", account)


@pytest.mark.usefixtures("proxy")
def test_a_bucket_that_does_not_exist() -> None:
    assert error_of("gs://no-such-bucket/m") == "gs://no-such-bucket/m: there is no such bucket or object"


def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    assert error_of("gs://b/m") == "gs://b/m: the store cannot be reached"


def test_versions_come_change_and_go_and_cut_downloads_are_begun_again(
    emulator: Emulator, proxy: TcpProxy, tmp_path: Path
) -> None:
    bucket = emulator.bucket()
    put(bucket, 1, b"x" * 300_000)
    pair = Pair(ServerConfig((), str(tmp_path), poll_wait_s=0.1), StoreEnvironment())
    broker = pair.broker
    try:
        proxy.cut_after = 100_000
        broker.welcome(watch({"m": f"gs://{bucket.name}/models/m"}, VersionPolicy("all")))
        failed = broker.until_snapshot("m", lambda found: found.failures)
        assert f"gs://{bucket.name}/models/m/1/model.bin: " in failed.failures[1]
        proxy.cut_after = None
        first = broker.until_snapshot("m", lambda found: found.versions)
        assert (Path(first.versions[1]) / "model.bin").stat().st_size == 300_000
        put(bucket, 2, b"second")
        second = broker.until_snapshot("m", lambda found: 2 in found.versions)
        assert (Path(second.versions[2]) / "model.bin").read_bytes() == b"second"
        put(bucket, 2, b"anew")
        path = second.versions[2]
        third = broker.until_snapshot("m", lambda found: found.versions.get(2, path) != path)
        until(lambda: (Path(third.versions[2]) / "model.xml").exists(), "it is complete")
        for blob in bucket.list_blobs(prefix="models/m/1/"):
            blob.delete()
        broker.until_snapshot("m", lambda found: set(found.versions) == {2})
        proxy.close()
        broker.until_snapshot("m", lambda found: found.error)
        assert Path(third.versions[2]).exists()
    finally:
        pair.close()
