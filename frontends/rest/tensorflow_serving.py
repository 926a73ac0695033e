"""The resources of TensorFlow Serving's REST API: one class a kind of path, one method an HTTP method."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import falcon
import orjson
from falcon import asgi

from common.config import ServerConfig
from common.errors import NotFoundError
from common.tensors import Signature
from frontends.forms import RecipeDataplane
from frontends.inference import check_classifiable, check_regressable, classify, read_examples, regress
from frontends.interface import DataplaneInterface, InputTensor, Prediction, Selector, Served
from frontends.requests import StaleVersionError
from frontends.rest.body import Body, body_of
from frontends.rest.content import Content, join
from frontends.rest.examples_format import ExamplesBody, classes_pieces, read_examples_body, values_pieces
from frontends.rest.json_text import Document, DocumentParser
from frontends.rest.long_text import read_long
from frontends.rest.model_json import metadata_document, status_document
from frontends.rest.offload import LONG_BYTES, Offload, give_way
from frontends.rest.predict_format import answer_pieces, is_long_answer, read_body, write_answer
from frontends.rest.routes import Target
from frontends.rest.short_text import SHORT_BYTES, read_short

_MAX_DIGITS = 18
"""Of a version: every number of so many digits is an int64."""


def selector_of(target: Target) -> Selector:
    """Raises NotFoundError, also for a version that is not a number: there is none of that name."""
    version = target.version
    if version is None:
        return Selector(target.model, label=target.label)
    if not (version.isascii() and version.isdigit()) or len(version) > _MAX_DIGITS:
        raise NotFoundError(f"Servable not found for request: Specific({target.model}, {version})")
    # 0 is how some clients say that they mean no version in particular, as it is in gRPC.
    return Selector(target.model, int(version) or None)


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


class _Parsers(threading.local):
    """A parser a thread, for it keeps its memory."""

    def __init__(self) -> None:
        self.parser = DocumentParser()


_parsers = _Parsers()


def _parse(text: bytes) -> Document:
    document = _parsers.parser.parse(text)
    if len(text) > LONG_BYTES:
        give_way()  # the longest step of all is over
    return document


class _Body(Protocol):
    """Reads a body's inputs for a version."""

    def read(self, signature: Signature) -> Mapping[str, InputTensor]: ...


class _Reading:
    """What the data plane calls to have the inputs read (BuildInputs), perhaps for several versions in turn."""

    __slots__ = ("_ahead", "_body")

    def __init__(self, body: _Body) -> None:
        self._body = body
        self._ahead: tuple[Signature, Mapping[str, InputTensor]] | None = None

    async def read_ahead(self, served: Served, offload: Offload, deadline_ns: int) -> None:
        """Beside the loop, for the version that will most likely be chosen."""
        signature = served.signature
        self._ahead = (signature, await offload.run(lambda: self._body.read(signature), deadline_ns))

    def __call__(self, served: Served, /) -> Mapping[str, InputTensor]:
        if self._ahead is not None and self._ahead[0] == served.signature:
            return self._ahead[1]
        return self._body.read(served.signature)


class _Inference:
    """What the resources that infer have in common. The Content-Type is not looked at."""

    def __init__(self, dataplane: RecipeDataplane, config: ServerConfig, offload: Offload) -> None:
        self._dataplane = dataplane
        self._timeout_ns = int(config.request_timeout_s * 1e9)
        self._offload = offload
        self._content = Content(offload, config.message_bytes)

    async def _build(self, selector: Selector, body: _Body, length: int, deadline_ns: int) -> _Reading:
        reading = _Reading(body)
        if length > LONG_BYTES:
            await reading.read_ahead(self._dataplane.choose(selector), self._offload, deadline_ns)
        return reading


class PredictResource(_Inference):
    """`POST …:predict`."""

    async def on_post(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """Predict, unless that was done before falcon was asked (see frontends.rest.app)."""
        body = body_of(req)
        outcome = body.outcome
        if isinstance(outcome, Exception):
            raise outcome
        _answer(resp, await self.answer(body, target) if outcome is None else outcome)

    async def answer(self, request: Body, target: Target) -> bytes:
        """The text of the answer. The deadline counts from the arrival of the request's head."""
        deadline_ns = (request.arrived or time.monotonic_ns()) + self._timeout_ns
        stale = 0
        if isinstance(request.outcome, StaleVersionError):
            stale, request.outcome = request.outcome.generation, None
        elif request.outcome is not None:
            await request.read(deadline_ns)
            if isinstance(request.outcome, Exception):
                raise request.outcome
            return request.outcome
        selector = selector_of(target)
        text = await self._content.read(request, deadline_ns)
        body = _PredictText(text)
        build = await self._build(selector, body, len(text), deadline_ns)
        if stale:
            prediction = await self._dataplane.predict_after(stale, selector, build, deadline_ns)
        else:
            prediction = await self._dataplane.predict(selector, build, deadline_ns)
        return await write_prediction(prediction, body.rows)


async def write_prediction(prediction: Prediction, rows: bool) -> bytes:
    """The text of an answer, which is released. Raises InvalidArgumentError."""
    try:
        outputs = prediction.outputs
        if is_long_answer(outputs):
            return await join(answer_pieces(outputs, rows))
        return write_answer(outputs, rows)
    finally:
        prediction.release()


class _PredictText:
    """The body of a Predict."""

    __slots__ = ("_text", "rows")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.rows = False
        """Whether the body, once read, was in row format."""

    def read(self, signature: Signature) -> Mapping[str, InputTensor]:
        """See _Body."""
        short = read_short(self._text, signature) if len(self._text) <= SHORT_BYTES else None
        if short is not None:
            self.rows, inputs = short
            return inputs
        body = read_long(self._text, _parsers.parser, signature) if len(self._text) > LONG_BYTES else None
        if body is None:
            body = read_body(_parse(self._text), signature)
        self.rows = body.rows
        return body.inputs


class ClassifyResource(_Inference):
    """`POST …:classify`."""

    async def on_post(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """Classify."""
        deadline_ns = time.monotonic_ns() + self._timeout_ns
        selector = selector_of(target)
        text = await self._content.read(body_of(req), deadline_ns)
        body = _ExamplesText(text, check_classifiable)
        build = await self._build(selector, body, len(text), deadline_ns)
        prediction = await self._dataplane.predict(selector, build, deadline_ns)
        try:
            rankings = classify(prediction, body.count)
        finally:
            prediction.release()
        _answer(resp, await join(classes_pieces(rankings)))


class RegressResource(_Inference):
    """`POST …:regress`."""

    async def on_post(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """Regress."""
        deadline_ns = time.monotonic_ns() + self._timeout_ns
        selector = selector_of(target)
        text = await self._content.read(body_of(req), deadline_ns)
        body = _ExamplesText(text, check_regressable)
        build = await self._build(selector, body, len(text), deadline_ns)
        prediction = await self._dataplane.predict(selector, build, deadline_ns)
        try:
            values = regress(prediction, body.count)
        finally:
            prediction.release()
        _answer(resp, await join(values_pieces(values)))


class _ExamplesText:
    """The body of a Classify or a Regress."""

    __slots__ = ("_check", "_text", "count")

    def __init__(self, text: bytes, check: Callable[[Signature], None]) -> None:
        self._text = text
        self._check = check
        self.count = 0
        """Examples in the body, once it is read."""

    def read(self, signature: Signature) -> Mapping[str, InputTensor]:
        """See _Body."""
        body: ExamplesBody = read_examples_body(_parse(self._text))
        self._check(signature)
        self.count = len(body.examples)
        return read_examples(signature, body.examples, body.context)
