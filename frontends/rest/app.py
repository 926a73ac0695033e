"""The REST application: resources, routes and errors put together on falcon."""

from typing import Any

from falcon import asgi

from common.config import ServerConfig
from frontends.interface import DataplaneInterface
from frontends.rest.body import Body
from frontends.rest.configuration import ConfigResource, ReloadResource
from frontends.rest.content import Compression
from frontends.rest.cors import CrossOrigin
from frontends.rest.documentation import documentation
from frontends.rest.errors import add_error_handlers
from frontends.rest.offload import Offload
from frontends.rest.routes import Router
from frontends.rest.tensorflow_serving import (
    ClassifyResource,
    MetadataResource,
    PredictResource,
    RegressResource,
    StatusResource,
)


class RestApp:
    """An ASGI application: falcon's, with bodies read in our own way (see frontends.rest.body)."""

    def __init__(
        self, app: asgi.App[asgi.Request, asgi.Response], offload: Offload, message_bytes: int
    ) -> None:
        self._app = app
        self._offload = offload
        self._message_bytes = message_bytes

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
        await self._app(scope, body.stand_in, send)
        if not body.finished:
            await body.linger()


def create_app(dataplane: DataplaneInterface, config: ServerConfig) -> RestApp:
    """The application over `dataplane`."""
    offload = Offload(config.max_queue)
    router: Any = Router(
        {
            "status": StatusResource(dataplane),
            "metadata": MetadataResource(dataplane),
            "predict": PredictResource(dataplane, config, offload),
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
    return RestApp(app, offload, config.message_bytes)
