"""From a worker's start to its end: the runtime around the application.

    start-up    log ─▶ runtime (arena, link to the broker) ─▶ application ─▶ announce: the port accepts
    requests    the application
    shutdown    not ready, no new requests ─▶ wait for those in flight ─▶ give everything back

All of it happens in the worker, after the fork and on its loop: threads, ZeroMQ and shared memory do not survive forks.
The port accepts before start-up begins, because the arbiter listens before it forks.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from common.config import ServerConfig
from common.log import Logging
from frontends.forms import RecipeDataplane
from frontends.rest.app import RestApp, create_app
from frontends.rest.in_flight import InFlight
from frontends.rest.offload import share_fairly
from frontends.rest.quick_predict import QuickPredict

DRAIN_S = 0.8
"""Requests in flight get this long at shutdown. The worker notices the end up to 1 s late, the arbiter waits 2 s."""


class Runtime(Protocol):
    """What the application stands on; frontends.runtime.FrontendRuntime."""

    @property
    def dataplane(self) -> RecipeDataplane: ...

    def announce_listening(self) -> None: ...

    async def drain(self, timeout_s: float) -> bool: ...

    async def close(self) -> None: ...


StartRuntime = Callable[[ServerConfig], Awaitable[Runtime]]


class LifespanApp:
    """The ASGI application that gunicorn runs."""

    def __init__(self, config: ServerConfig, start: StartRuntime) -> None:
        self._config = config
        self._start = start
        self._app: RestApp | None = None
        self.in_flight = InFlight()

    @property
    def quick(self) -> QuickPredict | None:
        """What answers short Predicts beside the application; None: nothing does."""
        return None if self._app is None else self._app.quick

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """ASGI 3. gunicorn accepts connections only after a successful start-up."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._app is not None, "start-up comes before requests"
        self.in_flight.begin()
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight.end()

    async def _live(self, receive: Any, send: Any) -> None:
        config = self._config
        before = logging.getLogger().handlers[:]
        log = Logging(config.log_level, Path(config.log_path) if config.log_path else None)
        try:
            await receive()
            runtime = await self._start(config)
            try:
                self._app = create_app(runtime.dataplane, config)
                share_fairly()
                runtime.announce_listening()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await self._drain(runtime)
            finally:
                if self._app is not None:
                    self._app.close()
                await runtime.close()
            await send({"type": "lifespan.shutdown.complete"})
        finally:
            log.close()
            logging.getLogger().handlers[:] = before

    async def _drain(self, runtime: Runtime) -> None:
        """The runtime's requests first, then their answers' way out."""
        end = time.monotonic() + DRAIN_S
        await runtime.drain(DRAIN_S)
        await self.in_flight.ended(end - time.monotonic())
