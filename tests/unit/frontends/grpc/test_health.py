"""frontends.grpc.health: what it says follows the dataplane."""

import asyncio

import pytest
from grpc_health.v1 import health_pb2

from common.errors import InvalidArgumentError, NotFoundError, UnavailableError
from frontends.grpc.health import Health
from tests.unit.frontends.fake_dataplane import FakeDataplane
from tests.unit.frontends.grpc.calling import run, stream, unary

_SERVICE = "tensorflow.serving.PredictionService"
_CHECK = "/grpc.health.v1.Health/Check"
_WATCH = "/grpc.health.v1.Health/Watch"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def _request(service: str) -> bytes:
    return bytes(health_pb2.HealthCheckRequest(service=service).SerializeToString())


def _status(raw: bytes) -> int:
    return int(health_pb2.HealthCheckResponse.FromString(raw).status)


@pytest.mark.parametrize("service", ["", _SERVICE])
@pytest.mark.parametrize(("ready", "status"), [(True, _SERVING), (False, _NOT_SERVING)])
def test_check_follows_the_dataplane(service: str, ready: bool, status: int) -> None:
    async def check() -> bytes:
        health = Health(FakeDataplane({}, ready=ready), [_SERVICE])
        return await unary(health.methods(), _CHECK, _request(service))

    assert _status(run(check())) == status


def test_check_of_an_unknown_service_is_not_found() -> None:
    async def check() -> bytes:
        return await unary(Health(FakeDataplane({}), [_SERVICE]).methods(), _CHECK, _request("other"))

    with pytest.raises(NotFoundError, match="other"):
        run(check())


def test_list_has_every_service() -> None:
    async def call() -> bytes:
        return await unary(
            Health(FakeDataplane({}), [_SERVICE]).methods(), "/grpc.health.v1.Health/List", b""
        )

    statuses = health_pb2.HealthListResponse.FromString(run(call())).statuses
    assert {name: response.status for name, response in statuses.items()} == {
        "": _SERVING,
        _SERVICE: _SERVING,
    }


@pytest.mark.parametrize("path", [_CHECK, _WATCH])
def test_bytes_that_are_no_request_are_refused(path: str) -> None:
    async def call() -> None:
        table = Health(FakeDataplane({}), []).methods()
        if path == _CHECK:
            await unary(table, path, b"\xff")
        else:
            await anext(stream(table, path, [b"\xff"]))

    with pytest.raises(InvalidArgumentError):
        run(call())


def test_a_watch_tells_each_change_once_and_ends_at_shutdown() -> None:
    async def watch() -> list[int]:
        dataplane = FakeDataplane({}, ready=False)
        health = Health(dataplane, [_SERVICE], poll_s=0.001)
        replies = stream(health.methods(), _WATCH, [_request("")])
        seen = [_status(await anext(replies))]
        for ready in (True, False, True):
            dataplane.ready = ready
            seen.append(_status(await anext(replies)))
        health.shut_down()
        seen.append(_status(await anext(replies)))
        with pytest.raises(UnavailableError):
            await anext(replies)
        return seen

    assert run(watch()) == [_NOT_SERVING, _SERVING, _NOT_SERVING, _SERVING, _NOT_SERVING]


def test_a_watch_of_an_unknown_service_says_so_and_stays() -> None:
    async def watch() -> int:
        health = Health(FakeDataplane({}), [_SERVICE])
        replies = stream(health.methods(), _WATCH, [_request("other")])
        status = _status(await anext(replies))
        more = asyncio.ensure_future(anext(replies))
        await asyncio.sleep(0)
        assert not more.done()
        more.cancel()
        return status

    assert run(watch()) == _SERVICE_UNKNOWN
