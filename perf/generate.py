"""One measurement: which load generator, how many requests, what they cost."""

import math
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perf import load_h2, load_py
from perf.stats import Figures, summarise
from perf.target import LoadFailedError, Target

PILOT_SECONDS = 0.5
MOST_REQUESTS = 1_000_000
GROWTH = 8

GeneratorName = Literal["h2load", "python"]


@dataclass(frozen=True)
class Measured:
    """A run and the CPU seconds that the generator itself took a request."""

    figures: Figures
    generator_cpu_ms: float


def choose() -> GeneratorName:
    """h2load where it is installed: it leaves the cores to the server."""
    return "h2load" if load_h2.available() else "python"


def describe(name: GeneratorName) -> str:
    """For the report."""
    return load_h2.version() if name == "h2load" else f"python, {load_py.PROCESSES} processes"


def pilot(name: GeneratorName, target: Target, clients: int, seconds: float, directory: Path) -> float:
    """Warm the server up and estimate its rate [requests a second]. Raises LoadFailedError when nothing succeeds."""
    requests = clients
    while True:
        figures = _run(name, target, clients, requests, 60.0, directory).figures
        if figures.errors == figures.requests:
            raise LoadFailedError(f"all of {figures.requests} requests to {target.kind} failed")
        if figures.requests / figures.rate >= min(PILOT_SECONDS, seconds / 4) or requests >= MOST_REQUESTS:
            return figures.rate
        requests = min(MOST_REQUESTS, requests * GROWTH)


def requests_for(rate: float, seconds: float, clients: int) -> int:
    """How many requests take about `seconds`: the same number for each client, and two at least."""
    return clients * max(2, math.ceil(min(MOST_REQUESTS, rate * seconds) / clients))


def measure(
    name: GeneratorName, target: Target, clients: int, requests: int, seconds: float, directory: Path
) -> Measured:
    """Send `requests`, which should take about `seconds` and are given up after four times that and a minute."""
    return _run(name, target, clients, requests, 4 * seconds + 60, directory)


def _run(
    name: GeneratorName, target: Target, clients: int, requests: int, timeout_s: float, directory: Path
) -> Measured:
    run = load_h2.run if name == "h2load" else load_py.run
    before = _children_cpu()
    samples = run(target, clients, requests, timeout_s, directory)
    cpu = _children_cpu() - before
    figures = summarise(samples, clients)
    return Measured(figures, 1e3 * cpu / max(1, figures.requests))


def _children_cpu() -> float:
    """CPU seconds of children that have been waited for: only generators end while one of them is measured."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
