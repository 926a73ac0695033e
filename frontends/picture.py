"""One encoded image, JPEG or PNG, as elements of a model's input. Pure: bytes in, an array out.

As in the C++ OpenVINO Model Server, colours come in the order blue, green, red, elements are 0 to 255, the image is
brought to the model's size whatever its own is (bilinear), and its EXIF orientation is not looked at. Alpha is dropped;
grey becomes colour, and colour grey, where the model wants the other.

What a file claims is looked at before a pixel is decoded, so that no file comes to more than MAX_PIXELS.

Pillow is imported with the first image: most servers never see one.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from common.errors import InvalidArgumentError
from common.tensors import DYNAMIC, TensorSpec

if TYPE_CHECKING:
    from types import ModuleType

    from PIL import Image

MAX_PIXELS = 50_000_000
"""Of an image, before it is resized. Decoded, Pillow takes four bytes a pixel, and as much again while it converts."""
MAX_ENCODED_BYTES = 64 << 20
"""Of an image as it comes."""

_FORMATS = ("JPEG", "PNG")
_LAYOUTS = {"NCHW": 1, "NHWC": 3}
"""Layout → the dimension of the colour channels."""
_CHANNELS = (1, 3)
_TOO_NARROW = ("bool", "int8")
"""Element types that cannot hold 0 to 255."""


@functools.cache
def _pillow() -> ModuleType:
    from PIL import Image

    # Pillow's own bound warns once, or refuses; `_open` has one that is an error of the request.
    Image.MAX_IMAGE_PIXELS = None
    return Image


@dataclass(frozen=True, slots=True)
class Plan:
    """What an input makes of an image."""

    name: str
    """Of the input."""
    channels: int
    channels_first: bool
    """NCHW, else NHWC."""
    height: int
    """Pixels; DYNAMIC: the image's own."""
    width: int
    """Likewise."""

    def shape(self, count: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Of the input, for so many images of this size."""
        if self.channels_first:
            return (count, self.channels, height, width)
        return (count, height, width, self.channels)


def plan_for(spec: TensorSpec) -> Plan:
    """How images are laid out for this input. Raises InvalidArgumentError for one that takes none."""
    shape = spec.shape
    if spec.unranked or len(shape) != len("NCHW") or spec.dtype in _TOO_NARROW:
        found = "of unknown shape" if spec.unranked else f"of shape {list(shape)}"
        raise InvalidArgumentError(
            f"Input {spec.name!r} takes no strings. They stand for JPEG and PNG images, which an input of numbers of 4 "
            f"dimensions takes; this one is of type {spec.dtype} and {found}"
        )
    axis = _channel_axis(spec)
    channels = 3 if shape[axis] == DYNAMIC else shape[axis]
    height, width = shape[2:] if axis == 1 else shape[1:3]
    return Plan(spec.name, channels, axis == 1, height, width)


def _channel_axis(spec: TensorSpec) -> int:
    """By the layout, else by where there are 1 or 3 elements. Raises InvalidArgumentError."""
    axis = _LAYOUTS.get(spec.layout)
    if axis is None:
        axes = [axis for axis in _LAYOUTS.values() if spec.shape[axis] in _CHANNELS]
        if len(axes) == 1:
            return axes[0]
        raise InvalidArgumentError(
            f"Input {spec.name!r} of shape {list(spec.shape)} does not show whether it takes images as NCHW or NHWC: "
            "'layout' in the model's configuration must say it"
        )
    if spec.shape[axis] not in (*_CHANNELS, DYNAMIC):
        raise InvalidArgumentError(
            f"Input {spec.name!r} takes no images: by its layout {spec.layout} its shape {list(spec.shape)} has "
            f"{spec.shape[axis]} channels, and images have 1 or 3"
        )
    return axis


def decode(data: bytes, plan: Plan) -> np.ndarray:
    """The image as uint8 of shape (height, width, channels). Raises InvalidArgumentError."""
    mode = "L" if plan.channels == 1 else "RGB"
    with _open(data, plan.name) as image:
        height = image.height if plan.height == DYNAMIC else plan.height
        width = image.width if plan.width == DYNAMIC else plan.width
        try:
            image.load()
            pixels = _eight_bits(image)
            pixels = pixels if pixels.mode == mode else pixels.convert(mode)
            if pixels.size != (width, height):
                pixels = pixels.resize((width, height), _pillow().Resampling.BILINEAR)
            array = np.asarray(pixels)
        except Exception as error:  # whatever Pillow's readers raise: the file is at fault
            raise _unreadable(plan.name, error) from error
    return array[:, :, np.newaxis] if plan.channels == 1 else array[:, :, ::-1]


def lay_out(picture: np.ndarray, plan: Plan) -> np.ndarray:
    """A decoded image as an element of the input's batch."""
    return picture.transpose(2, 0, 1) if plan.channels_first else picture


def _open(data: bytes, name: str) -> Image.Image:
    """The image, nothing of it decoded but its head."""
    if len(data) > MAX_ENCODED_BYTES:
        raise InvalidArgumentError(
            f"Input {name!r}: an encoded image has {MAX_ENCODED_BYTES} bytes at the most, got {len(data)}"
        )
    try:
        image: Image.Image = _pillow().open(io.BytesIO(data), formats=_FORMATS)
    except _pillow().UnidentifiedImageError:
        raise InvalidArgumentError(
            f"Input {name!r}: {len(data)} bytes that are neither a JPEG nor a PNG image"
        ) from None
    except Exception as error:  # likewise
        raise _unreadable(name, error) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise InvalidArgumentError(
            f"Input {name!r}: an image has {MAX_PIXELS} pixels at the most, got {image.width}×{image.height}"
        )
    return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits by its upper 8; Pillow itself would cut it off at 255."""
    if image.mode != "I" and not image.mode.startswith("I;16"):
        return image
    grey: Image.Image = _pillow().fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return grey


def _unreadable(name: str, error: Exception) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"Input {name!r}: the image cannot be decoded: {str(error) or type(error).__name__}"
    )
