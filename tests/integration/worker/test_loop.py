"""What a worker process does with loads and requests, with the fake engine; the broker is played by the test."""

import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from common.descriptors import socket_path
from common.errors import Code
from common.messages import (
    Done,
    Execute,
    Load,
    Loaded,
    LoadFailed,
    OutputRef,
    RequestKey,
    TensorRef,
    Unload,
    Unloaded,
    VersionId,
)
from common.tensors import Signature
from tests.support.commanded import command, commanded
from tests.support.worker import MODEL, PATIENCE_S, Broker, Frontend, Worker
from tests.unit.workers.models import fake_copies, model_config

pytestmark = pytest.mark.integration


def test_failed_load(fake_worker: Worker, broker: Broker, tmp_path: Path) -> None:
    path = fake_copies(tmp_path / "1", [("x", "float32", [1])], load_fails="no such luck")
    broker.send(Load(MODEL, str(path), model_config(1)))
    assert broker.expect(LoadFailed) == LoadFailed(MODEL, "no such luck")


def test_load_does_not_stop_inference(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    slow = VersionId("slow", 1)
    path = fake_copies(tmp_path / "slow", [("x", "float32", [1])], load_seconds=2.0)
    broker.send(Load(slow, str(path), model_config(1)))
    request = frontend.request(signature, *command(0))
    broker.send(request)
    assert broker.done(request.key).error is None
    assert not [m for m, _ in broker.messages if isinstance(m, Loaded)]
    broker.expect(Loaded)


@pytest.mark.parametrize("wrong", ["offset", "negative", "shape", "room", "count", "odd", "huge", "segment"])
def test_bad_references_are_answered(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path, wrong: str
) -> None:
    path = fake_copies(tmp_path / "1", [("x", "float32", [-1, 4]), ("y", "float32", [2])])
    signature = broker.load(path).loaded.signature
    good = frontend.request(signature, np.ones((2, 4), np.float32), np.ones(2, np.float32))
    x, y = good.inputs
    inputs, outputs, segment = good.inputs, good.outputs, 0
    if wrong == "offset":
        inputs = (TensorRef((1 << 20) - 16, (2, 4)), y)
    elif wrong == "negative":
        inputs = (TensorRef(-64, (2, 4)), y)
    elif wrong == "shape":
        inputs = (TensorRef(x.offset, (2, 5)), y)
    elif wrong == "room":
        outputs = (outputs[0], OutputRef(outputs[1].offset, 4))
    elif wrong == "count":
        inputs = (x,)
    elif wrong == "odd":
        inputs = (TensorRef(x.offset + 1, x.shape), y)
    elif wrong == "huge":
        inputs = (TensorRef(x.offset, (1 << 60, 4)), y)
    else:
        segment = 99
    bad = Execute(RequestKey(frontend.name, 1000), MODEL, segment, inputs, outputs)
    broker.send(bad, good)
    error = broker.done(bad.key).error
    assert error is not None
    assert error.code is (Code.UNAVAILABLE if wrong == "segment" else Code.INTERNAL)
    assert broker.done(good.key).error is None


def test_version_that_is_not_loaded(fake_worker: Worker, broker: Broker, frontend: Frontend) -> None:
    request = frontend.request(Signature((), ()))
    broker.send(request)
    error = broker.done(request.key).error
    assert error is not None
    assert error.code is Code.UNAVAILABLE


def test_large_request_is_unmapped_before_it_is_answered(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1"), nireq=2).loaded.signature
    small = frontend.request(signature, *command(0))
    broker.send(small)
    broker.done(small.key)
    for number, what in ((1, 0), (2, 1020), (3, 1)):
        large = frontend.request(signature, *command(what), segment=number)
        broker.send(large)
        done = broker.done(large.key)
        assert (done.error is None) == (what != 1)
        assert fake_worker.maps() == fake_worker.descriptors() == 1
        if done.error is None:
            output = frontend.output(large, signature.outputs[0])
            np.testing.assert_array_equal(output, np.arange(4, dtype=np.float32))


def test_frontend_that_is_slow_with_its_descriptor_delays_its_own_requests_alone(
    fake_worker: Worker, broker: Broker, frontend: Frontend, run_dir: Path, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    other = Frontend(run_dir, "grpc-1.1")
    try:
        other.delay = 1.0
        slow = [other.request(signature, *command(0)) for _ in range(2)]
        quick = frontend.request(signature, *command(0))
        broker.send(*slow, quick)
        assert broker.done(quick.key).error is None
        assert not [m for m, _ in broker.messages if isinstance(m, Done)]
        for request in slow:
            assert broker.done(request.key).error is None
    finally:
        other.close()


def test_frontend_that_never_answers(
    fake_worker: Worker, broker: Broker, frontend: Frontend, run_dir: Path, tmp_path: Path
) -> None:
    broker.load(commanded(tmp_path / "1"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        listener.bind(str(socket_path(run_dir, "silent")))
        listener.listen()
        request = Execute(RequestKey("silent", 1), MODEL, 0, (), ())
        broker.send(request)
        error = broker.done(request.key).error
    assert error is not None
    assert error.code is Code.UNAVAILABLE


def test_first_come_first_served_and_nireq_at_once(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1"), nireq=2).loaded.signature
    requests = [frontend.request(signature, *command(1200)) for _ in range(4)]
    begun = time.monotonic()
    broker.send(*requests)
    broker.until(lambda: sum(isinstance(m, Done) for m, _ in broker.messages) == 4)
    assert 0.4 <= time.monotonic() - begun < 0.79, "two by two"
    order = [message.key.id for message, _ in broker.messages if isinstance(message, Done)]
    assert {*order[:2]} == {requests[0].key.id, requests[1].key.id}


def test_deadline_that_passes_while_waiting(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    hanging = frontend.request(signature, *command(3, 1))
    soon = time.monotonic_ns() + 300_000_000
    late = frontend.request(signature, *command(0), deadline=soon)
    in_time = frontend.request(signature, *command(0), deadline=soon + 60_000_000_000)
    broker.send(hanging, late, in_time)
    assert broker.done(hanging.key).error is None
    error = broker.done(late.key).error
    assert error is not None
    assert error.code is Code.DEADLINE_EXCEEDED
    assert broker.done(in_time.key).error is None


def test_crash_in_a_run_and_in_a_load(
    run_dir: Path, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    worker = Worker(run_dir, "FAKE")
    broker.hello()
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    broker.send(frontend.request(signature, *command(2)))
    assert worker.process.wait(PATIENCE_S) == -signal.SIGKILL
    worker.stop()

    worker = Worker(run_dir, "FAKE")
    assert broker.hello().loaded == ()
    path = commanded(tmp_path / "2", load_crashes=True)
    broker.send(Load(MODEL, str(path), model_config(1)))
    assert worker.process.wait(PATIENCE_S) == -signal.SIGKILL
    worker.stop()


def test_loading_again_and_unloading_what_is_not_there(
    fake_worker: Worker, broker: Broker, tmp_path: Path
) -> None:
    path = commanded(tmp_path / "1")
    assert broker.load(path) == broker.load(path)
    broker.send(Unload(MODEL))
    broker.expect(Unloaded)
    broker.send(Unload(MODEL))
    broker.expect(Unloaded)
    broker.load(path)
