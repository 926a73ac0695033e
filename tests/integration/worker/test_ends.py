"""A real worker process, and the end of it, of its parent, of a frontend or of the broker."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import Code
from common.messages import (
    ArenaGone,
    Load,
    Loaded,
    ProcessId,
    RestartLink,
    VersionId,
)
from common.process import start_ticks, this_process
from tests.support.commanded import command, commanded
from tests.support.worker import MODEL, ROOT, Broker, Frontend, Worker
from tests.unit.workers.models import fake_copies, model_config

pytestmark = pytest.mark.integration


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
    assert start_ticks(process.pid) != process.start_ticks


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


def _stand_in_for(broker: Broker) -> "subprocess.Popen[bytes]":
    """A child process that the worker takes for the broker's, so that it can end."""
    stand_in = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(stand_in.pid)
    assert ticks is not None
    broker.process = ProcessId(stand_in.pid, ticks)
    return stand_in


def test_broker_ends_while_a_request_runs(
    run_dir: Path, frontend: Frontend, broker: Broker, tmp_path: Path
) -> None:
    stand_in = _stand_in_for(broker)
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
    stand_in = _stand_in_for(broker)
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
        hello = broker.hello()
        assert (hello.slot, hello.process.pid) == ("FAKE-0", worker.process.pid)
    finally:
        worker.stop()
        broker.close()
