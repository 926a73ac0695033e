"""A whole server of a test's own: `ie_serving model …` by the interpreter that runs the tests.

with Server(directory, models, device="FAKE", workers=2) as server:     started, and ready
    ...
                                                                        stopped, and nothing of it left
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from common import config
from ie_serving.control import Status, ask_status, read_status
from ie_serving.errors import CommandError
from tests.support import processes
from tests.support.processes import Process
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
NAME = "model"
READY_S = 30.0
STOP_S = 8.0
READY_LINE = "server listens on port"

TRANSPORTS = [
    name for name in config.TRANSPORTS if importlib.util.find_spec(f"frontends.grpc.{name}_transport")
]
transport = ""
"""`--grpc_transport` of every server; empty: the default. The option of pytest sets it."""

_Server = TypeVar("_Server", bound="Server")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


class Server:
    """One instance. As a context it is started and ready, and at the end stopped in order and looked after."""

    subcommand = "model"

    def __init__(
        self,
        directory: Path,
        model_path: Path,
        *,
        device: str = "FAKE",
        rest: bool = True,
        ready: bool = True,
        environment: Mapping[str, str] | None = None,
        exit_code: int = 0,
        root: Path = ROOT,
        **options: object,
    ) -> None:
        """`directory` holds the log; `root` is the tree that runs; `options` are those of the command line; without
        `ready` nothing is awaited."""
        self.grpc_port, rest_port = free_ports(2)
        self.rest_port = rest_port if rest else 0
        # In the temporary directory itself, because the path of a socket may not be long.
        self._base = Path(tempfile.mkdtemp(prefix="ie-"))
        self.run_dir = self._base / "run"
        self.log_path = directory / "server.log"
        self.model_path = model_path
        self._root = root
        self._ready = ready
        self._exit_code = exit_code
        self._environment = {**os.environ, **(environment or {})}
        self.options: dict[str, object] = {
            "model_name": NAME,
            "model_path": model_path,
            "target_device": device,
            "port": self.grpc_port,
            "rest_port": self.rest_port,
            "bind_address": HOST,
            "run_dir": self.run_dir,
            "arena_mb": 4,
            **({"grpc_transport": transport} if transport else {}),
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self: _Server) -> _Server:
        try:
            self.start()
            if self._ready:
                self.wait_ready()
        except BaseException:
            self._end_by_force()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # The failure of the test is what is to be seen, with what the server said.
            self._end_by_force()
            print(self.log_end())  # which pytest shows beside the failure
            return
        if self.process.poll() is None:
            assert self.stop() == self._exit_code, self.log_end()
        self.check_nothing_left()

    # ---- start and stop

    def start(self) -> None:
        """Start the command, in a session and process group of its own."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ie_serving", self.subcommand, *self.arguments()],
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )

    def arguments(self) -> list[str]:
        """Of the command."""
        return [f"--{name}={value}" for name, value in self.options.items()]

    def wait_ready(self, patience_s: float = READY_S) -> None:
        """Until the ready lines are printed and the broker says so. Raises AssertionError with the log."""
        self.wait_log(READY_LINE, 2 if self.rest_port else 1, patience_s)
        self.wait_serving()

    def wait_log(self, text: str, times: int = 1, patience_s: float = READY_S) -> None:
        """Until it has printed `text` so often. Raises AssertionError with the log, also when it ends before."""
        deadline = time.monotonic() + patience_s
        while self.log().count(text) < times:
            assert self.process.poll() is None, f"it has ended:\n{self.log_end()}"
            assert time.monotonic() < deadline, f"not printed in {patience_s:g} s: {text}\n{self.story()}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it in order; its exit code."""
        self.process.send_signal(number)
        return self.wait_ended()

    def wait_ended(self, patience_s: float = STOP_S) -> int:
        """The exit code; bounded. Raises AssertionError."""
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {patience_s:g} s:\n{self.log_end()}") from None

    def check_nothing_left(self) -> None:
        """No process, and no trace of the run directory."""
        try:
            left = processes.of_run_dir(self.run_dir)
            assert not left, f"still running: {left}\n{self.log_end()}"
            # A directory that was there before the start stays, empty.
            names = sorted(path.name for path in self.run_dir.iterdir()) if self.run_dir.exists() else []
            assert names == [], self.log_end()
        finally:
            self._end_by_force()

    def wait_alone_gone(self, patience_s: float = STOP_S) -> None:
        """After a SIGKILL of the command: until every process that it left has ended by itself."""
        until(
            lambda: not processes.of_run_dir(self.run_dir),
            "the children end by themselves",
            patience_s,
        )

    def _end_by_force(self) -> None:
        """Whatever is left of it goes, by the pids that carry its run directory."""
        for process in processes.of_run_dir(self.run_dir):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._base, ignore_errors=True)

    # ---- looking at it

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The command's own."""
        assert self._process is not None, "started first"
        return self._process

    def log(self) -> str:
        """Everything that it printed, on both outputs."""
        return self.log_path.read_text(errors="replace")

    def log_end(self) -> str:
        """The last lines."""
        return "\n".join(self.log().splitlines()[-40:])

    def story(self) -> str:
        """What it said last, and what it is made of now."""
        return "\n".join([self.log_end(), *map(str, self.processes())])

    def status(self) -> Status:
        """What the broker says; a new one may still be on its way. Raises AssertionError."""

        def ask() -> Status | None:
            try:
                return read_status(ask_status(self.run_dir))
            except CommandError:
                return None

        found = until(ask, "the broker answers")
        assert found is not None
        return found

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """`ie_serving WORDS` for this instance, bounded."""
        return run_command(*words, f"--run_dir={self.run_dir}")

    def processes(self, kind: str = "") -> list[Process]:
        """Its processes, or those of a kind."""
        return [one for one in processes.of_run_dir(self.run_dir) if kind in ("", one.kind)]

    def pid(self, kind: str) -> int:
        """Of the only process of a kind; `arbiter` and `rest` are gunicorn's two sorts."""
        return self.pids(kind)[0]

    def pids(self, kind: str) -> list[int]:
        """Of all of a kind."""
        if kind not in ("arbiter", "rest"):
            return [one.pid for one in self.processes(kind)]
        command = self.process.pid
        return [one.pid for one in self.processes("rest") if (one.parent == command) == (kind == "arbiter")]

    def worker_pids(self) -> dict[str, int]:
        """By slot, of the workers that serve."""
        return {
            worker.slot: worker.pid
            for worker in self.status().workers
            if worker.pid is not None and worker.state == "serving"
        }

    def kill(self, kind: str) -> int:
        """SIGKILL to the only process of a kind; its pid."""
        pid = self.pid(kind)
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_replaced(self, kind: str, pid: int) -> int:
        """Until another process of the kind has taken the place of `pid` and the server is ready; the new pid."""
        until(lambda: not processes.exists(pid), f"the {kind} ends")
        until(lambda: self.pids(kind), f"another {kind}")
        self.wait_serving()
        return self.pids(kind)[-1]

    def wait_serving(self) -> None:
        """Until it is ready and every frontend and every wanted worker is there."""
        until(self._is_whole, "everything serves again", pause_s=0.1)

    def _is_whole(self) -> bool:
        # First: one that is about to end must not be taken for its successor in the status.
        if self._orphans():
            return False
        status = self.status()
        wanted = int(str(self.options.get("grpc_workers", 1)))
        if self.rest_port:
            wanted += int(str(self.options.get("rest_workers", 1)))
        listening = sum(frontend.listening for frontend in status.frontends)
        pools = all(pool.serving == pool.wanted for pool in status.pools)
        stated = {one.pid for one in status.frontends} | {one.pid for one in status.workers}
        if not all(pid is None or processes.exists(pid) for pid in stated):
            return False
        return status.ready and pools and listening == wanted == len(status.frontends)

    def _orphans(self) -> list[Process]:
        """Processes whose parent has been killed, and that have not ended yet."""
        family = self.processes()
        known = {one.pid for one in family}
        return [one for one in family if one.kind != "command" and one.parent not in known]

    def wait_idle(self, patience_s: float = 10.0) -> None:
        """Until nothing is queued and no worker or frontend has anything in hand."""
        until(lambda: is_idle(self.status()), "nothing queued or in hand", patience_s)


def is_idle(status: Status) -> bool:
    """Whether no request is anywhere."""
    return (
        status.queued == 0
        and not any(worker.in_hand for worker in status.workers)
        and not any(frontend.requests for frontend in status.frontends)
    )


def run_command(
    *words: str, environment: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> "subprocess.CompletedProcess[str]":
    """`ie_serving WORDS`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ie_serving", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **(environment or {})},
    )
