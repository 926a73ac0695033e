"""The resources by which the C++ OpenVINO Model Server shows its configuration and reads it again."""

import time

import falcon
import orjson
from falcon import asgi

from common.config import ServerConfig
from frontends.interface import DataplaneInterface
from frontends.rest.body import body_of
from frontends.rest.model_json import config_document
from frontends.rest.routes import Target


def _answer(resp: asgi.Response, dataplane: DataplaneInterface) -> None:
    resp.content_type = falcon.MEDIA_JSON
    resp.data = orjson.dumps(config_document(dataplane.all_statuses()))


class ConfigResource:
    """`GET /v1/config`: the versions of every model, and their states."""

    def __init__(self, dataplane: DataplaneInterface) -> None:
        self._dataplane = dataplane

    async def on_get(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """All models."""
        _answer(resp, self._dataplane)

    on_head = on_get


class ReloadResource:
    """`POST /v1/config/reload`: read the configuration file now. A body is not looked at."""

    def __init__(self, dataplane: DataplaneInterface, config: ServerConfig) -> None:
        self._dataplane = dataplane
        self._timeout_ns = int(config.request_timeout_s * 1e9)

    async def on_post(self, req: asgi.Request, resp: asgi.Response, target: Target) -> None:
        """201 when it has changed, 200 when not, both with what ConfigResource answers afterwards."""
        deadline_ns = time.monotonic_ns() + self._timeout_ns
        await body_of(req).read(deadline_ns)
        outcome = await self._dataplane.reconfigure(None, deadline_ns)
        _answer(resp, self._dataplane)
        resp.status = 201 if outcome.changed else 200
