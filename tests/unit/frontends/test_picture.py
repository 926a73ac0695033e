"""frontends.picture: encoded images as elements of an input, and what is refused. Pillow's own encoder makes them."""

import resource
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InvalidArgumentError
from common.tensors import TensorSpec
from frontends.picture import MAX_ENCODED_BYTES, MAX_PIXELS, Plan, decode, lay_out, plan_for
from tests.support.pictures import bomb_png, claiming_png, encode, plain

_COLOUR = Plan("image", 3, channels_first=False, height=-1, width=-1)
_GREY = Plan("image", 1, channels_first=False, height=-1, width=-1)


def _spec(*shape: int, dtype: str = "float32", layout: str = "") -> TensorSpec:
    return TensorSpec("image", dtype, shape, layout=layout)


def _refusal(data: bytes, plan: Plan = _COLOUR) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        decode(data, plan)
    assert "'image'" in caught.value.message
    assert "object at 0x" not in caught.value.message
    return caught.value.message


# ---- the plan


@pytest.mark.parametrize(
    ("spec", "channels", "first", "size"),
    [
        (_spec(1, 3, 224, 200), 3, True, (224, 200)),
        (_spec(1, 224, 200, 3), 3, False, (224, 200)),
        (_spec(-1, 1, 28, 28), 1, True, (28, 28)),
        (_spec(8, 28, 28, 1), 1, False, (28, 28)),
        (_spec(1, 3, -1, -1), 3, True, (-1, -1)),
        (_spec(1, 3, 3, 3, layout="NHWC"), 3, False, (3, 3)),
        (_spec(1, 3, 3, 3, layout="NCHW"), 3, True, (3, 3)),
        (_spec(-1, -1, -1, -1, layout="NHWC"), 3, False, (-1, -1)),
        (_spec(1, 3, 10, 20, layout="N???"), 3, True, (10, 20)),
        (_spec(1, 10, 20, 3, dtype="uint8"), 3, False, (10, 20)),
    ],
    ids=str,
)
def test_how_images_are_laid_out(spec: TensorSpec, channels: int, first: bool, size: tuple[int, int]) -> None:
    assert plan_for(spec) == Plan("image", channels, first, *size)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (_spec(1, 10), "takes no strings"),
        (_spec(), "takes no strings"),
        (TensorSpec("image", "float32", (), unranked=True), "of unknown shape"),
        (_spec(1, 3, 8, 8, dtype="bool"), "of type bool"),
        (_spec(1, 3, 8, 8, dtype="int8"), "of type int8"),
        (_spec(1, 3, 8, 3), "'layout' in the model's configuration"),
        (_spec(1, 4, 8, 8), "'layout' in the model's configuration"),
        (_spec(-1, -1, -1, -1), "'layout' in the model's configuration"),
        (_spec(1, 4, 8, 3, layout="NCHW"), "has 4 channels"),
    ],
    ids=str,
)
def test_inputs_that_take_no_images(spec: TensorSpec, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        plan_for(spec)
    assert text in caught.value.message


# ---- pixels


def test_colours_come_as_blue_green_red() -> None:
    assert decode(plain(2, 1, (1, 2, 3)), _COLOUR).tolist() == [[[3, 2, 1], [3, 2, 1]]]


def test_a_png_is_decoded_exactly() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (7, 5, 3), np.uint8)
    np.testing.assert_array_equal(decode(encode(pixels), _COLOUR), pixels[:, :, ::-1])


def test_a_jpeg_is_decoded_nearly() -> None:
    picture = decode(plain(16, 8, (200, 100, 50), "JPEG"), _COLOUR)
    assert picture.shape == (8, 16, 3)
    np.testing.assert_allclose(picture[0, 0], [50, 100, 200], atol=4)


def test_layouts() -> None:
    picture = decode(encode(np.arange(24, dtype=np.uint8).reshape(2, 4, 3)), _COLOUR)
    first = lay_out(picture, Plan("image", 3, channels_first=True, height=-1, width=-1))
    assert first.shape == (3, 2, 4)
    np.testing.assert_array_equal(first[0], picture[:, :, 0])
    assert lay_out(picture, _COLOUR) is picture


def test_grey_and_colour_become_each_other() -> None:
    grey = encode(np.full((2, 2), 77, np.uint8))
    assert decode(grey, _GREY).tolist() == [[[77], [77]], [[77], [77]]]
    assert decode(grey, _COLOUR)[0, 0].tolist() == [77, 77, 77]
    # 0.299 red, 0.587 green, 0.114 blue (ITU-R 601)
    assert decode(plain(1, 1, (100, 0, 0)), _GREY).tolist() == [[[30]]]


def test_sixteen_bits_become_the_upper_eight() -> None:
    wide = np.array([[0, 255, 256, 0x8001, 0xFFFF]], np.uint16)
    assert decode(encode(wide), _GREY)[:, :, 0].tolist() == [[0, 0, 1, 0x80, 0xFF]]


def test_alpha_is_dropped() -> None:
    pixels = np.array([[[1, 2, 3, 0], [4, 5, 6, 255]]], np.uint8)
    assert decode(encode(pixels), _COLOUR).tolist() == [[[3, 2, 1], [6, 5, 4]]]


def test_the_image_is_brought_to_the_inputs_size() -> None:
    pixels = np.repeat(np.array([[0, 100]], np.uint8), 4, axis=0)
    picture = decode(encode(pixels), Plan("image", 1, channels_first=False, height=2, width=4))
    assert picture.shape == (2, 4, 1)
    # Bilinear between the centres of two pixels.
    assert picture[0, :, 0].tolist() == [0, 25, 75, 100]


def test_a_side_that_the_input_leaves_open_is_the_images_own() -> None:
    assert decode(plain(9, 5), Plan("image", 3, False, -1, 4)).shape == (5, 4, 3)


def test_an_image_of_one_pixel_fills_the_input() -> None:
    picture = decode(plain(1, 1, (7, 8, 9)), Plan("image", 3, False, 30, 20))
    assert picture.shape == (30, 20, 3)
    assert np.unique(picture.reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


# ---- what is refused


@pytest.mark.parametrize("data", [b"", b"abc", b"\x00" * 100, b"GIF89a" + b"\x00" * 50, b"BM" + b"\x00" * 60])
def test_other_formats_are_refused(data: bytes) -> None:
    assert "neither a JPEG nor a PNG" in _refusal(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_that_is_cut_off_is_refused(kind: str) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(noise, kind)
    assert "cannot be decoded" in _refusal(data[: len(data) // 2])


def test_a_png_without_pixels_is_refused() -> None:
    assert "cannot be decoded" in _refusal(claiming_png(4, 4))


def test_a_huge_image_is_refused_by_what_it_claims() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert f"{MAX_PIXELS} pixels at the most, got 20000×20000" in _refusal(claiming_png(20_000, 20_000))
    assert "at the most" in _refusal(claiming_png(2**31 - 1, 2**31 - 1))


def test_a_bomb_costs_no_memory() -> None:
    bomb = bomb_png(20_000, 20_000)
    assert len(bomb) < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _refusal(bomb)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 20_000_000


def test_too_many_bytes_are_refused() -> None:
    data = plain(1, 1) + bytes(MAX_ENCODED_BYTES)
    assert f"{MAX_ENCODED_BYTES} bytes at the most" in _refusal(data)


def test_an_input_without_extent_takes_no_image() -> None:
    assert "cannot be decoded" in _refusal(plain(2, 2), Plan("image", 3, False, 0, 5))


_SEEDS = (plain(5, 4), plain(16, 16, kind="JPEG"), encode(np.zeros((3, 3), np.uint16)))


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(_SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 700),
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_images_are_decoded_or_refused(seed: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    try:
        picture = decode(bytes(data[: len(data) - cut % len(data)]), _COLOUR)
    except InvalidArgumentError:
        return
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
