"""The broker's process: one loop that feeds events to the core and carries out its commands.

ZeroMQ ─┐                                  ┌─▶ ZeroMQ
pidfds ─┼─▶ events ─▶ Core ─▶ commands ────┼─▶ signals
thread ─┘   (drain everything, then decide) └─▶ supervisord's thread, wanted state, log
"""

import argparse
import contextlib
import logging
import os
import select
import signal
import sys
import time
from pathlib import Path

import msgspec

from broker.commands import (
    Command,
    ForgetFrontend,
    KillProcess,
    Reply,
    RunPrograms,
    SaveWanted,
    Say,
    Send,
    Shutdown,
    WatchProcess,
)
from broker.core import Core
from broker.router import Router
from broker.supervisor import Supervisor
from broker.wanted import load_wanted, save_wanted
from common.config import ServerConfig, exit_file, load, peers_socket
from common.descriptors import socket_path
from common.log import Logging
from common.messages import ProcessId
from common.process import die_with_parent, kill, open_pidfd, spare_heap, this_process
from common.transport import Transport, Waiter

_logger = logging.getLogger("broker")


class Watcher:
    """pidfds of watched processes, behind one epoll descriptor."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._processes: dict[int, ProcessId] = {}
        self._watched: set[ProcessId] = set()
        self._gone: list[ProcessId] = []

    @property
    def descriptor(self) -> int:
        """Readable when a watched process has ended."""
        return self._epoll.fileno()

    def watch(self, process: ProcessId) -> None:
        """Report the end of this process, once, even if it has ended already."""
        if process in self._watched:
            return
        pidfd = open_pidfd(process)
        if pidfd is None:
            self._gone.append(process)
            return
        self._watched.add(process)
        self._processes[pidfd] = process
        self._epoll.register(pidfd, select.EPOLLIN)

    def ended(self) -> list[ProcessId]:
        """Watched processes that have ended since the last call."""
        found, self._gone = self._gone, []
        for pidfd, _ in self._epoll.poll(0):
            self._epoll.unregister(pidfd)
            os.close(pidfd)
            process = self._processes.pop(pidfd)
            self._watched.discard(process)
            found.append(process)
        return found


class Broker:
    """Everything that the loop owns."""

    def __init__(self, config: ServerConfig) -> None:
        self._run_dir = Path(config.run_dir)
        state = load_wanted(self._run_dir)
        state = msgspec.structs.replace(state, epoch=state.epoch + 1)
        save_wanted(self._run_dir, state)
        self._core = Core(config, state, this_process(), time.monotonic_ns())
        self._transport = Transport()
        self._socket = self._transport.router(peers_socket(self._run_dir))
        self._router = Router(self._socket, state.epoch)
        self._supervisor = Supervisor(config, sys.executable)
        self._watcher = Watcher()
        self._waiter = Waiter()
        for source in (self._socket, self._watcher.descriptor, self._supervisor.descriptor):
            self._waiter.add(source)
        self.stopping = False

    def run(self) -> None:
        """Until `stopping`."""
        core, router = self._core, self._router
        while not self.stopping:
            now = time.monotonic_ns()
            ready = self._waiter.wait(core.next_wake() - now)
            now = time.monotonic_ns()
            router.drain(core, now)
            if ready:
                self._report(ready, now)
            self._carry_out(core.flush(now))

    def close(self) -> None:
        """Close what the loop owns."""
        self._socket.close()
        self._transport.close()

    def _report(self, ready: set[int], now: int) -> None:
        if self._watcher.descriptor in ready:
            self._report_deaths(now)
        if self._supervisor.descriptor in ready:
            self._report_programs(now)

    def _report_deaths(self, now: int) -> None:
        for process in self._watcher.ended():
            self._core.process_died(process, now)

    def _report_programs(self, now: int) -> None:
        for programs in self._supervisor.results():
            if programs is None:
                self._core.supervisor_unreachable(now)
            else:
                self._core.programs_seen(programs, now)

    def _carry_out(self, commands: list[Command]) -> None:
        """In order: what is to be sent comes last, when what it says is written down."""
        for command in commands:
            if isinstance(command, Send):
                self._router.send(command)
            else:
                self._carry_out_one(command)

    def _carry_out_one(self, command: Command) -> None:
        if isinstance(command, SaveWanted):
            save_wanted(self._run_dir, command.state)
        elif isinstance(command, Reply):
            self._router.reply(command)
        elif isinstance(command, WatchProcess):
            self._watcher.watch(command.process)
            # One that has ended already is reported in the next round, which must not wait.
            self._report_deaths(time.monotonic_ns())
        elif isinstance(command, KillProcess):
            kill(command.process)
        elif isinstance(command, RunPrograms):
            self._supervisor.run(command.commands)
        elif isinstance(command, Say):
            _logger.log(command.level, "%s", command.text)
        elif isinstance(command, ForgetFrontend):
            with contextlib.suppress(OSError):
                socket_path(self._run_dir, command.name).unlink()
        elif isinstance(command, Shutdown):
            document = {"code": command.code, "reason": command.reason}
            exit_file(self._run_dir).write_bytes(msgspec.json.encode(document))
            self._supervisor.shutdown()


def main(argv: list[str] | None = None) -> int:
    """Run the broker of one run directory until SIGTERM."""
    parser = argparse.ArgumentParser(prog="broker.app", description="The broker process of a model server.")
    parser.add_argument("--run-dir", type=Path, required=True, help="run directory written by ie_serving")
    options = parser.parse_args(argv)
    config = load(options.run_dir)
    die_with_parent(os.getppid())
    logs = Logging(config.log_level, Path(config.log_path) if config.log_path else None)
    broker = Broker(config)

    def stop(_number: int, _frame: object) -> None:
        broker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    spare_heap()
    try:
        broker.run()
    finally:
        broker.close()
        logs.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
