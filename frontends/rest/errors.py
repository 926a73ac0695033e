"""Errors as HTTP answers: the table of the REST rim, and the one way in which an error is written."""

import logging
from typing import Any

import falcon
import orjson
from falcon import asgi

from common.errors import INTERNAL_TEXT, Code, ServingError
from frontends.rest.body import body_of

_log = logging.getLogger("frontends.rest")

STATUS: dict[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 503,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
}
"""Every code that an error can have; others are 500."""

RETRY_AFTER_S = 1
"""Seconds after which a client that met a bound may try again."""


def error_body(message: str) -> bytes:
    """The JSON body of every error. Text that is not valid Unicode, which a request can bring about, is mended."""
    return orjson.dumps({"error": message.encode(errors="backslashreplace").decode()})


def _write(req: asgi.Request, resp: asgi.Response, status: int, message: str) -> None:
    resp.status = status
    resp.content_type = falcon.MEDIA_JSON
    resp.data = error_body(message)
    body = body_of(req)
    if not body.finished:
        # What is left of the body cannot be told from a next request.
        resp.set_header("Connection", "close")


async def _serving_error(req: asgi.Request, resp: asgi.Response, error: ServingError, params: Any) -> None:
    _write(req, resp, STATUS.get(error.code, 500), error.message)
    if error.code is Code.RESOURCE_EXHAUSTED:
        resp.set_header("Retry-After", str(RETRY_AFTER_S))


async def _http_error(req: asgi.Request, resp: asgi.Response, error: falcon.HTTPError, params: Any) -> None:
    resp.set_headers(error.headers or {})
    _write(req, resp, error.status_code, error.description or _describe(req, error))


def _describe(req: asgi.Request, error: falcon.HTTPError) -> str:
    if error.status_code == 404:
        return f"Not found: the API has no path {req.path}"
    if error.status_code == 405:
        return f"Method {req.method} is not allowed for {req.path}"
    return str(error.title or error.status)


async def _unknown_error(req: asgi.Request, resp: asgi.Response, error: Exception, params: Any) -> None:
    _log.error("%s %s failed", req.method, req.path, exc_info=error)
    _write(req, resp, 500, INTERNAL_TEXT)


def add_error_handlers(app: asgi.App[asgi.Request, asgi.Response]) -> None:
    """Give `app` an answer to every exception."""
    app.add_error_handler(Exception, _unknown_error)
    app.add_error_handler(falcon.HTTPError, _http_error)
    app.add_error_handler(ServingError, _serving_error)
