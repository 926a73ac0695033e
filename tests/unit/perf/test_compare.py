"""What counts as moved between two runs."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from perf.__main__ import document
from perf.compare import Change, changes, differences, text_of
from perf.plan import LINES, Settings
from perf.results import Reading, Results, outcomes
from perf.target import ROOT

MACHINE = {"cpu": "a", "cores": "2", "load generator": "b"}


def change(before: tuple[float, ...], after: tuple[float, ...], *, at_least: bool = True) -> str:
    return Change("what", "", at_least, before, after).verdict


def test_rounds_that_lie_apart_have_moved() -> None:
    assert change((1.0, 1.1, 1.2), (1.3, 1.4, 1.5)) == "better"
    assert change((1.0, 1.1, 1.2), (1.3, 1.4, 1.5), at_least=False) == "worse"
    assert change((1.3, 1.4, 1.5), (1.0, 1.1, 1.2)) == "worse"


def test_rounds_that_overlap_and_small_shifts_are_noise() -> None:
    assert change((1.0, 1.1, 1.2), (1.19, 1.4, 1.5)) == "same"
    assert change((1.00, 1.00, 1.01), (1.02, 1.02, 1.02)) == "same"
    assert change((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)) == "same"


def test_few_rounds_say_nothing() -> None:
    assert change((1.0, 1.0), (2.0, 2.0, 2.0)) == "too few rounds"


def written(path: Path, start: float, cpu: str = "a") -> Path:
    results = Results(readings=[Reading("start", number, start + number / 10, "") for number in range(5)])
    machine = {**MACHINE, "cpu": cpu}
    path.write_bytes(document(machine, Settings(), outcomes(LINES, results), results))
    return path


def test_two_documents_are_compared_line_by_line(tmp_path: Path) -> None:
    before, after = (
        json.loads(written(tmp_path / name, start).read_bytes()) for name, start in (("a", 2.0), ("b", 4.0))
    )
    (found,) = changes(before, after)
    assert (found.verdict, found.unit) == ("worse", "s")
    text = text_of([found], differences(before, after))
    assert "+90.9%  2.2 [2–2.4] → 4.2 [4–4.4] s" in text
    assert "once in 126 times with 5 rounds" in text
    assert "No line was measured in both" in text_of([], [])
    assert "differ in cpu (a, z)" in text_of([], differences(before, {"machine": {**MACHINE, "cpu": "z"}}))


@pytest.mark.integration
def test_the_exit_code_says_whether_something_got_worse(tmp_path: Path) -> None:
    fast, slow, nothing = written(tmp_path / "a", 2.0), written(tmp_path / "b", 4.0), tmp_path / "c"
    nothing.write_bytes(msgspec.json.encode({"lines": 1}))

    def code(*files: Path) -> int:
        line = [sys.executable, "-m", "perf.compare", *map(str, files)]
        return subprocess.run(line, cwd=ROOT, capture_output=True, timeout=60, check=False).returncode

    assert [code(fast, slow), code(slow, fast), code(fast, nothing), code(fast, tmp_path / "none")] == [
        1,
        0,
        2,
        2,
    ]


def test_a_median_of_zero_may_move() -> None:
    assert Change("what", "", False, (0, 0, 0), (1, 1, 1)).shift == float("inf")
    assert Change("what", "", False, (2, 2, 2), (1, 1, 1)).shift == pytest.approx(-0.5)
