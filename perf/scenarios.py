"""All scenarios, in the order in which they run. Another one is another entry here, and its lines in `perf.plan`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from perf import alone, copies, crowd, gain, serving, side_by_side
from perf.bench import Bench
from perf.plan import LINES, Line


@dataclass(frozen=True)
class Scenario:
    """Starts its servers, measures in rounds, writes records or readings down, stops them."""

    name: str
    """As the lines call it."""
    models: tuple[str, ...]
    """Of perf.models, built beforehand."""
    run: Callable[[Bench], None]
    """What goes wrong it writes down itself."""
    steps: Callable[[Bench], int]
    """How many measurements it takes, each of which it announces by `bench.tick`."""


def _serving(case: serving.Case) -> Scenario:
    return Scenario(
        case.model, (case.model,), partial(serving.run_case, case=case), partial(serving.count, case=case)
    )


SCENARIOS = (
    # Alone first, on a machine on which nothing of ours has run yet.
    Scenario("alone", ("tiny",), alone.run, alone.steps),
    *(_serving(case) for case in serving.CASES),
    Scenario(gain.LINE, (), gain.run, gain.steps),
    Scenario(side_by_side.NAME, ("tiny",), side_by_side.run, side_by_side.steps),
    Scenario(crowd.LINE, ("tiny",), crowd.run, crowd.steps),
    Scenario(copies.LINE, (copies.MODEL,), copies.run, copies.steps),
)


def names() -> list[str]:
    """What can be asked for: scenarios, and lines."""
    found = [scenario.name for scenario in SCENARIOS] + [line.name for line in LINES]
    return list(dict.fromkeys(found))


def lines_of(only: str) -> list[Line]:
    """The lines of these scenarios and lines (names with commas between them; empty: all).

    Raises SystemExit on an unknown name.
    """
    asked = [name for name in only.split(",") if name]
    unknown = [name for name in asked if name not in names()]
    if unknown:
        raise SystemExit(f"{unknown[0]!r} is not measured; known are {', '.join(names())}")
    return [line for line in LINES if not asked or line.name in asked or line.scenario in asked]


def scenarios_of(lines: Sequence[Line]) -> list[Scenario]:
    """Those that measure these lines."""
    wanted = {line.scenario for line in lines}
    return [scenario for scenario in SCENARIOS if scenario.name in wanted]
