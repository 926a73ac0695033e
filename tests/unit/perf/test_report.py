"""From measurements to lines, their verdicts, the tables and the picture."""

from pathlib import Path

import pytest

from perf import plot
from perf.plan import Line, Settings
from perf.report import aggregate, lines_table, table, text_of
from perf.results import Reading, Record, Results, outcomes
from perf.stats import Figures

SETUP = "1+1f 1w×2t nireq 1 native"
RATIO = Line(
    *("ratio", "tiny", "tiny ÷ echo", "", 0.60, 0.70),
    at_least=True,
    kind="ratio",
    of=("tiny", "native", 16),
    to=("tiny", "echo", 16),
)
P50 = Line(
    *("p50", "tiny", "tiny p50", "ms", 4.0, 3.3), at_least=False, kind="p50", of=("tiny", "native", 16)
)
CPU = Line(
    *("cpu", "tiny", "tiny CPU", "ms", 0.09, 0.06), at_least=False, kind="cpu", of=("tiny", "native", 16)
)
MEMORY = Line("memory", "alone", "PSS", "MiB", 350, 220, at_least=False)
LINES = (RATIO, P50, CPU, MEMORY)


def record(what: str, number: int, rate: float, errors: int = 0) -> Record:
    p50 = 1e3 * 16 / rate
    figures = Figures(1000, errors, rate, p50, 2 * p50)
    cpu = {"grpc": 0.1, "load": 0.02}
    return Record("tiny", what, 16, number, SETUP, figures, cpu, {"grpc": 8 << 20})


ROUNDS = [
    *(record("echo", number, rate) for number, rate in enumerate((8000, 4000, 8000))),
    *(record("native", number, rate) for number, rate in enumerate((5000, 2500, 5600))),
]
RESULTS = Results(ROUNDS, [Reading("memory", number, 300 + number, SETUP) for number in range(3)])


def test_figures_are_medians_and_ratios_are_taken_within_rounds() -> None:
    ratio, p50, cpu, memory = outcomes(LINES, RESULTS)
    assert ratio.figure == pytest.approx(0.625)
    assert ratio.values == pytest.approx((0.625, 0.625, 0.7))
    assert p50.figure == pytest.approx(3.2)
    assert cpu.figure == pytest.approx(0.1)  # the server's alone
    assert (memory.figure, memory.setup) == (301, SETUP)


def test_a_round_without_its_limit_has_no_ratio() -> None:
    missing = [each for each in ROUNDS if not (each.what == "echo" and each.round == 0)]
    assert outcomes([RATIO], Results(missing))[0].values == pytest.approx((0.625, 0.7))


def test_verdicts() -> None:
    assert [each.verdict for each in outcomes(LINES, RESULTS)] == [
        "reached",
        "aim reached",
        "failed",
        "reached",
    ]


def test_errors_fail_a_line_whatever_its_figure() -> None:
    wrong = [*ROUNDS[:3], *(record("native", number, 9000, errors=1) for number in range(3))]
    outcome = outcomes([RATIO], Results(wrong))[0]
    assert outcome.figure is not None
    assert outcome.figure > RATIO.aim
    assert outcome.verdict == "failed"
    assert "failed, 3 errors" in lines_table([outcome])


def test_what_was_not_measured_is_said_and_why() -> None:
    found = outcomes(LINES, Results(absent={"ratio": "no such option"}))
    assert [each.verdict for each in found] == ["not measured"] * 4
    assert "not measured: no such option" in lines_table(found)


def test_the_table_of_lines_is_markdown() -> None:
    head, rule, first, *_ = lines_table(outcomes(LINES, RESULTS)).splitlines()
    assert [cell.strip() for cell in first.strip("|").split("|")] == [
        *("tiny ÷ echo", "0.62", "0.62–0.70", "≥ 0.60", "≥ 0.70", "reached", SETUP)
    ]
    assert len(head) == len(rule) == len(first)
    assert set(rule) == set("|-:")


def test_every_measurement_has_a_row() -> None:
    rows = aggregate(ROUNDS)
    assert [(row.what, row.rate, row.errors) for row in rows] == [("echo", 8000, 0), ("native", 5000, 0)]
    assert rows[1].cpu_ms == {"grpc": 0.1, "load": 0.02}
    assert rows[1].memory_mib == {"grpc": 8.0}
    line = table(rows).splitlines()[3]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        *("tiny", "native", SETUP, "16", "5000", "3.200", "6.400", "0", "0.100", "0.100"),
        *("", "", "", "0.020", "8"),
    ]


def test_the_text_says_how_it_was_measured() -> None:
    text = text_of(outcomes(LINES, RESULTS), aggregate(ROUNDS), Settings(seconds=2, rounds=3), "a machine")
    assert text.startswith("a machine. Medians over 3 rounds of about 2 s")


def test_the_picture_is_drawn_also_of_nothing(tmp_path: Path) -> None:
    for name, results in (("full", RESULTS), ("empty", Results())):
        plot.draw(outcomes(LINES, results), "a machine", tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_goodness_is_one_at_the_bar_and_more_where_better() -> None:
    assert plot.goodness(RATIO, 1.2) == pytest.approx(2)
    assert plot.goodness(P50, 8.0) == pytest.approx(0.5)
    assert plot.goodness(MEMORY, 0.0) == plot.goodness(RATIO, 1e9) == 8
