"""The table, the bars, the picture."""

from pathlib import Path

import pytest

from perf import plot
from perf.plan import Bar, Case
from perf.report import aggregate, bars, judge, table
from perf.run import Record, What
from perf.stats import Figures

SETUP = "1+1f 1w×2t nireq 1"


def record(what: What, clients: int, number: int, rate: float, errors: int = 0) -> Record:
    p50 = 1e3 * max(1, clients) / rate
    figures = Figures(1000, errors, rate, p50, None if what.startswith("engine") else 2 * p50)
    return Record(
        "tiny", what, clients, number, SETUP, figures, {"grpc": 0.1, "load": 0.02}, {"grpc": 8 << 20}
    )


ROUNDS = [
    *(record("echo", 16, number, rate) for number, rate in enumerate((8000, 4000, 8000))),
    *(record("engine throughput", 0, number, rate) for number, rate in enumerate((20000, 10000, 20000))),
    *(record("grpc", 16, number, rate) for number, rate in enumerate((5000, 2500, 5600))),
    *(record("rest", 16, number, rate) for number, rate in enumerate((4000, 2000, 4000))),
]
_ALONE: tuple[tuple[What, float], ...] = (("echo", 4000), ("relay", 5000), ("grpc", 1000))
CASE = Case("tiny", bars=(Bar("÷ echo", 16, 0.60), Bar("÷ engine", 16, 0.30), Bar("p50 ms", 16, 4.0)))


def test_rows_are_medians_and_ratios_within_rounds() -> None:
    rows = {row.what: row for row in aggregate(ROUNDS)}
    grpc = rows["grpc"]
    assert (grpc.rate, grpc.clients, grpc.setup, grpc.errors) == (5000, 16, SETUP, 0)
    assert grpc.to_echo == pytest.approx(0.625)
    assert grpc.to_engine == pytest.approx(0.25)
    assert grpc.cpu_ms == {"grpc": 0.1, "load": 0.02}
    assert grpc.memory_mib == {"grpc": 8.0}
    assert rows["rest"].to_echo is None
    assert rows["rest"].to_engine == pytest.approx(0.2)
    assert rows["echo"].to_engine is None


def test_a_round_without_its_limit_has_no_ratio() -> None:
    missing = [each for each in ROUNDS if not (each.what == "echo" and each.round == 0)]
    rows = {row.what: row for row in aggregate(missing)}
    assert rows["grpc"].to_echo == pytest.approx((2500 / 4000 + 5600 / 8000) / 2)


def test_bars_say_reached_or_not() -> None:
    rows = aggregate(ROUNDS)
    verdicts = judge([CASE], rows)
    assert [verdict.reached for verdict in verdicts] == [True, False, True]
    lines = bars(verdicts).splitlines()
    assert lines[0] == f"tiny gRPC, 16 clients, ÷ echo ≥ 0.60: 0.62 ({SETUP}): reached"
    assert lines[1].endswith("not reached")
    assert "≤ 4.00: 3.20" in lines[2]


def test_a_latency_stands_beside_what_echo_and_relay_take() -> None:
    alone = [record(what, 1, 0, rate) for what, rate in _ALONE]
    case = Case("tiny", bars=(Bar("p50 ms", 1, 0.5), Bar("÷ echo", 1, 0.5)))
    verdicts = judge([case], aggregate(alone))
    assert verdicts[0].limit == pytest.approx(0.45)
    assert verdicts[1].limit is None
    assert f"1.00 ({SETUP}; echo and relay together 0.45): not reached" in bars(verdicts)
    assert judge([case], aggregate(alone[::2]))[0].limit is None


def test_errors_fail_a_bar_and_missing_figures_are_said() -> None:
    rows = aggregate([*ROUNDS[:6], *(record("grpc", 16, number, 9000, errors=1) for number in range(3))])
    verdict = judge([CASE], rows)[0]
    assert verdict.measured is not None
    assert verdict.measured > verdict.bound
    assert not verdict.reached
    assert "3 errors" in bars([verdict])
    assert bars(judge([CASE], [])).count("not measured") == 3


def test_the_table_is_aligned_and_complete() -> None:
    lines = table(aggregate(ROUNDS)).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:2] == ["model", "what"]
    end = lines[0].index("req/s") + len("req/s")
    rates = [line[:end].split()[-1] for line in lines[1:]]
    assert rates == ["8000", "20000", "5000", "4000"]
    assert all(SETUP in line for line in lines[1:])
    assert table([]).startswith("model")


def test_the_picture_is_a_png(tmp_path: Path) -> None:
    rows = aggregate(ROUNDS)
    plot.draw(rows, judge([CASE], rows), "a machine", tmp_path / "perf.png")
    assert (tmp_path / "perf.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_limits_alone(tmp_path: Path) -> None:
    rows = aggregate(ROUNDS[:6])
    plot.draw(rows, judge([CASE], rows), "a machine", tmp_path / "perf.png")
    assert (tmp_path / "perf.png").stat().st_size > 0
