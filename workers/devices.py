"""Which of the devices that are asked for are there. Pure.

A device string of OpenVINO is a device (`CPU`, `GPU.1`), or a kind that delegates to others: `MULTI:MYRIAD,CPU`,
`HETERO:GPU,CPU`, `AUTO`, `AUTO:-GPU` (all but that), `BATCH:GPU(4)`.
"""

from collections.abc import Sequence
from typing import NamedTuple

DELEGATES = ("MULTI", "HETERO", "AUTO", "BATCH")
_TAKES_ONE = ("BATCH",)


class Target(NamedTuple):
    """What a version is compiled for."""

    device: str
    notes: tuple[str, ...] = ()


class AbsentError(Exception):
    """None of the devices that were asked for is there."""

    def __init__(self, devices: Sequence[str]) -> None:
        noun = "device {} is" if len(devices) == 1 else "devices {} are"
        super().__init__(f"{noun.format(', '.join(devices))} not available")
        self.devices = tuple(devices)


def split(device: str) -> tuple[str, list[str]]:
    """The kind that delegates and its members as they stand, or `""` and the device alone."""
    kind, colon, members = device.partition(":")
    if kind not in DELEGATES:
        return "", [device]
    return kind, [member.strip() for member in members.split(",")] if colon else []


def bare(member: str) -> str:
    """A member without the number of requests that may follow it: `GPU(4)` is `GPU`."""
    return member.partition("(")[0]


def is_present(name: str, available: Sequence[str]) -> bool:
    """Whether OpenVINO lists the device. `GPU` means any of `GPU.0`, `GPU.1`; where there is one it may be `GPU`."""
    first_of_kind = name.partition(".")[0] if name.endswith(".0") else name
    return any(name == one or one.partition(".")[0] == name or one == first_of_kind for one in available)


def choose(device: str, available: Sequence[str]) -> Target:
    """The part of a device string that can be served, OpenVINO listing `available`. Raises AbsentError."""
    kind, members = split(device)
    wanted = [member for member in members if not member.startswith("-")]
    absent = [bare(member) for member in wanted if not is_present(bare(member), available)]
    if not absent:
        return Target(device)
    present = [member for member in members if bare(member) not in absent]
    there = [member for member in present if not member.startswith("-")]
    if not there or kind in _TAKES_ONE:
        raise AbsentError(absent)
    left = bare(there[0]) if len(there) == 1 else f"{kind}:{','.join(present)}"
    are = "is" if len(absent) == 1 else "are"
    return Target(left, (f"{', '.join(absent)} of {device} {are} not available, so it is served on {left}",))
