"""Which of the devices that are asked for are there."""

import pytest

from workers.devices import AbsentError, choose, is_present, split


@pytest.mark.parametrize(
    ("device", "available"),
    [
        ("CPU", ["CPU"]),
        ("GPU", ["CPU", "GPU.0", "GPU.1"]),
        ("GPU.1", ["CPU", "GPU.0", "GPU.1"]),
        ("GPU.0", ["CPU", "GPU"]),
        ("MYRIAD", ["CPU", "MYRIAD.1.2-ma2480"]),
        ("AUTO", ["CPU"]),
        ("AUTO:-GPU", ["CPU"]),
        ("AUTO:-GPU,CPU", ["CPU"]),
        ("MULTI:GPU.1(4),CPU(2)", ["CPU", "GPU.0", "GPU.1"]),
        ("HETERO:GPU,CPU", ["CPU", "GPU"]),
        ("BATCH:CPU(4)", ["CPU"]),
        ("MULTI", ["CPU"]),
    ],
)
def test_what_is_there_is_used_as_it_was_asked_for(device: str, available: list[str]) -> None:
    assert choose(device, available) == (device, ())


@pytest.mark.parametrize(
    ("device", "expected", "absent"),
    [
        ("MULTI:MYRIAD,CPU", "CPU", "MYRIAD of MULTI:MYRIAD,CPU is"),
        ("MULTI:MYRIAD(4), CPU(2)", "CPU", "MYRIAD of MULTI:MYRIAD(4), CPU(2) is"),
        ("MULTI:HDDL,GPU.0,MYRIAD,CPU", "MULTI:GPU.0,CPU", "HDDL, MYRIAD of MULTI:HDDL,GPU.0,MYRIAD,CPU are"),
        ("HETERO:NPU,CPU", "CPU", "NPU of HETERO:NPU,CPU is"),
        ("HETERO:GPU.7,GPU.0,CPU", "HETERO:GPU.0,CPU", "GPU.7 of HETERO:GPU.7,GPU.0,CPU is"),
        ("AUTO:NPU,CPU", "CPU", "NPU of AUTO:NPU,CPU is"),
    ],
)
def test_what_is_absent_is_left_out_and_named(device: str, expected: str, absent: str) -> None:
    target = choose(device, ["CPU", "GPU.0", "GPU.1"])
    assert target.device == expected
    assert target.notes == (f"{absent} not available, so it is served on {expected}",)


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("MYRIAD", "device MYRIAD is not available"),
        ("cpu", "device cpu is not available"),
        ("GPU.2", "device GPU.2 is not available"),
        ("", "device  is not available"),
        ("MULTI:MYRIAD,HDDL", "devices MYRIAD, HDDL are not available"),
        ("AUTO:NPU", "device NPU is not available"),
        ("AUTO:-GPU,NPU", "device NPU is not available"),
        ("BATCH:NPU(4)", "device NPU is not available"),
    ],
)
def test_nothing_is_there(device: str, text: str) -> None:
    with pytest.raises(AbsentError, match=f"^{text}$"):
        choose(device, ["CPU", "GPU.0", "GPU.1"])


def test_kinds_that_delegate() -> None:
    assert split("MULTI:MYRIAD,CPU") == ("MULTI", ["MYRIAD", "CPU"])
    assert split("AUTO") == ("AUTO", [])
    assert split("GPU.1") == ("", ["GPU.1"])


def test_presence() -> None:
    assert not is_present("GPU.1", ["GPU"])
    assert not is_present("GP", ["GPU"])
