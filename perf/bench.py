"""What every scenario needs, and the one way in which load on a server is measured."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from perf import procs
from perf.generate import GeneratorName, Measured, measure, pilot, requests_for
from perf.plan import Settings
from perf.results import LOAD, Record, Results
from perf.target import LoadFailedError, Target

TRIES = 3


@dataclass(frozen=True)
class Bench:
    """What every measurement needs."""

    generator: GeneratorName
    settings: Settings
    models: Path
    """Where `perf.models` has written what is served."""
    directory: Path
    """For files that go afterwards."""
    results: Results
    tick: Callable[[str], None]
    """Told what comes next, once a measurement."""
    program: tuple[str, ...] = ()
    """The server's command, where it is not the `ie_serving` beside this Python."""
    wanted: frozenset[str] = field(default_factory=frozenset)
    """Names of the lines that are asked for; empty: all."""

    def wants(self, *lines: str) -> bool:
        """Whether any of these lines is asked for."""
        return not self.wanted or not self.wanted.isdisjoint(lines)


@dataclass(frozen=True)
class Load:
    """A measurement to take: whom, how, and how it stands in the records."""

    model: str
    what: str
    target: Target
    clients: int
    root: int
    """First process of the server: all others descend from it."""
    setup: str


def run_load(bench: Bench, load: Load, number: int) -> Record | None:
    """One measurement, recorded; None, and a problem written down, where it failed."""
    bench.tick(f"{load.model} {load.what} ×{load.clients}")
    try:
        measured, spent, after = _measure_long_enough(bench, load)
    except LoadFailedError as error:
        bench.results.problems.append(f"{load.model} {load.what} at {load.clients} clients: {error}")
        return None
    requests = measured.figures.requests
    cpu = {kind: 1e3 * seconds / requests for kind, seconds in spent.items()}
    cpu[LOAD] = measured.generator_cpu_ms
    memory = procs.memory(after)
    record = Record(load.model, load.what, load.clients, number, load.setup, measured.figures, cpu, memory)
    bench.results.records.append(record)
    return record


def _measure_long_enough(bench: Bench, load: Load) -> tuple[Measured, dict[str, float], list[procs.Process]]:
    """A run, the CPU seconds that it took by kind, and the processes at its end. Raises LoadFailedError.

    A pilot that met a slow start expects too little and makes the run too short: then it serves as the pilot.
    """
    seconds = bench.settings.seconds
    rate = pilot(bench.generator, load.target, load.clients, seconds, bench.directory)
    for _ in range(TRIES):
        requests = requests_for(rate, seconds, load.clients)
        before = procs.tree(load.root)
        measured = measure(bench.generator, load.target, load.clients, requests, seconds, bench.directory)
        after = procs.tree(load.root)
        rate = measured.figures.rate
        if requests >= rate * seconds / 2:
            break
    return measured, procs.cpu_spent(before, after), after
