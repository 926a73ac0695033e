"""frontends.memory: the arena, large segments within their bound, and nothing unmapped under a view."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from common.allocator import ALIGNMENT
from common.arena import Segment
from common.errors import ResourceExhaustedError
from frontends import memory as module
from frontends.memory import ARENA, Block, Memory

MB = 1 << 20
PATIENCE_S = 10.0


def make(arena: int = MB, large: int = 4 * MB) -> Memory:
    return Memory(arena, large)


def large(memory: Memory, size: int) -> Block:
    return asyncio.run(memory.allocate_large(size))


def test_blocks_of_the_arena() -> None:
    memory = make()
    first, second = memory.allocate(100), memory.allocate(ALIGNMENT)
    assert first is not None
    assert second is not None
    assert (first.segment, first.size) == (ARENA, 100)
    assert second.offset >= first.offset + 100
    assert memory.used == 3 * ALIGNMENT
    first.memory.buffer[first.offset : first.offset + 4] = b"data"
    memory.free(first)
    memory.free(second)
    assert memory.used == 0


def test_an_arena_without_room_is_none() -> None:
    memory = make()
    block = memory.allocate(MB)
    assert block is not None
    assert memory.allocate(1) is None
    memory.free(block)
    assert memory.allocate(1) is not None


def taken(memory: Memory) -> int:
    """Bytes of memory that the arena has taken from the machine."""
    return os.fstat(memory._arena.descriptor).st_blocks * 512


def test_every_byte_that_is_lent_was_taken_before() -> None:
    memory = make(64 * MB)
    assert taken(memory) == 4 * MB
    blocks = []
    for size in (MB, 2 * MB, MB + 1, 30 * MB, 100):
        block = memory.allocate(size)
        assert block is not None
        blocks.append(block)
        assert taken(memory) >= block.offset + size
    assert taken(memory) == 36 * MB
    for block in blocks:
        memory.free(block)
    for _ in range(100):
        block = memory.allocate(30 * MB)
        assert block is not None
        memory.free(block)
    assert taken(memory) == 36 * MB, "what was taken is used again"


def test_an_arena_that_cannot_grow_lends_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = make(64 * MB)
    small = memory.allocate(MB)
    monkeypatch.setattr(module, "available_memory", lambda: 70 * MB)
    assert memory.allocate(30 * MB) is None
    assert taken(memory) == 4 * MB
    assert memory.used == MB
    assert memory.allocate(6 * MB) is not None, "that much is there"
    assert small is not None
    memory.free(small)
    assert memory.allocate(MB) is not None


def test_an_arena_that_is_refused_memory_lends_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = make(64 * MB)

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert memory.allocate(5 * MB) is None
    assert memory.used == 0
    assert memory.allocate(3 * MB) is not None


def test_descriptors_are_of_what_is_in_use() -> None:
    memory = make()
    block = large(memory, MB)
    assert memory.descriptor(ARENA) == memory._arena.descriptor
    descriptor = memory.descriptor(block.segment)
    assert descriptor is not None
    assert os.fstat(descriptor).st_size == MB
    assert memory.descriptor(block.segment + 1) is None
    memory.free(block)
    assert memory.descriptor(block.segment) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_large_segments_have_numbers_that_are_never_used_again() -> None:
    memory = make()
    numbers = []
    for _ in range(3):
        block = large(memory, MB)
        numbers.append(block.segment)
        memory.free(block)
    assert len({ARENA, *numbers}) == 4


def test_the_bound_of_large_requests_is_for_all_together() -> None:
    memory = make(large=4 * MB)
    first = large(memory, 3 * MB)
    with pytest.raises(ResourceExhaustedError, match=f"{4 * MB} together and have {3 * MB} now"):
        large(memory, MB + 1)
    second = large(memory, MB)
    assert memory.used == 4 * MB
    memory.free(first)
    memory.free(second)
    assert memory.used == 0
    memory.free(large(memory, 4 * MB))


def test_memory_that_the_machine_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = make()
    monkeypatch.setattr(module, "available_memory", lambda: MB + module._SPARE_BYTES - 1)
    with pytest.raises(ResourceExhaustedError, match="machine"):
        large(memory, MB)
    monkeypatch.setattr(module, "available_memory", lambda: MB + module._SPARE_BYTES)
    memory.free(large(memory, MB))


def test_an_allocation_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = make()

    def fail(_: int) -> Segment:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", fail)
        with pytest.raises(ResourceExhaustedError, match="cannot be had"):
            large(memory, MB)
    assert memory.used == 0
    memory.free(large(memory, 4 * MB))


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_allocation_is_given_back_when_it_is_made(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The thread that makes it cannot be stopped, so its memory counts until then."""
    memory = make()
    begun, go_on = threading.Event(), threading.Event()
    made: list[Segment] = []
    create = Segment.create

    def slow(size: int) -> Segment:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        if fails:
            raise OSError(errno.ENOMEM, "no memory")
        made.append(create(size))
        return made[0]

    async def scenario() -> None:
        task = asyncio.create_task(memory.allocate_large(MB))
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert memory.used == MB
        go_on.set()
        for _ in range(1_000_000):
            if not memory.used:
                break
            await asyncio.sleep(0)
        assert memory.used == 0

    monkeypatch.setattr(Segment, "create", slow)
    asyncio.run(scenario())
    for segment in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(segment.descriptor)


def test_a_segment_with_a_live_view_is_unmapped_later() -> None:
    memory = make()
    block = large(memory, MB)
    descriptor = block.memory.descriptor
    view = memoryview(block.memory.buffer)[:4]
    memory.free(block)
    assert memory.used == 0
    memory.collect()
    view[:] = b"okay"
    os.fstat(descriptor)
    view.release()
    memory.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_block_that_is_freed_twice_is_a_defect_that_shows() -> None:
    memory = make()
    block = memory.allocate(1)
    assert block is not None
    memory.free(block)
    with pytest.raises(KeyError):
        memory.free(block)
    big = large(memory, MB)
    memory.free(big)
    with pytest.raises(KeyError):
        memory.free(big)


def test_the_loop_goes_on_while_a_segment_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory = make()
    threads: list[int] = []
    create = Segment.create

    def noted(size: int) -> Segment:
        threads.append(threading.get_ident())
        return create(size)

    monkeypatch.setattr(Segment, "create", noted)
    memory.free(large(memory, MB))
    assert threads != [threading.get_ident()]
