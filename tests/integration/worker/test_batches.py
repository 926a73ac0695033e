"""A real worker process and batches: whose memory they are in, who fails, who dies, what a Hello says of them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino import opset13 as op

from common.config import BatchingParameters
from common.errors import Code
from common.messages import ArenaGone, BatchFailed, ExecuteBatch, RestartLink, Unload, Unloaded
from common.tensors import Signature, with_rows
from tests.support.worker import MODEL, Array, Broker, Frontend, Worker
from tests.unit.workers.models import fake, named, parameter, save
from workers.fake_engine import ECHO, FAIL, HANG, SLEEP

pytestmark = pytest.mark.integration
BATCHING = BatchingParameters(8)


@pytest.fixture
def frontends(run_dir: Path) -> Iterator[tuple[Frontend, Frontend]]:
    pair = Frontend(run_dir, "grpc-0.1"), Frontend(run_dir, "rest-0.1")
    yield pair
    for frontend in pair:
        frontend.close()


@pytest.fixture
def worker(run_dir: Path, broker: Broker, request: pytest.FixtureRequest) -> Iterator[Worker]:
    worker = Worker(run_dir, getattr(request, "param", "FAKE"))
    broker.hello()
    yield worker
    worker.stop()


def commanded(path: Path, **behaviour: Any) -> Path:
    """A fake that copies x, of shape (1, 2), and obeys."""
    words = [("command", "int32", [1]), ("argument", "int32", [1])]
    fake(path, [("x", "float32", [1, 2]), *words], [("y", "float32", [1, 2])], **behaviour)
    return path


def values(start: int, count: int = 1, command: int = ECHO, argument: int = 0) -> list[Array]:
    x = np.arange(start, start + 2 * count, dtype=np.float32).reshape(count, 2)
    return [x, np.full(count, command, np.int32), np.full(count, argument, np.int32)]


def load(broker: Broker, path: Path) -> Signature:
    record = broker.load(path, batching_parameters=BATCHING).loaded
    assert record.batching == BATCHING
    assert record.signature.max_rows == 8
    return record.signature


@pytest.mark.parametrize("worker", ["CPU"], indirect=True)
def test_a_batch_from_several_frontends_arenas(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    x = parameter("x", "float32", (1, 4))
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = save(tmp_path / "1", [named(op.matmul(x, weights, False, False), "y")], [x])
    signature = load(broker, path)
    for round_ in range(5):
        given = [np.full((count, 4), count + round_, np.float32) for count in (1, 3, 2)]
        owners = [frontends[index % 2] for index in range(3)]
        requests = [
            owner.request(signature, array, segment=9 if index == 2 else 0)
            for index, (owner, array) in enumerate(zip(owners, given, strict=True))
        ]
        broker.send(ExecuteBatch(tuple(requests)))
        for owner, request, array in zip(owners, requests, given, strict=True):
            done = broker.done(request.key)
            assert done.error is None
            assert done.inferring > 0
            spec = with_rows(signature.outputs[0], len(array))
            assert np.array_equal(owner.output(request, spec), array @ weights)
    broker.until(lambda: worker.maps() == 2)


def test_one_that_fails_does_not_fail_the_others(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    signature = load(broker, commanded(tmp_path / "1"))
    frontend = frontends[0]
    requests = [
        frontend.request(signature, *values(1)),
        frontend.request(signature, *values(2, command=FAIL)),
        frontend.request(signature, *values(3)),
    ]
    broker.send(ExecuteBatch(tuple(requests)))
    failed = broker.expect(BatchFailed)
    assert failed.keys == tuple(request.key for request in requests)
    broker.send(*requests)
    codes = [broker.done(request.key).error for request in requests]
    assert [None if error is None else error.code for error in codes] == [None, Code.INTERNAL, None]


def test_a_member_whose_memory_is_gone_and_one_too_late_leave_the_others(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    signature = load(broker, commanded(tmp_path / "1"))
    one, two = frontends
    good = one.request(signature, *values(5, count=2))
    late = one.request(signature, *values(6), deadline=time.monotonic_ns() - 1)
    lost = two.request(signature, *values(7), segment=4)
    two.segments.pop(4).close()
    broker.send(ExecuteBatch((late, lost, good)))
    errors = [broker.done(request.key).error for request in (late, lost, good)]
    assert [None if error is None else error.code for error in errors] == [
        Code.DEADLINE_EXCEEDED,
        Code.UNAVAILABLE,
        None,
    ]
    found = one.output(good, with_rows(signature.outputs[0], 2))
    assert np.array_equal(found, values(5, count=2)[0])


def test_references_that_are_wrong_fail_their_request_alone(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    signature = load(broker, commanded(tmp_path / "1"))
    frontend = frontends[0]
    good = frontend.request(signature, *values(5))
    uneven = frontend.request(signature, values(1, count=2)[0], *values(1, count=1)[1:])
    huge = frontend.request(signature, *values(1, count=9))
    broker.send(ExecuteBatch((uneven, good, huge)))
    errors = [broker.done(request.key).error for request in (uneven, good, huge)]
    assert [None if error is None else error.code for error in errors] == [Code.INTERNAL, None, Code.INTERNAL]


def test_a_frontend_that_dies_lets_a_running_batch_end(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    signature = load(broker, commanded(tmp_path / "1"))
    ours = [frontends[0].request(signature, *values(1, command=SLEEP + 400)) for _ in range(2)]
    theirs = [frontends[1].request(signature, *values(2)) for _ in range(2)]
    broker.send(ExecuteBatch((ours[0], theirs[0])), ExecuteBatch((ours[1], theirs[1])))
    broker.until(lambda: worker.maps() == 2)
    broker.send(ArenaGone(frontends[1].name))
    cancelled = broker.done(theirs[1].key).error
    assert cancelled is not None
    assert cancelled.code is Code.CANCELLED
    for request in (ours[0], theirs[0], ours[1]):
        assert broker.done(request.key).error is None
    broker.until(lambda: worker.maps() == 1)


def test_a_hello_says_which_requests_are_in_which_batch(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    signature = load(broker, commanded(tmp_path / "1"))
    frontend = frontends[0]
    requests = [frontend.request(signature, *values(1, command=SLEEP + 700)) for _ in range(5)]
    broker.send(ExecuteBatch(tuple(requests[:2])), ExecuteBatch(tuple(requests[2:4])), requests[4])
    time.sleep(0.2)
    broker.send(RestartLink())
    hello = broker.hello()
    assert hello.running == tuple(request.key for request in requests)
    assert hello.running_batches == (1, 1, 2, 2, 0)
    for request in requests:
        assert broker.done(request.key).error is None
    broker.send(Unload(MODEL))
    broker.expect(Unloaded)


def test_nothing_of_a_batch_is_taken_twice(
    worker: Worker, broker: Broker, frontends: tuple[Frontend, Frontend], tmp_path: Path
) -> None:
    signature = load(broker, commanded(tmp_path / "1"))
    requests = [frontends[0].request(signature, *values(1, command=HANG, argument=1)) for _ in range(2)]
    batch = ExecuteBatch(tuple(requests))
    broker.send(batch, batch, requests[1])
    for request in requests:
        assert broker.done(request.key).error is None
    later = frontends[0].request(signature, *values(3))
    broker.send(later)
    assert broker.done(later.key).error is None
    assert not [
        message
        for message, _ in broker.messages
        if getattr(message, "key", None) in {one.key for one in requests}
    ]
