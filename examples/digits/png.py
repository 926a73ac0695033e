"""8x8 greyscale PNG files, read and written with the standard library alone.

The digits are 8x8 images with 17 levels, 0 (paper) to 16 (ink), and that is also what the model takes. In a PNG file
the levels are spread over 0 to 255, so that any viewer shows them; reading turns them back without loss.
The format is that of the PNG specification (ISO/IEC 15948): a signature, then chunks of length, type, data and CRC.
"""

import struct
import zlib
from pathlib import Path

SIDE = 8
MAX_LEVEL = 16

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Width, height, 8 bits a sample, greyscale; deflate, the one filter method, not interlaced.
_HEADER = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
_NO_FILTER = 0

Image = list[list[int]]
"""8 rows of 8 levels, 0 to 16."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write(path: Path, image: Image) -> None:
    """Write `image` as a PNG file whose rows are not filtered."""
    rows = b"".join(bytes([_NO_FILTER, *(round(v * 255 / MAX_LEVEL) for v in row)]) for row in image)
    chunks = _chunk(b"IHDR", _HEADER) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    path.write_bytes(_SIGNATURE + chunks)


def read(path: Path) -> Image:
    """The image in a file of the kind that `write` makes. Raises ValueError for any other, OSError."""
    try:
        return _decode(path.read_bytes())
    except (struct.error, zlib.error, IndexError) as error:
        raise ValueError(f"{path} is no PNG file: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _decode(content: bytes) -> Image:
    if not content.startswith(_SIGNATURE):
        raise ValueError("not a PNG file")
    compressed, position, kind = b"", len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IHDR" and data != _HEADER:
            raise ValueError("only 8x8 greyscale PNG files of 8 bits, not interlaced, are read here")
        if kind == b"IDAT":
            compressed += data
    samples = zlib.decompress(compressed)
    rows = [samples[start : start + SIDE + 1] for start in range(0, SIDE * (SIDE + 1), SIDE + 1)]
    if any(row[0] != _NO_FILTER or len(row) != SIDE + 1 for row in rows):
        raise ValueError("only PNG files with unfiltered rows are read here")
    return [[round(sample * MAX_LEVEL / 255) for sample in row[1:]] for row in rows]
