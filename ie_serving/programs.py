"""The text of supervisord's configuration. Pure.

Broker, storekeeper and frontends stand in it; for each worker the broker adds a file to `programs/`. Programs stop in
the reverse order of their priorities, group after group: frontends, workers, storekeeper, broker.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from common.config import ServerConfig, supervisor_socket

CONFIG_FILE = "supervisord.conf"
LOG_FILE = "supervisord.log"
PROGRAMS_DIRECTORY = "programs"

_BROKER_PRIORITY = 10
_STOREKEEPER_PRIORITY = 12
_FRONTENDS_PRIORITY = 30
"""Workers, whose sections the broker writes, have 20."""

_FRONTEND_STOP_S = 3
_STOP_S = 1

_FOREVER = 1_000_000
"""startretries: how often a process that could not even be forked is tried again before it is given up for good."""

_GRPC_ENVIRONMENT = 'GRPC_EXPERIMENTS="-event_engine_client,-event_engine_listener"'
"""grpcio's older poller, which takes a fifth less of a core a call than its event engine: see docs/performance.md."""

_ENVIRONMENT = 'OPENBLAS_NUM_THREADS="1"'
"""numpy's linear algebra, which nobody here uses, would have a thread for each further core in every process."""

_SAFE_PATH = 'PYTHONSAFEPATH="1"'

_PROGRAM_DEFAULTS = {
    "autostart": "true",
    "autorestart": "true",
    # Processes that end early are started again too: backing off is their own business.
    "startsecs": "0",
    "startretries": str(_FOREVER),
    "stopsignal": "TERM",
    "redirect_stderr": "true",
    "stdout_logfile_maxbytes": "0",
}


def escape(value: str) -> str:
    """A value in which supervisord shall expand nothing."""
    return value.replace("%", "%%")


def supervisord_text(config: ServerConfig, python: str, max_descriptors: int, *, safe_path: bool) -> str:
    """The whole file.

    A forked child closes all descriptors below `max_descriptors` before it executes a program. `safe_path`: whether
    modules are not to be looked for in the working directory, where `python -m` looks first (from Python 3.11 on).
    """
    run_dir = Path(config.run_dir)
    sections = [
        _section(
            "supervisord",
            {
                "nodaemon": "true",
                "silent": "true",
                "identifier": "ie_serving",
                "logfile": escape(str(run_dir / LOG_FILE)),
                "logfile_maxbytes": "1MB",
                "logfile_backups": "1",
                "pidfile": escape(str(run_dir / "supervisord.pid")),
                "childlogdir": escape(str(run_dir)),
                "nocleanup": "true",
                "minfds": str(max_descriptors),
                "minprocs": "1",
                "environment": f"{_ENVIRONMENT},{_SAFE_PATH}" if safe_path else _ENVIRONMENT,
            },
        ),
        _section("unix_http_server", {"file": escape(str(supervisor_socket(run_dir))), "chmod": "0700"}),
        _section(
            "rpcinterface:supervisor",
            {"supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"},
        ),
        # Relative to this file, because supervisord splits this value at spaces.
        _section("include", {"files": f"{PROGRAMS_DIRECTORY}/*.conf"}),
        _program(config, python, "broker", "broker.app", [], _BROKER_PRIORITY),
        _program(config, python, "storekeeper", "broker.storekeeper", [], _STOREKEEPER_PRIORITY),
        *_frontends(config, python),
    ]
    return "\n".join(sections)


def _frontends(config: ServerConfig, python: str) -> list[str]:
    """One group, so that they stop together."""
    sections = []
    names = [f"grpc-{index}" for index in range(config.grpc_workers)]
    for index, name in enumerate(names):
        sections.append(
            _program(
                config, python, name, "frontends.grpc.service", ["--index", str(index)], _FRONTENDS_PRIORITY,
                {"stopwaitsecs": str(_FRONTEND_STOP_S), "environment": _GRPC_ENVIRONMENT},
            )
        )  # fmt: skip
    if config.rest_port:
        names.append("rest")
        # gunicorn is a group of processes of which none may stay behind.
        more = {"stopwaitsecs": str(_FRONTEND_STOP_S), "stopasgroup": "true", "killasgroup": "true"}
        sections.append(
            _program(config, python, "rest", "frontends.rest.service", [], _FRONTENDS_PRIORITY, more)
        )
    group = _section("group:frontends", {"programs": ",".join(names), "priority": str(_FRONTENDS_PRIORITY)})
    return [*sections, group]


def _program(
    config: ServerConfig,
    python: str,
    name: str,
    module: str,
    arguments: list[str],
    priority: int,
    more: Mapping[str, str] | None = None,
) -> str:
    words = [python, "-m", module, "--run-dir", config.run_dir, *arguments]
    options = {
        "command": escape(shlex.join(words)),
        "priority": str(priority),
        **_PROGRAM_DEFAULTS,
        "stopwaitsecs": str(_STOP_S),
        "stdout_logfile": escape(config.console),
        **(more or {}),
    }
    return _section(f"program:{name}", options)


def _section(name: str, options: Mapping[str, str]) -> str:
    return "".join([f"[{name}]\n", *(f"{key}={value}\n" for key, value in options.items())])
