"""Messages out of a stream's bytes, however these are split."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError, ResourceExhaustedError
from frontends.grpc.native.messages import IN_PLACE_BYTES, Budget, Message, MessageReader
from frontends.grpc.native.replies import PREFIX
from frontends.memory import Memory

_LIMIT = 1 << 20


def _frame(message: bytes, flag: int = 0) -> bytes:
    return PREFIX.pack(flag, len(message)) + message


def _read(reader: MessageReader, data: bytes, cuts: list[int]) -> list[Message]:
    found: list[Message] = []
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, stop in itertools.pairwise(places):
        found += reader.read(memoryview(data)[start:stop])
    return found


@given(
    st.lists(st.tuples(st.binary(max_size=60), st.sampled_from([0, 1])), max_size=6),
    st.lists(st.integers(0, 400), max_size=30),
)
def test_every_split_gives_the_same_messages(messages: list[tuple[bytes, int]], cuts: list[int]) -> None:
    budget = Budget(_LIMIT)
    reader = MessageReader(_LIMIT, budget, None, None)
    found = _read(reader, b"".join(_frame(text, flag) for text, flag in messages), cuts)
    assert [(bytes(one.view), int(one.compressed)) for one in found] == messages
    assert reader.between
    assert budget.used == sum(one.counted for one in found) == sum(len(text) for text, _ in messages)


@pytest.mark.parametrize("offset", [0, 1, 37, 64])
@pytest.mark.parametrize("first", [100, 5, 5000])
def test_a_large_message_lies_in_the_arena_with_its_tensor_aligned(offset: int, first: int) -> None:
    memory = Memory(1 << 20, 0)
    reader = MessageReader(_LIMIT, Budget(_LIMIT), memory, lambda beginning: offset if len(beginning) else 0)
    text = bytes(range(256)) * 400
    [message] = _read(reader, _frame(text), [first])
    assert message.block is not None
    assert bytes(message.view) == text
    [base] = [
        start
        for start in range(message.block.offset, message.block.offset + 64)
        if bytes(message.block.memory.view(start, (len(text),), np.dtype(np.uint8)).data) == text
    ]
    if first > 5:
        assert (base + offset) % 64 == 0
    memory.free(message.block)
    assert memory.used == 0


def test_what_is_received_in_place_completes_the_message() -> None:
    memory = Memory(1 << 20, 0)
    reader = MessageReader(_LIMIT, Budget(_LIMIT), memory, None)
    text = bytes(range(256)) * 400
    assert reader.read(memoryview(_frame(text))[:1000]) == []
    room = reader.room()
    assert room is not None
    assert len(room) == reader.missing() == len(text) + PREFIX.size - 1000
    room[:500] = text[1000 - PREFIX.size :][:500]
    assert reader.filled(500) is None
    room = reader.room()
    assert room is not None
    room[:] = text[1500 - PREFIX.size :]
    message = reader.filled(len(room))
    assert message is not None
    assert bytes(message.view) == text


@pytest.mark.parametrize("room_bytes", [0, IN_PLACE_BYTES])
def test_where_the_arena_has_no_room_a_message_lies_elsewhere(room_bytes: int) -> None:
    memory = Memory(room_bytes or 4096, 0)
    reader = MessageReader(_LIMIT, Budget(_LIMIT), memory, None)
    [message] = reader.read(memoryview(_frame(bytes(IN_PLACE_BYTES))))
    assert message.block is None
    assert memory.used == 0


def test_a_dropped_message_gives_back_what_it_took() -> None:
    memory = Memory(1 << 20, 0)
    budget = Budget(_LIMIT)
    reader = MessageReader(_LIMIT, budget, memory, None)
    reader.read(memoryview(_frame(bytes(IN_PLACE_BYTES)))[:100])
    assert memory.used > 0
    assert budget.used == IN_PLACE_BYTES
    reader.drop()
    assert memory.used == budget.used == 0


def test_a_message_that_is_too_long_is_refused_by_its_prefix() -> None:
    reader = MessageReader(10, Budget(_LIMIT), None, None)
    with pytest.raises(ResourceExhaustedError, match=r"Received message larger than max \(11 vs. 10\)"):
        reader.read(memoryview(PREFIX.pack(0, 11)))


@pytest.mark.parametrize("in_place", [False, True])
def test_what_has_come_counts_not_what_is_announced(in_place: bool) -> None:
    budget = Budget(10 << 20)
    one, other = (MessageReader(1 << 30, budget, None, None) for _ in range(2))
    for reader in (one, other):
        reader.read(memoryview(PREFIX.pack(0, 100 << 20)))
    assert budget.used == 2 << 20
    one.read(memoryview(bytes(2 << 20)))
    assert budget.used == 9 << 20
    with pytest.raises(ResourceExhaustedError, match="takes 10485760 at once"):
        other.filled(1 << 20) if in_place else other.read(memoryview(bytes(1 << 20)))
    other.drop()
    one.drop()
    assert budget.used == 0


def test_messages_beyond_the_budget_are_refused_and_cost_nothing() -> None:
    budget = Budget(100)
    one, other = (MessageReader(_LIMIT, budget, None, None) for _ in range(2))
    one.read(memoryview(_frame(bytes(60)))[:20])
    with pytest.raises(ResourceExhaustedError, match="takes 100 at once"):
        other.read(memoryview(_frame(b"small") + PREFIX.pack(0, 60)))
    other.drop()
    assert budget.used == 60
    one.drop()
    assert budget.used == 0


def test_a_prefix_says_only_whether_it_is_compressed() -> None:
    with pytest.raises(InvalidArgumentError, match="0 or 1"):
        MessageReader(_LIMIT, Budget(_LIMIT), None, None).read(memoryview(_frame(b"x", 2)))
