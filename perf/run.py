"""The order of work: each model's limits and server take turns, round by round, within the same minutes.

    a case:  start echo, start server, check its answers
             round 1:  echo ×clients · relay · benchmark_app ×hints · gRPC ×clients · REST ×clients
             round 2:  …
             check its answers again, stop both

What slows the machine down for a while slows down a whole round, so ratios are taken within rounds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from perf import engine, procs, relay
from perf.calls import Sample, WrongAnswerError, check_grpc, check_rest, grpc_target, load_sample, rest_target
from perf.load import GeneratorName, Measured, measure, pilot, requests_for
from perf.plan import Case, Settings
from perf.server import EchoServer, Server, StartFailedError
from perf.stats import Figures
from perf.target import GRPC_PREFIX_BYTES, LoadFailedError, Target

TRIES = 3
LOAD = "load"
"""Among kinds of process: the load generator."""

What = Literal["echo", "relay", "engine throughput", "engine latency", "grpc", "rest"]


@dataclass(frozen=True)
class Record:
    """One measurement."""

    model: str
    what: What
    clients: int
    """0 for the engine, whose requests its hint decides."""
    round: int
    setup: str
    """Workers, threads and nireq in short."""
    figures: Figures
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """CPU milliseconds a request by kind of process; `load` is the generator."""
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """PSS by kind of process, at the end of the measurement."""


@dataclass
class Results:
    """What a run has found."""

    records: list[Record] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What could not be measured, and why."""


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    generator: GeneratorName
    settings: Settings
    cores: int
    models: Path
    directory: Path
    """For files that go afterwards."""
    results: Results
    tick: Callable[[str], None]
    """Told what comes next, once a measurement."""
    program: tuple[str, ...] = ()
    """The server's command, where it is not the `ie_serving` beside this Python."""

    def selected(self, clients: tuple[int, ...]) -> tuple[int, ...]:
        """Those that the settings ask for."""
        return tuple(each for each in clients if each in self.settings.clients)

    def steps(self, case: Case) -> int:
        """How many measurements a case takes."""
        echo = grpc = len(self.selected(case.grpc_clients))
        return self.settings.rounds * (echo + case.relay + 2 + grpc + len(self.selected(case.rest_clients)))


def run_case(bench: Bench, case: Case) -> None:
    """Measure one model; what goes wrong is written down and ends this case alone."""
    sample = load_sample(bench.models, case.model)
    try:
        with (
            EchoServer(case.echo_answer_bytes) as echo,
            Server(case.model, bench.models, case.setup, bench.directory, bench.program) as server,
        ):
            lengths = server.wait_ready(sample)
            for number in range(bench.settings.rounds):
                _run_round(bench, case, number, sample, echo, server, lengths)
            if (check_grpc(server.grpc_port, sample), check_rest(server.rest_port, sample)) != lengths:
                bench.results.problems.append(f"{case.model}: answers afterwards are of other lengths")
    except (StartFailedError, WrongAnswerError) as error:
        bench.results.problems.append(f"{case.model}: {error}")


def _run_round(
    bench: Bench,
    case: Case,
    number: int,
    sample: Sample,
    echo: EchoServer,
    server: Server,
    lengths: tuple[int, int],
) -> None:
    grpc = grpc_target(server.grpc_port, sample, bench.directory, lengths[0])
    rest = rest_target(server.rest_port, sample, bench.directory, lengths[1])
    echoed = (
        (case.echo_answer_bytes + GRPC_PREFIX_BYTES) if case.echo_answer_bytes else grpc.body.stat().st_size
    )
    bare = Target("grpc", echo.port, grpc.path, grpc.body, echoed)
    setup = case.setup.text(bench.cores)
    for clients in bench.selected(case.grpc_clients):
        _run_load(bench, case, "echo", bare, clients, number, echo.pid, "1 process")
    if case.relay:
        _run_relay(bench, case, number)
    for hint in ("throughput", "latency"):
        _run_engine(bench, case, hint, number)
    for clients in bench.selected(case.grpc_clients):
        _run_load(bench, case, "grpc", grpc, clients, number, server.pid, setup)
    for clients in bench.selected(case.rest_clients):
        _run_load(bench, case, "rest", rest, clients, number, server.pid, setup)


def _run_load(
    bench: Bench, case: Case, what: What, target: Target, clients: int, number: int, root: int, setup: str
) -> None:
    """One measurement of a server whose first process is `root`."""
    bench.tick(f"{case.model} {what} ×{clients}")
    try:
        measured, spent, after = _measure_long_enough(bench, target, clients, root)
    except LoadFailedError as error:
        bench.results.problems.append(f"{case.model} {what} at {clients} clients: {error}")
        return
    requests = measured.figures.requests
    cpu = {kind: 1e3 * seconds / requests for kind, seconds in spent.items()}
    cpu[LOAD] = measured.generator_cpu_ms
    record = Record(case.model, what, clients, number, setup, measured.figures, cpu, procs.memory(after))
    bench.results.records.append(record)


def _measure_long_enough(
    bench: Bench, target: Target, clients: int, root: int
) -> tuple[Measured, dict[str, float], list[procs.Process]]:
    """A run, the CPU seconds that it took by kind, and the processes at its end. Raises LoadFailedError.

    A pilot that met a slow start expects too little and makes the run too short: then it serves as the pilot.
    """
    seconds = bench.settings.seconds
    rate = pilot(bench.generator, target, clients, seconds, bench.directory)
    for _ in range(TRIES):
        requests = requests_for(rate, seconds, clients)
        before = procs.tree(root)
        measured = measure(bench.generator, target, clients, requests, seconds, bench.directory)
        after = procs.tree(root)
        rate = measured.figures.rate
        if requests >= rate * seconds / 2:
            break
    return measured, procs.cpu_spent(before, after), after


def _run_relay(bench: Bench, case: Case, number: int) -> None:
    bench.tick(f"{case.model} relay")
    try:
        figures = relay.run(bench.settings.seconds)
    except relay.RelayFailedError as error:
        bench.results.problems.append(f"{case.model} relay: {error}")
        return
    bench.results.records.append(Record(case.model, "relay", 1, number, "3 processes", figures))


def _run_engine(bench: Bench, case: Case, hint: engine.Hint, number: int) -> None:
    bench.tick(f"{case.model} benchmark_app {hint}")
    what: What = "engine throughput" if hint == "throughput" else "engine latency"
    try:
        done = engine.run(bench.models / case.model / "1" / f"{case.model}.xml", hint, bench.settings.seconds)
    except engine.EngineFailedError as error:
        bench.results.problems.append(f"{case.model} {what}: {error}")
        return
    bench.results.records.append(Record(case.model, what, 0, number, done.text(), done.figures))
