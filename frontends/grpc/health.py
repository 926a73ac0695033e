"""grpc.health.v1.Health, https://github.com/grpc/grpc/blob/master/doc/health-checking.md.

The server as a whole (`""`) and each of its services are in one state: serving as long as the dataplane is ready.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from common.errors import InvalidArgumentError, NotFoundError, UnavailableError
from frontends.grpc.calls import Call, Reply, Stream, Table, Unary
from frontends.interface import DataplaneInterface

SERVICE = "grpc.health.v1.Health"

POLL_S = 0.2
"""How late a watcher may learn of a change."""


class Health:
    """The handlers, and the end of the watches at shutdown."""

    def __init__(
        self, dataplane: DataplaneInterface, services: Iterable[str], poll_s: float = POLL_S
    ) -> None:
        self._poll_s = poll_s
        self._dataplane = dataplane
        self._services = frozenset(services) | {""}
        self._shutting_down = asyncio.Event()

    def methods(self) -> Table:
        """Every method of the service by its path."""
        return {
            f"/{SERVICE}/Check": Unary(self.check),
            f"/{SERVICE}/List": Unary(self.list),
            f"/{SERVICE}/Watch": Stream(self.watch),
        }

    def shut_down(self) -> None:
        """Say NOT_SERVING from now on, and end every watch: it would hold the transport open."""
        self._shutting_down.set()

    async def check(self, message: memoryview, call: Call) -> Reply:
        """The state of one service now. Raises NotFoundError for a service that is not here."""
        service = _service(message)
        if service not in self._services:
            raise NotFoundError(f"Unknown service: {service}")
        return _response(self._status(service))

    async def list(self, message: memoryview, call: Call) -> Reply:
        """The state of every service now."""
        statuses = {
            service: health_pb2.HealthCheckResponse(status=self._status(service))
            for service in self._services
        }
        return [health_pb2.HealthListResponse(statuses=statuses).SerializeToString()]

    async def watch(self, messages: AsyncIterator[memoryview], call: Call) -> AsyncIterator[Reply]:
        """The state now, and again whenever it changes; a service that is not here stays SERVICE_UNKNOWN."""
        service = _service(await _only_message(messages))
        said: int | None = None
        while True:
            ending = (
                self._shutting_down.is_set()
            )  # looked at first, so that the last state is told before the end
            status = self._status(service)
            if status != said:
                said = status
                yield _response(status)
            if ending:
                raise UnavailableError("The server is shutting down")
            await self._pause()

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._shutting_down.wait(), self._poll_s)
        except asyncio.TimeoutError:
            return

    def _status(self, service: str) -> int:
        known = health_pb2.HealthCheckResponse
        if service not in self._services:
            return int(known.SERVICE_UNKNOWN)
        serving = self._dataplane.ready and not self._shutting_down.is_set()
        return int(known.SERVING if serving else known.NOT_SERVING)


async def _only_message(messages: AsyncIterator[memoryview]) -> memoryview:
    async for message in messages:
        return message
    raise InvalidArgumentError("A watch needs a HealthCheckRequest")


def _service(message: memoryview) -> str:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError as error:
        raise InvalidArgumentError(f"The request is not a HealthCheckRequest: {error}") from error


def _response(status: int) -> Reply:
    return [health_pb2.HealthCheckResponse(status=status).SerializeToString()]
