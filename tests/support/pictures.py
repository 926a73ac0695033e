"""Encoded images for tests, honest ones and others."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(array: np.ndarray, kind: str = "PNG") -> bytes:
    """An array of uint8 or uint16, (height, width) or (height, width, RGB or RGBA), as JPEG or PNG."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def plain(width: int, height: int, colour: tuple[int, int, int] = (10, 20, 30), kind: str = "PNG") -> bytes:
    """An image of one colour (red, green, blue)."""
    return encode(np.full((height, width, 3), colour, np.uint8), kind)


def claiming_png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of grey pixels that says it is so large, over whatever (compressed) data there is."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return _PNG_SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def bomb_png(width: int, height: int) -> bytes:
    """A complete PNG of black pixels, a thousandth of them in bytes."""
    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    packed = [packer.compress(row) for _ in range(height)]
    return claiming_png(width, height, b"".join(packed) + packer.flush())


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
