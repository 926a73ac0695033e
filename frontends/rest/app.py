"""The REST application: resources, routes and errors put together on falcon.

A Predict is most of what is ever asked, and falcon's request, response and middleware cost more than a small one. So it
is answered here, by the resource itself and by the same table of paths. Whatever is more than a short text with two
headers (an error, a long answer, which may be packed) goes through falcon, which finds it done: there is one place that
writes errors, and one that packs.
"""

from typing import Any

from falcon import asgi

from common.config import ServerConfig
from frontends.forms import RecipeDataplane
from frontends.rest.body import Body
from frontends.rest.configuration import ConfigResource, ReloadResource
from frontends.rest.content import COMPRESSED_FROM_BYTES, Compression
from frontends.rest.cors import CrossOrigin
from frontends.rest.documentation import documentation
from frontends.rest.errors import add_error_handlers
from frontends.rest.offload import Offload
from frontends.rest.quick_predict import QuickPredict
from frontends.rest.routes import Router, parse_path
from frontends.rest.tensorflow_serving import (
    ClassifyResource,
    MetadataResource,
    PredictResource,
    RegressResource,
    StatusResource,
)

_JSON = (b"content-type", b"application/json")


class RestApp:
    """An ASGI application: falcon's, with bodies read in our own way (see frontends.rest.body)."""

    def __init__(
        self,
        app: asgi.App[asgi.Request, asgi.Response],
        predict: PredictResource | None,
        offload: Offload,
        message_bytes: int,
        quick: QuickPredict | None,
    ) -> None:
        """`predict`: what answers a Predict outside of falcon; None: falcon does. `quick` is for connections, which
        hand over to here what it has begun and does not answer (see frontends.rest.connection).
        """
        self._app = app
        self._predict = predict
        self._offload = offload
        self._message_bytes = message_bytes
        self.quick = quick

    def close(self) -> None:
        """There are no requests any more."""
        self._offload.close()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """One request, or falcon's own (empty) part in the server's start and end."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = Body(scope, receive, self._message_bytes)
        if not await self._predicted(scope, body, send):
            await self._app(scope, body.stand_in, send)
        if not body.finished:
            await body.linger()

    async def _predicted(self, scope: dict[str, Any], body: Body, send: Any) -> bool:
        """Whether this was a Predict and is answered. One that falcon is to answer has its outcome in `body`."""
        if self._predict is None or scope["method"] != "POST":
            return False
        target = parse_path(scope.get("raw_path", b"").decode("latin-1"))
        if target is None or target.kind != "predict":
            return False
        try:
            text = await self._predict.answer(body, target)
        except Exception as error:  # noqa: BLE001  # falcon's error handlers get it, the one for any exception included
            body.outcome = error
            return False
        if len(text) >= COMPRESSED_FROM_BYTES:
            body.outcome = text
            return False
        length = b"%d" % len(text)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [_JSON, (b"content-length", length)]}
        )
        await send({"type": "http.response.body", "body": text})
        return True


def create_app(dataplane: RecipeDataplane, config: ServerConfig) -> RestApp:
    """The application over `dataplane`."""
    offload = Offload(config.max_queue)
    predict = PredictResource(dataplane, config, offload)
    router: Any = Router(
        {
            "status": StatusResource(dataplane),
            "metadata": MetadataResource(dataplane),
            "predict": predict,
            "classify": ClassifyResource(dataplane, config, offload),
            "regress": RegressResource(dataplane, config, offload),
            "config": ConfigResource(dataplane),
            "reload": ReloadResource(dataplane, config),
            **documentation(),
        }
    )
    middleware: list[Any] = [Compression(offload)]
    if config.rest_cors_origins:
        middleware.append(CrossOrigin(config.rest_cors_origins))
    app = asgi.App(router=router, middleware=middleware)
    add_error_handlers(app)
    if config.rest_cors_origins:
        # Cross-origin answers have headers of their own.
        return RestApp(app, None, offload, config.message_bytes, None)
    return RestApp(app, predict, offload, config.message_bytes, QuickPredict(dataplane, config))
