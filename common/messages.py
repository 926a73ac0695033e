"""Every message between the processes, in one place, with a version.

    frontend ──Hello, Submit, Cancel, Acknowledge──▶ broker ──Load, Unload, Execute, ArenaGone──▶ worker
             ◀──Welcome, Catalogue, Completed, Released, Stale──      ◀──Hello, Loaded, Done, Deferred──

An envelope is one ZeroMQ frame (msgpack): protocol version, epoch of the broker, sequence number on this link, and the
messages, as many as were pending when it was sent. Only references travel; the one exception, outputs whose size cannot
be known beforehand, are further frames of the same ZeroMQ message, named by their index.

Times are CLOCK_MONOTONIC nanoseconds, which every process of a host shares. A request's key is the frontend's instance
name and a number that the frontend counts up.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from common.config import BatchingParameters, DeviceConfig, ModelConfig, VersionPolicy
from common.errors import WireError
from common.tensors import Signature

PROTOCOL_VERSION: Final = 3
"""Raised with every change of a struct below; peers of another version are not understood."""


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base: encoded as an array, tag first. gc=False: messages never form cycles, and thousands a second are made."""


class VersionId(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """A model and one of its versions, under one configuration of the model."""

    model: str
    version: int
    revision: int = 0
    """Counts up whenever the model's configuration changes in a way that its versions must be loaded anew for."""


class RequestKey(msgspec.Struct, frozen=True, array_like=True, gc=False, order=True):
    """Names a request for as long as any process remembers it."""

    frontend: str
    id: int


class ProcessId(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A process, safe against reuse of its number."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat."""


class TensorRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a tensor lies in its request's block. `shape` counts elements, `offset` bytes from the segment's start."""

    offset: int
    shape: tuple[int, ...]


class OutputRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Room for an output. `nbytes` is 0 where the size is not known beforehand and a frame brings the answer."""

    offset: int
    nbytes: int


class OutputResult(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of an output: its true shape, and the frame that holds it (-1: it lies in the block)."""

    shape: tuple[int, ...]
    frame: int = -1


class Timing(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Nanoseconds that a request spent waiting in the broker and inferring in the worker."""

    queued: int = 0
    inferring: int = 0


# ---- frontend → broker


class Submit(_Message, frozen=True, tag=1):
    """Run this request. Inputs are in the order of the version's signature, outputs likewise."""

    id: int
    version: VersionId
    generation: int
    """Of the catalogue by which the frontend chose the version."""
    segment: int
    """Of the frontend's memory: 0 is its arena, others are single large requests."""
    inputs: tuple[TensorRef, ...]
    outputs: tuple[OutputRef, ...]
    deadline: int


class Cancel(_Message, frozen=True, tag=2):
    """The client has gone; answered by Released once no worker can write to the block."""

    id: int


class FrontendHello(_Message, frozen=True, tag=3):
    """Who a frontend is and everything that it still holds: sent first on every link."""

    name: str
    """Of this instance; unique on the host for the life of the run directory."""
    process: ProcessId
    kind: str
    """`grpc` or `rest`."""
    listening: bool
    """Whether its port accepts."""
    requests: tuple[Submit, ...] = ()
    """Submitted before and still wanted."""
    abandoned: tuple[int, ...] = ()
    """Submitted before, no longer wanted, block still lent."""


class Acknowledge(_Message, frozen=True, tag=4):
    """No request that this frontend sends from now on was resolved by a catalogue older than `generation`."""

    generation: int


class Listening(_Message, frozen=True, tag=5):
    """The frontend's port accepts from now on."""


class Refused(_Message, frozen=True, tag=6):
    """How many requests the frontend has refused by itself since it last said so, by the name of the error code."""

    counts: dict[str, int]


class Leaving(_Message, frozen=True, tag=7):
    """The frontend is about to end, as it was told to."""


class Reconfigure(_Message, frozen=True, tag=8):
    """Serve these models, and no others, from now on; None: what the configuration file says. Reconfigured answers."""

    id: int
    """Of this frontend's own counting."""
    models: tuple[ModelConfig, ...] | None = None


# ---- broker → frontend


class Welcome(_Message, frozen=True, tag=20):
    """Answer to every Hello: the broker's epoch (in the envelope) begins for this link. `process` is to be watched."""

    process: ProcessId


class RestartLink(_Message, frozen=True, tag=21):
    """The broker missed a message of yours: open a new link and say Hello."""


class VersionStatus(msgspec.Struct, frozen=True, array_like=True):
    """A version as clients may see it."""

    version: int
    state: int
    """common.states.VersionState"""
    error: WireError | None = None
    signature: Signature | None = None
    """Known once the version was loaded."""
    servable: bool = False
    """Whether requests may name it: loaded, wanted, and not leaving."""
    revision: int = 0
    """Of the VersionId that requests are to name."""


class ModelStatus(msgspec.Struct, frozen=True, array_like=True):
    """A model and all of its versions that were ever seen, ascending."""

    name: str
    versions: tuple[VersionStatus, ...]
    labels: dict[str, int] = {}
    """Names that clients may use for versions."""


class Catalogue(_Message, frozen=True, tag=22):
    """Everything that is served, whole. Answered by Acknowledge."""

    generation: int
    ready: bool
    """Whether each served version has a live worker that can run it."""
    models: tuple[ModelStatus, ...]


class Completed(_Message, frozen=True, tag=23):
    """The answer to a Submit; the block is the frontend's alone again."""

    id: int
    outputs: tuple[OutputResult, ...] = ()
    error: WireError | None = None
    timing: Timing = Timing()


class Released(_Message, frozen=True, tag=24):
    """No worker can write to this cancelled request's block any more."""

    id: int


class Stale(_Message, frozen=True, tag=25):
    """The version has left since the frontend chose it: choose again, by this generation of the catalogue or later."""

    id: int
    generation: int


class Reconfigured(_Message, frozen=True, tag=26):
    """The answer to Reconfigure, once every version that it calls for was loaded or has failed to load."""

    id: int
    changed: bool = False
    """Whether the configuration differs from the one before."""
    error: WireError | None = None
    """The configuration was refused, and nothing has changed."""
    failures: tuple[str, ...] = ()
    """Models of the configuration that is in force now of which no version could be loaded, and why."""


# ---- broker → worker


class Load(_Message, frozen=True, tag=40):
    """Load a version; answered by Loaded or LoadFailed."""

    version: VersionId
    path: str
    """Its directory."""
    config: ModelConfig
    """How it is to be loaded."""
    trial: bool = False
    """Tried in a worker that serves nothing, because an earlier load killed its worker."""


class Unload(_Message, frozen=True, tag=41):
    """Forget a version; answered by Unloaded. Sent when nothing of it is in hand."""

    version: VersionId


class Execute(_Message, frozen=True, tag=42):
    """Infer one request in place."""

    key: RequestKey
    version: VersionId
    segment: int
    inputs: tuple[TensorRef, ...]
    outputs: tuple[OutputRef, ...]
    deadline: int = 0


class ArenaGone(_Message, frozen=True, tag=43):
    """A frontend has died: finish what runs in its memory, drop every binding to it, unmap it."""

    frontend: str


class ExecuteBatch(_Message, frozen=True, tag=44):
    """Infer these requests of one version together; each is answered by itself, or BatchFailed names it."""

    requests: tuple[Execute, ...]


# ---- worker → broker


class LoadedVersion(msgspec.Struct, frozen=True, array_like=True):
    """A version that a worker has loaded."""

    version: VersionId
    nireq: int
    signature: Signature
    notes: tuple[str, ...] = ()
    """What an operator should know of it: it keeps its own shape, and why; a device is absent or emulated."""
    batching: BatchingParameters | None = None
    """How its requests are gathered into batches; None: each is inferred by itself."""


class WorkerHello(_Message, frozen=True, tag=60):
    """Who a worker is, what it has loaded and what it has in hand: sent first on every link."""

    slot: str
    """Its program's name with supervisord, e.g. `CPU-0`."""
    process: ProcessId
    loaded: tuple[LoadedVersion, ...] = ()
    loading: tuple[VersionId, ...] = ()
    running: tuple[RequestKey, ...] = ()
    """In hand, oldest first, with the version each belongs to in `running_versions`."""
    running_versions: tuple[VersionId, ...] = ()
    arenas: tuple[str, ...] = ()
    """Frontends whose memory it maps; the broker answers ArenaGone for those that have died."""
    running_batches: tuple[int, ...] = ()
    """The batch of each request in `running`, by a number of the worker's own; 0: it is inferred by itself."""


class Loaded(_Message, frozen=True, tag=61):
    """A version can run here."""

    loaded: LoadedVersion


class LoadFailed(_Message, frozen=True, tag=62):
    """A version could not be loaded; `reason` is the engine's."""

    version: VersionId
    reason: str


class Unloaded(_Message, frozen=True, tag=63):
    """A version is forgotten and its memory given back."""

    version: VersionId


class Done(_Message, frozen=True, tag=64):
    """A request is finished; nothing in this worker will write to its block again."""

    key: RequestKey
    outputs: tuple[OutputResult, ...] = ()
    error: WireError | None = None
    inferring: int = 0
    """Nanoseconds."""


class Deferred(_Message, frozen=True, tag=65):
    """These requests, in hand, wait until their shapes are compiled: they occupy no slot, and no clock runs for them.

    Said again after every Hello.
    """

    keys: tuple[RequestKey, ...]


class Resumed(_Message, frozen=True, tag=66):
    """These deferred requests run, or wait for a slot of their version, from now on."""

    keys: tuple[RequestKey, ...]


class BatchFailed(_Message, frozen=True, tag=67):
    """These could not be inferred together and are not in hand any more: each is to be inferred by itself."""

    keys: tuple[RequestKey, ...]


# ---- storekeeper ↔ broker


class StorekeeperHello(_Message, frozen=True, tag=80):
    """The process that lists storage is there; answered by Welcome and Watch."""

    process: ProcessId


class Watched(msgspec.Struct, frozen=True, array_like=True):
    """A model whose storage is to be listed. What its policy does not want need not be fetched."""

    model: str
    base_path: str
    policy: VersionPolicy


class Watch(_Message, frozen=True, tag=81):
    """List the storage of these models, and no other, from now on. Sent after the Welcome and at every change."""

    models: tuple[Watched, ...]


class Snapshot(_Message, frozen=True, tag=82):
    """All versions of a model that its storage holds and that can be loaded now; or why it could not be listed.

    A version that is still being fetched is not among them, nor among `failures`.
    """

    model: str
    versions: dict[int, str]
    """Version → its directory on this machine."""
    error: str = ""
    warnings: tuple[str, ...] = ()
    base_path: str = ""
    """What was listed: a snapshot of another path than the model's present one says nothing."""
    failures: dict[int, str] = {}
    """Versions that the policy wants and that could not be fetched, and why; they are tried again."""


class Keep(_Message, frozen=True, tag=83):
    """Directories that must stay where they are, because a version in them is not ENDed. Sent at every change."""

    paths: tuple[str, ...]


class ReadConfig(_Message, frozen=True, tag=84):
    """Read the configuration file now, and answer even if it has not changed."""

    id: int


class ConfigRead(_Message, frozen=True, tag=85):
    """What the watched configuration file says; or, in one line, why it cannot be used."""

    models: tuple[ModelConfig, ...] = ()
    devices: dict[str, DeviceConfig] = {}
    error: str = ""
    id: int = 0
    """Of the ReadConfig that this answers; 0: the file has changed."""


# ---- control (ie_serving status, scale) ↔ broker; epoch 0, no link


class StatusQuery(_Message, frozen=True, tag=90):
    """What is served by whom?"""


class StatusReply(_Message, frozen=True, tag=91):
    """`document` is JSON."""

    document: str


class ScaleQuery(_Message, frozen=True, tag=92):
    """Run `replicas` workers of `device`."""

    device: str
    replicas: int


class ScaleReply(_Message, frozen=True, tag=93):
    """`error` is empty once the wanted number is written down."""

    error: str = ""


Message: TypeAlias = (
    Submit | Cancel | FrontendHello | Acknowledge | Listening | Refused | Leaving
    | Welcome | RestartLink | Catalogue | Completed | Released | Stale
    | Reconfigure | Reconfigured
    | Load | Unload | Execute | ExecuteBatch | ArenaGone
    | WorkerHello | Loaded | LoadFailed | Unloaded | Done | Deferred | Resumed | BatchFailed
    | StorekeeperHello | Watch | Snapshot | Keep | ReadConfig | ConfigRead
    | StatusQuery | StatusReply | ScaleQuery | ScaleReply
)  # fmt: skip


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What one ZeroMQ frame holds."""

    protocol: int
    epoch: int
    """Of the broker; 0 before Welcome and on control links."""
    sequence: int
    """Counts up from 0 on each link and direction."""
    messages: list[Message]


_decoder = msgspec.msgpack.Decoder(Envelope)

encode: Final[Callable[[Envelope], bytes]] = msgspec.msgpack.Encoder().encode
"""The envelope's frame. The encoder's own method: one call less for each message that is sent."""


def decode(frame: bytes | memoryview) -> Envelope:
    """The envelope in a frame. Raises msgspec.DecodeError (ValidationError is one) for anything else."""
    try:
        return _decoder.decode(frame)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"not a message: {error}") from error
