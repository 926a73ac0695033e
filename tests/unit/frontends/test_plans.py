"""frontends.plans: what was worked out for a request is used again for equal ones, and for no other."""

from collections.abc import Iterator

import numpy as np
import pytest

from common.errors import InvalidArgumentError
from common.messages import OutputRef, TensorRef, VersionId
from common.tensors import Signature, TensorSpec
from frontends.interface import STRING, InputTensor, Served
from frontends.memory import Block, Memory
from frontends.plans import MAX_PLACES, MAX_PLANS, Place, Plan, Plans, find_in_place

X = np.arange(8, dtype=np.float32).reshape(2, 4)
SIGNATURE = Signature(
    (TensorSpec("x", "float32", (-1, 4)),),
    (TensorSpec("y", "float32", (2, 4)), TensorSpec("z", "int64", (-1,)), TensorSpec("none", "int8", (0, 3))),
)
SERVED = Served(VersionId("m", 1), 1, SIGNATURE)


@pytest.fixture
def memory() -> Iterator[Memory]:
    """An arena; fails when anything points into it in the end."""
    memory = Memory(1 << 20, 1 << 20)
    yield memory
    memory.give_up = None
    memory._arena.close()


def given(array: np.ndarray = X, dtype: str = "float32") -> dict[str, InputTensor]:
    return {"x": InputTensor(dtype, array)}


def block_of(memory: Memory, size: int = 256) -> Block:
    block = memory.allocate(size)
    assert block is not None
    return block


def test_equal_requests_have_one_plan(memory: Memory) -> None:
    plans = Plans(memory)
    plan = plans.find(SERVED, given())
    assert plans.find(SERVED, given(X + 1)) is plan
    assert plans.find(Served(SERVED.id, 1, SIGNATURE), given()) is plan


@pytest.mark.parametrize(
    ("served", "inputs"),
    [
        (SERVED, given(np.ones((3, 4), np.float32))),
        (SERVED, given(X.astype(np.float64), "float64")),
        (Served(VersionId("m", 2), 1, SIGNATURE), given()),
        (Served(VersionId("m", 1, 1), 1, SIGNATURE), given()),
        (Served(SERVED.id, 2, SIGNATURE), given()),
    ],
)
def test_others_have_another(memory: Memory, served: Served, inputs: dict[str, InputTensor]) -> None:
    plans = Plans(memory)
    plan = plans.find(SERVED, given())
    assert plans.find(served, inputs) is not plan
    assert plans.find(SERVED, given()) is plan


def test_a_refusal_is_a_refusal_each_time(memory: Memory) -> None:
    plans = Plans(memory)
    for _ in range(2):
        with pytest.raises(InvalidArgumentError):
            plans.find(SERVED, given(X.reshape(-1)))
        with pytest.raises(InvalidArgumentError):
            plans.find(SERVED, given(X, STRING))


def test_plans_and_places_are_bounded(memory: Memory) -> None:
    plans = Plans(memory)
    for rows in range(2 * MAX_PLANS):
        plans.find(SERVED, given(np.ones((rows, 4), np.float32)))
    assert len(plans._plans) == MAX_PLANS
    plan = plans.find(SERVED, given())
    places = [plan.at(block_of(memory)) for _ in range(2 * MAX_PLACES)]
    assert len(plan._places) == MAX_PLACES
    assert len({place.inputs for place in places}) == 2 * MAX_PLACES


def test_a_place_says_where_each_tensor_is(memory: Memory) -> None:
    block_of(memory)
    block = block_of(memory)
    place = Plans(memory).find(SERVED, given()).at(block)
    assert place.inputs == (TensorRef(block.offset, (2, 4)),)
    assert place.outputs[0] == OutputRef(block.offset + 64, 32)
    [(name, dtype, target)] = place.targets
    assert (name, dtype) == ("x", "float32")
    np.copyto(target, X)
    assert memory._arena.buffer[block.offset : block.offset + 32] == X.tobytes()
    known, unknown, empty = place.results
    assert known is not None
    assert empty is not None
    assert unknown is None
    np.copyto(known.array, X + 1)
    assert memory._arena.buffer[block.offset + 64 : block.offset + 96] == (X + 1).tobytes()
    assert empty.array.shape == (0, 3)


def test_the_place_in_an_equal_block_is_kept(memory: Memory) -> None:
    plan = Plans(memory).find(SERVED, given())
    first = block_of(memory)
    place = plan.at(first)
    other = plan.at(block_of(memory))
    assert other is not place
    memory.free(first)
    assert plan.at(block_of(memory)) is place


def test_what_lies_in_the_message_has_no_room_and_no_target(memory: Memory) -> None:
    plans, body, block = Plans(memory), block_of(memory), block_of(memory)
    array = body.memory.view(body.offset + 64, (2, 4), X.dtype)
    assert find_in_place(SIGNATURE, given(), body) == {}
    in_place = find_in_place(SIGNATURE, given(array), body)
    assert in_place == {"x": body.offset + 64}
    plan = plans.find(SERVED, given(array), in_place)
    assert plan.layout.size == plans.find(SERVED, given()).layout.size - 64
    place = plan.at(block, in_place)
    assert place.inputs == (TensorRef(body.offset + 64, (2, 4)),)
    assert place.targets == ()
    assert place.outputs[0].offset == block.offset
    assert plans.find(SERVED, given(array), in_place).at(block, in_place) is place
    elsewhere = plan.at(block, {"x": body.offset + 128})
    assert elsewhere.inputs == (TensorRef(body.offset + 128, (2, 4)),)


# ---- places that are kept


def taken(plans: Plans, plan: Plan) -> Place:
    place = plans.take(plan)
    assert place is not None
    return place


def test_the_place_that_was_used_last_is_used_next(memory: Memory) -> None:
    plans = Plans(memory)
    plan = plans.find(SERVED, given())
    first, second = taken(plans, plan), taken(plans, plan)
    assert first.block.offset != second.block.offset
    assert memory.used == 2 * plan.size
    plans.put_back(plan, second)
    plans.put_back(plan, first)
    assert memory.used == 0
    assert taken(plans, plan) is first
    assert memory.used == plan.size
    plans.put_back(plan, first)
    plans.clear()


def test_what_is_kept_is_bounded_by_number_and_by_bytes(memory: Memory) -> None:
    plans = Plans(memory)
    for rows, most in ((2, MAX_PLACES), (1000, memory.most_kept // (1000 * 16 + 128))):
        plan = plans.find(SERVED, given(np.ones((rows, 4), np.float32)))
        places = [taken(plans, plan) for _ in range(MAX_PLACES + 5)]
        for place in places:
            plans.put_back(plan, place)
        assert memory.used == 0
        assert len(plan.spare) == most
        assert memory.kept == most * plan.size
        plans.give_up()
        assert memory.kept == 0
        assert memory._allocator.used == 0
    plans.clear()


def test_what_is_kept_is_free_for_everybody(memory: Memory) -> None:
    plans = Plans(memory)
    plan = plans.find(SERVED, given())
    for place in [taken(plans, plan) for _ in range(9)]:
        plans.put_back(plan, place)
    half = memory.receive(1 << 19)
    assert half is not None
    memory.free(half)
    assert memory.kept
    whole = memory.allocate(1 << 20)
    assert whole is not None
    assert memory.kept == 0
    assert plans.take(plan) is None
    memory.free(whole)
    plans.clear()


def test_of_plans_that_are_forgotten_nothing_is_kept(memory: Memory) -> None:
    plans = Plans(memory)
    plan = plans.find(SERVED, given())
    out, kept = taken(plans, plan), taken(plans, plan)
    plans.put_back(plan, kept)
    for rows in range(MAX_PLANS):
        plans.find(SERVED, given(np.ones((rows + 10, 4), np.float32)))
    assert plan.forgotten
    assert memory.kept == 0
    plans.put_back(plan, out)
    assert memory._allocator.used == 0
    plans.clear()


def test_a_new_catalogue_frees_what_was_kept_for_plans_of_older_ones(memory: Memory) -> None:
    plans = Plans(memory)
    plan = plans.find(SERVED, given())
    plans.put_back(plan, taken(plans, plan))
    plans.find(Served(SERVED.id, 2, SIGNATURE), given())
    assert memory._allocator.used == 0
    plans.clear()
