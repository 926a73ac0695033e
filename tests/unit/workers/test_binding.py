"""References are checked before anything is read or written."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.arena import Segment
from common.messages import OutputRef, TensorRef
from common.strings import StringTensor
from common.tensors import Signature, TensorSpec
from workers.binding import BadReferenceError, Binder
from workers.engine import MemoryId

SIZE = 4096
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (-1, 2)),),
    (TensorSpec("y", "int64", (3,)), TensorSpec("z", "float32", (-1,))),
)


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    segment = Segment.create(SIZE)
    yield segment
    segment.close()


def test_views_are_the_memory_itself(segment: Segment) -> None:
    binder = Binder(SIGNATURE)
    (x,) = binder.inputs(segment, (TensorRef(64, (2, 2)),))
    y, z = binder.outputs(segment, (OutputRef(128, 24), OutputRef(0, 0)))
    assert z is None
    assert y is not None
    y[...] = [1, 2, 3]
    assert segment.buffer[128:152] == np.array([1, 2, 3]).tobytes()
    segment.buffer[64:80] = np.arange(4, dtype=np.float32).tobytes()
    np.testing.assert_array_equal(x, [[0, 1], [2, 3]])


@pytest.mark.parametrize("shape", [(2,), (2, 3), (-1, 2), (1, 2, 1), (1 << 62, 2), (513, 2)])
def test_shapes_that_do_not_fit(segment: Segment, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadReferenceError):
        Binder(SIGNATURE).inputs(segment, (TensorRef(0, shape),))


@pytest.mark.parametrize(
    "outputs", [(), ((0, 24),), ((0, 23), (0, 0)), ((4088, 24), (0, 0)), ((4, 24), (0, 0))]
)
def test_room_that_does_not_fit(segment: Segment, outputs: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(BadReferenceError):
        Binder(SIGNATURE).outputs(segment, tuple(OutputRef(*output) for output in outputs))


@given(st.integers(-(1 << 65), 1 << 65), st.integers(-(1 << 65), 1 << 65))
def test_nothing_lies_outside(segment: Segment, offset: int, rows: int) -> None:
    try:
        (x,) = Binder(SIGNATURE).inputs(segment, (TensorRef(offset, (rows, 2)),))
    except BadReferenceError:
        return
    assert 0 <= offset <= offset + x.nbytes <= SIZE
    assert x.shape == (rows, 2)


def test_a_view_keeps_its_memory_mapped() -> None:
    segment = Segment.create(SIZE)
    (x,) = Binder(SIGNATURE).inputs(segment, (TensorRef(0, (2, 2)),))
    assert isinstance(x, np.ndarray)
    part = x[1:]
    del x
    with pytest.raises(BufferError):
        segment.close()
    assert part[0, 0] == 0
    del part
    segment.close()


ROOM = (OutputRef(128, 24), OutputRef(0, 0))
PLACE = (TensorRef(64, (2, 2)),)


def test_the_same_places_of_an_arena_are_bound_once(segment: Segment) -> None:
    binder = Binder(SIGNATURE)
    arena = MemoryId("f", 0)
    first = binder.bind(arena, segment, PLACE, ROOM)
    assert binder.bind(arena, segment, PLACE, ROOM) is first
    assert binder.bind(arena, segment, (TensorRef(256, (2, 2)),), ROOM) is not first
    assert binder.bind(MemoryId("g", 0), segment, PLACE, ROOM) is not first


def test_what_is_known_of_an_arena_is_found_without_its_memory(segment: Segment) -> None:
    binder = Binder(SIGNATURE)
    assert binder.known("f", PLACE, ROOM) is None
    first = binder.bind(MemoryId("f", 0), segment, PLACE, ROOM)
    found = binder.known("f", PLACE, ROOM)
    assert found is not None
    assert found[0] == MemoryId("f", 0)
    assert found[1] is first
    assert binder.known("g", PLACE, ROOM) is None
    binder.bind(MemoryId("g", 3), segment, PLACE, ROOM)
    assert binder.known("g", PLACE, ROOM) is None, "single large requests are not kept"
    binder.release("f")
    assert binder.known("f", PLACE, ROOM) is None


def test_places_of_single_large_requests_are_not_kept(segment: Segment) -> None:
    binder = Binder(SIGNATURE)
    large = MemoryId("f", 3)
    assert binder.bind(large, segment, PLACE, ROOM) is not binder.bind(large, segment, PLACE, ROOM)


def test_nothing_of_a_released_frontend_is_kept(segment: Segment) -> None:
    binder = Binder(SIGNATURE)
    gone = weakref.ref(binder.bind(MemoryId("f", 0), segment, PLACE, ROOM).inputs[0])
    other = binder.bind(MemoryId("g", 0), segment, PLACE, ROOM)
    binder.release("f")
    assert gone() is None
    assert binder.bind(MemoryId("g", 0), segment, PLACE, ROOM) is other


def test_a_bounded_number_of_places_is_kept(segment: Segment) -> None:
    binder = Binder(SIGNATURE)
    arena = MemoryId("f", 0)
    first = weakref.ref(binder.bind(arena, segment, PLACE, ROOM).inputs[0])
    for number in range(1000):
        binder.bind(MemoryId(f"f{number}", 0), segment, PLACE, ROOM)
    assert first() is None


STRINGS = Signature((TensorSpec("s", "string", (-1,)),), (TensorSpec("t", "string", (2,)),))


def write_strings(segment: Segment, offset: int, offsets: list[int], symbols: bytes = b"") -> None:
    data = np.array(offsets, np.int64).tobytes() + symbols
    segment.buffer[offset : offset + len(data)] = data


def test_strings_are_bound_anew_for_each_request(segment: Segment) -> None:
    binder = Binder(STRINGS)
    place, room = (TensorRef(64, (2,)),), (OutputRef(0, 0),)
    for values in ([b"ab", b"c"], [b"", b"defg"]):
        write_strings(segment, 64, [0, len(values[0]), sum(map(len, values))], b"".join(values))
        binding = binder.bind(MemoryId("f", 0), segment, place, room)
        (found,) = binding.inputs
        assert isinstance(found, StringTensor)
        assert found.to_array().tolist() == values
        assert binding.outputs == [None]
        assert not binder._kept


@pytest.mark.parametrize(
    ("offset", "shape", "offsets"),
    [
        (-8, (1,), []),
        (64, (1, 1), [0, 0]),
        (64, (-1,), [0]),
        (64, (1 << 62,), [0, 0]),
        (SIZE - 8, (1,), [0]),
        (SIZE, (0,), []),
        (SIZE + 8, (0,), []),
        (1 << 65, (0,), []),
        (64, (1,), [0, SIZE - 64 - 16 + 1]),
        (64, (1,), [0, 1 << 62]),
        (64, (2,), [0, 5, 4]),
        (64, (1,), [-5, 0]),
        (64, (1,), [3, 4]),
    ],
)
def test_strings_that_are_not_where_they_are_said_to_be(
    segment: Segment, offset: int, shape: tuple[int, ...], offsets: list[int]
) -> None:
    if offsets:
        write_strings(segment, offset, offsets)
    with pytest.raises(BadReferenceError):
        Binder(STRINGS).inputs(segment, (TensorRef(offset, shape),))


@given(
    st.integers(-16, SIZE + 16), st.integers(-1, 4), st.lists(st.integers(-3, SIZE), min_size=5, max_size=5)
)
def test_no_string_lies_outside_its_segment(
    segment: Segment, offset: int, count: int, offsets: list[int]
) -> None:
    if 0 <= offset <= SIZE - 40:
        write_strings(segment, offset, offsets)
    try:
        (found,) = Binder(STRINGS).inputs(segment, (TensorRef(offset, (count,)),))
    except BadReferenceError:
        return
    assert offset + found.nbytes <= SIZE


def test_strings_keep_their_memory_mapped() -> None:
    segment = Segment.create(SIZE)
    write_strings(segment, 0, [0, 3], b"abc")
    (found,) = Binder(STRINGS).inputs(segment, (TensorRef(0, (1,)),))
    with pytest.raises(BufferError):
        segment.close()
    assert isinstance(found, StringTensor)
    assert found.to_array().tolist() == [b"abc"]
    del found
    segment.close()


# ---- versions that are inferred by batches

BATCHED = Signature(
    (TensorSpec("x", "float32", (-1, 2)), TensorSpec("y", "int64", (-1,))),
    (TensorSpec("z", "float32", (-1, 3)), TensorSpec("w", "float32", (-1, -1))),
    max_rows=4,
)


def test_outputs_have_as_many_rows_as_the_request(segment: Segment) -> None:
    inputs = (TensorRef(0, (3, 2)), TensorRef(64, (3,)))
    binding = Binder(BATCHED).bind(MemoryId("f", 0), segment, inputs, (OutputRef(128, 36), OutputRef(0, 0)))
    z, w = binding.outputs
    assert z is not None
    assert z.shape == (3, 3)
    assert w is None


@pytest.mark.parametrize(("x", "y", "room"), [(3, 2, 36), (0, 0, 36), (5, 5, 60), (3, 3, 35)])
def test_rows_that_do_not_agree_or_have_no_room(segment: Segment, x: int, y: int, room: int) -> None:
    inputs = (TensorRef(0, (x, 2)), TensorRef(64, (y,)))
    with pytest.raises(BadReferenceError):
        Binder(BATCHED).bind(MemoryId("f", 0), segment, inputs, (OutputRef(128, room), OutputRef(0, 0)))
