"""The servers that are measured: started on free ports of this machine, awaited, and stopped by their process ids."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from common.messages import ProcessId
from common.process import kill
from perf import procs
from perf.calls import NotReadyError, Sample, check_grpc, check_rest
from perf.plan import Setup
from perf.target import HOST, ROOT

READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.2


class StartFailedError(RuntimeError):
    """A server ended or did not get ready; the text holds the end of its log."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


class EchoServer:
    """`perf.echo` in its own process."""

    def __init__(self, answer_bytes: int) -> None:
        line = [sys.executable, "-m", "perf.echo", "--answer-bytes", str(answer_bytes)]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.pid = self._process.pid
        self.port = 0

    def __enter__(self) -> "EchoServer":
        assert self._process.stdout is not None
        first = self._process.stdout.readline().strip()
        if not first.isdigit():
            self._end()
            raise StartFailedError("the echo server did not start")
        self.port = int(first)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Server:
    """`ie_serving model` with one model; a context that starts and stops it."""

    def __init__(
        self, model: str, models: Path, setup: Setup, directory: Path, program: Sequence[str] = ()
    ) -> None:
        """`program`: the command, instead of the `ie_serving` beside this Python."""
        self.grpc_port, self.rest_port = free_ports(2)
        self._log = directory / f"{model}.log"
        run_dir = directory / f"run-{model}"
        options = {
            "model_name": model,
            "model_path": models / model,
            "port": self.grpc_port,
            "rest_port": self.rest_port,
            "grpc_workers": setup.grpc_workers,
            "rest_workers": setup.rest_workers,
            "workers": setup.workers,
            "nireq": setup.nireq,
            "run_dir": run_dir,
            **({"plugin_config": setup.plugin_config} if setup.plugin_config else {}),
        }
        command = program or (str(Path(sys.executable).parent / "ie_serving"),)
        self._line = [*command, "model", *(f"--{name}={value}" for name, value in options.items())]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            try:
                # A session of its own: Ctrl-C reaches the measuring process alone, which then stops the server.
                self._process = subprocess.Popen(
                    self._line, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
                )
            except FileNotFoundError as error:
                raise StartFailedError(f"{self._line[0]} is not installed") from error
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        process = self._running()
        family = self.processes()
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for survivor in family:
            kill(ProcessId(survivor.pid, survivor.started_ticks))

    def wait_ready(self, sample: Sample) -> tuple[int, int]:
        """Until both APIs answer rightly; the lengths of their answers. Raises StartFailedError, WrongAnswerError."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                return check_grpc(self.grpc_port, sample), check_rest(self.rest_port, sample)
            except NotReadyError as error:
                ended = self._running().poll() is not None
                if ended or time.monotonic() > deadline:
                    raise StartFailedError(f"{error}\n{self.log_end()}") from error
            time.sleep(POLL_S)

    @property
    def pid(self) -> int:
        """Of its first process; all others descend from it."""
        return self._running().pid

    def processes(self) -> list[procs.Process]:
        """The server's own, as they are now."""
        return procs.tree(self._running().pid)

    def log_end(self) -> str:
        """The last lines that the server printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "used inside its context"
        return self._process
