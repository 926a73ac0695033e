"""Azure Blob Storage, with Microsoft's own library: `az://container/path` or `azfs://container/path`.

The account and its key come from AZURE_STORAGE_CONNECTION_STRING; there is no anonymous access without it, because the
address does not name the account.
"""

from collections.abc import Callable, Iterator

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.storage.blob import ContainerClient

from common.config import StoreEnvironment
from common.storage.interface import StorageError
from common.storage.objects import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Address, StoredObject

_PIECE_BYTES = 4 << 20

_REASONS = {
    "ContainerNotFound": "there is no such container",
    "BlobNotFound": "it is not there any more",
    "ConditionNotMet": "it has been written anew since it was listed",
    "AuthenticationFailed": "the key in AZURE_STORAGE_CONNECTION_STRING is not accepted",
    "AuthorizationFailure": "access is denied",
    "InvalidResourceName": "a container cannot have this name",
}
_BY_STATUS = {
    401: "AuthenticationFailed",
    403: "AuthenticationFailed",
    404: "BlobNotFound",
    412: "ConditionNotMet",
}


class AzureContainer:
    """A container."""

    def __init__(self, address: Address, client: ContainerClient) -> None:
        self._address = address
        self._client = client

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All blobs whose names begin so. A mark is the ETag."""
        try:
            for blob in self._client.list_blobs(name_starts_with=prefix or None):
                yield StoredObject(blob.name, blob.size or 0, str(blob.etag or ""))
        except AzureError as error:
            raise _storage_error(error, str(self._address)) from error

    def read(self, key: str, mark: str, sink: Callable[[bytes], None]) -> None:
        """The blob's bytes, if it still has this ETag."""
        try:
            if mark:
                stream = self._client.download_blob(
                    key, etag=mark, match_condition=MatchConditions.IfNotModified
                )
            else:
                stream = self._client.download_blob(key)
            for piece in stream.chunks():
                sink(piece)
        except AzureError as error:
            name = f"{self._address.scheme}://{self._address.bucket}/{key}"
            raise _storage_error(error, name) from error


def open_bucket(address: Address, environment: StoreEnvironment) -> AzureContainer:
    """The container of an address. Asks nobody yet. Raises StorageError without a usable connection string."""
    if not environment.azure_connection:
        raise StorageError(f"{address}: AZURE_STORAGE_CONNECTION_STRING is not set")
    try:
        client = ContainerClient.from_connection_string(
            environment.azure_connection,
            address.bucket,
            retry_total=0,  # common.storage.objects tries again
            connection_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_single_get_size=_PIECE_BYTES,
            max_chunk_get_size=_PIECE_BYTES,
        )
    except (ValueError, AzureError):
        # Not chained: its text or trace may show the key.
        raise StorageError(f"{address}: AZURE_STORAGE_CONNECTION_STRING cannot be understood") from None
    return AzureContainer(address, client)


def _storage_error(error: AzureError, name: str) -> StorageError:
    if isinstance(error, HttpResponseError) and error.status_code:
        status = int(error.status_code)
        code = str(getattr(error, "error_code", "") or "")
        code = code if code in _REASONS else _BY_STATUS.get(status, code)
        reason = _REASONS.get(code, f"the store answered {code or 'nothing known'} ({status})")
        return StorageError(f"{name}: {reason}", transient=status >= 500 or status in (408, 429))
    if isinstance(error, ServiceRequestTimeoutError):
        return StorageError(f"{name}: the store cannot be reached in time", transient=True)
    if isinstance(error, ServiceRequestError):
        return StorageError(f"{name}: the store cannot be reached", transient=True)
    if isinstance(error, ServiceResponseTimeoutError):
        return StorageError(f"{name}: the store does not answer in time", transient=True)
    return StorageError(f"{name}: the connection broke off ({type(error).__name__})", transient=True)
