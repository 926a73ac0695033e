"""Serves the digits model in the foreground and shows one request over each API; `make run` starts it.

The server is a child on the same terminal, but in a process group of its own: Ctrl-C then reaches this process alone,
which passes it on once. Nothing of the server stays behind when this process goes: it waits for the server, and should
it be killed, the kernel tells the server to stop. What the client needs is imported while the server starts.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from common.process import die_with_parent
from examples.digits import png

HERE = Path(__file__).resolve().parent
SAMPLE = HERE / "images" / "7.png"
START_TIMEOUT_S = 60.0
POLL_S = 0.05
STOP_TIMEOUT_S = 10.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_server(port: int, rest_port: int) -> subprocess.Popen[bytes]:
    """The server as a child that ends with this process."""
    this = os.getpid()

    def prepare() -> None:
        os.setpgid(0, 0)
        die_with_parent(this)

    command = [
        str(Path(sys.executable).with_name("ie_serving")),
        "model",
        "--model_name=digits",
        f"--model_path={HERE / 'model'}",
        f"--port={port}",
        f"--rest_port={rest_port}",
    ]
    # No other thread runs yet, so that code between fork and exec is safe.
    return subprocess.Popen(command, preexec_fn=prepare)


def occupied(port: int) -> bool:
    """Whether something listens there already: its answers would be taken for the server's."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_ready(port: int, rest_port: int) -> bool:
    """Whether REST calls the model AVAILABLE and the gRPC port accepts."""
    from examples.digits import client

    url = f"http://127.0.0.1:{rest_port}/v1/models/digits"
    try:
        with client.open_directly(url, timeout=1) as response:
            versions = json.load(response)["model_version_status"]
    except (OSError, ValueError, KeyError):
        return False
    return any(version["state"] == "AVAILABLE" for version in versions) and occupied(port)


def wait_until_ready(server: subprocess.Popen[bytes], port: int, rest_port: int) -> bool:
    """True once it is ready; False when it has ended, or is not ready within START_TIMEOUT_S."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        if is_ready(port, rest_port):
            return True
        time.sleep(POLL_S)
    return False


def show(port: int, rest_port: int) -> None:
    """Send one image over both APIs and print the answers and how to ask again. Raises OSError, ValueError."""
    import grpc

    from examples.digits import client

    image = png.read(SAMPLE)
    name = os.path.relpath(SAMPLE)
    rest = client.describe(client.predict_rest(image, rest_port))
    try:
        over_grpc = client.describe(client.predict_grpc(image, port))
    except grpc.RpcError as error:
        raise OSError(str(error)) from error
    body = json.dumps({"instances": [image]}, separators=(",", ":"))
    ports = f" --port {port} --rest_port {rest_port}"
    print(
        f"\nThe digits model is served. {name}, sent through the running server:\n"
        f"  REST  {rest}\n"
        f"  gRPC  {over_grpc}\n"
        f"\nAsk again, with curl or with Python (examples/digits/client.py):\n"
        f"  curl -d '{body}' http://127.0.0.1:{rest_port}/v1/models/digits:predict\n"
        f"  {os.path.relpath(sys.executable)} -m examples.digits.client {name}{ports}\n"
        "\nCtrl-C stops the server.\n",
        flush=True,
    )


@contextlib.contextmanager
def signals_passed_to(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within it, the first signal to stop goes to the server; further ones change nothing, it is stopping."""
    passed = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal passed
        if not passed:
            passed = True
            server.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(server: subprocess.Popen[bytes]) -> None:
    """Have a server that failed its demonstration end, within STOP_TIMEOUT_S."""
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def serve(port: int, rest_port: int) -> int:
    """Start, show, wait; the server's exit code, or 1 when it could not be shown."""
    for number in (port, rest_port):
        if occupied(number):
            print(f"error: port {number} is in use already", file=sys.stderr)
            return 1
    server = start_server(port, rest_port)
    with signals_passed_to(server):
        if wait_until_ready(server, port, rest_port):
            try:
                show(port, rest_port)
            except (OSError, ValueError) as error:
                if server.poll() is None:
                    print(f"error: the request to the demo model failed: {error}", file=sys.stderr)
                    stop(server)
                    return 1
        elif server.poll() is None:
            print(f"error: the server was not ready within {START_TIMEOUT_S:.0f} s", file=sys.stderr)
            stop(server)
            return 1
        code = server.wait()
    return code if code >= 0 else 128 - code


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Serve the digits model and show a request over each API.")
    parser.add_argument("--port", type=int, default=9000, help="gRPC port (9000)")
    parser.add_argument("--rest_port", type=int, default=8000, help="REST port (8000)")
    arguments = parser.parse_args()
    return serve(arguments.port, arguments.rest_port)


if __name__ == "__main__":
    sys.exit(main())
