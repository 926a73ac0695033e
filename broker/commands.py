"""What the core asks of the edge: imperative, in order, frozen."""

from typing import TypeAlias

import msgspec

from broker.fleet import ProgramCommand, Slot
from common.config import DeviceConfig, ModelConfig
from common.messages import Message, ProcessId, VersionId
from common.tensors import Signature


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send messages to a linked peer, together; `frames` are the further frames that they name. After all else."""

    identity: bytes
    messages: list[Message]
    frames: list[bytes]


class Reply(msgspec.Struct, frozen=True):
    """Answer a question that came without a link."""

    identity: bytes
    message: Message


class WatchProcess(msgspec.Struct, frozen=True):
    """Report `process_died` when this process ends; at once if it has."""

    process: ProcessId


class KillProcess(msgspec.Struct, frozen=True):
    """SIGKILL."""

    process: ProcessId


class RunPrograms(msgspec.Struct, frozen=True):
    """Have supervisord carry these out, then report its list by `programs_seen` (or `supervisor_unreachable`)."""

    commands: tuple[ProgramCommand, ...]


class WantedModel(msgspec.Struct, frozen=True):
    """A model of the configuration in force, or one that has left it and not ended yet."""

    config: ModelConfig
    revision: int = 0
    own_revisions: dict[int, int] = {}
    removed: bool = False


class ServedVersion(msgspec.Struct, frozen=True):
    """A version that requests name."""

    version: VersionId
    path: str
    signature: Signature
    config: ModelConfig
    """By which it was loaded; the model's may be another by now."""
    notes: tuple[str, ...] = ()
    """That were logged."""
    leaving: bool = False
    """Requests of it may be unanswered, new ones are not to come."""


class Configuration(msgspec.Struct, frozen=True):
    """What is to be served, and how the workers of each device are run."""

    models: tuple[ModelConfig, ...]
    devices: dict[str, DeviceConfig] = {}


class WantedState(msgspec.Struct, frozen=True):
    """What a successor of this broker must know; written down before anybody is told of it."""

    epoch: int = 0
    announced: bool = False
    """Whether the ready lines were printed."""
    serial: int = 0
    """Number of the next worker slot."""
    slots: tuple[Slot, ...] = ()
    pools: dict[str, int] = {}
    """Workers by device, of leaving devices too."""
    scaled: dict[str, int] = {}
    """Workers of the devices that were scaled by hand."""
    generation: int = 0
    """Of the configuration in force: counts its changes since the start."""
    configuration: Configuration | None = None
    """None: what the server was started with."""
    file: Configuration | None = None
    """What the configuration file last said; None: what the server was started with."""
    config_error: str = ""
    """Why the configuration file, as it is now, is not in force."""
    last_revision: int = 0
    """Highest that was ever given to a version."""
    models: tuple[WantedModel, ...] = ()
    """Revisions of the configured models, and those models that are leaving."""
    served: tuple[ServedVersion, ...] = ()


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
    Send | Reply | WatchProcess | KillProcess | RunPrograms | SaveWanted | Say | ForgetFrontend | Shutdown
)
