"""Google Cloud Storage, with Google's own library.

Credentials come from its chain (GOOGLE_APPLICATION_CREDENTIALS, gcloud's file, the machine's own account); when it
finds none, requests are anonymous. STORAGE_EMULATOR_HOST, which the library reads itself, names another server.
"""

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import google.auth
import google.auth.exceptions
import requests.exceptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from common.config import StoreEnvironment
from common.storage.interface import StorageError
from common.storage.objects import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Address, StoredObject

_TIMEOUTS = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_PROJECT = "unused"
"""The library wants one; reading objects does not."""
_FIELDS = "items(name,size,generation),nextPageToken"

_REASONS = {
    401: "the credentials are not accepted",
    403: "access is denied",
    404: "there is no such bucket or object",
    412: "it has been written anew since it was listed",
}


class _Sink:
    """What the library takes for a file."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink

    def write(self, piece: bytes) -> int:
        """As a file's."""
        self._sink(piece)
        return len(piece)

    def flush(self) -> None:
        """As a file's."""


class GcsBucket:
    """A bucket, with a client of its own, because the library's are not made for several threads."""

    def __init__(self, address: Address, environment: StoreEnvironment) -> None:
        self._address = address
        self._environment = environment
        self._known: tuple[Any, bool] | None = None

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so. A mark is the generation."""
        client, signed = self._client()
        try:
            blobs = client.list_blobs(
                self._address.bucket, prefix=prefix, fields=_FIELDS, timeout=_TIMEOUTS, retry=None
            )
            for blob in blobs:
                yield StoredObject(blob.name, blob.size or 0, str(blob.generation or ""))
        except _FAILURES as error:
            raise self._storage_error(error, str(self._address), signed=signed) from error

    def read(self, key: str, mark: str, sink: Callable[[bytes], None]) -> None:
        """The object's bytes as they are stored, if it is still of this generation."""
        client, signed = self._client()
        try:
            client.bucket(self._address.bucket).blob(key).download_to_file(
                _Sink(sink),
                raw_download=True,
                if_generation_match=int(mark) if mark else None,
                timeout=_TIMEOUTS,
                retry=None,
            )
        except _FAILURES as error:
            name = f"{self._address.scheme}://{self._address.bucket}/{key}"
            raise self._storage_error(error, name, signed=signed) from error

    def _client(self) -> tuple[Any, bool]:
        """The client, and whether it has credentials. Raises StorageError."""
        if self._known is None:
            credentials, signed = _find_credentials(self._environment.google_credentials)
            self._known = storage.Client(project=_PROJECT, credentials=credentials), signed
        return self._known

    def _storage_error(self, error: Exception, name: str, *, signed: bool) -> StorageError:
        if isinstance(error, GoogleAPICallError):
            status = int(error.code or 0)
            reason = _REASONS.get(status, f"the store answered {status}")
            if not signed and status in (401, 403):
                reason += "; the request was anonymous, because no credentials were found"
                self._known = None
                _credentials.cache_clear()  # they may be found the next time
            return StorageError(f"{name}: {reason}", transient=status >= 500 or status in (408, 429))
        if isinstance(error, google.auth.exceptions.GoogleAuthError):
            text = f"{name}: no token could be had for the credentials ({type(error).__name__})"
            return StorageError(text, transient=isinstance(error, google.auth.exceptions.TransportError))
        if isinstance(error, requests.exceptions.SSLError):
            return StorageError(f"{name}: the store's certificate or TLS is not accepted")
        reason = next(
            (text for kind, text in _CONNECTION if isinstance(error, kind)), "the connection broke off"
        )
        return StorageError(f"{name}: {reason}", transient=True)


_FAILURES = (
    GoogleAPICallError,
    google.auth.exceptions.GoogleAuthError,
    requests.exceptions.RequestException,
)
_CONNECTION: tuple[tuple[type[Exception], str], ...] = (
    (requests.exceptions.ConnectTimeout, "the store cannot be reached in time"),
    (requests.exceptions.Timeout, "the store does not answer in time"),
    (requests.exceptions.ChunkedEncodingError, "the connection broke off"),
    (requests.exceptions.ConnectionError, "the store cannot be reached"),
)


def open_bucket(address: Address, environment: StoreEnvironment) -> GcsBucket:
    """The bucket of an address. Asks nobody yet."""
    return GcsBucket(address, environment)


_lock = threading.Lock()


def _find_credentials(path: str) -> tuple[Any, bool]:
    with _lock:  # two threads would look for them twice
        return _credentials(path)


@lru_cache(maxsize=1)
def _credentials(path: str) -> tuple[Any, bool]:
    """What to sign with, and whether it signs. Raises StorageError when what is named cannot be used."""
    try:
        found, _ = google.auth.default(scopes=[_SCOPE])
    except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
        if path:
            text = (
                f"GOOGLE_APPLICATION_CREDENTIALS names {path}, which cannot be used ({type(error).__name__})"
            )
            raise StorageError(text) from error
        return AnonymousCredentials(), False  # type: ignore[no-untyped-call]
    return found, True
