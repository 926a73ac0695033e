"""Which store a base path is in. A store's library is loaded when the first path of its kind is opened, not before."""

import importlib
import re
from typing import Protocol, cast

from common.config import StoreEnvironment
from common.storage.interface import StorageError, Store
from common.storage.objects import Address, Bucket, ObjectStore

MODULES = {
    "s3": "common.storage.s3",
    "gs": "common.storage.gcs",
    "az": "common.storage.azure",
    "azfs": "common.storage.azure",
}
"""By the scheme of the address. Each library costs tens of megabytes, and most servers need none of them."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


class _Opener(Protocol):
    def open_bucket(self, address: Address, environment: StoreEnvironment) -> Bucket: ...


def is_remote(base_path: str) -> bool:
    """Whether the base path is an address and not a path of this machine."""
    return _ADDRESS.fullmatch(base_path) is not None


def parse_address(base_path: str) -> Address:
    """The parts of an address. Raises StorageError for one that no store here can have."""
    found = _ADDRESS.fullmatch(base_path)
    scheme = found[1].lower() if found else ""
    if found is None or scheme not in MODULES:
        known = ", ".join(f"{name}://" for name in MODULES)
        raise StorageError(f"{base_path}: no store is known for {scheme}://; known are {known}")
    bucket, _, prefix = found[2].partition("/")
    if not bucket:
        raise StorageError(f"{base_path}: the name of the bucket or container is missing")
    return Address(scheme, bucket, prefix.strip("/"))


def open_store(base_path: str, environment: StoreEnvironment) -> Store:
    """The store that a base path is in; blocks while credentials are looked for. Raises StorageError."""
    address = parse_address(base_path)
    try:
        module = importlib.import_module(MODULES[address.scheme])
    except ImportError as error:
        text = f"{address}: the library for {address.scheme}:// is not installed ({error.name})"
        raise StorageError(text) from error
    opener = cast(_Opener, module)
    return ObjectStore(address, opener.open_bucket(address, environment))


def lane_of(base_path: str) -> str:
    """Names the bucket that a remote base path is in: what hangs there hangs for its models and for no others."""
    return "/".join(base_path.split("/")[:3])
