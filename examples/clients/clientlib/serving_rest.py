"""A connection to the REST API of a TensorFlow Serving API server; every failure is a ClientError.

The paths and documents are those of TensorFlow Serving's RESTful API, https://www.tensorflow.org/tfx/serving/api_rest.
"""

import json
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import requests

from clientlib.addresses import is_local
from clientlib.answers import Metadata, Tensor, VersionStatus
from clientlib.errors import ClientError

TIMEOUT_S = 60.0

FORMATS = ("row_noname", "row_name", "column_noname", "column_name")
"""Of a Predict body: rows (`instances`) or columns (`inputs`), each with the input's name or without it."""

_CODES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""REST names the canonical codes that gRPC numbers."""


class RestServing:
    """The REST API at one address. Connects at the first call."""

    def __init__(self, url: str, port: int) -> None:
        whole = url if "://" in url else f"http://{url}"
        self.address = f"{whole.rstrip('/')}:{port}"
        self._session = requests.Session()
        self._session.trust_env = not is_local(urlsplit(whole).hostname or "")

    def __enter__(self) -> "RestServing":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def _send(self, method: str, path: str, body: bytes | None = None) -> requests.Response:
        try:
            return self._session.request(method, f"{self.address}{path}", data=body, timeout=TIMEOUT_S)
        except requests.Timeout as error:
            raise ClientError(f"{self.address} did not answer within {TIMEOUT_S:g} s") from error
        except requests.ConnectionError as error:
            raise ClientError(f"no server can be reached at {self.address}: {_root(error)}") from error
        except requests.RequestException as error:
            raise ClientError(f"{self.address}: {error}") from error

    def _read(self, response: requests.Response) -> dict[str, Any]:
        try:
            document = json.loads(response.content)
        except ValueError:
            document = None
        if response.ok and isinstance(document, dict):
            return document
        reason = document.get("error") if isinstance(document, dict) else None
        raise ClientError(f"{self.address}: {response.status_code}: {reason or response.text[:200]}")

    def status(self, model: str, version: int | None) -> list[VersionStatus]:
        """Of all versions when none is given."""
        document = self._read(self._send("GET", _path(model, version)))
        return [
            VersionStatus(
                int(one["version"]),
                one["state"],
                _CODES.index(one["status"]["error_code"]),
                one["status"]["error_message"],
            )
            for one in document["model_version_status"]
        ]

    def metadata(self, model: str, version: int | None) -> Metadata:
        """The signature `serving_default`."""
        document = self._read(self._send("GET", f"{_path(model, version)}/metadata"))
        signature = document["metadata"]["signature_def"]["signatureDef"]["serving_default"]
        return Metadata(_tensors(signature["inputs"]), _tensors(signature["outputs"]))

    def predict(self, model: str, version: int | None, body: bytes) -> requests.Response:
        """POST of a body that `encode` made, not looked at yet."""
        return self._send("POST", f"{_path(model, version)}:predict", body)

    def output(self, response: requests.Response, name: str) -> np.ndarray:
        """One output of an answer; a model's only output comes without a name."""
        document = self._read(response)
        rows = "predictions" in document
        found = document["predictions"] if rows else document["outputs"]
        named = found[0] if rows and found else found
        if isinstance(named, dict):
            if name not in named:
                raise ClientError(f"the model has no output {name!r}; it has {', '.join(sorted(named))}")
            found = [row[name] for row in found] if rows else found[name]
        try:
            return np.array(found, np.float64)
        except (TypeError, ValueError) as error:
            raise ClientError("the answer holds no array of numbers") from error


def encode(images: np.ndarray, input_name: str, request_format: str) -> bytes:
    """The body of a Predict, in one of FORMATS."""
    values = images.tolist()
    document: dict[str, Any]
    if request_format == "row_noname":
        document = {"instances": values}
    elif request_format == "row_name":
        document = {"instances": [{input_name: value} for value in values]}
    elif request_format == "column_noname":
        document = {"inputs": values}
    else:
        document = {"inputs": {input_name: values}}
    return json.dumps(document).encode()


def _path(model: str, version: int | None) -> str:
    return f"/v1/models/{quote(model, safe='')}" + ("" if version is None else f"/versions/{version}")


def _tensors(infos: dict[str, Any]) -> list[Tensor]:
    return [
        Tensor(name, [int(dim["size"]) for dim in info["tensorShape"].get("dim", [])], info["dtype"])
        for name, info in infos.items()
    ]


def _root(error: BaseException) -> str:
    """What the operating system said, which requests and urllib3 wrap several times."""
    while True:
        inner = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(inner, BaseException):
            break
        error = inner
    return getattr(error, "strerror", None) or str(error)
