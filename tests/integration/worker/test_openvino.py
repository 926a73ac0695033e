"""A real worker process with OpenVINO, in memory owned by the test as a frontend would."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from common.errors import Code
from common.messages import (
    ArenaGone,
    Unload,
    Unloaded,
)
from common.tensors import Signature, TensorSpec
from tests.support.worker import MODEL, Broker, Frontend, Worker
from tests.unit.workers.models import named, parameter, save

pytestmark = pytest.mark.integration


def test_loads_and_infers_in_place(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    x = parameter("x", "float32", (2, 16))
    rng = np.random.default_rng(3)
    weights = op.constant(rng.standard_normal((16, 5)).astype(np.float32))
    path = save(tmp_path / "1", [named(op.tanh(op.matmul(x, weights, False, False)), "y")], [x])
    loaded = broker.load(path, nireq=2).loaded
    assert loaded.nireq == 2
    assert loaded.signature == Signature(
        (TensorSpec("x", "float32", (2, 16)),), (TensorSpec("y", "float32", (2, 5)),)
    )
    reference = ov.Core().compile_model(path / "model.xml", "CPU")
    given = [rng.standard_normal((2, 16)).astype(np.float32) for _ in range(20)]
    requests = [frontend.request(loaded.signature, array) for array in given]
    broker.send(*requests)
    for request, array in zip(requests, given, strict=True):
        done = broker.done(request.key)
        assert done.error is None
        assert done.inferring > 0
        assert [(output.shape, output.frame) for output in done.outputs] == [((2, 5), -1)]
        output = frontend.output(request, loaded.signature.outputs[0])
        np.testing.assert_allclose(output, reference(array)[0], rtol=1e-6)
    assert broker.envelopes < len(requests), "answers share envelopes"


def test_outputs_of_dynamic_shape_come_as_frames(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    x = parameter("x", "float32", (-1,))
    path = save(tmp_path / "1", [named(op.non_zero(x), "found"), named(op.relu(x), "y")], [x])
    signature = broker.load(path, nireq=2).loaded.signature
    arrays = [np.array([0, 1, 0, 2][: n + 1], np.float32) for n in range(4)]
    requests = [frontend.request(signature, array) for array in arrays]
    broker.send(*requests)
    for request, array in zip(requests, arrays, strict=True):
        done, frames = broker.done_frames(request.key)
        found, y = done.outputs
        assert found.shape == (1, int(np.count_nonzero(array)))
        np.testing.assert_array_equal(np.frombuffer(frames[found.frame], np.int64), np.nonzero(array)[0])
        assert y.shape == array.shape
        np.testing.assert_array_equal(np.frombuffer(frames[y.frame], np.float32), array)


def test_bound_of_a_reply(cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path) -> None:
    x = parameter("size", "int64", (1,))
    path = save(tmp_path / "1", [named(op.broadcast(np.uint8(7), x), "y")], [x])
    signature = broker.load(path).loaded.signature
    bound = 64 << 20
    request = frontend.request(signature, np.array([bound + 1]))
    broker.send(request)
    error = broker.done(request.key).error
    assert error is not None
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(bound) in error.message
    request = frontend.request(signature, np.array([bound]))
    broker.send(request)
    done, frames = broker.done_frames(request.key)
    assert done.outputs[0].shape == (bound,)
    assert len(frames[done.outputs[0].frame]) == bound


def test_failed_inference_is_an_answer(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    x, y = parameter("x", "float32", (-1,)), parameter("y", "float32", (-1,))
    signature = broker.load(save(tmp_path / "1", [named(op.add(x, y), "s")], [x, y])).loaded.signature
    for _ in range(3):
        bad = frontend.request(signature, np.ones(2, np.float32), np.ones(3, np.float32))
        good = frontend.request(signature, np.ones(2, np.float32), np.ones(2, np.float32))
        broker.send(bad, good)
        error = broker.done(bad.key).error
        assert error is not None
        assert error.code is Code.INVALID_ARGUMENT
        assert broker.done(good.key).error is None


@pytest.mark.parametrize("shape", [(4,), (-1,)], ids=["inline", "asynchronous"])
def test_frontend_ends_and_its_successor_goes_on(
    cpu_worker: Worker, broker: Broker, run_dir: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    """The bindings to a dead frontend's memory are gone before it is: inferring on one would be a SIGSEGV."""
    x = parameter("x", "float32", shape)
    path = save(tmp_path / "1", [named(op.relu(x), "y")], [x])
    signature = broker.load(path, nireq=2).loaded.signature
    for generation in range(3):
        frontend = Frontend(run_dir, f"grpc-0.{generation}")
        requests = [frontend.request(signature, np.full(4, n, np.float32)) for n in range(6)]
        broker.send(*requests)
        for request in requests:
            assert broker.done(request.key).error is None
        assert cpu_worker.maps() == cpu_worker.descriptors() == 1
        frontend.close()
        broker.send(ArenaGone(frontend.name))
        broker.until(lambda: cpu_worker.maps() == cpu_worker.descriptors() == 0)


def test_model_file_written_over_after_it_was_loaded(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    """Weights mapped from the file would be a SIGBUS now."""
    x = parameter("x", "int32", (2,))
    table = np.arange(100_000 * 64, dtype=np.float32).reshape(100_000, 64)
    rows = op.gather(op.constant(table), x, op.constant(np.int32(0)))
    path = save(tmp_path / "1", [named(rows, "y")], [x])
    signature = broker.load(path).loaded.signature
    (path / "model.bin").write_bytes(b"")
    request = frontend.request(signature, np.array([5, 99_999], np.int32))
    broker.send(request)
    assert broker.done(request.key).error is None
    np.testing.assert_array_equal(frontend.output(request, signature.outputs[0]), table[[5, 99_999]])


@pytest.mark.parametrize("options", [{}, {"batch_size": "auto"}], ids=["own shape", "shapes of requests"])
def test_unloading_gives_memory_back(
    cpu_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Of 128 MB of weights, less than a quarter is there still after any number of loads, and it does not grow."""
    megabyte = 1 << 20

    def resident() -> int:
        pages = int(Path(f"/proc/{cpu_worker.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") // megabyte

    x = parameter("x", "float32", (1, 2048))
    weights = op.constant(np.random.default_rng(1).standard_normal((2048, 16384)).astype(np.float32))
    path = save(tmp_path / "1", [named(op.matmul(x, weights, False, False), "y")], [x])
    before = resident()
    after = []
    for _ in range(4):
        signature = broker.load(path, **options).loaded.signature
        for rows in (1, 2) if options else (1,):
            request = frontend.request(signature, np.ones((rows, 2048), np.float32))
            broker.send(request)
            assert broker.done(request.key).error is None
        loaded = resident()
        assert loaded > before + 120
        broker.send(Unload(MODEL))
        broker.expect(Unloaded)
        after.append(resident())
        print(f"{before} MB at first, {loaded} MB loaded, {after[-1]} MB unloaded")
    assert max(after) < before + 60
    assert after[-1] < after[0] + 20


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out")
def test_replicas_take_their_own_cores(run_dir: Path, broker: Broker) -> None:
    taken = []
    for replica in range(2):
        worker = Worker(run_dir, "CPU", f"{replica}/2")
        broker.hello()
        taken.append(os.sched_getaffinity(worker.process.pid))
        worker.stop()
    assert taken[0]
    assert taken[1]
    assert not taken[0] & taken[1]
