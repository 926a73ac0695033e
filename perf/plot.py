"""The table as a picture: each line's figure beside its bar and its aim, all on one scale."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perf.plan import Line
from perf.results import Outcome

COLOURS = {"aim reached": "#009e73", "reached": "#0072b2", "failed": "#d55e00"}
"""Told apart by colour-blind eyes too (Okabe and Ito)."""
_LEAST, _MOST = 1 / 8, 8.0
"""What goes beyond is drawn at the edge."""
_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def draw(outcomes: Sequence[Outcome], note: str, path: Path) -> None:
    """Write a PNG; `note` names the machine."""
    shown = [each for each in outcomes if each.figure is not None]
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 1.6 + 0.38 * len(shown)), layout="constrained")
        _draw(figure.subplots(), shown)
        figure.suptitle(note, fontsize=8)
        figure.savefig(path, dpi=130)


def goodness(line: Line, figure: float) -> float:
    """1 at the bar, above it where the figure is better; within what is drawn."""
    better = figure / line.bar if line.at_least else line.bar / figure if figure else _MOST
    return min(_MOST, max(_LEAST, better))


def _draw(axes: Axes, shown: Sequence[Outcome]) -> None:
    for place, outcome in enumerate(reversed(shown)):
        line, figure = outcome.line, outcome.figure or 0.0
        end = goodness(line, figure)
        axes.barh(place, end - 1, 0.6, left=1, color=COLOURS[outcome.verdict])
        axes.plot(
            [goodness(line, value) for value in outcome.values],
            [place] * len(outcome.values),
            "k.",
            markersize=3,
        )
        axes.plot([goodness(line, line.aim)], [place], "k|", markersize=12)
        text = f"{figure:.{line.digits}f} {line.unit}".rstrip()
        axes.text(1.1 * _MOST, place, text, va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [each.line.what for each in reversed(shown)])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(_LEAST, _MOST)
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.set_xlabel("times as good as its bar; dots: rounds, |: aim")
    for word, colour in COLOURS.items():
        axes.barh([0], [0], left=1, color=colour, label=word)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0))
