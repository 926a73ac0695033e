"""Lists of labelled images, and image files as the tensors that models take."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from clientlib.errors import ClientError

_CHANNELS = (1, 3)


class Labelled(NamedTuple):
    """A line of a list."""

    name: str
    """As it is written there."""
    path: Path
    label: int


def read_list(name: str) -> list[Labelled]:
    """Lines of a path and the number of a class. Paths are relative to the working directory, or else to the list.

    Raises ClientError.
    """
    source = Path(name)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        words = line.strip().rsplit(maxsplit=1)
        if not words:
            continue
        if len(words) < 2 or not words[1].isdecimal():
            raise ClientError(f"{name}, line {number}: a path and the number of a class are wanted")
        path = Path(words[0])
        here = path if path.exists() else source.parent / path
        found.append(Labelled(words[0], here, int(words[1])))
    if not found:
        raise ClientError(f"{name} names no images")
    return found


class Layout(NamedTuple):
    """How a model takes one image."""

    channels: int
    """1 for grey, 3 for BGR, the order that models for OpenVINO are usually converted with."""
    axes: str
    """NCHW, NHWC or, without channels, NHW."""
    dtype: str = "float32"


NCHW = Layout(3, "NCHW")


def layout_of(shape: Sequence[int], dtype: str) -> Layout:
    """Of a model's input; NCHW in colour where the shape does not tell."""
    if len(shape) == 3:
        return Layout(1, "NHW", dtype)
    if len(shape) == 4 and shape[1] not in _CHANNELS and shape[3] in _CHANNELS:
        return Layout(shape[3], "NHWC", dtype)
    if len(shape) == 4 and shape[1] in _CHANNELS:
        return Layout(shape[1], "NCHW", dtype)
    return NCHW._replace(dtype=dtype)


def load(image: Labelled, size: int, layout: Layout) -> np.ndarray:
    """A batch of one image, `size` pixels high and wide, with values from 0 to 255. Raises ClientError."""
    try:
        with Image.open(image.path) as opened:
            upright = ImageOps.exif_transpose(opened)
            picture = upright.convert("L" if layout.channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is no image that Pillow can read"
        raise ClientError(f"{image.path} cannot be read: {reason}") from error
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture, layout.dtype)
    if layout.channels == 3:
        pixels = pixels[:, :, ::-1]
    elif layout.axes != "NHW":
        pixels = pixels[:, :, None]
    if layout.axes == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None])
