"""Scenario: 1, 10 and 100 models side by side under the same total load, each server with a share of every round.

The models are copies of the tiny one; each of the 16 clients goes through all of them in turn (`perf.load_mix`).
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from perf import load_mix, procs
from perf.bench import Bench
from perf.calls import Sample, WrongAnswerError, check_grpc, grpc_message, load_sample
from perf.generate import requests_for
from perf.many import configure
from perf.plan import Setup
from perf.results import Record
from perf.server import Server, StartFailedError, config_options
from perf.stats import Figures, summarise
from perf.target import LoadFailedError, frame

COUNTS = (1, 10, 100)
CLIENTS = 16
NAME = "models"
_PILOT_REQUESTS = 25 * CLIENTS


@dataclass(frozen=True)
class _Served:
    """A server of so many models."""

    count: int
    server: Server
    bodies: Path
    answer_bytes: int
    setup: str


def run(bench: Bench) -> None:
    """Measure; what goes wrong is written down."""
    sample = load_sample(bench.models, "tiny")
    counts = [each for each in COUNTS if each == COUNTS[0] or bench.wants(f"models-{each}")]
    try:
        with contextlib.ExitStack() as stack:
            served = [_serve(bench, stack, sample, each) for each in counts]
            for number in range(bench.settings.rounds):
                for each in served:
                    _measure(bench, each, number)
            for each in served:
                _check(each, sample)
    except (StartFailedError, WrongAnswerError) as error:
        bench.results.problems.append(f"{NAME}: {error}")


def steps(bench: Bench) -> int:
    """How many measurements it takes."""
    return bench.settings.rounds * len(COUNTS)


def _serve(bench: Bench, stack: contextlib.ExitStack, sample: Sample, count: int) -> _Served:
    directory = bench.directory / f"{count}-models"
    directory.mkdir()
    path = configure(directory, bench.models / sample.model, count)
    options = config_options(path, Setup())
    server = stack.enter_context(Server(options, bench.directory, bench.program))
    names = sorted(each.name for each in directory.iterdir() if each.is_dir())
    bodies = directory / "bodies"
    bodies.mkdir()
    for name in names:
        (bodies / name).write_bytes(frame(grpc_message(replace(sample, model=name))))
    # The last one first: what loads in turn is then mostly there.
    lengths = {server.wait_grpc(replace(sample, model=name)) for name in reversed(names)}
    if len(lengths) != 1:
        raise WrongAnswerError(f"answers of {count} like models are of {len(lengths)} lengths")
    return _Served(count, server, bodies, lengths.pop(), server.setup())


def _check(served: _Served, sample: Sample) -> None:
    for name in sorted(each.name for each in served.bodies.iterdir()):
        check_grpc(served.server.grpc_port, replace(sample, model=name))


def _measure(bench: Bench, served: _Served, number: int) -> None:
    what = f"{served.count} models"
    bench.tick(f"{what} ×{CLIENTS}")
    seconds = bench.settings.seconds
    try:
        rate = _load(bench, served, _PILOT_REQUESTS).rate
        requests = requests_for(rate, seconds, CLIENTS)
        before = procs.tree(served.server.pid)
        figures = _load(bench, served, requests)
        after = procs.tree(served.server.pid)
    except LoadFailedError as error:
        bench.results.problems.append(f"{what}: {error}")
        return
    spent = procs.cpu_spent(before, after)
    cpu = {kind: 1e3 * each / requests for kind, each in spent.items()}
    record = Record(NAME, what, CLIENTS, number, served.setup, figures, cpu, procs.memory(after))
    bench.results.records.append(record)


def _load(bench: Bench, served: _Served, requests: int) -> Figures:
    """Raises LoadFailedError, also where no request succeeds."""
    file = bench.directory / "mix.npy"
    timeout_s = 4 * bench.settings.seconds + 60
    port, bodies, length = served.server.grpc_port, served.bodies, served.answer_bytes
    samples = load_mix.run(port, bodies, length, CLIENTS, requests, timeout_s, file)
    figures = summarise(samples, CLIENTS)
    if figures.errors == figures.requests:
        raise LoadFailedError(f"all of {figures.requests} requests failed")
    return figures
