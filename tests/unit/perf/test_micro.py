"""The micro-benchmarks run, and a step of the scheduler costs the same whatever waits."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from perf import micro


def operations(call: Callable[[], object]) -> int:
    """Instructions of Python's virtual machine that a call takes, in all functions."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_a_step_of_the_scheduler_costs_the_same_whatever_waits() -> None:
    counts = []
    for queued in (1, 100, 10_000):
        step = micro.scheduler_step(queued)
        step()
        counts.append(operations(step))
    assert counts[0] > 100
    assert counts[0] == counts[1] == counts[2]


def test_operations_grow_with_the_work() -> None:
    def count(to: int) -> Callable[[], object]:
        return lambda: sum(each * each for each in range(to))

    assert operations(count(1000)) > operations(count(10)) + 900


@pytest.mark.parametrize("case", micro.cases(), ids=lambda case: case.name)
def test_every_case_can_be_called_again_and_again(case: micro.Case) -> None:
    for _ in range(3):
        case.call()


def test_a_calls_time_is_that_of_one_call() -> None:
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1

    taken = micro.nanoseconds(call, batches=3, batch_s=1e-4)
    assert calls > 30
    assert 1 < taken < 1e6
    assert micro.line_of("a", 1234.5) == "       1,234 ns  a"
