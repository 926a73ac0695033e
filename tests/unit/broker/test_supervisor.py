"""broker.supervisor against an XML-RPC server that answers as supervisord does, on a unix socket, in a thread."""

import configparser
import os
import select
import shlex
import socketserver
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xmlrpc.server import SimpleXMLRPCDispatcher, SimpleXMLRPCRequestHandler

import pytest
from supervisor.datatypes import dict_of_key_value_pairs

from broker.fleet import Add, Program, ProgramCommand, Remove, Slot, Start, Stop
from broker.supervisor import Supervisor
from common.build import LIBRARY
from common.config import ServerConfig, supervisor_socket
from common.process import this_process

PATIENCE_S = 10.0
FAULT = xmlrpc.client.Fault(60, "ALREADY_STARTED")
NOBODY = (1 << 22) + 1


class _Handler(SimpleXMLRPCRequestHandler):
    rpc_paths = ("/RPC2", "/")
    disable_nagle_algorithm = False

    def log_message(self, format: str, *args: Any) -> None:
        pass


class FakeSupervisord(socketserver.ThreadingMixIn, socketserver.UnixStreamServer, SimpleXMLRPCDispatcher):
    """Notes the calls; `faults` are methods that it refuses, `infos` the answer to getAllProcessInfo."""

    daemon_threads = True
    logRequests = False  # noqa: N815 - as the library names it

    def __init__(self, path: Path) -> None:
        SimpleXMLRPCDispatcher.__init__(self, allow_none=True)
        socketserver.UnixStreamServer.__init__(self, str(path), _Handler)
        self.calls: list[tuple[Any, ...]] = []
        self.faults: set[str] = set()
        self.infos: list[dict[str, Any]] = []
        self.on_call: Callable[[str], None] = lambda _: None

    def _dispatch(self, method: str, params: Any) -> Any:
        name = method.removeprefix("supervisor.")
        self.on_call(name)
        if name == "getAllProcessInfo":
            return self.infos
        self.calls.append((name, *params))
        if name in self.faults:
            raise FAULT
        return True


class Harness:
    """The supervisor and what it talks to."""

    def __init__(self, run_dir: Path) -> None:
        (run_dir / "programs").mkdir()
        self.programs = run_dir / "programs"
        self.server = FakeSupervisord(supervisor_socket(run_dir))
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        config = ServerConfig((), str(run_dir), console="/dev/pts/%1")
        self.supervisor = Supervisor(config, "/usr/bin/python 3")

    def run(self, *commands: ProgramCommand) -> tuple[Program, ...] | None:
        self.supervisor.run(commands)
        return self.result()

    def result(self) -> tuple[Program, ...] | None:
        assert select.select([self.supervisor.descriptor], [], [], PATIENCE_S)[0]
        (found,) = self.supervisor.results()
        assert not select.select([self.supervisor.descriptor], [], [], 0)[0]
        return found

    def stop_server(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join(PATIENCE_S)
            self.server.server_close()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.stop_server()


def info(name: str, state: str = "RUNNING", pid: int = 0) -> dict[str, Any]:
    return {"name": name, "group": name, "statename": state, "pid": pid, "exitstatus": 0}


def test_the_list_shows_workers_alone_with_their_processes(harness: Harness) -> None:
    harness.server.infos = [
        info("broker", pid=1),
        info("worker-CPU-0", pid=os.getpid()),
        info("worker-CPU-1", "STOPPED"),
        info("worker-CPU-2", "RUNNING", NOBODY),
        info("grpc-0", pid=2),
    ]
    assert harness.run() == (
        Program("worker-CPU-0", "RUNNING", this_process()),
        Program("worker-CPU-1", "STOPPED", None),
        Program("worker-CPU-2", "RUNNING", None),
    )
    assert harness.server.calls == []


def test_commands_are_carried_out_in_order(harness: Harness) -> None:
    harness.run(
        Add(Slot("CPU-0", "CPU")), Start("worker-CPU-0"), Stop("worker-CPU-9"), Remove("worker-CPU-9")
    )
    assert harness.server.calls == [
        ("reloadConfig",),
        ("addProcessGroup", "worker-CPU-0"),
        ("startProcess", "worker-CPU-0", False),
        ("stopProcess", "worker-CPU-9", False),
        ("removeProcessGroup", "worker-CPU-9"),
    ]


def test_a_program_s_file_says_what_to_run(harness: Harness, tmp_path: Path) -> None:
    slot = Slot("MULTI:GPU,CPU-3", "MULTI:GPU,CPU", 1, 4)
    harness.run(Add(slot))
    assert [path.name for path in harness.programs.iterdir()] == [f"{slot.program}.conf"]
    parser = configparser.RawConfigParser()
    parser.read(harness.programs / f"{slot.program}.conf")
    section = parser[f"program:{slot.program}"]
    words = shlex.split(section["command"].replace("%%", "%"))
    assert words == [
        *("/usr/bin/python 3", "-m", "workers.service", "--run-dir", str(tmp_path)),
        *("--slot", "MULTI:GPU,CPU-3", "--device", "MULTI:GPU,CPU", "--plan", "1/4"),
    ]
    assert section["autorestart"] == "false"
    assert section["autostart"] == "false"
    assert section["stdout_logfile"] == "/dev/pts/%%1", "supervisord expands single ones"


def test_another_interpreter_finds_the_worker_s_packages_and_no_library_of_ours(
    harness: Harness, tmp_path: Path
) -> None:
    slot = Slot("MYRIAD-0", "MYRIAD", python="/opt/open vino/bin/python")
    for _ in range(2):
        harness.run(Add(slot))
    parser = configparser.RawConfigParser()
    parser.read(harness.programs / f"{slot.program}.conf")
    section = parser[f"program:{slot.program}"]
    assert shlex.split(section["command"])[:3] == ["/opt/open vino/bin/python", "-m", "workers.service"]
    packages = tmp_path / "packages"
    assert section["directory"] == str(packages)
    environment = dict_of_key_value_pairs(section["environment"])
    assert environment == {"PYTHONPATH": str(packages), "PYTHONHOME": ""}
    # The library is what compiled modules share; the packages' own directories hold nothing else of ours.
    assert {path.name.partition(".")[0] for path in packages.iterdir()} - {LIBRARY} == {"common", "workers"}
    assert (packages / "workers" / "service.py").is_file()
    assert (packages / "common" / "config.py").is_file()


def test_our_own_interpreter_runs_where_the_server_was_started(harness: Harness, tmp_path: Path) -> None:
    harness.run(Add(Slot("CPU-0", "CPU")))
    text = (harness.programs / "worker-CPU-0.conf").read_text()
    assert "environment" not in text
    assert "directory" not in text
    assert not (tmp_path / "packages").exists()


def test_an_emulated_device_is_told_what_stands_in_for_it(harness: Harness) -> None:
    harness.run(Add(Slot("MYRIAD-0", "MYRIAD", emulate_on="CPU")))
    text = (harness.programs / "worker-MYRIAD-0.conf").read_text()
    assert "--device MYRIAD --plan 0/1 --emulate-on CPU\n" in text


def test_the_file_is_there_before_supervisord_reads_it(harness: Harness) -> None:
    seen: list[list[str]] = []

    def look(name: str) -> None:
        if name == "reloadConfig":
            seen.append(sorted(path.name for path in harness.programs.iterdir()))

    harness.server.on_call = look
    harness.run(Add(Slot("CPU-0", "CPU")))
    assert seen == [["worker-CPU-0.conf"]]


def test_removing_removes_the_file(harness: Harness) -> None:
    harness.run(Add(Slot("CPU-0", "CPU")))
    harness.run(Remove("worker-CPU-0"))
    assert list(harness.programs.iterdir()) == []


def test_a_refused_removal_keeps_the_file(harness: Harness) -> None:
    """Still running: the program is in the next list, and is removed later."""
    harness.run(Add(Slot("CPU-0", "CPU")))
    harness.server.faults = {"removeProcessGroup"}
    harness.run(Remove("worker-CPU-0"))
    assert [path.name for path in harness.programs.iterdir()] == ["worker-CPU-0.conf"]


@pytest.mark.parametrize("method", ["addProcessGroup", "startProcess", "stopProcess", "reloadConfig"])
def test_faults_are_normal_answers_and_the_rest_goes_on(harness: Harness, method: str) -> None:
    harness.server.faults = {method}
    harness.server.infos = [info("worker-CPU-0", "STOPPED")]
    listed = harness.run(
        Add(Slot("CPU-0", "CPU")), Start("worker-CPU-0"), Stop("worker-CPU-1"), Remove("worker-CPU-1")
    )
    assert listed == (Program("worker-CPU-0", "STOPPED", None),)
    assert harness.server.calls[-1] == ("removeProcessGroup", "worker-CPU-1")


def test_a_supervisord_that_is_not_there_is_none_and_may_come_back(harness: Harness, tmp_path: Path) -> None:
    harness.stop_server()
    supervisor_socket(tmp_path).unlink()
    assert harness.run(Start("worker-CPU-0")) is None
    assert harness.run() is None
    harness.server = FakeSupervisord(supervisor_socket(tmp_path))
    harness.thread = threading.Thread(target=harness.server.serve_forever, args=(0.01,))
    harness.thread.start()
    assert harness.run() == ()


def test_an_answer_that_is_cut_off_is_none(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FakeSupervisord, "_marshaled_dispatch", lambda *_: b"<?xml version='1.0'?><methodResp")
        assert harness.run() is None
    assert harness.run() == ()


def test_a_disk_that_takes_no_file_is_none(harness: Harness) -> None:
    harness.programs.rmdir()
    assert harness.run(Add(Slot("CPU-0", "CPU"))) is None
    harness.programs.mkdir()
    assert harness.run(Add(Slot("CPU-0", "CPU"))) == ()


def test_shutdown_ends_the_whole_server(harness: Harness) -> None:
    called = threading.Event()
    harness.server.on_call = lambda name: called.set() if name == "shutdown" else None
    harness.supervisor.shutdown()
    assert called.wait(PATIENCE_S)
    assert harness.run() == ()


def test_results_without_news_are_empty(harness: Harness) -> None:
    assert harness.supervisor.results() == []
