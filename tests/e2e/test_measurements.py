"""The scenarios of `make perf` against the whole server, small: each measures what its lines want."""

from pathlib import Path

import pytest

from perf import alone, copies, crowd, generate, models, side_by_side
from perf.bench import Bench
from perf.plan import LINES, Settings
from perf.results import Results, outcomes

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    for name in ("tiny", copies.MODEL):
        models.write(name, directory)
    return directory


@pytest.fixture
def ticks() -> list[str]:
    """What was announced."""
    return []


@pytest.fixture
def bench(built: Path, tmp_path: Path, ticks: list[str]) -> Bench:
    return Bench(generate.choose(), Settings(0.2, 1), built, tmp_path, Results(), ticks.append)


def figures(bench: Bench, *names: str) -> list[float]:
    """Of these lines; nothing else was wrong."""
    assert bench.results.problems == []
    assert bench.results.absent == {}
    found = outcomes([line for line in LINES if line.name in names], bench.results)
    assert [each.errors for each in found] == [0] * len(names)
    assert all("w×" in each.setup for each in found)
    return [each.figure or 0.0 for each in found]


def test_models_side_by_side(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "COUNTS", (1, 10))
    side_by_side.run(bench)
    assert figures(bench, "models-10")[0] > 0.05


def test_a_crowd(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "SIZES", (1, 40))
    crowd.run(bench)
    assert figures(bench, crowd.LINE)[0] > 0


def test_one_server_alone(bench: Bench, ticks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "_LEAST_IDLE_S", 0.5)
    monkeypatch.setattr(alone, "_SETTLE_S", 0.1)
    alone.run(bench)
    assert len(ticks) == alone.steps(bench) == 3
    idle, start, memory = figures(bench, alone.IDLE, alone.START, alone.MEMORY)
    assert idle >= 0
    assert 0.1 < start < 60
    assert 50 < memory < 2000


@pytest.mark.skipif(copies.compiler() is None, reason="no C compiler is installed (gcc)")
def test_copies_of_a_large_request(bench: Bench) -> None:
    copies.run(bench)
    assert 0 <= figures(bench, copies.LINE)[0] < 10
