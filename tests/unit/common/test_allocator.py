"""common.allocator: lent blocks and free ranges tile the segment exactly, whatever the order of calls."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from common.allocator import ALIGNMENT, Allocator, align


def check_tiling(allocator: Allocator) -> None:
    lent, free = allocator.lent(), allocator.free_ranges()
    position, before_was_free = 0, False
    for start, length, is_free in sorted(
        [(start, length, False) for start, length in lent.items()]
        + [(start, length, True) for start, length in free.items()]
    ):
        assert start == position, "a hole or an overlap"
        assert start % ALIGNMENT == 0
        assert length >= ALIGNMENT
        assert length % ALIGNMENT == 0
        assert not (is_free and before_was_free), "two free ranges touch"
        position, before_was_free = start + length, is_free
    assert position == allocator.size
    assert allocator.used == sum(lent.values())


@pytest.mark.parametrize(
    ("size", "aligned"), [(0, 64), (1, 64), (63, 64), (64, 64), (65, 128), (1 << 30, 1 << 30)]
)
def test_sizes_are_rounded_up_to_whole_alignments(size: int, aligned: int) -> None:
    assert align(size) == aligned


@given(seed=st.integers(0, 1 << 32), blocks=st.integers(1, 400))
@settings(max_examples=15, deadline=None)
def test_blocks_and_free_ranges_tile_the_arena_after_thousands_of_calls(seed: int, blocks: int) -> None:
    chance = random.Random(seed)
    allocator = Allocator(blocks * ALIGNMENT + chance.randrange(ALIGNMENT))
    lent: list[int] = []
    for step in range(2000):
        if lent and chance.random() < 0.48:
            allocator.free(lent.pop(chance.randrange(len(lent))))
        else:
            offset = allocator.allocate(chance.choice((1, 64, 200, 1000, chance.randrange(1, 30_000))))
            if offset is not None:
                lent.append(offset)
        if step % 50 == 0:
            check_tiling(allocator)
    check_tiling(allocator)
    assert sorted(lent) == sorted(allocator.lent())
    for offset in lent:
        allocator.free(offset)
    assert allocator.free_ranges() == {0: allocator.size}
    assert allocator.used == 0


class Lending(RuleBasedStateMachine):
    """Against a model that is too simple to be wrong: one flag for each ALIGNMENT of the segment."""

    @initialize(units=st.integers(0, 24))
    def create(self, units: int) -> None:
        self.allocator = Allocator(units * ALIGNMENT)
        self.units: list[int | None] = [None] * units
        self.blocks: list[tuple[int, int]] = []

    @rule(size=st.integers(0, 8 * ALIGNMENT))
    def allocate(self, size: int) -> None:
        offset = self.allocator.allocate(size)
        count = align(size) // ALIGNMENT
        if offset is None:
            assert not self.fits(count), "refused although there is room"
            return
        first = offset // ALIGNMENT
        assert self.units[first : first + count] == [None] * count, "lent twice, or past the end"
        self.units[first : first + count] = [offset] * count
        self.blocks.append((first, count))

    @rule(pick=st.integers(0, 1 << 16))
    def free(self, pick: int) -> None:
        if self.blocks:
            first, count = self.blocks.pop(pick % len(self.blocks))
            self.allocator.free(first * ALIGNMENT)
            self.units[first : first + count] = [None] * count

    @rule(offset=st.integers(-ALIGNMENT, 25 * ALIGNMENT))
    def free_what_is_not_lent(self, offset: int) -> None:
        if offset not in self.allocator.lent():
            with pytest.raises(KeyError):
                self.allocator.free(offset)

    def fits(self, count: int) -> bool:
        return any(
            self.units[start : start + count] == [None] * count
            for start in range(len(self.units) - count + 1)
        )

    @invariant()
    def tiled(self) -> None:
        if hasattr(self, "allocator"):
            check_tiling(self.allocator)


Lending.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLending = Lending.TestCase


def test_it_takes_the_smallest_range_that_is_long_enough() -> None:
    allocator = Allocator(10 * ALIGNMENT)
    offsets = [allocator.allocate(ALIGNMENT) for _ in range(10)]
    assert offsets == [index * ALIGNMENT for index in range(10)]
    for index in (1, 2, 3, 6):
        allocator.free(index * ALIGNMENT)
    assert allocator.allocate(1) == 6 * ALIGNMENT, "the hole of one, not a part of the hole of three"
    assert allocator.allocate(3 * ALIGNMENT) == ALIGNMENT


def test_exhaustion_is_none_and_changes_nothing() -> None:
    allocator = Allocator(4 * ALIGNMENT)
    first = allocator.allocate(3 * ALIGNMENT)
    assert first == 0
    before = (allocator.lent(), allocator.free_ranges(), allocator.used)
    assert allocator.allocate(2 * ALIGNMENT) is None
    assert (allocator.lent(), allocator.free_ranges(), allocator.used) == before
    assert allocator.allocate(1) == 3 * ALIGNMENT
    assert allocator.allocate(1) is None


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_freed_neighbours_become_one_range_in_every_order(order: tuple[int, ...]) -> None:
    allocator = Allocator(3 * ALIGNMENT)
    offsets = [allocator.allocate(1) for _ in range(3)]
    for index in order:
        offset = offsets[index]
        assert offset is not None
        allocator.free(offset)
    assert allocator.free_ranges() == {0: 3 * ALIGNMENT}


def test_a_double_free_raises_and_harms_nothing() -> None:
    allocator = Allocator(4 * ALIGNMENT)
    offset = allocator.allocate(1)
    assert offset is not None
    allocator.free(offset)
    with pytest.raises(KeyError):
        allocator.free(offset)
    check_tiling(allocator)


def test_a_segment_shorter_than_one_block_lends_nothing() -> None:
    allocator = Allocator(ALIGNMENT - 1)
    assert allocator.size == 0
    assert allocator.allocate(1) is None
    check_tiling(allocator)
