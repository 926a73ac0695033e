"""supervisord's XML-RPC, spoken by a thread of its own so that the loop never waits for it.

    loop ──RunPrograms──▶ queue ──▶ thread ──XML-RPC over the unix socket──▶ supervisord
         ◀─eventfd, list of programs─┘

After each batch the thread asks for the whole list: that, and not the answer to any single command, is what the fleet
goes by, so the faults that mean "it is so already" or "not yet" need no handling of their own.
"""

import contextlib
import http.client
import importlib.util
import logging
import os
import queue
import shlex
import socket
import threading
import xmlrpc.client
from collections import deque
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from broker.fleet import Add, Program, ProgramCommand, Remove, Slot, Start, Stop
from common.build import LIBRARY
from common.config import ServerConfig, supervisor_socket
from common.messages import ProcessId
from common.process import start_ticks

_logger = logging.getLogger("broker")

_RPC_TIMEOUT_S = 5.0
_PREFIX = "worker-"
_PACKAGES = ("workers", "common")
_PACKAGES_DIRECTORY = "packages"
_PRIORITY = 20


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_RPC_TIMEOUT_S)
        self._path = str(path)

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_RPC_TIMEOUT_S)
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self.sock = connection


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _UnixConnection(self._path)


def escape(value: str) -> str:
    """A value in which supervisord shall expand nothing."""
    return value.replace("%", "%%")


def link_packages(run_dir: Path) -> Path:
    """A directory in which an interpreter with libraries of its own finds what a worker needs of us; where.

    Links to our packages, and not the directory that holds them: that may hold every library of this interpreter.
    """
    directory = run_dir / _PACKAGES_DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    places = []
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        assert found is not None, "the packages are installed together"
        assert found.origin is not None, "and each has an __init__.py"
        places.append(Path(found.origin).absolute().parent)
    # Of the same version of Python, it takes the compiled modules, and so wants the library that they share.
    shared = importlib.util.find_spec(LIBRARY)
    if shared is not None and shared.origin is not None:
        places.append(Path(shared.origin).absolute())
    for place in places:
        with contextlib.suppress(FileExistsError):
            (directory / place.name).symlink_to(place)
    return directory


class Supervisor:
    """The thread and its two ends."""

    def __init__(self, config: ServerConfig, python: str) -> None:
        self._config = config
        self._python = python
        self._run_dir = Path(config.run_dir)
        self._programs = self._run_dir / "programs"
        self._orders: queue.SimpleQueue[tuple[ProgramCommand, ...] | None] = queue.SimpleQueue()
        self._lists: deque[tuple[Program, ...] | None] = deque()
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="supervisor", daemon=True)
        self._thread.start()

    def run(self, commands: tuple[ProgramCommand, ...]) -> None:
        """Carry these out and fetch the list."""
        self._orders.put(commands)

    def shutdown(self) -> None:
        """End the whole server."""
        self._orders.put(None)

    def results(self) -> list[tuple[Program, ...] | None]:
        """The lists that have come since the last call; None for one that could not be had."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        found = []
        while self._lists:
            found.append(self._lists.popleft())
        return found

    # ---- the thread

    def _serve(self) -> None:
        while True:
            commands = self._orders.get()
            transport = _UnixTransport(supervisor_socket(self._run_dir))
            try:
                with xmlrpc.client.ServerProxy("http://localhost", transport=transport) as proxy:
                    if commands is None:
                        proxy.supervisor.shutdown()
                        continue
                    for command in commands:
                        self._carry_out(proxy, command)
                    self._lists.append(self._list(proxy))
            except (OSError, http.client.HTTPException, xmlrpc.client.Error, ExpatError) as error:
                _logger.debug("supervisord does not answer: %s", error)
                self._lists.append(None)
            os.eventfd_write(self.descriptor, 1)

    def _carry_out(self, proxy: xmlrpc.client.ServerProxy, command: ProgramCommand) -> None:
        try:
            if isinstance(command, Add):
                self._add(proxy, command.slot)
            elif isinstance(command, Start):
                proxy.supervisor.startProcess(command.program, False)
            elif isinstance(command, Stop):
                proxy.supervisor.stopProcess(command.program, False)
            elif isinstance(command, Remove):
                proxy.supervisor.removeProcessGroup(command.program)
                (self._programs / f"{command.program}.conf").unlink(missing_ok=True)
        except xmlrpc.client.Fault as fault:
            # Already started, already stopped, still running: the next list tells what is so.
            _logger.debug("supervisord on %s: %s", command, fault.faultString)

    def _add(self, proxy: xmlrpc.client.ServerProxy, slot: Slot) -> None:
        if slot.python:
            link_packages(self._run_dir)
        path = self._programs / f"{slot.program}.conf"
        draft = path.with_suffix(".new")
        draft.write_text(self._program_text(slot), encoding="utf-8")
        draft.replace(path)
        proxy.supervisor.reloadConfig()
        proxy.supervisor.addProcessGroup(slot.program)

    def _program_text(self, slot: Slot) -> str:
        """The program's section. `%` stands for itself only when doubled."""
        words = [
            *(slot.python or self._python, "-m", "workers.service", "--run-dir", str(self._run_dir)),
            *("--slot", slot.name, "--device", slot.device, "--plan", f"{slot.index}/{slot.of}"),
            *(("--emulate-on", slot.emulate_on) if slot.emulate_on else ()),
        ]
        command = escape(shlex.join(words))
        console = escape(self._config.console)
        return f"""[program:{slot.program}]
command={command}
autostart=false
autorestart=false
startsecs=0
priority={_PRIORITY}
stopsignal=TERM
stopwaitsecs=1
redirect_stderr=true
stdout_logfile={console}
stdout_logfile_maxbytes=0
{self._surroundings() if slot.python else ""}"""

    def _surroundings(self) -> str:
        """Of a program that another interpreter runs: it finds our two packages, and no library of this one.

        `python -m` looks into the working directory first, which therefore is the one with these packages.
        """
        packages = escape(str(self._run_dir / _PACKAGES_DIRECTORY))
        return f'directory={packages}\nenvironment=PYTHONPATH="{packages}",PYTHONHOME=""\n'

    @staticmethod
    def _list(proxy: xmlrpc.client.ServerProxy) -> tuple[Program, ...]:
        programs = []
        infos: Any = proxy.supervisor.getAllProcessInfo()
        for info in infos:
            name = str(info["name"])
            if name.startswith(_PREFIX):
                pid = int(info["pid"])
                ticks = start_ticks(pid) if pid else None
                process = ProcessId(pid, ticks) if ticks is not None else None
                programs.append(Program(name, str(info["statename"]), process))
        return tuple(programs)
