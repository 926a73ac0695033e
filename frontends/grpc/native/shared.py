"""What all connections of one native server share, and how long it waits for them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from frontends.grpc.calls import Method
from frontends.grpc.http2.limits import Limits
from frontends.grpc.native.messages import Budget, Room

STAGING_BYTES = 262_144


class Sweepable(Protocol):
    """A connection, as its server knows it."""

    def sweep(self, now: int) -> None:
        """End what has taken too long; `now` by CLOCK_MONOTONIC, in nanoseconds."""
        ...

    def drain(self) -> None:
        """Take no new calls; the connection ends when those that run are answered."""
        ...

    def end(self) -> None:
        """Cancel what runs, and end."""
        ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a connection is waited for, in seconds."""

    greeting_s: float = 10.0
    """For the preface and settings."""
    stall_s: float = 30.0
    """For the rest of a frame that has begun, for progress of a body, for a client that does not read."""
    slowest_bytes_s: int = 1024
    """Bytes a second that a body must have come with after `stall_s`, on average."""
    keep_alive_s: float = 120.0
    """Of silence, then the client is asked whether it is there."""
    answer_s: float = 20.0
    """For its answer."""
    idle_s: float = 3600.0
    """Without a call, then the connection is ended in an orderly way."""


@dataclass
class Shared:
    """What all connections of a server share."""

    methods: dict[bytes, Method]
    message_bytes: int
    budget: Budget
    room: Room | None = None
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    most_connections: int = 4096
    connections: set[Sweepable] = field(default_factory=set)
    ended: Callable[[], None] = lambda: None
    """Called when a connection has gone."""

    def __post_init__(self) -> None:
        # No field: mypyc knows no memoryview among a dataclass's types.
        self.staging = memoryview(bytearray(STAGING_BYTES))
        """What connections receive into, each read at once."""
