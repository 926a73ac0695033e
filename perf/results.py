"""From measurements to the figures of the lines. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from perf.plan import Line
from perf.stats import Figures, median

LOAD = "load"
"""Among kinds of process: the load generator."""


@dataclass(frozen=True)
class Record:
    """One measurement of load."""

    model: str
    what: str
    """`echo`, `bare`, `engine`, `relay`, or what was asked; see perf.plan.Key."""
    clients: int
    """0 for the engine, whose requests its hint decides."""
    round: int
    setup: str
    """Workers, threads, nireq and transport in short."""
    figures: Figures
    cpu_ms: dict[str, float] = field(default_factory=dict)
    """CPU milliseconds a request by kind of process; `load` is the generator."""
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """PSS by kind of process, at the end of the measurement."""


@dataclass(frozen=True)
class Reading:
    """A line's figure in one round."""

    line: str
    round: int
    value: float
    setup: str
    errors: int = 0


@dataclass
class Results:
    """What a run has found."""

    records: list[Record] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    """What scenarios have read themselves; those made of records are added by `outcomes`."""
    problems: list[str] = field(default_factory=list)
    """What could not be measured, and why."""
    absent: dict[str, str] = field(default_factory=dict)
    """Line → why this server cannot have it; no problem of the measurement."""


@dataclass(frozen=True)
class Outcome:
    """A line of the table, measured."""

    line: Line
    figure: float | None
    """The median over rounds; None where nothing was measured."""
    values: tuple[float, ...]
    """Of the rounds."""
    setup: str
    errors: int
    why: str = ""
    """Why nothing was measured."""

    @property
    def verdict(self) -> str:
        """An error in the run fails a line whatever its figure."""
        if self.figure is None:
            return "not measured"
        if self.errors or not self.line.reached(self.figure, self.line.bar):
            return "failed"
        return "aim reached" if self.line.reached(self.figure, self.line.aim) else "reached"


def readings_of(line: Line, records: Sequence[Record]) -> list[Reading]:
    """The line's figure in each round in which all that it is made of was measured."""
    if line.of is None:
        return []
    upper = {each.round: each for each in records if (each.model, each.what, each.clients) == line.of}
    lower = {each.round: each for each in records if (each.model, each.what, each.clients) == line.to}
    found = []
    for number, record in sorted(upper.items()):
        value = _value(line, record, lower.get(number))
        if value is not None:
            found.append(Reading(line.name, number, value, record.setup, record.figures.errors))
    return found


def _value(line: Line, record: Record, other: Record | None) -> float | None:
    if line.kind == "p50":
        return record.figures.p50_ms
    if line.kind == "cpu":
        return sum(spent for kind, spent in record.cpu_ms.items() if kind != LOAD)
    if other is None or not other.figures.rate:
        return None
    return record.figures.rate / other.figures.rate


def outcomes(lines: Sequence[Line], results: Results) -> list[Outcome]:
    """Each line beside what was measured of it, in the order of the lines."""
    return [_outcome(line, results) for line in lines]


def _outcome(line: Line, results: Results) -> Outcome:
    readings = readings_of(line, results.records)
    readings += [each for each in results.readings if each.line == line.name]
    values = tuple(each.value for each in readings)
    setup = readings[0].setup if readings else ""
    errors = sum(each.errors for each in readings)
    return Outcome(line, median(values), values, setup, errors, results.absent.get(line.name, ""))
