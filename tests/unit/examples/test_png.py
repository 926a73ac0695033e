"""The demo's PNG files: what is written is a PNG for others, and comes back without loss."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.digits import png

images = st.lists(st.lists(st.integers(0, png.MAX_LEVEL), min_size=8, max_size=8), min_size=8, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(images)
def test_levels_come_back(tmp_path: Path, image: png.Image) -> None:
    png.write(tmp_path / "x.png", image)
    assert png.read(tmp_path / "x.png") == image


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(images)
def test_pillow_sees_the_same_image(tmp_path: Path, image: png.Image) -> None:
    png.write(tmp_path / "x.png", image)
    with PIL.Image.open(tmp_path / "x.png") as seen:
        assert (seen.format, seen.mode, seen.size) == ("PNG", "L", (8, 8))
        assert np.array_equal(np.asarray(seen), np.round(np.array(image) * 255 / 16))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(3),
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\x00IEND\x00\x00\x00\x00",
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png"):
        png.read(path)


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    PIL.Image.new("L", (9, 8)).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="only 8x8"):
        png.read(tmp_path / "x.png")
