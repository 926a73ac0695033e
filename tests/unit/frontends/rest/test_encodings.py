"""gzip, held against the standard library's; and what clients say that they accept."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError
from frontends.rest.encodings import DecompressedTooLongError, accepts_gzip, compress, decompress

NO_LIMIT = 1 << 40


def unpack(packed: bytes, limit: int = NO_LIMIT) -> bytes:
    return b"".join(decompress(packed, limit))


@given(st.lists(st.binary(max_size=5000), max_size=4))
def test_members_in_a_row_are_one_text(members: list[bytes]) -> None:
    assert unpack(b"".join(map(gzip.compress, members))) == b"".join(members)


@given(st.binary(max_size=200_000))
def test_what_is_packed_can_be_unpacked(text: bytes) -> None:
    assert gzip.decompress(compress(text)) == text
    assert unpack(compress(text)) == text


def test_long_texts() -> None:
    for text in (bytes(5 << 20), bytes(range(256)) * 20_000, b"[1.5,2.5]" * 400_000):
        assert unpack(gzip.compress(text)) == text
        assert unpack(gzip.compress(text), len(text)) == text
        with pytest.raises(DecompressedTooLongError):
            unpack(gzip.compress(text), len(text) - 1)


def test_a_bomb_costs_no_more_than_a_step_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(DecompressedTooLongError):
            unpack(bomb, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_many_members_are_refused_soon() -> None:
    with pytest.raises(InvalidArgumentError, match="members"):
        unpack(gzip.compress(b"") * 70_000)


@pytest.mark.parametrize(
    "packed",
    [
        b"no gzip",
        b"\x1f\x8b",
        zlib.compress(b"text"),
        gzip.compress(b"text", mtime=0)[:-1],
        gzip.compress(b"text" * 1000, mtime=0)[:-8],
        gzip.compress(b"text", mtime=0) + b"and more",
        gzip.compress(bytes(3 << 20), mtime=0)[:-9],
        gzip.compress(b"text", mtime=0)[:-8] + bytes(8),
    ],
)
def test_what_is_no_gzip(packed: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="gzip"):
        unpack(packed)


@given(st.binary(max_size=300), st.integers(0, 100), st.binary(max_size=4))
def test_any_bytes_are_unpacked_or_refused(text: bytes, place: int, noise: bytes) -> None:
    packed = gzip.compress(text)
    broken = packed[:place] + noise + packed[place + len(noise) :]
    refused = False
    try:
        unpack(broken, 10_000)
    except (InvalidArgumentError, DecompressedTooLongError):
        refused = True
    assert refused or unpack(broken, 10_000) is not None


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip ; q=0.1", True),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=0.8", True),
        ("", False),
        ("deflate, br", False),
        ("gzip;q=x", False),
        ("gzip;q=2", False),
        ("gzip;q=nan", False),
        (";;;,=,", False),
    ],
)
def test_accept_encoding(header: str, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


@given(st.text(max_size=40))
def test_any_header_is_read(header: str) -> None:
    assert accepts_gzip(header) in (True, False)
