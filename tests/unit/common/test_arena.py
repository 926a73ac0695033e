"""common.arena: segments that cannot shrink, that hold their memory, and that are refused when they could not."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.arena import ForeignSegmentError, Segment

SIZE = 1 << 20
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def open_descriptors() -> set[str]:
    # The descriptor that lists the directory is among them, and is gone afterwards.
    return {path.name for path in list(Path("/proc/self/fd").iterdir()) if os.path.lexists(path)}


@pytest.fixture
def segment() -> Iterator[Segment]:
    segment = Segment.create(SIZE)
    yield segment
    segment.close()


@pytest.mark.parametrize("size", [0, SIZE // 2, SIZE - 1, SIZE + 1, 2 * SIZE])
def test_the_size_is_sealed(segment: Segment, size: int) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(segment.descriptor, size)
    assert os.fstat(segment.descriptor).st_size == SIZE


def test_the_seals_are_sealed(segment: Segment) -> None:
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_writing_past_the_end_is_refused(segment: Segment) -> None:
    with pytest.raises(PermissionError):
        os.pwrite(segment.descriptor, b"x", SIZE)


def test_all_memory_is_there_from_the_start(segment: Segment) -> None:
    assert os.fstat(segment.descriptor).st_blocks * 512 >= SIZE


def test_memory_is_there_as_far_as_it_was_asked_for() -> None:
    segment = Segment.create(SIZE, SIZE // 4)
    assert os.fstat(segment.descriptor).st_size == SIZE
    for backed in (SIZE // 4, SIZE // 2, SIZE):
        segment.back(backed)
        assert segment.backed == backed
        assert os.fstat(segment.descriptor).st_blocks * 512 == backed
    segment.back(1)
    assert segment.backed == SIZE
    segment.buffer[SIZE - 3 : SIZE] = b"end"
    segment.close()


def test_a_part_that_is_there_already_costs_nothing_and_loses_nothing() -> None:
    segment = Segment.create(SIZE, SIZE // 4)
    segment.buffer[:5] = b"start"
    segment.back(SIZE)
    assert segment.buffer[:5] == b"start"
    with pytest.raises(PermissionError):
        segment.back(SIZE + 1)
    assert segment.backed == SIZE
    segment.close()


@pytest.mark.parametrize("size", [0, SIZE // 2, 2 * SIZE])
def test_the_size_is_sealed_before_all_memory_is_there(size: int) -> None:
    segment = Segment.create(SIZE, SIZE // 4)
    with pytest.raises(PermissionError):
        os.ftruncate(segment.descriptor, size)
    segment.close()


def test_the_descriptor_is_not_inherited(segment: Segment) -> None:
    assert fcntl.fcntl(segment.descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_two_mappings_are_one_memory(segment: Segment) -> None:
    other = Segment.attach(os.dup(segment.descriptor))
    assert other.size == SIZE
    segment.buffer[SIZE - 3 : SIZE] = b"end"
    assert other.buffer[SIZE - 3 : SIZE] == b"end"
    other.buffer[:5] = b"start"
    assert segment.buffer[:5] == b"start"
    other.close()
    assert segment.buffer[:5] == b"start"


@pytest.mark.parametrize(
    "seals",
    [
        0,
        fcntl.F_SEAL_SHRINK,
        fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL,
        fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW,
    ],
)
def test_a_memfd_with_fewer_seals_is_refused_and_closed(seals: int) -> None:
    descriptor = os.memfd_create("foreign", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.posix_fallocate(descriptor, 0, SIZE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    with pytest.raises(ForeignSegmentError):
        Segment.attach(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_an_empty_memfd_is_refused_and_closed() -> None:
    descriptor = os.memfd_create("foreign", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    with pytest.raises(ForeignSegmentError):
        Segment.attach(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_regular_file_is_refused_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    descriptor = os.open(path, os.O_RDWR)
    with pytest.raises(ForeignSegmentError):
        Segment.attach(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_segment_that_cannot_be_made_is_an_os_error_and_leaks_no_descriptor() -> None:
    # Of no size: one that is too large would have the kernel look for memory among the other processes first.
    before = open_descriptors()
    with pytest.raises(OSError, match="Invalid argument"):
        Segment.create(0)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("offset", "length", "inside"),
    [
        (0, SIZE, True),
        (0, 0, True),
        (SIZE, 0, True),
        (SIZE - 1, 1, True),
        (SIZE - 1, 2, False),
        (SIZE, 1, False),
        (0, SIZE + 1, False),
        (-1, 1, False),
        (-1, 0, False),
        (1, -1, False),
        (1 << 63, 1, False),
    ],
)
def test_contains(segment: Segment, offset: int, length: int, inside: bool) -> None:
    assert segment.contains(offset, length) is inside


def test_closing_under_a_live_view_raises_and_can_be_repeated() -> None:
    before = open_descriptors()
    segment = Segment.create(SIZE)
    view = memoryview(segment.buffer)[10:20]
    with pytest.raises(BufferError):
        segment.close()
    segment.buffer[10:12] = b"ok"
    assert bytes(view[:2]) == b"ok"
    view.release()
    segment.close()
    assert open_descriptors() == before
