"""Amazon S3 and everything that speaks its protocol, with boto3.

Credentials come from boto3's own chain (environment, profile, container or instance role); when it finds none, requests
are not signed. One client serves all buckets; boto3's clients may be used by several threads.
"""

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import boto3
import botocore
import botocore.config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    SSLError,
)

from common.config import StoreEnvironment
from common.storage.interface import StorageError
from common.storage.objects import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Address, StoredObject

_PIECE_BYTES = 1 << 20

_REASONS = {
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "it is not there any more",
    "PreconditionFailed": "it has been written anew since it was listed",
    "AccessDenied": "access is denied",
    "AllAccessDisabled": "access is denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the session token has expired",
    "InvalidToken": "the session token is wrong",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "InvalidBucketName": "a bucket cannot have this name",
}
_BY_STATUS = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed"}
_TRANSIENT = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "Throttling"})


class S3Bucket:
    """A bucket."""

    def __init__(self, address: Address, environment: StoreEnvironment) -> None:
        self._address = address
        self._environment = environment

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so. A mark is the ETag."""
        client, signed = _client(self._environment)
        try:
            pages = client.get_paginator("list_objects_v2").paginate(
                Bucket=self._address.bucket, Prefix=prefix
            )
            for page in pages:
                for item in page.get("Contents", ()):
                    yield StoredObject(item["Key"], item["Size"], item.get("ETag", ""))
        except (BotoCoreError, ClientError) as error:
            raise _storage_error(error, str(self._address), signed=signed) from error

    def read(self, key: str, mark: str, sink: Callable[[bytes], None]) -> None:
        """The object's bytes, if it still has this ETag."""
        client, signed = _client(self._environment)
        condition = {"IfMatch": mark} if mark else {}
        try:
            body = client.get_object(Bucket=self._address.bucket, Key=key, **condition)["Body"]
            try:
                for piece in body.iter_chunks(_PIECE_BYTES):
                    sink(piece)
            finally:
                body.close()
        except (BotoCoreError, ClientError) as error:
            name = f"{self._address.scheme}://{self._address.bucket}/{key}"
            raise _storage_error(error, name, signed=signed) from error


def open_bucket(address: Address, environment: StoreEnvironment) -> S3Bucket:
    """The bucket of an address. Asks nobody yet."""
    return S3Bucket(address, environment)


def endpoint_url(endpoint: str) -> str | None:
    """S3_ENDPOINT as a URL: `host:port` is meant without TLS; None where it is unset, for Amazon's own."""
    if not endpoint:
        return None
    return endpoint if "://" in endpoint else f"http://{endpoint}"


_lock = threading.Lock()


def _client(environment: StoreEnvironment) -> tuple[Any, bool]:
    """The client, and whether it signs. Raises StorageError."""
    with _lock:  # two threads would look for credentials twice
        try:
            return _make_client(environment)
        except (BotoCoreError, ValueError) as error:
            # Their texts are about profiles, regions and addresses; an address may hold a password.
            raise StorageError(f"S3 cannot be used as it is configured ({type(error).__name__})") from error


@lru_cache(maxsize=1)
def _make_client(environment: StoreEnvironment) -> tuple[Any, bool]:
    session = boto3.session.Session()
    signed = session.get_credentials() is not None
    url = endpoint_url(environment.s3_endpoint)
    config = botocore.config.Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": 1},  # common.storage.objects tries again
        signature_version=None if signed else botocore.UNSIGNED,
        # Other stores than Amazon's know buckets by path and not all of the newer checksums.
        s3={"addressing_style": "path"} if url else None,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = session.client("s3", endpoint_url=url, region_name=environment.aws_region or None, config=config)
    return client, signed


def _storage_error(error: Exception, name: str, *, signed: bool) -> StorageError:
    """In our words: boto3's texts may hold addresses with passwords in them."""
    if isinstance(error, ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(error.response.get("Error", {}).get("Code", ""))
        code = _BY_STATUS.get(status, code) if code.isdigit() or not code else code
        reason = _REASONS.get(code, f"the store answered {code or 'nothing known'} ({status})")
        if not signed and status in (401, 403):
            reason += "; the request was not signed, because no credentials were found"
            _make_client.cache_clear()  # they may be found the next time, as those of an instance's role
        return StorageError(
            f"{name}: {reason}", transient=status >= 500 or status == 429 or code in _TRANSIENT
        )
    if isinstance(error, SSLError):
        return StorageError(f"{name}: the store's certificate or TLS is not accepted")
    if isinstance(error, ProxyConnectionError):
        return StorageError(f"{name}: the proxy cannot be reached", transient=True)
    if isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError):
        return StorageError(f"{name}: {_CONNECTION.get(type(error).__name__, _BROKEN)}", transient=True)
    return StorageError(f"{name}: it cannot be read ({type(error).__name__})", transient=True)


_BROKEN = "the connection broke off"
_CONNECTION = {
    "EndpointConnectionError": "the store cannot be reached",
    "ConnectTimeoutError": "the store cannot be reached in time",
    "ReadTimeoutError": "the store does not answer in time",
}
