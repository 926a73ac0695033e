"""Errors as a gRPC client sees them: the one table from neutral codes to gRPC's status numbers.

The numbers happen to be equal, because common.errors took them from here; that is this module's business alone.
"""

import logging

from common.errors import INTERNAL_TEXT, Code, ServingError

_log = logging.getLogger("frontends.grpc")

STATUS: dict[Code, int] = {
    Code.OK: 0,
    Code.CANCELLED: 1,
    Code.UNKNOWN: 2,
    Code.INVALID_ARGUMENT: 3,
    Code.DEADLINE_EXCEEDED: 4,
    Code.NOT_FOUND: 5,
    Code.RESOURCE_EXHAUSTED: 8,
    Code.FAILED_PRECONDITION: 9,
    Code.UNIMPLEMENTED: 12,
    Code.INTERNAL: 13,
    Code.UNAVAILABLE: 14,
}
"""https://grpc.github.io/grpc/core/md_doc_statuscodes.html"""

_MAX_DETAILS = 4000
"""Bytes of a status text. It travels in an HTTP/2 header, percent-encoded, and clients refuse 8 KiB of headers."""


def status_of(error: Exception) -> tuple[int, str]:
    """Status number and text for an exception that ended a call; one that is not a ServingError is logged."""
    if isinstance(error, ServingError):
        return STATUS[error.code], _shorten(error.message)
    _log.error("A call was ended by an unexpected error", exc_info=error)
    return STATUS[Code.INTERNAL], INTERNAL_TEXT


def _shorten(text: str) -> str:
    """At most _MAX_DETAILS bytes and a mark, when each byte that is not printable ASCII is counted as three."""
    if len(text) * 12 <= _MAX_DETAILS:  # the most that UTF-8 can come to
        return text
    length = 0
    for index, character in enumerate(text):
        length += 1 if " " <= character <= "~" else 3 * len(character.encode("utf-8", "replace"))
        if length > _MAX_DETAILS:
            return text[:index] + " …"
    return text
