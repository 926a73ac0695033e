"""A real worker process and versions of which each request brings its shapes; and how many requests run at once."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino import opset13 as op

from common.errors import Code
from common.messages import (
    ArenaGone,
    Deferred,
    Done,
    Load,
    Loaded,
    LoadFailed,
    RestartLink,
    Resumed,
    Unload,
    Unloaded,
    VersionId,
)
from common.tensors import TensorSpec
from tests.support.worker import MODEL, PATIENCE_S, Array, Broker, Frontend, Worker
from tests.unit.workers.models import fake, fake_copies, model_config, named, parameter, save

pytestmark = pytest.mark.integration
SLOW_S = 1.0


def shaped(path: Path, **behaviour: Any) -> Path:
    """A fake that copies x, of shape (1, 2) by itself."""
    return fake_copies(path, [("x", "float32", [1, 2])], **behaviour)


def rows(count: int, width: int = 2) -> Array:
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


# ---- OpenVINO


def test_each_request_brings_its_batch(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    x = parameter("x", "float32", (1, 4))
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    path = save(tmp_path / "1", [named(op.matmul(x, weights, False, False), "y")], [x])
    signature = broker.load(path, nireq=2, batch_size="auto", max_shapes=2).loaded.signature
    assert signature.inputs == (TensorSpec("x", "float32", (-1, 4)),)
    assert signature.outputs == (TensorSpec("y", "float32", (-1, 2)),)
    for _ in range(3):
        given = [rows(count, 4) for count in (1, 3, 2, 5, 3)]
        requests = [frontend.request(signature, array) for array in given]
        broker.send(*requests)
        for request, array in zip(requests, given, strict=True):
            done, frames = broker.done_frames(request.key)
            assert done.error is None
            (output,) = done.outputs
            produced = np.frombuffer(frames[output.frame], np.float32).reshape(output.shape)
            np.testing.assert_allclose(produced, array @ weights, rtol=1e-6)


def test_shape_that_the_model_cannot_take_is_the_client_s_fault(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    x = parameter("x", "float32", (1, 4))
    weights = op.constant(np.ones((4, 2), np.float32))
    path = save(tmp_path / "1", [named(op.matmul(x, weights, False, False), "y")], [x])
    signature = broker.load(path, shape="auto").loaded.signature
    for _ in range(2):
        bad, good = frontend.request(signature, rows(1, 5)), frontend.request(signature, rows(1, 4))
        broker.send(bad, good)
        error = broker.done(bad.key).error
        assert error is not None
        assert error.code is Code.INVALID_ARGUMENT
        assert error.message.startswith("The model cannot take the shapes x [1, 5]: ")
        assert "Incompatible MatMul matrix dimension" in error.message
        assert broker.done(good.key).error is None


def test_model_that_keeps_its_shape_says_so(cpu_worker: Worker, broker: Broker, tmp_path: Path) -> None:
    x = parameter("x", "float32", (2, 3))
    path = save(tmp_path / "1", [named(op.reshape(x, np.array([3, 2]), False), "y")], [x])
    loaded = broker.load(path, shape={"x": (4, 3)}).loaded
    assert loaded.signature.inputs[0].shape == (2, 3)
    assert loaded.notes[0].startswith("the model keeps its own shape")
    assert "WARNING - model m: the model keeps its own shape" in cpu_worker.log.read_text()


def test_frontend_ends_and_no_compiled_shape_refers_to_its_memory(
    cpu_worker: Worker, broker: Broker, run_dir: Path, tmp_path: Path
) -> None:
    x = parameter("x", "float32", (1, 4))
    path = save(tmp_path / "1", [named(op.relu(x), "y")], [x])
    signature = broker.load(path, shape="auto").loaded.signature
    frontend = Frontend(run_dir, "grpc-0.9")
    for shape in ((1, 4), (2, 4), (3, 3)):
        request = frontend.request(signature, rows(*shape))
        broker.send(request)
        assert broker.done(request.key).error is None
    assert cpu_worker.maps() == 1
    frontend.close()
    broker.send(ArenaGone(frontend.name))
    broker.until(lambda: cpu_worker.maps() == cpu_worker.descriptors() == 0)


def test_device_that_is_not_there(run_dir: Path, broker: Broker, tmp_path: Path) -> None:
    worker = Worker(run_dir, "MYRIAD")
    broker.hello()
    x = parameter("x", "float32", (2,))
    broker.send(Load(MODEL, str(save(tmp_path / "1", [named(op.relu(x), "y")], [x])), model_config()))
    assert "device MYRIAD is not available: OpenVINO " in broker.expect(LoadFailed).reason
    worker.stop()


def test_emulated_device(run_dir: Path, broker: Broker, frontend: Frontend, tmp_path: Path) -> None:
    worker = Worker(run_dir, "MYRIAD", options=["--emulate-on", "CPU"])
    broker.hello()
    x = parameter("x", "float32", (2,))
    loaded = broker.load(save(tmp_path / "1", [named(op.relu(x), "y")], [x])).loaded
    assert loaded.notes == ("MYRIAD is emulated on CPU",)
    request = frontend.request(loaded.signature, np.array([-1, 2], np.float32))
    broker.send(request)
    assert broker.done(request.key).error is None
    assert "WARNING - MYRIAD is emulated on CPU" in worker.log.read_text()
    worker.stop()


# ---- what the loop does, with the fake engine


def test_others_go_on_while_a_shape_is_compiled(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(shaped(tmp_path / "1", compile_seconds=SLOW_S), shape="auto").loaded.signature
    other = VersionId("other", 1)
    others = broker.load(shaped(tmp_path / "2"), version=other).loaded.signature
    slow = [frontend.request(signature, rows(3)), frontend.request(signature, rows(3))]
    same_version = frontend.request(signature, rows(1))
    other_version = frontend.request(others, rows(1), version=other)
    broker.send(*slow, same_version, other_version)
    assert [broker.expect(Deferred).keys for _ in slow] == [(request.key,) for request in slow]
    for request in (same_version, other_version):
        assert broker.done(request.key).error is None
    assert not [message for message, _ in broker.messages if isinstance(message, Done)]
    assert broker.expect(Resumed).keys == tuple(request.key for request in slow)
    for request in slow:
        done, frames = broker.done_frames(request.key)
        np.testing.assert_array_equal(
            np.frombuffer(frames[done.outputs[0].frame], np.float32), rows(3).ravel()
        )


def test_a_load_of_another_model_does_not_delay_a_shape(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(shaped(tmp_path / "1"), shape="auto").loaded.signature
    broker.send(Load(VersionId("slow", 1), str(shaped(tmp_path / "2", load_seconds=2.0)), model_config()))
    request = frontend.request(signature, rows(3))
    broker.send(request)
    assert broker.done(request.key).error is None
    assert not [message for message, _ in broker.messages if isinstance(message, Loaded)]


def test_refused_shapes_are_not_compiled_again(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    path = shaped(tmp_path / "1", compile_seconds=SLOW_S, compile_fails_from=9)
    signature = broker.load(path, shape="auto").loaded.signature
    first = frontend.request(signature, rows(9))
    broker.send(first)
    error = broker.done(first.key).error
    assert error is not None
    assert error.code is Code.INVALID_ARGUMENT
    assert error.message == "The model cannot take the shapes x [9, 2]: a dimension of 9"
    broker.messages.clear()
    again = frontend.request(signature, rows(9))
    broker.send(again)
    assert broker.done(again.key).error == error
    assert not [message for message, _ in broker.messages if isinstance(message, Deferred)]


def test_deadline_passes_while_a_shape_is_compiled(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    path = shaped(tmp_path / "1", compile_seconds=2 * SLOW_S)
    signature = broker.load(path, shape="auto").loaded.signature
    now = time.monotonic_ns()
    late = frontend.request(signature, rows(3), deadline=now + 200_000_000)
    patient = frontend.request(signature, rows(3), deadline=now + 60_000_000_000)
    broker.send(late, patient)
    error = broker.done(late.key).error
    assert error is not None
    assert error.code is Code.DEADLINE_EXCEEDED
    assert not [message for message, _ in broker.messages if isinstance(message, Resumed)]
    assert broker.done(patient.key).error is None


def test_new_link_says_what_waits_for_its_shape(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    path = shaped(tmp_path / "1", compile_seconds=SLOW_S)
    signature = broker.load(path, shape="auto").loaded.signature
    request = frontend.request(signature, rows(3))
    broker.send(request)
    broker.expect(Deferred)
    broker.send(RestartLink())
    assert broker.hello().running == (request.key,)
    assert broker.expect(Deferred).keys == (request.key,)
    broker.expect(Resumed)
    assert broker.done(request.key).error is None


def test_frontend_ends_while_its_requests_wait_for_a_shape(
    fake_worker: Worker, broker: Broker, frontend: Frontend, run_dir: Path, tmp_path: Path
) -> None:
    path = shaped(tmp_path / "1", compile_seconds=SLOW_S)
    signature = broker.load(path, shape="auto").loaded.signature
    other = Frontend(run_dir, "grpc-1.1")
    gone, mine = other.request(signature, rows(3)), frontend.request(signature, rows(3))
    broker.send(gone, mine)
    broker.expect(Deferred, lambda told: told.keys == (gone.key,))
    other.close()
    broker.send(ArenaGone(other.name))
    error = broker.done(gone.key).error
    assert error is not None
    assert error.code is Code.CANCELLED
    assert broker.done(mine.key).error is None
    broker.until(lambda: fake_worker.maps() == 1)


def test_version_leaves_while_a_shape_is_compiled_that_nobody_waits_for(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    path = shaped(tmp_path / "1", compile_seconds=SLOW_S)
    signature = broker.load(path, shape="auto").loaded.signature
    request = frontend.request(signature, rows(3), deadline=time.monotonic_ns() + 100_000_000)
    broker.send(request)
    assert broker.done(request.key).error is not None
    broker.send(Unload(MODEL))
    broker.expect(Unloaded)
    assert broker.load(path).loaded.signature.inputs[0].shape == (1, 2)


def test_crash_while_a_shape_is_compiled(
    run_dir: Path, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    worker = Worker(run_dir, "FAKE")
    broker.hello()
    path = shaped(tmp_path / "1", compile_crashes_from=9)
    signature = broker.load(path, shape="auto").loaded.signature
    request = frontend.request(signature, rows(9))
    broker.send(request)
    assert worker.process.wait(PATIENCE_S) == -signal.SIGKILL
    worker.stop()


# ---- nireq


@pytest.mark.parametrize(("nireq", "first"), [(1, "slow"), (2, "quick")])
def test_nireq_requests_run_at_once(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path, nireq: int, first: str
) -> None:
    """The later and quicker of two is answered first if they overlap, and not if they do not."""
    tensors = [("data", "float32", [4]), ("command", "int32", [1])]
    signature = broker.load(fake(tmp_path / "1", tensors, tensors[:1]), nireq=nireq).loaded.signature

    def sleeping(milliseconds: int) -> Any:
        return frontend.request(signature, np.zeros(4, np.float32), np.array([1000 + milliseconds], np.int32))

    requests = {"slow": sleeping(1500), "quick": sleeping(100)}
    broker.send(*requests.values())
    assert broker.expect(Done).key == requests[first].key
    broker.expect(Done)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="with one core there is one stream")
@pytest.mark.parametrize("nireq", [1, 2])
def test_nireq_inferences_of_openvino_overlap(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path, nireq: int
) -> None:
    """By the share of the shorter inference during which the other ran too."""
    x = parameter("x", "float32", (1, 512))
    weights = op.constant(np.full((512, 512), 1 / 512, np.float32))
    product: Any = op.broadcast(x, np.array([1024, 512]))
    for _ in range(60):
        product = op.relu(op.matmul(product, weights, False, False))
    path = save(tmp_path / "1", [named(op.reduce_sum(product, np.array([0, 1])), "y")], [x])
    signature = broker.load(path, nireq=nireq).loaded.signature
    requests = [frontend.request(signature, np.ones((1, 512), np.float32)) for _ in range(2)]
    broker.send(*requests)
    spans = []
    for _ in requests:
        done = broker.expect(Done)
        now = time.monotonic_ns()
        assert done.error is None
        spans.append((now - done.inferring, now))
    (begin, end), (other_begin, other_end) = spans
    overlap = max(0, min(end, other_end) - max(begin, other_begin))
    share = overlap / min(end - begin, other_end - other_begin)
    assert share > 0.5 if nireq == 2 else share < 0.25
