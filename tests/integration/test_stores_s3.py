"""Models from S3, against moto's server, an S3 in Python that speaks the real protocol and can check signatures.

Started here as `python -m moto.server -H 127.0.0.1 -p PORT` (moto[s3], flask and flask-cors from PyPI), once for the
file, and ended by its process. Between it and the storekeeper stands a TCP proxy where the network is to fail.
"""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from broker import store_remote
from common.config import ServerConfig, StoreEnvironment, VersionPolicy
from common.messages import Keep, Snapshot
from common.storage import objects, s3
from common.storage.interface import StorageError
from common.storage.stores import open_store
from tests.support.server import free_ports
from tests.support.storekeeping import BrokerEnd, Pair, StorekeeperProcess, watch
from tests.support.tcp_proxy import TcpProxy, accepts
from tests.support.waiting import until

pytestmark = pytest.mark.integration

SECRET = "a-secret-that-nobody-may-see"  # noqa: S105 - of the test alone


class Moto:
    """The server, and a client of its own."""

    def __init__(self, log: Path) -> None:
        (self.port,) = free_ports(1)
        arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        until(lambda: accepts(self.port), "moto's server accepts")
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = self.service("s3")

    def service(self, name: str) -> Any:
        """A boto3 client with keys that moto takes as long as it does not check them."""
        return boto3.client(
            name,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",  # noqa: S106 - moto does not look at it
        )

    def check_signatures(self, *, on: bool) -> None:
        """Whether keys have to be known and signatures to be right."""
        count = b"0" if on else b"inf"
        httpx.post(f"{self.url}/moto-api/reset-auth", content=count).raise_for_status()

    def bucket(self) -> "Bucket":
        """A new one."""
        return Bucket(self.client)


class Bucket:
    """A bucket with one model."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.name = f"b-{uuid.uuid4().hex[:12]}"
        self.base_path = f"s3://{self.name}/models/m"
        client.create_bucket(Bucket=self.name)

    def put(self, version: int | str, content: bytes = b"weights", **others: bytes) -> None:
        """A version; the last object that is written makes it complete."""
        for name, data in {**others, "model.xml": b"<net/>", "model.bin": content}.items():
            self.client.put_object(Bucket=self.name, Key=f"models/m/{version}/{name}", Body=data)

    def delete(self, version: int) -> None:
        """All objects of a version."""
        prefix = f"models/m/{version}/"
        found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix)["Contents"]
        self.client.delete_objects(
            Bucket=self.name, Delete={"Objects": [{"Key": one["Key"]} for one in found]}
        )


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    server = Moto(tmp_path_factory.mktemp("moto") / "log")
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys, and none of this machine's."""
    for name, value in aws_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(objects, "PAUSES_S", (0.05, 0.05))
    monkeypatch.setattr(store_remote, "MIN_POLL_NS", 200_000_000)
    s3._make_client.cache_clear()


def aws_environment(directory: Path) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(directory / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "none"),
    }


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


@pytest.fixture
def proxy(moto: Moto) -> Iterator[TcpProxy]:
    proxy = TcpProxy(moto.port)
    yield proxy
    proxy.close()


class Keeping:
    """A storekeeper in this process, of one model."""

    def __init__(self, run_dir: Path, bucket: Bucket, port: int, **settings: Any) -> None:
        config = ServerConfig((), str(run_dir), poll_wait_s=0.1, **settings)
        self.pair = Pair(config, StoreEnvironment(s3_endpoint=f"127.0.0.1:{port}", aws_region="us-east-1"))
        self.broker = self.pair.broker
        self.bucket = bucket
        self.base_path = bucket.base_path

    def watch(self, policy: VersionPolicy = VersionPolicy()) -> BrokerEnd:  # noqa: B008 - frozen
        self.broker.welcome(watch({"m": self.base_path}, policy))
        return self.broker


@pytest.fixture
def keeping(moto: Moto, tmp_path: Path, proxy: TcpProxy) -> Iterator[Keeping]:
    keeping = Keeping(tmp_path, moto.bucket(), proxy.port)
    yield keeping
    keeping.pair.close()


def weights(snapshot: Snapshot, version: int) -> bytes:
    return (Path(snapshot.versions[version]) / "model.bin").read_bytes()


def listed(moto: Moto, bucket: Bucket, endpoint: str) -> set[int]:
    store = open_store(bucket.base_path, StoreEnvironment(s3_endpoint=endpoint, aws_region="us-east-1"))
    return set(store.list_versions().versions)


def error_of(base_path: str, endpoint: str) -> str:
    with pytest.raises(StorageError) as caught:
        open_store(base_path, StoreEnvironment(s3_endpoint=endpoint)).list_versions()
    return str(caught.value)


# ---- access


@pytest.mark.parametrize("form", ["{}:{}", "http://{}:{}", "http://{}:{}/"])
def test_the_endpoint_may_be_host_and_port_or_a_url(moto: Moto, form: str) -> None:
    bucket = moto.bucket()
    bucket.put(1)
    assert listed(moto, bucket, form.format("127.0.0.1", moto.port)) == {1}


def test_requests_are_signed_with_the_keys_of_the_environment(moto: Moto, proxy: TcpProxy) -> None:
    bucket = moto.bucket()
    bucket.put(1)
    assert listed(moto, bucket, f"127.0.0.1:{proxy.port}") == {1}
    assert b"Credential=AKIATESTTESTTESTTEST/" in proxy.requests
    assert SECRET.encode() not in proxy.requests


@pytest.mark.usefixtures("no_keys")
def test_without_keys_requests_are_anonymous(moto: Moto, proxy: TcpProxy) -> None:
    bucket = moto.bucket()
    bucket.put(1)
    bucket.client.put_object_acl(Bucket=bucket.name, Key="models/m/1/model.bin", ACL="public-read")
    assert listed(moto, bucket, f"127.0.0.1:{proxy.port}") == {1}
    received = bytearray()
    address = objects.Address("s3", bucket.name, "models/m")
    reader = s3.open_bucket(address, StoreEnvironment(s3_endpoint=f"127.0.0.1:{proxy.port}"))
    reader.read("models/m/1/model.bin", "", received.extend)
    assert received == b"weights"
    assert b"authorization" not in proxy.requests.lower()


def test_keys_are_checked_where_the_store_checks_them(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = moto.bucket()
    bucket.put(1)
    iam = moto.service("iam")
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    document = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    )
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=document)
    moto.check_signatures(on=True)
    try:
        text = error_of(bucket.base_path, moto.url)
        assert text == f"{bucket.base_path}: the access key is not known there"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        s3._make_client.cache_clear()
        text = error_of(bucket.base_path, moto.url)
        assert text == f"{bucket.base_path}: the secret key is wrong"
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        s3._make_client.cache_clear()
        assert listed(moto, bucket, moto.url) == {1}
    finally:
        moto.check_signatures(on=False)


@pytest.mark.usefixtures("no_keys")
def test_a_private_object_says_that_there_were_no_keys(moto: Moto) -> None:
    bucket = moto.bucket()
    bucket.put(1)
    address = objects.Address("s3", bucket.name, "models/m")
    reader = s3.open_bucket(address, StoreEnvironment(s3_endpoint=moto.url))
    with pytest.raises(StorageError, match="not signed, because no credentials were found"):
        reader.read("models/m/1/model.bin", "", bytearray().extend)


def test_a_bucket_that_does_not_exist(moto: Moto) -> None:
    assert error_of("s3://no-such-bucket/m", moto.url) == "s3://no-such-bucket/m: there is no such bucket"


def test_a_store_that_is_not_there() -> None:
    (port,) = free_ports(1)
    text = error_of("s3://b/m", f"user:{SECRET}@127.0.0.1:{port}")
    assert text == "s3://b/m: the store cannot be reached"


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "nobody"), ("AWS_SECRET_ACCESS_KEY", "")])
def test_what_is_configured_wrongly(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, moto: Moto
) -> None:
    monkeypatch.setenv(name, value)
    if not value:
        monkeypatch.delenv(name)
    assert "S3 cannot be used as it is configured" in error_of("s3://b/m", moto.url)


# ---- versions


def test_versions_come_change_and_go(keeping: Keeping) -> None:
    bucket = keeping.bucket
    bucket.put(1, b"first")
    broker = keeping.watch()
    first = broker.until_snapshot("m", lambda found: 1 in found.versions)
    assert weights(first, 1) == b"first"
    bucket.put(2, b"second")
    second = broker.until_snapshot("m", lambda found: 2 in found.versions)
    assert (set(second.versions), weights(second, 2)) == ({1, 2}, b"second")
    broker.say(Keep((second.versions[2],)))
    bucket.put(2, b"second, written anew")
    path = second.versions[2]
    third = broker.until_snapshot("m", lambda found: found.versions.get(2, path) != path)
    assert weights(third, 2) == b"second, written anew"
    assert weights(second, 2) == b"second", "a worker may be reading it"
    bucket.delete(2)
    last = broker.until_snapshot("m", lambda found: 2 not in found.versions)
    assert set(last.versions) == {1}


def test_names_that_lead_elsewhere_are_refused(moto: Moto, keeping: Keeping, tmp_path: Path) -> None:
    name = keeping.bucket.name
    for key in ("models/m/1/model.onnx", "models/m/2/model.onnx", "models/m/2/../../../../../escaped"):
        moto.client.put_object(Bucket=name, Key=key, Body=b"x")
    broker = keeping.watch(VersionPolicy("all"))
    snapshot = broker.until_snapshot("m", lambda found: found.versions)
    assert set(snapshot.versions) == {1}
    assert any("leads elsewhere" in warning for warning in snapshot.warnings), snapshot.warnings
    assert list(tmp_path.rglob("escaped")) == []


def test_a_version_larger_than_the_cache_fails_alone(moto: Moto, tmp_path: Path) -> None:
    bucket = moto.bucket()
    bucket.put(1)
    bucket.put(2, b"x" * 200_000)
    keeping = Keeping(tmp_path, bucket, moto.port, model_cache_bytes=100_000)
    try:
        broker = keeping.watch(VersionPolicy("all"))
        snapshot = broker.until_snapshot("m", lambda found: found.versions)
        assert set(snapshot.versions) == {1}
        assert "of the model cache's 0.1 MB only" in snapshot.failures[2]
    finally:
        keeping.pair.close()


# ---- a bad network


def test_a_store_that_dies_leaves_what_was_fetched(moto: Moto, keeping: Keeping, proxy: TcpProxy) -> None:
    name = keeping.bucket.name
    moto.client.put_object(Bucket=name, Key="models/m/1/model.onnx", Body=b"x")
    broker = keeping.watch()
    snapshot = broker.until_snapshot("m", lambda found: found.versions)
    proxy.close()
    error = broker.until_snapshot("m", lambda found: found.error)
    assert error.error in (
        f"{keeping.base_path}: the store cannot be reached",
        f"{keeping.base_path}: the connection broke off",
    )
    assert (Path(snapshot.versions[1]) / "model.onnx").exists()


def test_a_download_that_is_cut_is_begun_again(moto: Moto, keeping: Keeping, proxy: TcpProxy) -> None:
    name = keeping.bucket.name
    moto.client.put_object(Bucket=name, Key="models/m/1/model.onnx", Body=b"x" * 300_000)
    proxy.cut_after = 100_000
    broker = keeping.watch()
    failed = broker.until_snapshot("m", lambda found: found.failures)
    assert failed.versions == {}
    assert f"s3://{name}/models/m/1/model.onnx: the connection broke off" in failed.failures[1]
    proxy.cut_after = None
    snapshot = broker.until_snapshot("m", lambda found: found.versions)
    assert (Path(snapshot.versions[1]) / "model.onnx").stat().st_size == 300_000


def test_a_store_that_stalls_delays_its_own_models_alone(
    moto: Moto, keeping: Keeping, proxy: TcpProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    proxy.stalled = True
    local = tmp_path / "local"
    stalled = {f"s{number}": f"{keeping.base_path}/{number}" for number in range(20)}
    keeping.broker.welcome(watch({**stalled, "local": local}))
    keeping.broker.until_snapshot("local", lambda found: not found.versions)
    (local / "1").mkdir(parents=True)
    (local / "1" / "model.onnx").touch()
    found = keeping.broker.until_snapshot("local", lambda found: found.versions, patience_s=3.0)
    assert set(found.versions) == {1}
    error = keeping.broker.until_snapshot("s0", lambda found: found.error)
    assert error.error == f"{keeping.base_path}/0: the store does not answer in time"


# ---- a process of its own


def test_killed_in_the_middle_of_a_download_it_recovers_and_logs_no_secret(
    moto: Moto, proxy: TcpProxy, tmp_path: Path
) -> None:
    bucket = moto.bucket()
    bucket.put(1, b"x" * 400_000)
    bucket.put(2, b"y" * 400_000)
    cache = tmp_path / "cache"
    settings = ServerConfig((), str(tmp_path), poll_wait_s=0.1, model_cache_dir=str(cache), log_level="DEBUG")
    environment = {
        **aws_environment(tmp_path), "S3_ENDPOINT": f"127.0.0.1:{proxy.port}", "AWS_REGION": "us-east-1"
    }  # fmt: skip
    broker = BrokerEnd(tmp_path)
    proxy.pause_s = 0.1
    keeper = StorekeeperProcess(settings, environment, tmp_path / "log")
    try:
        broker.welcome(watch({"m": bucket.base_path}, VersionPolicy("all")))
        until(lambda: list(cache.rglob("*.part")), "a download is under way")
        keeper.kill()
        assert list(cache.rglob("*.part"))
        assert not [path for path in cache.glob("*/[0-9]*") if path.is_dir()]
        proxy.pause_s = 0.0
        keeper.start_again()
        broker.welcome(watch({"m": bucket.base_path}, VersionPolicy("all")))
        snapshot = broker.until_snapshot("m", lambda found: len(found.versions) == 2)
        assert (weights(snapshot, 1), weights(snapshot, 2)) == (b"x" * 400_000, b"y" * 400_000)
        assert not list(cache.rglob("*.part"))
        before = proxy.answered
        keeper.kill()
        keeper.start_again()
        broker.welcome(watch({"m": bucket.base_path}, VersionPolicy("all")))
        assert broker.until_snapshot("m", lambda found: found.versions) == snapshot
        assert proxy.answered - before < 100_000, "what is in the cache is not fetched again"
    finally:
        keeper.kill()
        broker.close()
    everything = keeper.log.read_text() + (tmp_path / "config.json").read_text()
    assert SECRET not in everything
    assert "Signature" not in everything


def test_an_object_that_was_written_anew_since_its_listing_is_an_error(moto: Moto, tmp_path: Path) -> None:
    bucket = moto.bucket()
    bucket.put(1, b"before")
    store = open_store(bucket.base_path, StoreEnvironment(s3_endpoint=moto.url))
    version = store.list_versions().versions[1]
    bucket.put(1, b"behind")
    with pytest.raises(StorageError, match=r"1/model.bin: it has been written anew since it was listed"):
        store.fetch(version, tmp_path, lambda: False)
