"""What a load generator is aimed at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[1]
"""Where `python -m perf.…` finds its modules, wherever the caller stands."""
GRPC_PREFIX_BYTES = 5
"""gRPC over HTTP/2: one byte of compression flag and four of length come before each message."""


class LoadFailedError(RuntimeError):
    """A run that says nothing: the generator failed, hung, or nothing succeeded."""


@dataclass(frozen=True)
class Target:
    """One kind of request to one port of this machine."""

    kind: Literal["grpc", "rest"]
    port: int
    path: str
    body: Path
    """File of what is posted: a gRPC frame (prefix and message) or JSON."""
    answer_bytes: int = 0
    """Length of a right answer's body, gRPC's prefix included; 0: unknown, not checked."""


def frame(message: bytes) -> bytes:
    """A message as gRPC sends it, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message
