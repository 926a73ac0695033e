"""What /proc says."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perf.procs import Process, cpu_spent, descendants, kind_of, look, memory, parse_pss, parse_stat, tree

STAT = (
    "4242 (a (b) c) S 17 4242 4242 0 -1 4194560 900 0 0 0 250 50 0 0 20 0 7 0 123456 "
    "1000 200 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0"
)


def test_stat_is_counted_behind_the_name() -> None:
    assert parse_stat(STAT) == (17, 300, 123456)


@pytest.mark.parametrize(
    ("command_line", "kind"),
    [
        ("python -m frontends.grpc.service --run-dir /r", "grpc"),
        ("python -m frontends.rest.service --run-dir /r", "rest"),
        ("gunicorn -c python:frontends.rest.settings", "rest"),
        ("python -m broker.app --run-dir /r", "broker"),
        ("python -m broker.storekeeper --run-dir /r", "storekeeper"),
        ("python -m workers.service --run-dir /r --slot CPU-0", "worker"),
        ("python bin/ie_serving model --model_name=m", "supervisord"),
        ("sh", "other"),
        ("", "other"),
    ],
)
def test_kinds(command_line: str, kind: str) -> None:
    assert kind_of(command_line) == kind


def test_descendants_are_found_however_deep() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 99}
    assert descendants(2, parents) == {2, 3, 4}
    assert descendants(1, parents) == {1, 2, 3, 4, 5}
    assert descendants(7, parents) == {7}


@given(st.dictionaries(st.integers(1, 30), st.integers(0, 30)))
def test_descendants_end_and_are_closed(parents: dict[int, int]) -> None:
    found = descendants(1, parents)
    assert {pid for pid, parent in parents.items() if parent in found} <= found


def test_cpu_is_told_by_kind_and_by_process() -> None:
    before = [Process(1, 10, "broker", 1.0), Process(2, 20, "worker", 5.0), Process(3, 30, "worker", 7.0)]
    after = [Process(1, 10, "broker", 1.5), Process(2, 20, "worker", 6.0), Process(3, 99, "worker", 0.25)]
    assert cpu_spent(before, after) == {"broker": 0.5, "worker": 1.25}


def test_pss() -> None:
    text = "00400000-7ffe [rollup]\nRss:     900 kB\nPss:     1234 kB\nPss_Dirty:   1 kB\n"
    assert parse_pss(text) == 1234 * 1024
    assert parse_pss("") == 0


def test_this_process() -> None:
    mine = look(os.getpid())
    assert mine is not None
    assert mine.cpu_s > 0
    assert mine in [Process(p.pid, p.started_ticks, p.kind, mine.cpu_s) for p in tree(os.getpid())]
    assert memory([mine])[mine.kind] > 1 << 20


def test_a_process_that_is_gone() -> None:
    assert look(2**22 + 1) is None
    assert tree(2**22 + 1) == []
    assert memory([Process(2**22 + 1, 0, "other", 0.0)]) == {"other": 0}
