"""What is measured and what it must reach: the lines of the table, and how long and how often. Pure.

A *scenario* starts servers and measures in rounds; a *line* is one figure of it, made of its readings. Lines whose
figures are rates, latencies or CPU times of load name the measurements that they are made of; the others are read by
their scenario itself.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["ratio", "p50", "cpu", "direct"]
"""How a figure comes about: a rate over another, a median latency [ms], the server's CPU a request [ms], or as read."""

Transport = Literal["", "native", "grpcio"]
"""Of gRPC; empty: the server's default."""

Key = tuple[str, str, int]
"""A measurement: model, what is asked (`echo`, `bare`, `engine`, `relay`, `grpc`, `native`, `grpcio`, `rest`),
clients."""


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    name: str
    scenario: str
    what: str
    """For the reader."""
    unit: str
    """Empty: a ratio."""
    bar: float
    aim: float
    at_least: bool
    """Whether the bar is the least that counts as reached, or the most."""
    kind: Kind = "direct"
    of: Key | None = None
    to: Key | None = None
    """What a ratio is taken to."""

    @property
    def digits(self) -> int:
        """Behind the point, so that a figure beside its bar is not rounded over it."""
        return 0 if self.bar >= 100 else 3 if self.bar < 0.1 else 2

    def reached(self, figure: float, bound: float) -> bool:
        """Whether a figure keeps a bound of this line."""
        return figure >= bound if self.at_least else figure <= bound


def _ratio(name: str, what: str, of: Key, to: Key, bar: float, aim: float, scenario: str = "") -> Line:
    return Line(name, scenario or of[0], what, "", bar, aim, at_least=True, kind="ratio", of=of, to=to)


_TINY: Key = ("tiny", "native", 16)
_ECHO: Key = ("tiny", "echo", 16)
_SQUEEZENET: Key = ("squeezenet", "engine", 0)
_RESNET: Key = ("resnet50", "engine", 0)

LINES = (
    _ratio("tiny-native", "tiny gRPC, native, 16 clients ÷ grpc.aio echo", _TINY, _ECHO, 2.3, 3.0),
    _ratio(
        "tiny-grpcio", "tiny gRPC, grpcio, 16 clients ÷ grpc.aio echo", ("tiny", "grpcio", 16), _ECHO, 0.75, 0.90
    ),
    Line(
        *("tiny-p50", "tiny", "tiny gRPC, native, 1 client: p50", "ms", 0.25, 0.15),
        at_least=False, kind="p50", of=("tiny", "native", 1),
    ),
    Line(
        *("tiny-cpu", "tiny", "tiny gRPC, native, 16 clients: CPU a request, all processes", "ms", 0.09, 0.06),
        at_least=False, kind="cpu", of=_TINY,
    ),
    _ratio("tiny-rest", "tiny REST JSON, 16 clients ÷ grpc.aio echo", ("tiny", "rest", 16), _ECHO, 1.8, 2.3),
    _ratio(
        "squeezenet-grpc", "SqueezeNet gRPC, 8 clients ÷ benchmark_app",
        ("squeezenet", "grpc", 8), _SQUEEZENET, 0.70, 0.82,
    ),
    _ratio(
        "squeezenet-rest", "SqueezeNet REST JSON, 4 clients ÷ benchmark_app",
        ("squeezenet", "rest", 4), _SQUEEZENET, 0.22, 0.33,
    ),
    _ratio(
        "resnet50-grpc", "ResNet-50 gRPC, 8 clients ÷ benchmark_app",
        ("resnet50", "grpc", 8), _RESNET, 0.95, 0.98,
    ),
    _ratio(
        "resnet50-rest", "ResNet-50 REST JSON, 4 clients ÷ benchmark_app",
        ("resnet50", "rest", 4), _RESNET, 0.70, 0.80,
    ),
    _ratio(
        "batching", "dense layers, 16 clients: batching on ÷ off",
        ("dense-layers", "batching", 16), ("dense-layers", "without", 16), 2.5, 4.0, "batching",
    ),
    _ratio(
        "models-10", "10 models side by side, same total load ÷ 1 model",
        ("models", "10 models", 16), ("models", "1 models", 16), 0.95, 1.0,
    ),
    _ratio(
        "models-100", "100 models side by side, same total load ÷ 1 model",
        ("models", "100 models", 16), ("models", "1 models", 16), 0.95, 1.0,
    ),
    Line(
        *("crowd", "crowd", "16 busy clients beside 512 idle or slow connections: p99 ÷ beside 1", "", 1.3, 1.1),
        at_least=False,
    ),
    Line("idle-cpu", "alone", "idle CPU, all processes", "% of a core", 1.0, 0.3, at_least=False),
    Line("start", "alone", "start to first answer, demo model, files cached", "s", 4.0, 2.0, at_least=False),
    Line("memory", "alone", "PSS of the whole server, tiny model, after load", "MiB", 350, 220, at_least=False),
    Line(
        *("copies", "copies", "16 MiB in and out over gRPC: bytes copied ÷ bytes served", "", 2.0, 0.0),
        at_least=False,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """How a server is started, beside its model and ports. Nothing given: its own defaults."""

    transport: Transport = ""
    options: tuple[tuple[str, str], ...] = ()
    """Further options of the command, by name without dashes."""


@dataclass(frozen=True)
class Settings:
    """How long and how often."""

    seconds: float = 2.0
    """Aim for each single measurement, after a pilot run of up to half a second that also warms up."""
    rounds: int = 5
    """Medians are over so many."""


QUICK = Settings(seconds=0.6, rounds=1)
