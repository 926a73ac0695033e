"""Errors as neutral codes. The two rims (gRPC, HTTP) each have one table that turns a code into their own status.

Errors cross processes as data (`WireError`), never as pickled exceptions. An exception that is not a `ServingError`
is a defect of ours: the rim answers it with `INTERNAL_TEXT` and logs the rest.
"""

from enum import IntEnum
from typing import ClassVar

import msgspec

INTERNAL_TEXT = "Internal error of the server; its log has the details"


class Code(IntEnum):
    """Neutral error codes, numbered as gRPC's canonical status codes so that reading them needs no second table."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class WireError(msgspec.Struct, frozen=True, array_like=True):
    """An error as it travels between processes."""

    code: Code
    message: str


class ServingError(Exception):
    """Root of everything that a client may be told. `message` is shown to the client as it stands."""

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def to_wire(self) -> WireError:
        """The same error as data."""
        return WireError(self.code, self.message)


class InvalidArgumentError(ServingError):
    """The request contradicts the model's signature or itself."""

    code = Code.INVALID_ARGUMENT


class NotFoundError(ServingError):
    """The model or version does not exist here."""

    code = Code.NOT_FOUND


class UnavailableError(ServingError):
    """The model exists but cannot answer now; trying again later may help."""

    code = Code.UNAVAILABLE


class ResourceExhaustedError(ServingError):
    """A bound was reached; the message names it."""

    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceededError(ServingError):
    """The deadline passed before the answer was there."""

    code = Code.DEADLINE_EXCEEDED


class FailedPreconditionError(ServingError):
    """The server is not in the state that the call needs; asking again does not help."""

    code = Code.FAILED_PRECONDITION


class UnimplementedError(ServingError):
    """The API has this call, this server does not."""

    code = Code.UNIMPLEMENTED


class InternalError(ServingError):
    """The server or the engine failed; not the client's doing."""

    code = Code.INTERNAL


_BY_CODE: dict[Code, type[ServingError]] = {
    kind.code: kind
    for kind in (
        InvalidArgumentError,
        NotFoundError,
        UnavailableError,
        ResourceExhaustedError,
        DeadlineExceededError,
        FailedPreconditionError,
        UnimplementedError,
        InternalError,
    )
}


def from_wire(error: WireError) -> ServingError:
    """The exception that stands for `error`; a code without a class of its own becomes InternalError."""
    return _BY_CODE.get(error.code, InternalError)(error.message)


def servable_not_found(model: str, version: int) -> NotFoundError:
    """The text that clients of TensorFlow Serving match on; `version` 0 stands for "none was given"."""
    return NotFoundError(f"Servable not found for request: Specific({model}, {version})")
