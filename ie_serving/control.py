"""Questions to the broker of a running server. Each attempt has a socket of its own: the broker may be restarting."""

import os
import secrets
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from common.config import peers_socket
from common.messages import (
    PROTOCOL_VERSION,
    Envelope,
    Message,
    ScaleQuery,
    ScaleReply,
    StatusQuery,
    StatusReply,
    decode,
    encode,
)
from common.transport import Transport, Waiter
from ie_serving.errors import CommandError, NoInstanceError
from ie_serving.run_directory import live_pid

_ANSWER_S = 5.0
_ATTEMPT_S = 1.0

_Reply = TypeVar("_Reply", StatusReply, ScaleReply)


class VersionStatus(msgspec.Struct, frozen=True):
    """A version of a model."""

    version: int
    state: str
    error: str = ""
    workers: tuple[str, ...] = ()
    """Slots that have it loaded."""
    queued: int = 0
    running: int = 0
    notes: tuple[str, ...] = ()
    """What an operator should know of it."""
    revision: int = 0


class ModelStatus(msgspec.Struct, frozen=True):
    """A model and its versions."""

    name: str
    versions: tuple[VersionStatus, ...] = ()
    error: str = ""
    """Why its storage could not be listed."""
    base_path: str = ""
    device: str = ""
    labels: dict[str, int] = {}
    """Of the versions that are known."""
    leaving: bool = False
    """It is not configured any more."""


class PoolStatus(msgspec.Struct, frozen=True):
    """The workers of a device."""

    device: str
    wanted: int
    serving: int
    python: str = ""
    """Interpreter of its workers; empty: the server's."""
    emulated_on: str = ""
    """Device that stands in for it; empty: none."""


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker."""

    slot: str
    device: str
    state: str
    pid: int | None = None
    loaded: tuple[tuple[str, int], ...] = ()
    in_hand: int = 0
    restarts: int = 0


class FrontendStatus(msgspec.Struct, frozen=True):
    """One frontend process."""

    name: str
    kind: str
    pid: int
    listening: bool
    requests: int = 0


class Status(msgspec.Struct, frozen=True):
    """The document that the broker answers with; keys that are not known here are passed over."""

    ready: bool
    epoch: int = 0
    configuration: int = 0
    """Counts the changes of the configuration since the start."""
    config_error: str = ""
    """Why the configuration file, as it is now, is not in force."""
    models: tuple[ModelStatus, ...] = ()
    pools: tuple[PoolStatus, ...] = ()
    workers: tuple[WorkerStatus, ...] = ()
    frontends: tuple[FrontendStatus, ...] = ()
    queued: int = 0


def ask_status(run_dir: Path) -> str:
    """The status document, JSON. Raises CommandError."""
    return _ask(run_dir, StatusQuery(), StatusReply).document


def read_status(document: str) -> Status:
    """The document's content. Raises CommandError."""
    try:
        return msgspec.json.decode(document, type=Status)
    except msgspec.DecodeError as error:
        raise CommandError(f"the server's answer is not understood: {error}") from error


def ask_scale(run_dir: Path, device: str, replicas: int) -> None:
    """Have the broker write down how many workers a device is to have. Raises CommandError."""
    error = _ask(run_dir, ScaleQuery(device, replicas), ScaleReply).error
    if error:
        raise CommandError(error)


def _ask(run_dir: Path, question: Message, kind: type[_Reply]) -> _Reply:
    if live_pid(run_dir) is None:
        raise NoInstanceError(f"no server is running in {run_dir}; --port and --run_dir name another")
    frame = encode(Envelope(PROTOCOL_VERSION, 0, 0, [question]))
    transport = Transport()
    try:
        end = time.monotonic() + _ANSWER_S
        while (left := end - time.monotonic()) > 0:
            reply = _attempt(transport, run_dir, frame, kind, min(left, _ATTEMPT_S))
            if reply is not None:
                return reply
    finally:
        transport.close()
    raise CommandError(f"the server in {run_dir} did not answer within {_ANSWER_S:g} seconds")


def _attempt(
    transport: Transport, run_dir: Path, frame: bytes, kind: type[_Reply], timeout_s: float
) -> _Reply | None:
    dealer = transport.dealer(peers_socket(run_dir), f"control.{os.getpid()}.{secrets.token_hex(4)}")
    waiter = Waiter()
    waiter.add(dealer)
    try:
        dealer.send([frame])
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            waiter.wait(int(left * 1e9))
            for frames in dealer.drain():
                reply = _read(frames[0], kind)
                if reply is not None:
                    return reply
        return None
    finally:
        waiter.remove(dealer)
        dealer.close()


def _read(frame: bytes, kind: type[_Reply]) -> _Reply | None:
    try:
        envelope = decode(frame)
    except msgspec.DecodeError as error:
        raise CommandError(f"the server's answer is not understood: {error}") from error
    if envelope.protocol != PROTOCOL_VERSION:
        raise CommandError(f"the server speaks protocol {envelope.protocol}, this command {PROTOCOL_VERSION}")
    return next((message for message in envelope.messages if isinstance(message, kind)), None)
