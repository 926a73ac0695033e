"""From measurements to one table, the bars beside what was measured, and JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perf.plan import Bar, Case
from perf.run import LOAD, Record, What
from perf.stats import median, median_ratio

CPU_COLUMNS = ("grpc", "rest", "broker", "worker")
"""The kinds that have a column of their own; all others are in the sum, and in the JSON."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Row:
    """Medians over rounds of one kind of measurement."""

    model: str
    what: What
    clients: int
    setup: str
    rate: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    """Sum over rounds."""
    to_echo: float | None
    """Rate over the echo's at the same number of clients; None where it does not apply."""
    to_engine: float | None
    """Rate over benchmark_app's with the throughput hint."""
    cpu_ms: dict[str, float]
    """CPU milliseconds a request by kind of process."""
    memory_mib: dict[str, float]
    """PSS by kind of process: the greatest of the rounds."""


@dataclass(frozen=True)
class Verdict:
    """A bar beside what was measured."""

    model: str
    kind: str
    clients: int
    bound: float
    measured: float | None
    errors: int
    setup: str
    limit: float | None = None
    """Of a latency: what echo and relay take together, of the same machine in the same rounds."""

    @property
    def reached(self) -> bool:
        """An error in the run fails the bar whatever its figure."""
        if self.measured is None or self.errors:
            return False
        return self.measured <= self.bound if self.kind == "p50 ms" else self.measured >= self.bound


Key = tuple[str, What, int]
_LATENCY_LIMITS: tuple[What, ...] = ("echo", "relay")


def aggregate(records: Sequence[Record]) -> list[Row]:
    """One row for each model, kind and number of clients, in the order of their first measurement."""
    groups: dict[Key, dict[int, Record]] = {}
    for record in records:
        groups.setdefault((record.model, record.what, record.clients), {})[record.round] = record
    return [_row(key, rounds, groups) for key, rounds in groups.items()]


def _row(key: Key, rounds: dict[int, Record], groups: dict[Key, dict[int, Record]]) -> Row:
    model, what, clients = key
    several = list(rounds.values())
    served = what in ("grpc", "rest")
    echo = groups.get((model, "echo", clients), {}) if what == "grpc" else {}
    engine = groups.get((model, "engine throughput", 0), {}) if served else {}
    first = several[0]
    return Row(
        *(model, what, clients, first.setup),
        rate=median([each.figures.rate for each in several]) or 0.0,
        p50_ms=median([each.figures.p50_ms for each in several]),
        p99_ms=median([each.figures.p99_ms for each in several]),
        errors=sum(each.figures.errors for each in several),
        to_echo=_ratio(rounds, echo),
        to_engine=_ratio(rounds, engine),
        cpu_ms={
            kind: median([each.cpu_ms.get(kind, 0.0) for each in several]) or 0.0 for kind in first.cpu_ms
        },
        memory_mib={
            kind: max(each.memory_bytes.get(kind, 0) for each in several) / MEBIBYTE
            for kind in first.memory_bytes
        },
    )


def _ratio(upper: dict[int, Record], lower: dict[int, Record]) -> float | None:
    both = sorted(upper.keys() & lower.keys())
    return median_ratio(
        [upper[number].figures.rate for number in both], [lower[number].figures.rate for number in both]
    )


def judge(cases: Sequence[Case], rows: Sequence[Row]) -> list[Verdict]:
    """Each bar of the cases, beside the gRPC server's figure."""
    found = {(row.model, row.what, row.clients): row for row in rows}
    return [_verdict(case, bar, found) for case in cases for bar in case.bars]


def _verdict(case: Case, bar: Bar, found: dict[Key, Row]) -> Verdict:
    row = found.get((case.model, "grpc", bar.clients))
    if row is None:
        return Verdict(case.model, bar.kind, bar.clients, bar.bound, None, 0, "")
    measured = {"÷ echo": row.to_echo, "÷ engine": row.to_engine, "p50 ms": row.p50_ms}[bar.kind]
    limits = [found.get((case.model, what, bar.clients)) for what in _LATENCY_LIMITS]
    known = [each.p50_ms for each in limits if each is not None and each.p50_ms is not None]
    limit = sum(known) if bar.kind == "p50 ms" and len(known) == len(_LATENCY_LIMITS) else None
    return Verdict(case.model, bar.kind, bar.clients, bar.bound, measured, row.errors, row.setup, limit)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _cpu(kind: str) -> Callable[[Row], str]:
    return lambda row: _number(row.cpu_ms.get(kind), 3)


def _cpu_server(row: Row) -> str:
    own = [milliseconds for kind, milliseconds in row.cpu_ms.items() if kind != LOAD]
    return _number(sum(own), 3) if own else ""


def _memory(row: Row) -> str:
    return _number(sum(row.memory_mib.values()), 0) if row.memory_mib else ""


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("model", lambda row: row.model),
    ("what", lambda row: row.what),
    ("clients", lambda row: str(row.clients or "")),
    ("setup", lambda row: row.setup),
    ("req/s", lambda row: _rate(row.rate)),
    ("p50 ms", lambda row: _number(row.p50_ms, 3)),
    ("p99 ms", lambda row: _number(row.p99_ms, 3)),
    ("errors", lambda row: str(row.errors)),
    ("÷ echo", lambda row: _number(row.to_echo, 2)),
    ("÷ engine", lambda row: _number(row.to_engine, 2)),
    ("cpu server", _cpu_server),
    *((kind, _cpu(kind)) for kind in CPU_COLUMNS),
    (LOAD, _cpu(LOAD)),
    ("PSS MiB", _memory),
)
LEFT_ALIGNED = ("model", "what", "setup")


def table(rows: Sequence[Row]) -> str:
    """All rows as text. CPU columns are milliseconds a request; an empty cell does not apply."""
    cells = [[render(row) for _, render in COLUMNS] for row in rows]
    widths = [max(len(name), *(len(line[i]) for line in cells), 0) for i, (name, _) in enumerate(COLUMNS)]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.ljust(width) if name in LEFT_ALIGNED else text.rjust(width)
            for text, width, (name, _) in zip(texts, widths, COLUMNS, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line([name for name, _ in COLUMNS]), *(line(texts) for texts in cells)])


def bars(verdicts: Sequence[Verdict]) -> str:
    """A line a bar."""
    return "\n".join(_bar(verdict) for verdict in verdicts)


def _bar(verdict: Verdict) -> str:
    clients = "1 client" if verdict.clients == 1 else f"{verdict.clients} clients"
    sign = "≤" if verdict.kind == "p50 ms" else "≥"
    what = f"{verdict.model} gRPC, {clients}, {verdict.kind} {sign} {verdict.bound:.2f}"
    if verdict.measured is None:
        return f"{what}: not measured"
    word = "reached" if verdict.reached else "not reached"
    wrong = f", {verdict.errors} errors" if verdict.errors else ""
    limit = "" if verdict.limit is None else f"; echo and relay together {verdict.limit:.2f}"
    return f"{what}: {verdict.measured:.2f}{wrong} ({verdict.setup}{limit}): {word}"
