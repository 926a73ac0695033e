"""supervisord, in this process and in the foreground.

    SIGTERM, SIGINT, SIGCHLD ─▶ wake-up pipe ─┐
    children's output, XML-RPC ───────────────┴▶ supervisord's loop: start, reap, restart, stop

supervisord's loop looks at signals, ended children and programs to start once a turn, and waits up to a second between
two turns for descriptors alone (Python repeats a poll that a signal interrupted). So every signal also writes to a pipe
that the loop waits for, and what comes of it is attended to at once.
"""

import contextlib
import os
import signal
import sys
import time
import warnings
from pathlib import Path

from supervisor.medusa import asyncore_25 as asyncore
from supervisor.options import ProcessConfig, ServerOptions
from supervisor.process import Subprocess
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor

from common.backoff import delay_ns
from ie_serving.errors import CommandError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""Each ends the server."""

STOP_S = 4.0
"""After a request to end, whatever has not ended by then is killed."""

STABLE_S = 5.0
"""A process that has run for less has died early, and is started again with more and more delay."""


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget_handlers() -> None:
    """In a forked child: a signal that comes before it executes its program ends it, as it would end the program."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    _unblock_signals()


class _Wake:
    """An asyncore dispatcher for the pipe that signals write to."""

    def __init__(self) -> None:
        self._source, self._sink = os.pipe()
        os.set_blocking(self._source, False)
        os.set_blocking(self._sink, False)
        asyncore.socket_map[self._source] = self
        signal.set_wakeup_fd(self._sink, warn_on_full_buffer=False)
        os.register_at_fork(
            before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_forget_handlers
        )
        self.turn()

    def turn(self) -> None:
        """Have the loop run once more without waiting."""
        os.write(self._sink, b"\0")

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        asyncore.socket_map.pop(self._source, None)
        os.close(self._source)
        os.close(self._sink)

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        numbers = os.read(self._source, 4096)
        # A turn starts programs first and reaps afterwards, so that what ended is started again by a second one.
        if any(numbers):
            self.turn()

    def handle_error(self) -> None:
        _, error, _ = sys.exc_info()
        assert error is not None, "supervisord calls this in an exception handler"
        raise error


class _Process(Subprocess):  # type: ignore[misc]
    """A process that is started again at once, but after early deaths in a row with the delays of a back-off."""

    _early_deaths = 0
    _started_at = 0.0
    _not_before = 0.0

    def spawn(self) -> int | None:
        self._started_at = time.monotonic()
        pid: int | None = super().spawn()
        if pid:
            # The child does it, too; but a signal for its group may be due before it has come so far.
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)
        return pid

    def finish(self, pid: int, status: int) -> None:
        super().finish(pid, status)
        now = time.monotonic()
        self._early_deaths = self._early_deaths + 1 if now - self._started_at < STABLE_S else 0
        self._not_before = now + delay_ns(self._early_deaths) / 1e9

    def transition(self) -> None:
        if self.state != ProcessStates.EXITED or time.monotonic() >= self._not_before:
            super().transition()


class _ProcessConfig(ProcessConfig):  # type: ignore[misc]
    def make_process(self, group: object = None) -> _Process:
        process = _Process(self)
        process.group = group
        return process


class _Options(ServerOptions):  # type: ignore[misc]
    """supervisord's options; signals are let through as soon as they are handled."""

    def processes_from_section(
        self, parser: object, section: str, group_name: str, klass: object = None
    ) -> object:
        ours = _ProcessConfig if klass in (None, ProcessConfig) else klass
        return super().processes_from_section(parser, section, group_name, ours)

    def setsignals(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().setsignals()
        if ignored:
            # Started by nohup: stays when the terminal goes.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _let_signals_through()


class _Supervisor(Supervisor):  # type: ignore[misc]
    """supervisord with a bound to its end. A request to restart (SIGHUP, XML-RPC) ends it too."""

    _stop_at: float | None = None

    def runforever(self) -> None:
        wake = _Wake()
        try:
            super().runforever()
        finally:
            wake.close()

    def ordered_stop_groups_phase_1(self) -> None:
        now = time.monotonic()
        if self._stop_at is None:
            self._stop_at = now + STOP_S
        if now < self._stop_at:
            super().ordered_stop_groups_phase_1()
            return
        for group in self.process_groups.values():
            for process in group.get_unstopped_processes():
                if process.pid:
                    process.kill(signal.SIGKILL)


_held: list[int] = []
"""Signals that came while they were to wait."""


def _hold(number: int, _frame: object) -> None:
    _held.append(number)


def hold_signals() -> None:
    """Keep signals that end the server until supervisord can handle them; none is lost, none kills halfway.

    Blocking them is not enough: a library may have started a thread before, which does not block them.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hold)
    _block_signals()


def _let_signals_through() -> None:
    """Those that were held come now, and all others as they come."""
    for number in set(_held):
        os.kill(os.getpid(), number)
    _held.clear()
    _unblock_signals()


def run(config_file: Path) -> None:
    """Run supervisord until it is told to end and its children have ended. Raises CommandError if it cannot start."""
    # supervisord forks while the console's threads run. Between fork and exec its child takes no lock of theirs.
    warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
    options = _Options()
    options.stderr = _LastLine()
    try:
        options.realize(["-c", str(config_file)], doc="")
    except SystemExit:
        raise CommandError(f"supervisord does not start: {options.stderr.line}") from None
    options.first = True
    options.test = False
    supervisor = _Supervisor(options)
    try:
        supervisor.main()
    except asyncore.ExitNow:
        pass
    except SystemExit:
        raise CommandError(f"supervisord does not start: {options.stderr.line}") from None
    finally:
        # A second Ctrl-C must not end the process halfway through what is left; Python resets handlers at exit.
        hold_signals()
        options.close_httpservers()
        options.close_logger()
    assert options.mood < SupervisorStates.RUNNING


class _LastLine:
    """Stands for standard error, where supervisord says why it does not start; keeps the first line."""

    line = ""

    def write(self, text: str) -> int:
        self.line = self.line or text.strip()
        return len(text)
