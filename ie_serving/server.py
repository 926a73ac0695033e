"""From a resolved configuration to a running server, and back: what `ie_serving model` and `config` do.

Everything that can be known to fail is tried before the first process starts, and said in one line.
"""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from common.config import MEGABYTE, ServerConfig, exit_file, save
from common.config_file import interpreter_problem
from common.process import available_memory
from common.tls import TlsError, server_context
from ie_serving import supervision
from ie_serving.console import Console, open_standard_descriptors
from ie_serving.errors import CommandError
from ie_serving.ports import hold_port
from ie_serving.programs import CONFIG_FILE, PROGRAMS_DIRECTORY, supervisord_text
from ie_serving.run_directory import RunDirectory
from ie_serving.sockets import hold_socket

_SLACK_BYTES = 128 * MEGABYTE
"""Of memory, for the processes themselves, before anything is inferred."""
_FLUSH_S = 0.5
_ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("broker", "common", "frontends", "workers")
_CLOSED_DESCRIPTORS = 1024
_WANTED_DESCRIPTORS = 65_536
"""A frontend needs one per connection."""


class Exit(msgspec.Struct, frozen=True):
    """What the broker leaves when it ends the server."""

    code: int
    reason: str = ""


def serve(config: ServerConfig) -> int:
    """Run the server until it ends; the exit code. Raises CommandError when it cannot start."""
    open_standard_descriptors()
    supervision.hold_signals()
    check_files(config)
    check_tls(config)
    check_memory(config, available_memory())
    with contextlib.ExitStack() as cleanup:
        directory = RunDirectory.acquire(Path(config.run_dir))
        cleanup.callback(directory.release)
        cleanup.enter_context(hold_port(config.bind_address, config.grpc_port, "--port"))
        if config.rest_port:
            cleanup.enter_context(hold_port(config.bind_address, config.rest_port, "--rest_port"))
        for option, path in (("--grpc_socket", config.grpc_socket), ("--rest_socket", config.rest_socket)):
            if path:
                cleanup.enter_context(hold_socket(path, option))
        with _console() as console:
            config = msgspec.structs.replace(config, console=console.path)
            _write(config, directory.path)
            supervision.run(directory.path / CONFIG_FILE)
        return exit_code(directory.path)


@contextlib.contextmanager
def _console() -> Iterator[Console]:
    console = Console()
    try:
        yield console
    finally:
        console.close(_FLUSH_S)


def _write(config: ServerConfig, path: Path) -> None:
    save(config)
    (path / PROGRAMS_DIRECTORY).mkdir(mode=0o700)
    text = supervisord_text(
        config, sys.executable, _raise_descriptor_limit(), safe_path=_safe_path(Path.cwd())
    )
    (path / CONFIG_FILE).write_text(text, encoding="utf-8")


def _safe_path(working_dir: Path) -> bool:
    """Whether a directory in which the server is started must not hide its packages, of which one is named `common`.

    Not where they are found there and nowhere else: in a checkout that is not installed.
    """
    if working_dir.resolve() == _ROOT:
        return False
    hidden = [name for name in _PACKAGES if (working_dir / name / "__init__.py").exists()]
    if hidden and sys.version_info < (3, 11):
        raise CommandError(
            f"the working directory holds a package named {hidden[0]}, as the server does: leave it"
        )
    return True


def _raise_descriptor_limit() -> int:
    """Allow more open files, which the children inherit; how many descriptors supervisord is to reckon with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return min(_CLOSED_DESCRIPTORS, wanted)


def check_files(config: ServerConfig) -> None:
    """Files that options and environment name; makes the caches. Raises CommandError.

    (A model may still come; the storekeeper looks for it.)
    """
    if config.log_path:
        try:
            with Path(config.log_path).open("ab"):
                pass
        except OSError as error:
            raise CommandError(f"LOG_PATH: cannot write to {config.log_path}: {error.strerror}") from error
    if config.cpu_extension and not os.access(config.cpu_extension, os.R_OK):
        raise CommandError(f"CPU_EXTENSION: cannot read {config.cpu_extension}")
    for option, path in (("--model_cache_dir", config.model_cache_dir), ("--cache_dir", config.cache_dir)):
        if path:
            _make_directory(option, Path(path))
    for name, device in config.devices.items():
        problem = interpreter_problem(device.python) if device.python else ""
        if problem:
            raise CommandError(f"the interpreter of device {name}: {problem}")


def check_tls(config: ServerConfig) -> None:
    """The files of certificates and keys. Raises CommandError."""
    if config.grpc_tls_certificate:
        try:
            server_context(config.grpc_tls_certificate, config.grpc_tls_key, config.grpc_tls_client_ca)
        except TlsError as error:
            raise CommandError(f"--grpc_tls_{error.role}: {error}") from error


def _make_directory(option: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{option}: cannot make {path}: {error.strerror}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise CommandError(f"{option}: cannot write to {path}")


def check_memory(config: ServerConfig, available: int) -> None:
    """Whether the arenas fit into `available` bytes. Raises CommandError."""
    needed = config.frontends * config.arena_bytes + _SLACK_BYTES
    if needed > available:
        raise CommandError(
            f"not enough memory: {config.frontends} frontends with {config.arena_bytes // MEGABYTE} MB each need "
            f"{needed // MEGABYTE} MB with all else, {available // MEGABYTE} MB are available; lower --arena_mb"
        )


def exit_code(run_dir: Path) -> int:
    """What the broker said, on standard error, and its code."""
    try:
        found = msgspec.json.decode(exit_file(run_dir).read_bytes(), type=Exit)
    except (FileNotFoundError, msgspec.DecodeError):
        return 0
    if found.reason:
        print(f"ie_serving: {' '.join(found.reason.splitlines())}", file=sys.stderr, flush=True)
    return found.code
