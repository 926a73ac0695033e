"""What is printed: the table of the lines, as Markdown that fits a document, and every measurement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perf.plan import Settings
from perf.results import LOAD, Outcome, Record
from perf.stats import median

CPU_COLUMNS = ("grpc", "rest", "broker", "worker")
"""The kinds that have a column of their own; all others are in the sum, and in the JSON."""
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Row:
    """Medians over rounds of one kind of measurement."""

    model: str
    what: str
    clients: int
    setup: str
    rate: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int
    """Sum over rounds."""
    cpu_ms: dict[str, float]
    """CPU milliseconds a request by kind of process."""
    memory_mib: dict[str, float]
    """PSS by kind of process: the greatest of the rounds."""


def aggregate(records: Sequence[Record]) -> list[Row]:
    """One row for each model, kind and number of clients, in the order of their first measurement."""
    groups: dict[tuple[str, str, int], list[Record]] = {}
    for record in records:
        groups.setdefault((record.model, record.what, record.clients), []).append(record)
    return [_row(several) for several in groups.values()]


def _row(several: Sequence[Record]) -> Row:
    first = several[0]
    return Row(
        *(first.model, first.what, first.clients, first.setup),
        rate=median([each.figures.rate for each in several]) or 0.0,
        p50_ms=median([each.figures.p50_ms for each in several]),
        p99_ms=median([each.figures.p99_ms for each in several]),
        errors=sum(each.figures.errors for each in several),
        cpu_ms={
            kind: median([each.cpu_ms.get(kind, 0.0) for each in several]) or 0.0 for kind in first.cpu_ms
        },
        memory_mib={
            kind: max(each.memory_bytes.get(kind, 0) for each in several) / MEBIBYTE
            for kind in first.memory_bytes
        },
    )


# ---- the lines


def lines_table(outcomes: Sequence[Outcome]) -> str:
    """A line each: figure, spread over the rounds, bar, aim, verdict, setup."""
    head = ("", "measured", "rounds", "bar", "aim", "", "setup")
    return _markdown(head, [_line_cells(each) for each in outcomes], right=(1, 2, 3, 4))


def _line_cells(outcome: Outcome) -> tuple[str, ...]:
    line = outcome.line
    sign = "≥" if line.at_least else "≤"
    unit = f" {line.unit}" if line.unit else ""
    figure = "–" if outcome.figure is None else f"{outcome.figure:.{line.digits}f}{unit}"
    spread = (
        f"{min(outcome.values):.{line.digits}f}–{max(outcome.values):.{line.digits}f}"
        if outcome.values
        else ""
    )
    verdict = outcome.verdict + (f", {outcome.errors} errors" if outcome.errors else "")
    verdict += f": {outcome.why}" if outcome.why else ""
    bar, aim = (f"{sign} {bound:.{line.digits}f}" for bound in (line.bar, line.aim))
    return line.what, figure, spread, bar, aim, verdict, outcome.setup


# ---- the measurements


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
    ("setup", lambda row: row.setup),
    ("clients", lambda row: str(row.clients or "")),
    ("req/s", lambda row: _rate(row.rate)),
    ("p50 ms", lambda row: _number(row.p50_ms, 3)),
    ("p99 ms", lambda row: _number(row.p99_ms, 3)),
    ("errors", lambda row: str(row.errors)),
    ("CPU server", _cpu_server),
    *((kind, _cpu(kind)) for kind in CPU_COLUMNS),
    (LOAD, _cpu(LOAD)),
    ("PSS MiB", _memory),
)
_TEXTS = 3
"""Columns of text, before those of numbers."""


def table(rows: Sequence[Row]) -> str:
    """All measurements. CPU columns are milliseconds a request; an empty cell does not apply."""
    cells = [tuple(render(row) for _, render in COLUMNS) for row in rows]
    return _markdown([name for name, _ in COLUMNS], cells, right=range(_TEXTS, len(COLUMNS)))


def _markdown(head: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    """A table, padded so that it can be read as it is."""
    widths = [max(3, *(len(row[i]) for row in (head, *cells))) for i in range(len(head))]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if i in right else text.ljust(width)
            for i, (text, width) in enumerate(zip(texts, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 1) + (":" if i in right else "-") for i, width in enumerate(widths))
    return "\n".join([line(head), f"|{rule}|", *(line(row) for row in cells)])


def text_of(outcomes: Sequence[Outcome], rows: Sequence[Row], settings: Settings, note: str) -> str:
    """All that is printed."""
    rounds = "1 round" if settings.rounds == 1 else f"{settings.rounds} rounds"
    parts = [f"{note}. Medians over {rounds} of about {settings.seconds:g} s, ratios within rounds.", ""]
    parts += [
        "Setup: f frontends (gRPC+REST), w workers × t OpenVINO threads, nireq, transport of gRPC.",
        "",
        lines_table(outcomes),
    ]
    if rows:
        parts += [
            "",
            "Every measurement; CPU in ms a request: of the whole server, of its kinds of process, of the load.",
            "",
            table(rows),
        ]
    return "\n".join(parts)
