"""The command `ie_serving` as its users meet it: started, asked, scaled, ended, killed. The engine is the fake one."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "ie_serving"]
START_S = 60.0
STOP_S = 5.0

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        found = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]


def until(condition: Callable[[], Any], timeout_s: float = START_S) -> Any:
    """Ask until the answer is true; the answer."""
    end = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)
    return answer


def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, part: str) -> None:
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.count("\n") == 1, result.stderr
    assert part in result.stderr


def processes_of(run_dir: Path) -> dict[int, str]:
    """Command lines that name the run directory, by pid."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"--run-dir {run_dir} " in line:
                found[int(entry.name)] = line
    return found


class Instance:
    """A running server."""

    def __init__(
        self,
        base: Path,
        *arguments: str,
        stdout: int | IO[bytes] | None = None,
        name: str = "run",
        words: tuple[str, ...] = (),
    ) -> None:
        self.port, self.rest_port = free_ports(2)
        self.run_dir = base / name
        self.output = base / f"{name}.out"
        self.errors = base / f"{name}.err"
        model = ("model", "--model_name", "fake", "--model_path", str(base / "model"))
        on_fake = ("--target_device", "FAKE")
        line = [
            *COMMAND,
            *(words or model + on_fake),
            "--port",
            str(self.port),
            "--rest_port",
            str(self.rest_port),
        ]
        line += [
            "--run_dir",
            str(self.run_dir),
            "--bind_address",
            "127.0.0.1",
            "--arena_mb",
            "1",
            *arguments,
        ]
        with self.output.open("wb") as out, self.errors.open("wb") as errors:
            target = out if stdout is None else stdout
            self.process = subprocess.Popen(
                line, cwd=ROOT, stdout=target, stderr=errors, start_new_session=True
            )

    def status(self) -> dict[str, Any]:
        """The status document; empty while nothing answers."""
        result = command("status", "--run_dir", str(self.run_dir), "--json")
        document: dict[str, Any] = json.loads(result.stdout) if result.returncode == 0 else {}
        return document

    def wait_ready(self, workers: int = 1) -> dict[str, Any]:
        """Until all that was configured serves and listens."""

        def ready() -> dict[str, Any]:
            assert self.process.poll() is None, self.errors.read_text()
            found = self.status()
            serving = [pool["serving"] for pool in found.get("pools", [])]
            listening = [frontend["listening"] for frontend in found.get("frontends", [])]
            return found if found.get("ready") and serving == [workers] and listening == [True, True] else {}

        try:
            found: dict[str, Any] = until(ready)
        except AssertionError as error:
            seen = self.output.read_text() + self.errors.read_text()
            raise AssertionError(f"not ready: {self.status()}\n{seen}") from error
        return found

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Signal the server and wait for its end; the seconds that it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(START_S)
        return time.monotonic() - started

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory that holds a model for the fake engine."""
    with tempfile.TemporaryDirectory(prefix="ie") as name:
        version = Path(name) / "model" / "1"
        version.mkdir(parents=True)
        (version / "model.xml").write_text("<net/>")
        spec = {"inputs": [["x", "float32", [1, 4]]], "outputs": [["y", "float32", [1, 4]]]}
        (version / "model.bin").write_text(json.dumps(spec))
        yield Path(name)


@pytest.fixture
def start(base: Path) -> Iterator[Callable[..., Instance]]:
    with contextlib.ExitStack() as running:

        def started(*arguments: str, **more: Any) -> Instance:
            found = Instance(base, *arguments, **more)
            running.callback(found.close)
            return found

        yield started


def test_a_life(start: Callable[..., Instance]) -> None:
    server = start("--workers", "2")
    status = server.wait_ready(workers=2)
    assert [version["state"] for version in status["models"][0]["versions"]] == ["AVAILABLE"]
    run_dir = ("--run_dir", str(server.run_dir))

    table = command("status", *run_dir).stdout
    assert table.startswith("ready, 0 requests queued\n")
    assert "FAKE-0" in table
    assert command("status", "--check", *run_dir).returncode == 0
    with urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/v1/models/fake") as answer:
        assert json.load(answer)["model_version_status"][0]["state"] == "AVAILABLE"

    scaled = command("scale", "FAKE", "3", *run_dir)
    assert scaled.returncode == 0, scaled.stderr
    assert scaled.stdout.startswith("device FAKE is served by 3 worker(s), after ")
    assert server.status()["pools"] == [
        {"device": "FAKE", "wanted": 3, "serving": 3, "python": "", "emulated_on": ""}
    ]
    assert (
        command("scale", "FAKE", "1", "--no-wait", *run_dir).stdout == "device FAKE is to have 1 worker(s)\n"
    )
    assert_one_line(command("scale", "GPU", "1", *run_dir), 1, "no model is served on device GPU")

    seconds = server.stop()
    assert seconds < STOP_S
    assert (server.process.returncode, server.errors.read_text()) == (0, "")
    assert not server.run_dir.exists()
    assert processes_of(server.run_dir) == {}
    lines = server.output.read_text()
    assert f"gRPC server listens on port {server.port} and will be serving models: ['fake']\n" in lines
    assert f"REST server listens on port {server.rest_port} and will be serving models: ['fake']\n" in lines
    assert_one_line(command("status", *run_dir), 1, "no server is running in")
    assert command("status", "--check", *run_dir).returncode == 1


def configuration(base: Path, **models: dict[str, Any]) -> tuple[str, ...]:
    """The words that serve a configuration file of these models, each with the same versions."""
    entries = [
        {"config": {"name": name, "base_path": "model", "target_device": "FAKE", **keys}}
        for name, keys in models.items()
    ]
    path = base / "models.json"
    path.write_text(json.dumps({"model_config_list": entries}))
    return ("config", "--config_path", str(path))


def test_the_models_of_a_configuration_file(start: Callable[..., Instance], base: Path) -> None:
    server = start(words=configuration(base, one={"nireq": 2}, two={"shape": "(1,4)", "batch_size": "1"}))
    status = server.wait_ready()
    assert {
        model["name"]: [version["state"] for version in model["versions"]] for model in status["models"]
    } == {"one": ["AVAILABLE"], "two": ["AVAILABLE"]}
    assert server.stop() < STOP_S
    warning = f"ie_serving: warning: {base}/models.json: model two: shape and batch_size are both given: "
    assert server.errors.read_text() == warning + "batch_size is ignored\n"
    assert f"gRPC server listens on port {server.port} and will be serving models: ['one', 'two']\n" in (
        server.output.read_text()
    )


def test_a_wrong_configuration_file_is_one_line(base: Path) -> None:
    words = configuration(base, resnet={"nireqs": 1})
    part = f"ie_serving: {base}/models.json: model resnet: unknown key 'nireqs', did you mean 'nireq'?"
    assert_one_line(command(*words, "--run_dir", str(base / "run")), 1, part)
    assert not (base / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_ends_in_time_with_eight_workers(start: Callable[..., Instance], number: int) -> None:
    server = start("--workers", "8")
    server.wait_ready(workers=8)
    assert server.stop(number) < STOP_S
    assert server.process.returncode == 0
    assert processes_of(server.run_dir) == {}


def test_what_does_not_end_is_killed(start: Callable[..., Instance]) -> None:
    server = start("--workers", "6")
    server.wait_ready(workers=6)
    stopped = list(processes_of(server.run_dir))
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    assert server.stop() < STOP_S + 1
    assert processes_of(server.run_dir) == {}


@pytest.mark.parametrize("delay_s", [0.05, 0.2, 0.35, 0.5, 0.7, 1.0])
def test_ended_while_it_starts(start: Callable[..., Instance], delay_s: float) -> None:
    server = start()
    time.sleep(delay_s)
    server.stop(signal.SIGTERM)
    # Before the interpreter runs the command, a signal ends the process as any other.
    assert server.process.returncode in (0, -signal.SIGTERM)
    assert server.errors.read_text() == ""
    assert processes_of(server.run_dir) == {}
    if server.process.returncode == 0:
        assert not server.run_dir.exists()


def test_one_instance_a_directory_and_a_port(start: Callable[..., Instance], base: Path) -> None:
    server = start()
    server.wait_ready()
    model = (
        "model",
        "--model_name",
        "m",
        "--model_path",
        "x",
        "--bind_address",
        "127.0.0.1",
        "--arena_mb",
        "1",
    )
    grpc_port, rest_port, other = str(server.port), str(server.rest_port), str(free_ports(1)[0])
    assert_one_line(
        command(*model, "--port", other, "--run_dir", str(server.run_dir)),
        1,
        f"the run directory {server.run_dir} belongs to a live instance, pid {server.process.pid}",
    )
    elsewhere = ("--run_dir", str(base / "other"))
    assert_one_line(
        command(*model, "--port", grpc_port, *elsewhere),
        1,
        f"port {grpc_port} is in use; choose another with --port",
    )
    assert_one_line(
        command(*model, "--port", other, "--rest_port", rest_port, *elsewhere),
        1,
        f"port {rest_port} is in use; choose another with --rest_port",
    )
    assert not (base / "other").exists()
    assert server.status()["ready"]


def test_a_port_stays_taken_while_its_frontend_is_down(start: Callable[..., Instance], base: Path) -> None:
    server = start()
    server.wait_ready()
    for pid, line in processes_of(server.run_dir).items():
        if "frontends.grpc" in line:
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, signal.SIGKILL)
    result = command(
        *("model", "--model_name", "m", "--model_path", "x", "--bind_address", "127.0.0.1"),
        *("--port", str(server.port), "--run_dir", str(base / "other")),
    )
    assert_one_line(result, 1, f"port {server.port} is in use")
    server.wait_ready()


def test_killed_processes_come_back_at_once(start: Callable[..., Instance]) -> None:
    server = start()
    server.wait_ready()
    # Past its first seconds a process is started again without delay.
    time.sleep(6)
    for module in ("broker.app", "broker.storekeeper", "frontends.grpc.service"):
        (old,) = [pid for pid, line in processes_of(server.run_dir).items() if module in line]
        os.kill(old, signal.SIGKILL)
        started = time.monotonic()

        def successor(module: str = module, old: int = old) -> bool:
            return any(module in line and pid != old for pid, line in processes_of(server.run_dir).items())

        until(successor, 5)
        assert time.monotonic() - started < 1
    server.wait_ready()


def test_when_the_command_is_killed_nothing_stays(start: Callable[..., Instance], base: Path) -> None:
    server = start()
    server.wait_ready()
    server.stop(signal.SIGKILL)
    until(lambda: not processes_of(server.run_dir), 10)
    assert server.run_dir.exists()
    # What was left is no obstacle for the next.
    server = start()
    server.wait_ready()
    server.stop()
    assert server.process.returncode == 0


def test_a_model_that_cannot_be_served_ends_the_server(start: Callable[..., Instance], base: Path) -> None:
    (base / "model" / "1" / "model.bin").write_text("nothing of the kind")
    server = start()
    server.process.wait(START_S)
    assert server.process.returncode != 0
    assert server.errors.read_text().startswith("ie_serving: no model can be served: ")
    assert server.errors.read_text().count("\n") == 1
    assert not server.run_dir.exists()
    assert processes_of(server.run_dir) == {}


def test_a_console_that_does_not_read_stops_nothing(start: Callable[..., Instance], base: Path) -> None:
    source, sink = os.pipe()
    # Filled to the brim, so that not one line goes through.
    os.set_blocking(sink, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sink, b"\n" * 4096)
    os.set_blocking(sink, True)
    server = start(stdout=sink)
    os.close(sink)
    server.wait_ready()
    assert command("scale", "FAKE", "2", "--run_dir", str(server.run_dir)).returncode == 0
    assert server.stop() < STOP_S
    assert server.process.returncode == 0
    os.close(source)


def test_output_to_a_socket(start: Callable[..., Instance]) -> None:
    ours, theirs = socket.socketpair()
    server = start(stdout=theirs.fileno())
    theirs.close()
    server.wait_ready()
    server.stop()
    text = b""
    while select.select([ours], [], [], 1)[0] and (data := ours.recv(1 << 16)):
        text += data
    ours.close()
    assert b"gRPC server listens on port" in text


def test_closed_standard_descriptors(base: Path) -> None:
    (port,) = free_ports(1)
    run_dir = base / "run"
    words = (
        f"{sys.executable} -m ie_serving model --model_name m --model_path {base}/model --target_device FAKE"
    )
    words += f" --port {port} --bind_address 127.0.0.1 --arena_mb 1 --run_dir {run_dir} <&- >&- 2>&-"
    process = subprocess.Popen(["sh", "-c", f"exec {words}"], cwd=ROOT, start_new_session=True)
    check = ("status", "--check", "--run_dir", str(run_dir))
    try:
        until(lambda: command(*check).returncode == 0)
    finally:
        process.terminate()
        process.wait(START_S)
    assert process.returncode == 0
    assert processes_of(run_dir) == {}


def test_odd_run_directory(start: Callable[..., Instance]) -> None:
    server = start(name="50% a 'b")
    server.wait_ready()
    assert command("scale", "FAKE", "2", "--run_dir", str(server.run_dir)).returncode == 0
    server.stop()
    assert server.process.returncode == 0


def test_nohup(start: Callable[..., Instance]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    server.wait_ready()
    server.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert server.status()["ready"]


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["model"], 2, "required: --model_name, --model_path"),
        (
            ["model", "--model_name", "m", "--model_path", "https://h/m.zip"],
            2,
            "archives (https://) are not supported",
        ),
        (["config", "--config_path", "/nonexistent/f"], 1, "/nonexistent/f: it cannot be read: No such file"),
        (["bogus"], 2, "invalid choice: 'bogus'"),
        (["status", "--port", "1"], 1, "no server is running in"),
        (["scale", "CPU", "2", "--port", "1"], 1, "no server is running in"),
    ],
)
def test_whatever_is_wrong_is_one_line(arguments: list[str], code: int, part: str) -> None:
    assert_one_line(command(*arguments, IE_SERVING_RUN_DIR=""), code, part)


def test_wrong_environment_is_one_line() -> None:
    model = ("model", "--model_name", "m", "--model_path", "x")
    assert_one_line(
        command(*model, LOG_LEVEL="LOUD"), 2, "LOG_LEVEL: ERROR, INFO and DEBUG are accepted, not 'LOUD'"
    )
    assert_one_line(
        command(*model, LOG_PATH="/nonexistent/log"), 1, "LOG_PATH: cannot write to /nonexistent/log"
    )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["model", "--help"], ["--version"]])
def test_help_and_version_are_no_errors(arguments: list[str]) -> None:
    result = command(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert "ie_serving" in result.stdout
