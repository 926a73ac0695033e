"""What all requests of the API have in common: reading the message, whom it asks, how long it may take. Pure."""

from collections.abc import Sequence
from typing import Any

from google.protobuf import wrappers_pb2
from google.protobuf.message import DecodeError

from common.errors import InvalidArgumentError
from frontends.grpc.calls import Call
from frontends.grpc.tensorflow_protos import model_pb2
from frontends.interface import Selector

SIGNATURE = "serving_default"
"""The signature that every model has."""

LONGEST_NS = 24 * 3600 * 1_000_000_000
"""Nobody is waited for longer than a day, whatever deadline was set."""


def parse(kind: Any, message: memoryview) -> Any:
    """The message. Raises InvalidArgumentError for bytes that are no such message."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidArgumentError(f"The request is not a {kind.DESCRIPTOR.full_name}: {error}") from error


def selector_of(spec: Any) -> Selector:
    """What a ModelSpec asks for; version 0 and an empty label are protobuf's way of saying nothing."""
    match spec.WhichOneof("version_choice"):
        case "version":
            return Selector(spec.name, version=spec.version.value or None)
        case "version_label":
            return Selector(spec.name, label=spec.version_label or None)
        case _:
            return Selector(spec.name)


def check_signature_name(name: str, known: Sequence[str] = (SIGNATURE,)) -> None:
    """Whether there is such a signature; the empty name is SIGNATURE. Raises InvalidArgumentError."""
    if name and name not in known:
        raise InvalidArgumentError(
            f"Serving signature key {name!r} not found. Signatures expected to be in the set {{{list(known)}}}."
        )


def model_spec(model: str, version: int, signature_name: str = "") -> Any:
    """A ModelSpec as answers carry it."""
    return model_pb2.ModelSpec(
        name=model, version=wrappers_pb2.Int64Value(value=version), signature_name=signature_name
    )


def deadline_of(now: int, call: Call, timeout_ns: int) -> int:
    """CLOCK_MONOTONIC nanoseconds: the client's, or `timeout_ns` from now for a client that set none."""
    given = call.deadline_ns
    if given is None:
        return now + timeout_ns
    return given if given - now <= LONGEST_NS else now + LONGEST_NS
