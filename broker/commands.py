"""What the core asks of the edge: imperative, in order, frozen."""

from typing import TypeAlias

import msgspec

from broker.fleet import ProgramCommand, Slot
from common.messages import LoadedVersion, Message, ProcessId


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a message to a peer; `frames` are the further frames that it names."""

    identity: bytes
    message: Message
    frames: tuple[bytes, ...] = ()


class WatchProcess(msgspec.Struct, frozen=True):
    """Report `process_died` when this process ends; at once if it has."""

    process: ProcessId


class KillProcess(msgspec.Struct, frozen=True):
    """SIGKILL."""

    process: ProcessId


class RunPrograms(msgspec.Struct, frozen=True):
    """Have supervisord carry these out, then report its list by `programs_seen` (or `supervisor_unreachable`)."""

    commands: tuple[ProgramCommand, ...]


class WantedState(msgspec.Struct, frozen=True):
    """What a successor of this broker must know; written down before anybody is told of it."""

    epoch: int = 0
    announced: bool = False
    """Whether the ready lines were printed."""
    serial: int = 0
    replicas: dict[str, int] = {}
    slots: tuple[Slot, ...] = ()
    served: tuple[LoadedVersion, ...] = ()


class SaveWanted(msgspec.Struct, frozen=True):
    """Write the wanted state down, atomically, before what follows."""

    state: WantedState


class Say(msgspec.Struct, frozen=True):
    """A line of the log."""

    level: int
    """As in the logging module."""
    text: str


class ForgetFrontend(msgspec.Struct, frozen=True):
    """A frontend has died: its socket file is left."""

    name: str


class Shutdown(msgspec.Struct, frozen=True):
    """End the whole server with this exit code and reason."""

    code: int
    reason: str


Command: TypeAlias = (
    Send | WatchProcess | KillProcess | RunPrograms | SaveWanted | Say | ForgetFrontend | Shutdown
)
