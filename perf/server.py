"""The servers that are measured: started on free ports of this machine, awaited, and stopped by their process ids."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from common.messages import ProcessId
from common.process import available_cores, kill
from perf import procs
from perf.calls import NotReadyError, Sample, check_grpc, check_rest
from perf.plan import Setup
from perf.target import HOST, ROOT

HELP_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.2

_T = TypeVar("_T")


class StartFailedError(RuntimeError):
    """A server ended or did not get ready; the text holds the end of its log."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def setup_text(resolved: Mapping[str, Any], workers: int, cores: int) -> str:
    """The short form of a resolved configuration with so many workers; what stands nowhere in it has its default."""
    nireq = sorted({str(model.get("nireq") or "auto") for model in resolved.get("models", [])} or {"auto"})
    frontends = f"{resolved.get('grpc_workers', 1)}+{resolved.get('rest_workers', 1)}f"
    threads = max(1, cores // max(1, workers))
    transport = resolved.get("grpc_transport", "native")
    return f"{frontends} {workers}w×{threads}t nireq {'/'.join(nireq)} {transport}"


class LimitServer:
    """One of the limits, a module of this package that serves gRPC, in a process of its own."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        line = [sys.executable, "-m", module, *arguments]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.pid = self._process.pid
        self.port = 0

    def __enter__(self) -> "LimitServer":
        assert self._process.stdout is not None
        first = self._process.stdout.readline().strip()
        if not first.isdigit():
            self._end()
            raise StartFailedError(f"{self._module} did not start")
        self.port = int(first)
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def echo_server(answer_bytes: int) -> LimitServer:
    """`perf.echo`; each answer is the message, or so many bytes."""
    return LimitServer("perf.echo", "--answer-bytes", str(answer_bytes))


def bare_server(model: Path) -> LimitServer:
    """`perf.bare` of a model's .xml."""
    return LimitServer("perf.bare", "--model", str(model))


@lru_cache
def has_transports(program: tuple[str, ...] = ()) -> bool:
    """Whether the server's command knows `--grpc_transport`; one that cannot be run knows nothing."""
    line = [*(program or command()), "model", "--help"]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=HELP_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "--grpc_transport" in done.stdout


def command() -> tuple[str, ...]:
    """The `ie_serving` beside this Python."""
    return (str(Path(sys.executable).parent / "ie_serving"),)


def model_options(name: str, path: Path, setup: Setup) -> list[str]:
    """Arguments that serve one model."""
    options = {"model_name": name, "model_path": str(path), **dict(setup.options)}
    if setup.transport:
        options["grpc_transport"] = setup.transport
    return ["model", *(f"--{key}={value}" for key, value in options.items())]


def config_options(path: Path, setup: Setup) -> list[str]:
    """Arguments that serve what a configuration file lists."""
    transport = [f"--grpc_transport={setup.transport}"] if setup.transport else []
    return ["config", f"--config_path={path}", *transport, *(f"--{k}={v}" for k, v in setup.options)]


class Server:
    """The whole server; a context that starts and stops it."""

    def __init__(
        self,
        arguments: Sequence[str],
        directory: Path,
        program: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`program`: the command, instead of the `ie_serving` beside this Python; `environment`: in addition."""
        self.grpc_port, self.rest_port = free_ports(2)
        self._log = directory / f"{self.grpc_port}.log"
        # In the temporary directory itself, because the path of a socket may not be long.
        self._base = Path(tempfile.mkdtemp(prefix="perf-"))
        self.run_dir = self._base / "run"
        own = {"port": self.grpc_port, "rest_port": self.rest_port, "run_dir": self.run_dir}
        self._line = [
            *(program or command()),
            *arguments,
            *(f"--{name}={value}" for name, value in own.items()),
        ]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            try:
                # A session of its own: Ctrl-C reaches the measuring process alone, which then stops the server.
                self._process = subprocess.Popen(
                    self._line,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env=self._environment,
                )
            except FileNotFoundError as error:
                self._base.rmdir()
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
        shutil.rmtree(self._base, ignore_errors=True)

    def wait_ready(self, sample: Sample) -> tuple[int, int]:
        """Until both APIs answer rightly; the lengths of their answers. Raises StartFailedError, WrongAnswerError."""
        return self._wait(lambda: (check_grpc(self.grpc_port, sample), check_rest(self.rest_port, sample)))

    def wait_grpc(self, sample: Sample) -> int:
        """Until gRPC alone answers rightly; the length of its answer. Raises StartFailedError, WrongAnswerError."""
        return self._wait(lambda: check_grpc(self.grpc_port, sample))

    def _wait(self, check: Callable[[], _T]) -> _T:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                return check()
            except NotReadyError as error:
                if not self.lives() or time.monotonic() > deadline:
                    raise StartFailedError(f"{error}\n{self.log_end()}") from error
            time.sleep(POLL_S)

    def lives(self) -> bool:
        """Whether its first process has not ended."""
        return self._running().poll() is None

    def setup(self) -> str:
        """What it runs with, for beside the figures: frontends (gRPC+REST), workers × OpenVINO's threads, nireq,
        transport of gRPC; read from the configuration that it has resolved.
        """
        try:
            resolved = json.loads((self.run_dir / "config.json").read_bytes())
        except OSError:
            return "unknown"
        workers = sum(process.kind == "worker" for process in self.processes())
        return setup_text(resolved, workers, len(available_cores()))

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
