"""`python -m perf.compare A.json B.json`: what moved between two runs of `python -m perf`, beyond their noise.

A line has moved when the rounds of the two do not overlap at all and their medians differ by more than LEAST. Five
rounds of each would lie apart like that by chance once in 126 times; with fewer than three rounds nothing can be said.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from pathlib import Path
from typing import Any

from perf.stats import median

LEAST = 0.03
"""Relative; less than this moves nothing that matters."""
ROUNDS = 3
LIKE = ("cpu", "cores", "load generator")
"""What of the machine must be the same for figures to be compared."""


@dataclass(frozen=True)
class Change:
    """A line in both runs."""

    what: str
    unit: str
    at_least: bool
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def shift(self) -> float:
        """How far the median went, as a part of the one before."""
        old, new = median(self.before) or 0.0, median(self.after) or 0.0
        return (new - old) / abs(old) if old else 0.0 if new == old else float("inf")

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `same`, or why there is none."""
        if min(len(self.before), len(self.after)) < ROUNDS:
            return "too few rounds"
        apart = min(self.after) > max(self.before) or max(self.after) < min(self.before)
        if not apart or abs(self.shift) <= LEAST:
            return "same"
        return "better" if (self.shift > 0) == self.at_least else "worse"


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every line that was measured in both."""
    old = {each["line"]["name"]: each for each in before["lines"] if each["values"]}
    return [
        Change(
            *(each["line"]["what"], each["line"]["unit"], each["line"]["at_least"]),
            *(tuple(old[each["line"]["name"]]["values"]), tuple(each["values"])),
        )
        for each in after["lines"]
        if each["values"] and each["line"]["name"] in old
    ]


def text_of(found: Sequence[Change], differences: Sequence[str]) -> str:
    """What is printed: what moved first."""
    lines = [f"The runs differ in {each}: figures cannot be compared." for each in differences]
    order = {"worse": 0, "better": 1, "too few rounds": 2, "same": 3}
    for change in sorted(found, key=lambda each: order[each.verdict]):
        unit = f" {change.unit}" if change.unit else ""
        sides = f"{_side(change.before)} → {_side(change.after)}{unit}"
        lines.append(f"{change.verdict:14} {change.shift:+7.1%}  {sides}  {change.what}")
    if not found:
        lines.append("No line was measured in both runs.")
    else:
        most = min(max(len(change.before), len(change.after)) for change in found)
        chance = 2 / comb(2 * most, most)
        lines.append(
            "better, worse: no round of one run reaches into the other's, and the medians differ by more than "
            f"{LEAST:.0%} (by chance once in {1 / chance:.0f} times with {most} rounds of each)"
        )
    return "\n".join(lines)


def _side(values: Sequence[float]) -> str:
    return f"{median(values) or 0.0:.4g} [{min(values):.4g}–{max(values):.4g}]"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What of the machines is not the same."""
    one, other = before["machine"], after["machine"]
    return [f"{key} ({one.get(key)}, {other.get(key)})" for key in LIKE if one.get(key) != other.get(key)]


def main() -> int:
    """The process: its exit code is 1 where something got worse."""
    parser = argparse.ArgumentParser(prog="python -m perf.compare", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    arguments = parser.parse_args()
    try:
        before, after = (json.loads(path.read_bytes()) for path in (arguments.before, arguments.after))
        found = changes(before, after)
        print(text_of(found, differences(before, after)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"perf.compare: these are not two results of python -m perf: {error!r}", file=sys.stderr)
        return 2
    return int(any(change.verdict == "worse" for change in found))


if __name__ == "__main__":
    sys.exit(main())
