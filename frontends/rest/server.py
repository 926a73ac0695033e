"""gunicorn, configured by us and by nothing else: no file, no command line.

    supervisord ─▶ arbiter (this process: listens, forks, restarts) ─▶ rest_workers × worker (asgi, uvloop)

The workers share the arbiter's listening sockets, port and perhaps a unix socket, so that connections which wait to be
accepted outlive a worker. The port has SO_REUSEPORT set, because the command holds it with a socket of its own as long
as the server lives.

A worker ends with its arbiter, the arbiter with its parent. A client that goes away has its request cancelled at once.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from common.config import ServerConfig
from common.log import FORMAT
from common.process import die_with_parent, spare_heap
from frontends import unix_socket
from frontends.rest.connection import install
from frontends.rest.lifespan import LifespanApp, StartRuntime

KEEP_ALIVE_S = 60
"""An idle connection is closed after this long; longer than the pauses of clients that poll."""

WORKER_TIMEOUT_S = 120
"""A worker that does not return to its loop for so long is killed. Reading 50 MB of JSON takes a second or two. It is
gunicorn's patience with a body that has stopped coming, too."""

STOP_S = 2
"""From SIGTERM until the arbiter kills the workers that are left."""

_LONGEST_REQUEST_LINE = 8190
"""Bytes; gunicorn's own maximum. Model names of 4 KB fit."""


class _GunicornLog(Logger):  # type: ignore[misc]
    """gunicorn's messages through ours: warnings and errors only, in our format, no access log."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log = logging.getLogger("frontends.rest.gunicorn")
        self.error_log.setLevel(logging.WARNING)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        # At every stop it says that connections, most of them idle, are closed; the requests were waited for by us.
        if not msg.startswith("Forcing close of"):
            super().warning(msg, *args, **kwargs)


class _Server(BaseApplication):  # type: ignore[misc]
    """What gunicorn asks for: settings, and the application."""

    def __init__(self, config: ServerConfig, start: StartRuntime, listeners: Sequence[int]) -> None:
        self._config = config
        self._start = start
        self._listeners = listeners
        super().__init__()

    def load_config(self) -> None:
        settings: dict[str, Any] = {
            "bind": [f"fd://{listener}" for listener in self._listeners],
            "workers": self._config.rest_workers,
            "worker_class": "asgi",
            "asgi_loop": "uvloop",
            "asgi_lifespan": "on",
            "http_parser": "python",  # frontends.rest.heads
            "asgi_disconnect_grace_period": 0,
            "preload_app": False,
            "control_socket_disable": True,
            "worker_tmp_dir": self._config.run_dir,
            "keepalive": KEEP_ALIVE_S,
            "timeout": WORKER_TIMEOUT_S,
            "graceful_timeout": STOP_S,
            "limit_request_line": _LONGEST_REQUEST_LINE,
            "logger_class": _GunicornLog,
            "post_fork": _after_fork,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> LifespanApp:
        return LifespanApp(self._config, self._start)


def _after_fork(arbiter: Any, worker: Any) -> None:
    """In the new worker. Its inherited handler would only queue a SIGTERM for an arbiter that it is not."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(arbiter.pid)
    # The worker waits for requests in flight while it closes its runtime. gunicorn's own wait would be for
    # connections, idle ones included, and would use up the time until the arbiter kills.
    worker.cfg.set("graceful_timeout", 0)


def listen_on(address: str, port: int) -> socket.socket:
    """The server's socket, bound. Raises OSError."""
    family, kind, protocol, _, where = socket.getaddrinfo(
        address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener


def _listeners(config: ServerConfig) -> list[socket.socket]:
    """All of the server's sockets. Raises OSError."""
    try:
        listeners = [listen_on(config.bind_address, config.rest_port)]
    except OSError as error:
        raise OSError(f"cannot listen on {config.bind_address}:{config.rest_port}: {error}") from None
    if config.rest_socket:
        listeners.append(unix_socket.bind(config.rest_socket))
    return listeners


def _log_plainly(config: ServerConfig) -> None:
    """For the arbiter, which forks and therefore cannot have common.log's thread."""
    targets: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if config.log_path:
        targets.append(logging.FileHandler(Path(config.log_path), mode="a", encoding="utf-8"))
    logging.basicConfig(level=config.log_level, format=FORMAT, handlers=targets, force=True)


def run(config: ServerConfig, start: StartRuntime) -> int:
    """Serve until SIGTERM; the exit code. `start` is called in each worker."""
    die_with_parent(os.getppid())
    install()
    _log_plainly(config)
    log = logging.getLogger("frontends.rest")
    try:
        listeners = _listeners(config)
    except OSError as error:
        log.error("The REST frontend cannot start: %s", error)
        return 1
    # Also so that no collection in a forked worker touches, and thereby copies, what it shares with this process.
    spare_heap()
    try:
        _Server(config, start, [listener.detach() for listener in listeners]).run()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
