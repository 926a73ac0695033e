"""common.strings: any strings go through memory unchanged, and nothing that memory says is believed."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.strings import (
    MAX_BYTES,
    MAX_STRINGS,
    BadStringsError,
    StringTensor,
    decode,
    empty,
    encode_into,
    encoded_size,
)

MIB = 1 << 20


def strings_of(values: Sequence[bytes], shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape((len(values),) if shape is None else shape)


def encoded(array: np.ndarray, spare: int = 0) -> bytearray:
    memory = bytearray(b"\xee" * (encoded_size(array) + spare))
    encode_into(array, memoryview(memory))
    return memory


def with_offsets(*offsets: int, symbols: bytes = b"") -> memoryview:
    return memoryview(np.array(offsets, np.int64).tobytes() + symbols)


@given(st.lists(st.binary(max_size=20), max_size=12), st.integers(0, 40))
def test_what_is_written_can_be_read_back(values: list[bytes], spare: int) -> None:
    memory = encoded(strings_of(values), spare)
    found = decode(memoryview(memory), (len(values),))
    assert found.to_array().tolist() == values
    assert (found.size, found.nbytes) == (len(values), len(memory) - spare)
    assert found.tobytes() == memory[: len(memory) - spare]
    assert memory[len(memory) - spare :] == b"\xee" * spare


def test_the_layout() -> None:
    memory = encoded(strings_of([b"ab", b"", b"c\0"], (3, 1)))
    assert memory == np.array([0, 2, 2, 4], np.int64).tobytes() + b"abc\0"


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (6, 1), (0,), (0, 3), (3, 0)])
def test_every_shape(shape: tuple[int, ...]) -> None:
    values = [bytes([index]) * index for index in range(int(np.prod(shape, dtype=int)))]
    found = decode(memoryview(encoded(strings_of(values, shape))), shape).to_array()
    assert found.shape == shape
    assert found.reshape(-1).tolist() == values


def test_rows_of_any_layout_in_memory() -> None:
    array = strings_of([b"a", b"bb", b"c", b"dd"], (2, 2)).T
    assert decode(memoryview(encoded(array)), (2, 2)).to_array().tolist() == [[b"a", b"c"], [b"bb", b"dd"]]


def test_strings_of_many_bytes() -> None:
    values = [b"x" * MIB, b"", b"y" * 7]
    assert decode(memoryview(encoded(strings_of(values))), (3,)).to_array().tolist() == values


def test_the_symbols_are_the_memory_and_the_offsets_are_not() -> None:
    memory = encoded(strings_of([b"ab", b"cd"]))
    found = decode(memoryview(memory), (2,))
    memory[:24] = np.array([0, 1 << 40, -3], np.int64).tobytes()
    memory[24:] = b"wxyz"
    assert found.to_array().tolist() == [b"wx", b"yz"]


@pytest.mark.parametrize("room", [0, 7, 25])
def test_a_target_without_room(room: int) -> None:
    target = bytearray(room)
    with pytest.raises(ValueError, match="take 26 bytes"):
        encode_into(strings_of([b"a", b"b"]), memoryview(target))
    assert target == bytes(room)


@pytest.mark.parametrize(
    ("memory", "shape"),
    [
        (with_offsets(), (0,)),
        (with_offsets(0), (1,)),
        (memoryview(with_offsets(0, 0)[:15]), (1,)),
        (with_offsets(1, 1, symbols=b"a"), (1,)),
        (with_offsets(-1, 1, symbols=b"a"), (1,)),
        (with_offsets(0, 2, symbols=b"a"), (1,)),
        (with_offsets(0, 2, 1, symbols=b"abc"), (2,)),
        (with_offsets(0, -1, 1, symbols=b"abc"), (2,)),
        (with_offsets(0, (1 << 63) - 1, symbols=b"a"), (1,)),
        (with_offsets(0, -(1 << 63), symbols=b"a"), (1,)),
        (with_offsets(0, 0), (-1,)),
        (with_offsets(0, 0, 0), (-1, -2)),
        (with_offsets(0, 0), (1 << 62, 4)),
        (memoryview(bytes(8 * (MAX_STRINGS + 2))), (MAX_STRINGS + 1,)),
    ],
)
def test_what_contradicts_itself_is_refused(memory: memoryview, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadStringsError):
        decode(memory, shape)


@given(
    st.lists(st.integers(-2, 12) | st.integers(-(1 << 63), (1 << 63) - 1), max_size=5),
    st.binary(max_size=12),
    st.lists(st.integers(-1, 3), max_size=3),
)
def test_no_string_lies_outside(offsets: list[int], symbols: bytes, shape: list[int]) -> None:
    memory = with_offsets(*offsets, symbols=symbols)
    try:
        found = decode(memory, tuple(shape))
    except BadStringsError:
        return
    assert found.nbytes <= len(memory)
    assert b"".join(found.to_array().reshape(-1).tolist()) == found.symbols.tobytes()


def test_more_bytes_than_a_tensor_may_have() -> None:
    memory = np.zeros(16 + MAX_BYTES + 1, np.uint8)  # never touched, so never there
    memory[:16].view(np.int64)[1] = MAX_BYTES + 1
    with pytest.raises(BadStringsError, match=f"take {MAX_BYTES + 1} bytes"):
        decode(memory.data, (1,))


@pytest.mark.parametrize("shape", [(), (3,), (0, 2)])
def test_empty(shape: tuple[int, ...]) -> None:
    found = empty(shape)
    assert isinstance(found, StringTensor)
    assert found.to_array().shape == shape
    assert set(found.to_array().reshape(-1).tolist()) <= {b""}
    assert decode(memoryview(found.tobytes()), shape).to_array().tolist() == found.to_array().tolist()
