"""What is measured, with which settings, and which bars it must reach. To try other settings, edit `CASES`."""

from dataclasses import dataclass
from typing import Literal

CLIENTS = (1, 4, 16, 64)
"""Concurrency: clients that each have one request under way at all times."""

BarKind = Literal["÷ echo", "÷ engine", "p50 ms"]


@dataclass(frozen=True)
class Setup:
    """How the server is started."""

    workers: int = 1
    nireq: int = 1
    grpc_workers: int = 1
    rest_workers: int = 1
    plugin_config: str = ""
    """JSON, as the option takes it."""

    def text(self, cores: int) -> str:
        """The short form that stands beside each figure; a worker has its share of the cores as threads."""
        threads = max(1, cores // self.workers)
        own = f" {self.plugin_config}" if self.plugin_config else ""
        frontends = f"{self.grpc_workers}+{self.rest_workers}f"
        return f"{frontends} {self.workers}w×{threads}t nireq {self.nireq}{own}"


@dataclass(frozen=True)
class Bar:
    """A bound on one median of the gRPC server."""

    kind: BarKind
    clients: int
    bound: float

    @property
    def at_least(self) -> bool:
        """Ratios must not fall below their bound, latencies must not rise above it."""
        return self.kind != "p50 ms"


@dataclass(frozen=True)
class Case:
    """One model under one setup."""

    model: str
    setup: Setup = Setup()
    bars: tuple[Bar, ...] = ()
    grpc_clients: tuple[int, ...] = CLIENTS
    rest_clients: tuple[int, ...] = CLIENTS
    relay: bool = False
    """Whether a bare relay of a small message is measured too."""
    echo_answer_bytes: int = 0
    """What the echo answers; 0: the message itself. A model's answer where it is far smaller than its request."""


# Two workers of one OpenVINO thread each are faster than one of two threads where inference is the limit.
_CONVOLUTIONS = Setup(workers=2)
_CLASSES_BYTES = 4100
"""1000 float32 and their envelope."""

CASES = (
    Case("tiny", bars=(Bar("÷ echo", 16, 0.60), Bar("p50 ms", 1, 0.55)), relay=True),
    Case("squeezenet", _CONVOLUTIONS, (Bar("÷ engine", 16, 0.53),), echo_answer_bytes=_CLASSES_BYTES),
    Case("resnet50", _CONVOLUTIONS, (Bar("÷ engine", 16, 0.87),), echo_answer_bytes=_CLASSES_BYTES),
    # 64 clients would hold 1 GiB in flight over gRPC, and four times the text and numbers of it over REST.
    Case("dense", grpc_clients=(1, 4, 16), rest_clients=(1, 4), echo_answer_bytes=64),
)


@dataclass(frozen=True)
class Settings:
    """How long and how often."""

    seconds: float = 3.0
    """Aim for each single measurement, after a pilot run of up to half a second that also warms up."""
    rounds: int = 3
    clients: tuple[int, ...] = CLIENTS
    """Only these of each case's."""


QUICK = Settings(seconds=1.0, rounds=1, clients=(1, 16))
