"""What a connection may ask of the server, and the counters that hold it to that. Pure.

Each defence names what it is against; past a bound the connection ends with ENHANCE_YOUR_CALM.
"""

from dataclasses import dataclass

from frontends.grpc.http2.frames import ConnectionFault, ErrorCode


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one connection."""

    streams: int = 1000
    """Calls at once; those whose client has given them up count until their handlers have ended (rapid reset)."""
    frame_bytes: int = 1 << 20
    """Longest payload of DATA that is announced. Any other frame is bounded by `header_block_bytes`."""
    header_block_bytes: int = 32_768
    """Encoded headers of one block, all its frames together (CONTINUATION flood)."""
    header_list_bytes: int = 65_536
    """Decoded headers of one block, 32 bytes more for each (HPACK bomb; section 6.5.2)."""
    continuations: int = 32
    """Frames of one block (flood of empty CONTINUATIONs)."""
    window: int = 1 << 20
    """Bytes of a stream that may come before they are asked for."""
    connection_window: int = 16 << 20
    resets: int = 1000
    """Calls that a client may give up before they are answered, at once; and RESETS_A_SECOND for ever."""
    control_frames: int = 5000
    """Frames that move nothing (PING, SETTINGS, empty DATA, PRIORITY, unknown ones), at once; CONTROL_FRAMES_A_SECOND
    for ever."""
    control_bytes: int = 65_536
    """Answers to such frames that wait for a client that does not read (PING and SETTINGS flood)."""


RESETS_A_SECOND = 100
CONTROL_FRAMES_A_SECOND = 1000


class Bucket:
    """Tokens that are spent at once and come back slowly."""

    __slots__ = ("_burst", "_left", "_per_ns", "_seen", "_what")

    def __init__(self, burst: int, per_second: int, what: str) -> None:
        self._burst = float(burst)
        self._left = float(burst)
        self._per_ns = per_second / 1e9
        self._seen = 0
        self._what = what

    def spend(self, now: int) -> None:
        """Take one at `now`, in nanoseconds. Raises ConnectionFault when there is none."""
        self._left = min(self._burst, self._left + (now - self._seen) * self._per_ns) - 1
        self._seen = now
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")
