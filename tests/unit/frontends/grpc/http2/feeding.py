"""A connection that is fed bytes of any kind, and what must hold whatever they are."""

from collections.abc import Iterable, Sequence
from typing import Any

from frontends.grpc.http2.connection import Connection
from frontends.grpc.http2.header_blocks import Headers
from frontends.grpc.http2.limits import Limits
from frontends.grpc.http2.streams import Stream
from frontends.grpc.native.head import Head, understand
from frontends.grpc.native.replies import PREFIX, begin, end_well

LIMITS = Limits(
    streams=20,
    frame_bytes=16_384,
    header_block_bytes=2000,
    header_list_bytes=4000,
    continuations=8,
    window=65_535,
    connection_window=131_070,
    resets=30,
    control_frames=60,
    control_bytes=2000,
)

_ROOM_BYTES = (40_000, 0, 400)
"""By the streams' numbers."""

Event = tuple[Any, ...]


class Owner:
    """What the connection's owner is told, and an answer to each request at its end: its own body."""

    def __init__(self, *, gives_back: bool = True) -> None:
        """`gives_back`: opens the client's windows again as bodies come."""
        self._gives_back = gives_back
        self.events: list[Event] = []
        self.bodies: dict[int, bytearray] = {}
        self.connection: Connection[Head] = Connection(self, LIMITS)
        self.output = bytearray()
        self.came_whole = self.placed_bytes = 0
        self._rooms: dict[int, bytearray] = {}

    def understand(self, headers: Headers) -> Head:
        """See Handler."""
        return understand(headers)

    def whole(self, stream: Stream, request: Head, body: memoryview) -> bool:
        """See Handler."""
        if request.content_length not in (None, len(body)):
            return False
        self.came_whole += 1
        self.request(stream, request, ended=False)
        self.data(stream, body, ended=True)
        return True

    def request(self, stream: Stream, request: Head, *, ended: bool) -> None:
        """See Handler."""
        assert stream.id not in self.bodies
        stream.content_left = request.content_length
        self.bodies[stream.id] = bytearray()
        self.events.append(("request", stream.id, request, ended))
        if ended:
            self._answer(stream)

    def data(self, stream: Stream, piece: memoryview, *, ended: bool) -> None:
        """See Handler."""
        assert stream.id in self.bodies
        self.bodies[stream.id] += piece
        if self._gives_back:
            self.connection.give_back(stream, len(piece))
        if ended:
            self.events.append(("body", stream.id, bytes(self.bodies[stream.id])))
            self._answer(stream)

    def room(self, stream: Stream) -> memoryview | None:
        """See Handler: of some streams none, of others little or much."""
        size = _ROOM_BYTES[stream.id // 2 % len(_ROOM_BYTES)]
        return memoryview(self._rooms.setdefault(stream.id, bytearray(size))) if size else None

    def placed(self, stream: Stream, size: int, *, ended: bool) -> None:
        """See Handler."""
        self.placed_bytes += size
        self.data(stream, memoryview(self._rooms[stream.id])[:size], ended=ended)

    def reset(self, stream: Stream) -> None:
        """See Handler."""
        self.events.append(("reset", stream.id))

    def sent(self, stream: Stream) -> None:
        """See Handler."""
        self.events.append(("sent", stream.id))

    def drained(self, stream: Stream) -> None:
        """See Handler."""

    def pinged(self, payload: bytes) -> None:
        """See Handler."""
        self.events.append(("pinged", payload))

    def _answer(self, stream: Stream) -> None:
        body = bytes(self.bodies[stream.id])
        self.connection.respond(stream, begin(stream.id))
        parts = [PREFIX.pack(0, len(body)), body]
        self.connection.sender.send(stream, parts, len(body) + 5, end_well(stream.id))

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Give all of it to the connection, a nanosecond after the other, and take what it says."""
        self.take()
        for now, piece in enumerate(pieces):
            self.connection.receive(memoryview(piece), now)
            self.take()

    def take(self) -> None:
        """What is to be written."""
        while output := self.connection.take():
            for part in output:
                self.output += part
            self.connection.sender.written()


def check(sent: bytes, pieces: Sequence[bytes]) -> Owner:
    """Feed `pieces`, and all of `sent` at once: nothing is raised, both tell the same, and what is kept is bounded."""
    at_once, in_pieces = Owner(), Owner()
    at_once.feed([sent])
    in_pieces.feed(pieces)
    assert at_once.events == in_pieces.events
    assert at_once.connection.fault == in_pieces.connection.fault
    assert at_once.connection.closed == in_pieces.connection.closed
    for owner in (at_once, in_pieces):
        check_bounded(owner)
        check_legal(owner)
    return in_pieces


def check_bounded(owner: Owner) -> None:
    """What the connection keeps for its client."""
    connection = owner.connection
    assert len(connection.streams) <= LIMITS.streams
    assert len(connection._partial) <= 9 + LIMITS.header_block_bytes + LIMITS.frame_bytes
    assert len(connection._block) <= 2 * LIMITS.header_block_bytes
    assert len(connection._ended_early) <= 256


def check_legal(owner: Owner) -> None:
    """Whole frames, SETTINGS first, and GOAWAY last where the connection has been closed."""
    rest, frames = bytes(owner.output), []
    while rest:
        length = int.from_bytes(rest[:3], "big")
        assert len(rest) >= 9 + length
        frames.append((rest[3], int.from_bytes(rest[5:9], "big"), rest[9 : 9 + length]))
        rest = rest[9 + length :]
    assert frames[0][0] == 4
    goaways = [payload for kind, _, payload in frames if kind == 7]
    assert bool(goaways) == owner.connection.closed
    if goaways:
        assert frames[-1][0] == 7, "nothing follows the last word"
