"""Scenarios of one model under load: its limits and the server take turns, round by round, within the same minutes.

    start echo, start server(s), check the answers
    round 1:  echo · benchmark_app or relay · gRPC · REST
    round 2:  …
    check the answers again, stop all

What slows the machine down for a while slows down a whole round, so ratios are taken within rounds.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perf import engine, relay
from perf.bench import Bench, Load, run_load
from perf.calls import Sample, WrongAnswerError, check_grpc, check_rest, grpc_target, load_sample, rest_target
from perf.plan import LINES, Setup, Transport
from perf.results import Record
from perf.server import (
    LimitServer,
    Server,
    StartFailedError,
    bare_server,
    echo_server,
    has_transports,
    model_options,
)
from perf.target import Target

NO_TRANSPORTS = "this server's command has no --grpc_transport"


@dataclass(frozen=True)
class Step:
    """A measurement of each round."""

    what: str
    """`echo`, `bare`, `relay`, `engine`, or what is asked of the server: `grpc`, `native`, `grpcio`, `rest`."""
    clients: int
    lines: tuple[str, ...]
    """What it is needed for."""


@dataclass(frozen=True)
class Case:
    """A model, and what is measured of it in a round, in this order."""

    model: str
    steps: tuple[Step, ...]
    lengthened: float = 1.0
    """By what a round of it takes longer than others: of long inferences, what the first and the last ones of a round
    leave idle would count else."""


def _case(model: str, *beside: Step, lengthened: float = 1.0) -> Case:
    """All that the lines of a model are made of, once each, limits first; and what is measured beside it."""
    found: dict[tuple[str, int], list[str]] = {}
    lines = [line for line in LINES if line.scenario == model and line.of]
    for key, name in [(line.to, line.name) for line in lines] + [(line.of, line.name) for line in lines]:
        if key is not None:
            found.setdefault(key[1:], []).append(name)
    steps = tuple(Step(what, clients, tuple(names)) for (what, clients), names in found.items())
    return Case(model, (*beside, *steps), lengthened)


CASES = (
    # What our own parts can do where nothing is decided, with one client and with sixteen.
    _case(
        "tiny",
        *(Step(what, 1, ("tiny-p50",)) for what in ("echo", "relay", "bare")),
        Step("bare", 16, ("tiny-native", "tiny-cpu")),
    ),
    _case("squeezenet"),
    _case("resnet50", lengthened=2.0),
)
_TRANSPORTS: dict[str, Transport] = {"native": "native", "grpcio": "grpcio"}


def steps_of(bench: Bench, case: Case) -> list[Step]:
    """What is asked for and can be measured of this server; what cannot is written down."""
    steps = [step for step in case.steps if bench.wants(*step.lines)]
    if not any(step.what in _TRANSPORTS for step in steps) or has_transports(bench.program):
        return steps
    # Its only transport is grpcio's, and is then the default.
    for line in LINES:
        if line.scenario == case.model and line.of is not None and line.of[1] == "native":
            bench.results.absent[line.name] = NO_TRANSPORTS
    return [step for step in steps if step.what != "native"]


def run_case(bench: Bench, case: Case) -> None:
    """Measure one model; what goes wrong is written down and ends this case alone."""
    sample = load_sample(bench.models, case.model)
    longer = replace(bench.settings, seconds=bench.settings.seconds * case.lengthened)
    bench = replace(bench, settings=longer)
    try:
        steps = steps_of(bench, case)
        with contextlib.ExitStack() as stack:
            limits = {"echo": stack.enter_context(echo_server(0))}
            if any(step.what == "bare" for step in steps):
                limits["bare"] = stack.enter_context(bare_server(_xml(bench, case.model)))
            servers = _start(bench, stack, steps, sample)
            lengths = {what: server.wait_ready(sample) for what, server in servers.items()}
            loads = _loads(bench, sample, limits, servers, lengths)
            for number in range(bench.settings.rounds):
                for step in steps:
                    _take(bench, case, step, number, loads)
            for what, server in servers.items():
                if (check_grpc(server.grpc_port, sample), check_rest(server.rest_port, sample)) != lengths[
                    what
                ]:
                    bench.results.problems.append(f"{case.model}: answers afterwards are of other lengths")
    except (StartFailedError, WrongAnswerError) as error:
        bench.results.problems.append(f"{case.model}: {error}")


def _start(
    bench: Bench, stack: contextlib.ExitStack, steps: Sequence[Step], sample: Sample
) -> dict[str, Server]:
    """A server for each transport that is asked for, by what is asked; those that are not at work cost nothing."""
    known = has_transports(bench.program)
    servers: dict[Transport, Server] = {}
    found: dict[str, Server] = {}
    for what in dict.fromkeys(step.what for step in steps):
        if what not in ("grpc", "native", "grpcio", "rest"):
            continue
        transport: Transport = _TRANSPORTS.get(what, "") if known else ""
        if transport not in servers:
            options = model_options(sample.model, bench.models / sample.model, Setup(transport))
            servers[transport] = stack.enter_context(Server(options, bench.directory, bench.program))
        found[what] = servers[transport]
    return found


def _loads(
    bench: Bench,
    sample: Sample,
    limits: dict[str, LimitServer],
    servers: dict[str, Server],
    lengths: dict[str, tuple[int, int]],
) -> dict[str, Load]:
    """What to send to whom, by what is asked."""
    model = sample.model
    found = {}
    for what, limit in limits.items():
        grpc = grpc_target(limit.port, sample, bench.directory, 0)
        # What it answers is what it was sent.
        echoed = Target("grpc", limit.port, grpc.path, grpc.body, grpc.body.stat().st_size)
        setup = "1 process" if what == "echo" else "1f 1w×1t native"
        found[what] = Load(model, what, echoed, 1, limit.pid, setup)
    for what, server in servers.items():
        grpc_length, rest_length = lengths[what]
        if what == "rest":
            target = rest_target(server.rest_port, sample, bench.directory, rest_length)
        else:
            target = grpc_target(server.grpc_port, sample, bench.directory, grpc_length)
        found[what] = Load(model, what, target, 1, server.pid, server.setup())
    return found


def _take(bench: Bench, case: Case, step: Step, number: int, loads: dict[str, Load]) -> None:
    """One measurement."""
    if step.what == "relay":
        _run_relay(bench, case, number)
    elif step.what == "engine":
        _run_engine(bench, case, number)
    else:
        load = loads[step.what]
        run_load(bench, Load(load.model, step.what, load.target, step.clients, load.root, load.setup), number)


def _run_relay(bench: Bench, case: Case, number: int) -> None:
    bench.tick(f"{case.model} relay")
    try:
        figures = relay.run(bench.settings.seconds)
    except relay.RelayFailedError as error:
        bench.results.problems.append(f"{case.model} relay: {error}")
        return
    bench.results.records.append(Record(case.model, "relay", 1, number, "3 processes", figures))


def _run_engine(bench: Bench, case: Case, number: int) -> None:
    bench.tick(f"{case.model} benchmark_app")
    try:
        done = engine.run(_xml(bench, case.model), "throughput", bench.settings.seconds)
    except engine.EngineFailedError as error:
        bench.results.problems.append(f"{case.model} benchmark_app: {error}")
        return
    bench.results.records.append(Record(case.model, "engine", 0, number, done.text(), done.figures))


def _xml(bench: Bench, model: str) -> Path:
    return bench.models / model / "1" / f"{model}.xml"


def count(bench: Bench, case: Case) -> int:
    """How many measurements a case takes."""
    return bench.settings.rounds * len(steps_of(bench, case))
