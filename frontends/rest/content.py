"""Bodies as resources see them: unpacked when they come, packed where the client accepts it when they go."""

import asyncio
import time
from collections.abc import Iterable

import falcon
from falcon import asgi

from common.errors import DeadlineExceededError, ResourceExhaustedError
from common.process import available_memory
from frontends.rest.body import LARGE_BYTES, MEMORY_FACTOR, Body
from frontends.rest.encodings import DecompressedTooLongError, accepts_gzip, compress, decompress
from frontends.rest.offload import LONG_BYTES, Offload

COMPRESSED_FROM_BYTES = 1024
"""Shorter answers fit into a packet as they are."""

_INLINE_BYTES = 16 << 10
"""Packed bodies up to this length are unpacked at once, as long as no more than LONG_BYTES come out of them."""

_PATIENCE_NS = 10_000_000_000
"""That an answer waits to be packed [ns]."""


class Content:
    """One an application."""

    def __init__(self, offload: Offload, limit: int) -> None:
        self._offload = offload
        self._limit = limit

    async def read(self, body: Body, deadline_ns: int) -> bytes:
        """The body, unpacked. Raises what Body.read does, InvalidArgumentError, and HTTPUnsupportedMediaType."""
        if not body.encoding:
            return await body.read(deadline_ns)
        coding = body.encoding.lower().strip()
        if coding not in ("gzip", "x-gzip", "identity"):
            raise falcon.HTTPUnsupportedMediaType(
                description=f"Content-Encoding {coding!r} is not supported; gzip and identity are",
                headers={"Accept-Encoding": "gzip, identity"},
            )
        data = await body.read(deadline_ns)
        return data if coding == "identity" else await self._unpack(data, deadline_ns)

    async def _unpack(self, packed: bytes, deadline_ns: int) -> bytes:
        try:
            if len(packed) <= _INLINE_BYTES:
                try:
                    return b"".join(decompress(packed, min(LONG_BYTES, self._limit)))
                except DecompressedTooLongError:
                    pass
            return await self._offload.run(lambda: self._unpack_long(packed), deadline_ns)
        except DecompressedTooLongError:
            raise falcon.HTTPContentTooLarge(
                description=f"The body is longer than {self._limit} bytes when it is unpacked"
            ) from None

    def _unpack_long(self, packed: bytes) -> bytes:
        pieces = []
        length = 0
        for piece in decompress(packed, self._limit):
            length += len(piece)
            if length > LARGE_BYTES and length * MEMORY_FACTOR > available_memory():
                raise ResourceExhaustedError("There is not enough memory to unpack the request's body")
            pieces.append(piece)
        return b"".join(pieces)


class Compression:
    """Falcon's middleware that packs long answers for clients that accept it."""

    def __init__(self, offload: Offload) -> None:
        self._offload = offload

    async def process_response(
        self, req: asgi.Request, resp: asgi.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Called by falcon after every request, also after one that failed."""
        text = resp.data
        if text is None or len(text) < COMPRESSED_FROM_BYTES:
            return
        resp.append_header("Vary", "Accept-Encoding")
        accepted = req.get_header("Accept-Encoding")
        if accepted is None or not accepts_gzip(accepted):
            return
        if len(text) < LONG_BYTES:
            resp.data = compress(text)
        else:
            try:
                resp.data = await self._offload.run(
                    lambda: compress(text), time.monotonic_ns() + _PATIENCE_NS
                )
            except (DeadlineExceededError, ResourceExhaustedError):
                return  # as it is, then
        resp.set_header("Content-Encoding", "gzip")


async def join(pieces: Iterable[bytes]) -> bytes:
    """A text that is made piece by piece, with other requests served in between."""
    made = []
    for piece in pieces:
        made.append(piece)
        await asyncio.sleep(0)
    return b"".join(made)
