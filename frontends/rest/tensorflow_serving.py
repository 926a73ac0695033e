"""The resources of TensorFlow Serving's REST API: one class a kind of path, one method an HTTP method."""

import time
from collections.abc import Mapping

import falcon
import orjson
from falcon import asgi

from common.config import ServerConfig
from common.errors import NotFoundError, UnimplementedError
from frontends.interface import DataplaneInterface, InputTensor, Selector, Served
from frontends.rest.body import body_of
from frontends.rest.json_text import DocumentParser
from frontends.rest.model_json import metadata_document, status_document
from frontends.rest.predict_format import PredictBody, read_body, write_answer
from frontends.rest.routes import Target

_MAX_DIGITS = 18
"""Of a version: every number of so many digits is an int64."""


def selector_of(target: Target) -> Selector:
    """Raises NotFoundError, also for a version that is not a number: there is none of that name."""
    version = target.version
    if version is None:
        return Selector(target.model, label=target.label)
    if not (version.isascii() and version.isdigit()) or len(version) > _MAX_DIGITS:
        raise NotFoundError(f"Servable not found for request: Specific({target.model}, {version})")
    return Selector(target.model, int(version))


def _answer(resp: asgi.Response, body: bytes) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = body


class StatusResource:
    """`GET /v1/models/NAME[…]`: the states of one version, or of all."""

    def __init__(self, dataplane: DataplaneInterface) -> None:
        self._dataplane = dataplane

    async def on_get(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """GetModelStatus."""
        _answer(resp, orjson.dumps(status_document(self._dataplane.statuses(selector_of(target)))))

    on_head = on_get


class MetadataResource:
    """`GET …/metadata`: what a version takes and gives."""

    def __init__(self, dataplane: DataplaneInterface) -> None:
        self._dataplane = dataplane

    async def on_get(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """GetModelMetadata."""
        _answer(resp, orjson.dumps(metadata_document(self._dataplane.choose(selector_of(target)))))

    on_head = on_get


class PredictResource:
    """`POST …:predict`. The Content-Type is not looked at."""

    def __init__(self, dataplane: DataplaneInterface, config: ServerConfig) -> None:
        self._dataplane = dataplane
        self._timeout_ns = int(config.request_timeout_s * 1e9)
        self._parser = DocumentParser()

    async def on_post(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """Predict. The deadline counts from the arrival of the request's head."""
        deadline_ns = time.monotonic_ns() + self._timeout_ns
        selector = selector_of(target)
        reading = _Reading(self._parser, await body_of(req).read(deadline_ns))
        prediction = await self._dataplane.predict(selector, reading, deadline_ns)
        try:
            _answer(resp, write_answer(prediction.outputs, reading.rows))
        finally:
            prediction.release()


class _Reading:
    """Reads the body for the version that the data plane chose (BuildInputs), perhaps for several in turn."""

    __slots__ = ("_body", "_parser", "rows")

    def __init__(self, parser: DocumentParser, body: bytes) -> None:
        self._parser = parser
        self._body = body
        self.rows = False
        """Whether the body, once read, was in row format."""

    def __call__(self, served: Served, /) -> Mapping[str, InputTensor]:
        body: PredictBody = read_body(self._parser.parse(self._body), served.signature)
        self.rows = body.rows
        return body.inputs


class UnsupportedResource:
    """`POST …:classify` and `POST …:regress`."""

    def __init__(self, method: str) -> None:
        self._method = method

    async def on_post(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """Always UnimplementedError."""
        raise UnimplementedError(f"{self._method} is not supported yet; use :predict")
