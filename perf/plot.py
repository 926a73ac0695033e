"""The table as a picture: ratios to the limits as bars, latency by concurrency as lines."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perf.report import Row, Verdict
from perf.run import What

RATIO_CLIENTS = 16
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Told apart by colour-blind eyes too (Okabe and Ito)."""

_SERIES: tuple[tuple[What, str], ...] = (("grpc", "÷ echo"), ("grpc", "÷ engine"), ("rest", "÷ engine"))
_WIDTH = 0.8 / len(_SERIES)
_LABELS: dict[What, str] = {"grpc": "gRPC", "rest": "REST"}


def draw(rows: Sequence[Row], verdicts: Sequence[Verdict], note: str, path: Path) -> None:
    """Write a PNG of two panels; `note` names the machine."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_ratios(left, rows, verdicts)
        _draw_latencies(right, rows)
        figure.suptitle(note, fontsize=8)
        figure.savefig(path, dpi=130)


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


def _draw_ratios(axes: Axes, rows: Sequence[Row], verdicts: Sequence[Verdict]) -> None:
    models = _models(rows)
    for index, (what, kind) in enumerate(_SERIES):
        heights = [_ratio(rows, model, what, kind) for model in models]
        places = [_place(number, index) for number in range(len(models))]
        drawn = axes.bar(places, heights, _WIDTH, label=f"{_LABELS[what]} {kind}", color=COLOURS[index])
        axes.bar_label(drawn, [f"{height:.2f}" if height else "" for height in heights], fontsize=7)
    for verdict in verdicts:
        series = [index for index, each in enumerate(_SERIES) if each == ("grpc", verdict.kind)]
        if series and verdict.clients == RATIO_CLIENTS and verdict.model in models:
            place = _place(models.index(verdict.model), series[0])
            axes.hlines(verdict.bound, place - _WIDTH / 2, place + _WIDTH / 2, colors="black", linewidth=2)
    axes.plot([], [], color="black", linewidth=2, label="bar to reach")
    axes.set_xticks(range(len(models)), models)
    axes.set_ylabel(f"requests a second, as a ratio, at {RATIO_CLIENTS} clients")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _place(model: int, series: int) -> float:
    return model + (series - (len(_SERIES) - 1) / 2) * _WIDTH


def _ratio(rows: Sequence[Row], model: str, what: What, kind: str) -> float:
    """0 where it was not measured: no bar."""
    for row in rows:
        if (row.model, row.what, row.clients) == (model, what, RATIO_CLIENTS):
            return (row.to_echo if kind == "÷ echo" else row.to_engine) or 0.0
    return 0.0


def _draw_latencies(axes: Axes, rows: Sequence[Row]) -> None:
    for model, colour in zip(_models(rows), COLOURS, strict=False):
        for what, style in (("grpc", "-o"), ("rest", "--s")):
            _draw_latency(axes, [r for r in rows if (r.model, r.what) == (model, what)], style, colour)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({row.clients for row in rows if row.clients})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("clients")
    axes.set_ylabel("latency, ms: median, shaded up to the 99th percentile")
    if axes.lines:
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _draw_latency(axes: Axes, rows: Sequence[Row], style: str, colour: str) -> None:
    points = sorted(
        (row.clients, row.p50_ms, row.p99_ms)
        for row in rows
        if row.p50_ms is not None and row.p99_ms is not None
    )
    if points:
        clients, medians, highs = zip(*points, strict=True)
        label = f"{rows[0].model} {_LABELS[rows[0].what]}"
        axes.plot(clients, medians, style, color=colour, markersize=4, label=label)
        axes.fill_between(clients, medians, highs, color=colour, alpha=0.08)
