"""The REST application: resources, routes and errors put together on falcon."""

from typing import Any

from falcon import asgi

from common.config import ServerConfig
from frontends.interface import DataplaneInterface
from frontends.rest.body import Body
from frontends.rest.errors import add_error_handlers
from frontends.rest.routes import Router
from frontends.rest.tensorflow_serving import (
    MetadataResource,
    PredictResource,
    StatusResource,
    UnsupportedResource,
)


class RestApp:
    """An ASGI application: falcon's, with bodies read in our own way (see frontends.rest.body)."""

    def __init__(self, app: asgi.App[asgi.Request, asgi.Response], message_bytes: int) -> None:
        self._app = app
        self._message_bytes = message_bytes

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
    router: Any = Router(
        {
            "status": StatusResource(dataplane),
            "metadata": MetadataResource(dataplane),
            "predict": PredictResource(dataplane, config),
            "classify": UnsupportedResource("Classify"),
            "regress": UnsupportedResource("Regress"),
        }
    )
    app = asgi.App(router=router)
    add_error_handlers(app)
    return RestApp(app, config.message_bytes)
