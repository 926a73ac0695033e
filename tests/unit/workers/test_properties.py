"""Shares of the machine and properties of OpenVINO."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.properties import (
    ONE_STREAM,
    Plan,
    host_defaults,
    quick_defaults,
    stream_defaults,
    translate,
    uses_cpu,
)
from workers.service import parse_arguments, parse_plan


@given(st.lists(st.integers(0, 200), min_size=1, max_size=64, unique=True), st.integers(1, 70))
def test_replicas_share_the_cores_evenly(cores: list[int], replicas: int) -> None:
    parts = [Plan(replica, replicas).cores(cores) for replica in range(replicas)]
    if replicas <= len(cores):
        assert [core for part in parts for core in part] == cores
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    else:
        assert all(len(part) == 1 for part in parts)
        assert {core for part in parts for core in part} == set(cores)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("CPU", True),
        ("CPU.0", True),
        ("GPU", False),
        ("NPU", False),
        ("MULTI:MYRIAD,CPU", True),
        ("MULTI:CPU(2),GPU.1", True),
        ("HETERO:GPU,NPU", False),
        ("AUTO", True),
        ("AUTO:GPU", False),
        ("AUTO:GPU,CPU", True),
        ("HDDL", False),
    ],
)
def test_devices_that_take_the_hosts_cores(device: str, expected: bool) -> None:
    assert uses_cpu(device) is expected


def test_names_of_2020_become_those_of_today() -> None:
    properties, notes = translate(
        {
            "CPU_THROUGHPUT_STREAMS": "CPU_THROUGHPUT_AUTO",
            "CPU_THREADS_NUM": "3",
            "CPU_BIND_THREAD": "NUMA",
            "ENFORCE_BF16": "YES",
            "PERF_COUNT": "YES",
        }
    )
    assert properties == {
        "NUM_STREAMS": "AUTO",
        "INFERENCE_NUM_THREADS": "3",
        "ENABLE_CPU_PINNING": "YES",
        "INFERENCE_PRECISION_HINT": "bf16",
        "PERF_COUNT": "YES",
    }
    assert len(notes) == 4
    assert "CPU_THREADS_NUM=3 is INFERENCE_NUM_THREADS=3 now" in notes


def test_names_whose_successors_are_not_known_stay() -> None:
    given = {"CPU_BIND_THREAD": "NO", "CPU_THREADS_NUM": "3"}
    properties, notes = translate(given, {"CPU_BIND_THREAD"})
    assert properties == {"CPU_BIND_THREAD": "NO", "INFERENCE_NUM_THREADS": "3"}
    assert notes == ["CPU_THREADS_NUM=3 is INFERENCE_NUM_THREADS=3 now"]


@pytest.mark.parametrize("swap", [False, True])
def test_a_name_of_today_wins(swap: bool) -> None:
    pairs = [("NUM_STREAMS", "4"), ("CPU_THROUGHPUT_STREAMS", "2")]
    assert translate(dict(pairs[::-1] if swap else pairs))[0] == {"NUM_STREAMS": "4"}


def test_openvino_pins_nothing() -> None:
    expected = {"INFERENCE_NUM_THREADS": "4", "ENABLE_CPU_PINNING": "NO"}
    assert host_defaults(4, {"ENABLE_CPU_PINNING": "NO"}) == expected


@pytest.mark.parametrize(
    ("device", "nireq", "threads", "chosen", "expected"),
    [
        ("CPU", 1, 8, {}, {"NUM_STREAMS": "1"}),
        ("CPU", 4, 2, {}, {"NUM_STREAMS": "2"}),
        ("CPU", 4, 2, {"INFERENCE_NUM_THREADS": "3"}, {"NUM_STREAMS": "3"}),
        ("CPU", 4, 2, {"INFERENCE_NUM_THREADS": "some"}, {"NUM_STREAMS": "2"}),
        ("CPU", 4, 8, {"NUM_STREAMS": "1"}, {}),
        ("CPU", 4, 8, {"PERFORMANCE_HINT": "LATENCY"}, {}),
        ("GPU.1", 4, 2, {}, {"NUM_STREAMS": "4"}),
        ("MULTI:CPU,GPU", 4, 2, {}, {}),
    ],
)
def test_streams(
    device: str, nireq: int, threads: int, chosen: dict[str, str], expected: dict[str, str]
) -> None:
    assert stream_defaults(device, nireq, threads, chosen) == expected


@pytest.mark.parametrize(
    ("device", "chosen", "expected"),
    [
        ("CPU", {}, {**ONE_STREAM, "SHARED": "YES"}),
        ("cpu", {"INFERENCE_PRECISION_HINT": "f32"}, {**ONE_STREAM, "SHARED": "YES"}),
        ("CPU", {"INFERENCE_NUM_THREADS": "1"}, ONE_STREAM),
        ("CPU", {"SHARED": "NO"}, ONE_STREAM),
        ("CPU", {"NUM_STREAMS": "1"}, {}),
        ("CPU", {"PERFORMANCE_HINT": "LATENCY"}, {}),
        ("GPU", {}, {}),
        ("MULTI:CPU", {}, {}),
    ],
)
def test_quick_models_share_an_executor_unless_told_otherwise(
    device: str, chosen: dict[str, str], expected: dict[str, str]
) -> None:
    assert quick_defaults(device, {"SHARED": "YES"}, chosen) == expected


def test_quick_models_where_no_executor_can_be_shared() -> None:
    assert quick_defaults("CPU", {}, {}) == ONE_STREAM


def test_plan_on_the_command_line() -> None:
    arguments = ["--run-dir", "d", "--slot", "CPU-1", "--device", "CPU", "--plan", "1/3"]
    assert parse_arguments(arguments).plan == Plan(1, 3)
    for text in ("3/3", "-1/2", "1", "a/b", "0/0"):
        with pytest.raises(ValueError):
            parse_plan(text)
