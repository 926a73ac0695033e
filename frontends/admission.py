"""How much a frontend takes on, and what it has refused. Pure."""

from common.errors import Code, ResourceExhaustedError, UnavailableError

MAX_FRAME_BYTES = 256 << 20
"""Of outputs that came as message frames (their size was not known beforehand) and are not encoded yet."""


class Admission:
    """Bounds of one frontend."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self._frame_bytes = 0
        self.draining = False
        self._refused: dict[str, int] = {}

    def check(self, lent: int) -> None:
        """Whether one more request may start while `lent` blocks are out. Raises the refusal."""
        if self.draining:
            self.check_open()
        if lent >= self._max_requests:
            self._count(Code.RESOURCE_EXHAUSTED)
            raise ResourceExhaustedError(
                f"The server has {lent} requests in flight on this frontend, the most that it takes"
            )

    def check_open(self) -> None:
        """Whether anything may still start. Raises UnavailableError."""
        if self.draining:
            self._count(Code.UNAVAILABLE)
            raise UnavailableError("The server is shutting down")

    def take_frames(self, size: int) -> None:
        """Hold `size` more bytes of frames. Raises ResourceExhaustedError."""
        if self._frame_bytes + size > MAX_FRAME_BYTES:
            self._count(Code.RESOURCE_EXHAUSTED)
            raise ResourceExhaustedError(
                f"Outputs of unknown size take {self._frame_bytes} of {MAX_FRAME_BYTES} bytes, "
                f"and this answer needs {size} more"
            )
        self._frame_bytes += size

    def drop_frames(self, size: int) -> None:
        """Give them back."""
        self._frame_bytes -= size

    def refused(self) -> dict[str, int]:
        """Refusals since the last call, by the name of the error code."""
        counts, self._refused = self._refused, {}
        return counts

    def _count(self, code: Code) -> None:
        self._refused[code.name] = self._refused.get(code.name, 0) + 1
