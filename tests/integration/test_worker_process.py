"""A real worker process against a broker played by the test, in memory owned by the test as a frontend would."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import openvino as ov
import pytest
from openvino import opset13 as op

from common import config
from common.descriptors import socket_path
from common.errors import Code
from common.messages import (
    ArenaGone,
    Done,
    Execute,
    Load,
    Loaded,
    LoadFailed,
    OutputRef,
    ProcessId,
    RequestKey,
    RestartLink,
    TensorRef,
    Unload,
    Unloaded,
    VersionId,
)
from common.process import start_ticks, this_process
from common.tensors import Signature, TensorSpec
from tests.support.worker import MODEL, PATIENCE_S, ROOT, Broker, Frontend, Worker
from tests.unit.workers.models import fake, fake_copies, model_config, named, parameter, save

Array: TypeAlias = npt.NDArray[Any]
pytestmark = pytest.mark.integration


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    config.save(config.ServerConfig(models=(), run_dir=str(path), log_level="DEBUG"))
    return path


@pytest.fixture
def broker(run_dir: Path) -> Iterator[Broker]:
    broker = Broker(run_dir)
    yield broker
    broker.close()


@pytest.fixture
def frontend(run_dir: Path) -> Iterator[Frontend]:
    frontend = Frontend(run_dir, "grpc-0.1")
    yield frontend
    frontend.close()


@pytest.fixture
def fake_worker(run_dir: Path, broker: Broker) -> Iterator[Worker]:
    worker = Worker(run_dir, "FAKE")
    assert broker.hello().slot == "FAKE-0"
    yield worker
    worker.stop()


@pytest.fixture
def cpu_worker(run_dir: Path, broker: Broker) -> Iterator[Worker]:
    worker = Worker(run_dir, "CPU")
    assert broker.hello().slot == "CPU-0"
    yield worker
    worker.stop()


def commanded(path: Path, **behaviour: Any) -> Path:
    """A fake that copies `data` and obeys `command`."""
    tensors = [("data", "float32", [4]), ("command", "int32", [1]), ("argument", "int32", [1])]
    return fake(path, tensors, tensors[:1], **behaviour)


def command(number: int, argument: int = 0) -> tuple[Array, ...]:
    """Inputs of such a fake."""
    return (
        np.arange(4, dtype=np.float32),
        np.array([number], np.int32),
        np.array([argument], np.int32),
    )


# ---- OpenVINO


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


# ---- what the loop does, with the fake engine


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


def test_termination_is_instant(run_dir: Path, broker: Broker, frontend: Frontend, tmp_path: Path) -> None:
    worker = Worker(run_dir, "FAKE")
    broker.hello()
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    broker.send(frontend.request(signature, *command(3)))
    worker.process.terminate()
    assert worker.process.wait(5) == -signal.SIGTERM
    worker.stop()


def test_worker_ends_with_its_parent(run_dir: Path, broker: Broker) -> None:
    command = [sys.executable, "-m", "workers.service", "--run-dir", str(run_dir), "--slot", "FAKE-0"]
    script = f"import subprocess; subprocess.Popen({[*command, '--device', 'FAKE']!r}); input()"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE)
    process = broker.hello().process
    parent.kill()
    parent.communicate()
    broker.until(lambda: start_ticks(process.pid) != process.start_ticks)


def test_frontend_ends_while_its_requests_run_and_wait(
    fake_worker: Worker, broker: Broker, frontend: Frontend, run_dir: Path, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    other = Frontend(run_dir, "grpc-1.1")
    running = other.request(signature, *command(1500))
    waiting = other.request(signature, *command(0))
    mine = frontend.request(signature, *command(0))
    broker.send(running, waiting, mine)
    broker.until(lambda: fake_worker.maps() == 2)
    other.close()
    broker.send(ArenaGone(other.name))
    error = broker.done(waiting.key).error
    assert error is not None
    assert error.code is Code.CANCELLED
    assert fake_worker.maps() == 2, "what runs still writes there"
    assert broker.done(running.key).error is None
    assert broker.done(mine.key).error is None
    broker.until(lambda: fake_worker.maps() == fake_worker.descriptors() == 1)


def test_broker_ends_while_a_request_runs(
    run_dir: Path, frontend: Frontend, broker: Broker, tmp_path: Path
) -> None:
    """A child process stands for the first broker, so that it can end."""
    stand_in = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(stand_in.pid)
    assert ticks is not None
    broker.process = ProcessId(stand_in.pid, ticks)
    worker = Worker(run_dir, "FAKE")
    first = broker.hello()
    assert (first.loaded, first.running, first.arenas) == ((), (), ())
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    before = frontend.request(signature, *command(0))
    broker.send(before)
    broker.done(before.key)
    loading = VersionId("slow", 1)
    path = fake_copies(tmp_path / "slow", [("x", "float32", [1])], load_seconds=3.0)
    broker.send(Load(loading, str(path), model_config(1)))
    running = frontend.request(signature, *command(3, 2))
    waiting = frontend.request(signature, *command(0))
    broker.send(running, waiting)
    broker.until(lambda: True)
    time.sleep(0.3)  # the worker must have read them before its broker is gone
    broker.stop()
    stand_in.kill()
    stand_in.communicate()
    broker.restart(this_process())
    second = broker.hello()
    assert second.running == (running.key, waiting.key)
    assert second.running_versions == (MODEL, MODEL)
    assert [loaded.version for loaded in second.loaded] == [MODEL]
    assert second.loaded[0].signature == signature
    assert second.loading == (loading,)
    assert second.arenas == (frontend.name,)
    assert broker.done(running.key).error is None
    assert broker.done(waiting.key).error is None
    assert broker.expect(Loaded).loaded.version == loading
    worker.stop()


def test_answer_finished_without_a_broker_is_kept(
    run_dir: Path, frontend: Frontend, broker: Broker, tmp_path: Path
) -> None:
    stand_in = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(stand_in.pid)
    assert ticks is not None
    broker.process = ProcessId(stand_in.pid, ticks)
    worker = Worker(run_dir, "FAKE")
    broker.hello()
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    request = frontend.request(signature, *command(1700))
    broker.send(request)
    time.sleep(0.3)  # as above
    broker.stop()
    stand_in.kill()
    stand_in.communicate()
    time.sleep(1.5)  # the run ends meanwhile, and two Hellos go unheard
    broker.restart(this_process())
    assert broker.hello().running == (request.key,)
    assert broker.done(request.key).error is None
    worker.stop()


def test_link_is_begun_anew_when_the_broker_asks(
    fake_worker: Worker, broker: Broker, frontend: Frontend, tmp_path: Path
) -> None:
    signature = broker.load(commanded(tmp_path / "1")).loaded.signature
    broker.send(RestartLink())
    assert [loaded.version for loaded in broker.hello().loaded] == [MODEL]
    request = frontend.request(signature, *command(0))
    broker.send(request)
    assert broker.done(request.key).error is None


def test_worker_without_a_broker_keeps_trying(run_dir: Path) -> None:
    worker = Worker(run_dir, "FAKE")
    time.sleep(1.2)  # two Hellos go unheard
    broker = Broker(run_dir)
    try:
        broker.hello()
    finally:
        worker.stop()
        broker.close()


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
