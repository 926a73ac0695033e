"""frontends.plans: what was worked out for a request is used again for equal ones, and for no other."""

from collections.abc import Iterator

import numpy as np
import pytest

from common.errors import InvalidArgumentError
from common.messages import OutputRef, TensorRef, VersionId
from common.tensors import Signature, TensorSpec
from frontends.interface import STRING, InputTensor, Served
from frontends.memory import Block, Memory
from frontends.plans import MAX_PLACES, MAX_PLANS, Plans, find_in_place

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
    memory._arena.close()


def given(array: np.ndarray = X, dtype: str = "float32") -> dict[str, InputTensor]:
    return {"x": InputTensor(dtype, array)}


def block_of(memory: Memory, size: int = 256) -> Block:
    block = memory.allocate(size)
    assert block is not None
    return block


def test_equal_requests_have_one_plan() -> None:
    plans = Plans()
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
def test_others_have_another(served: Served, inputs: dict[str, InputTensor]) -> None:
    plans = Plans()
    plan = plans.find(SERVED, given())
    assert plans.find(served, inputs) is not plan
    assert plans.find(SERVED, given()) is plan


def test_a_refusal_is_a_refusal_each_time() -> None:
    plans = Plans()
    for _ in range(2):
        with pytest.raises(InvalidArgumentError):
            plans.find(SERVED, given(X.reshape(-1)))
        with pytest.raises(InvalidArgumentError):
            plans.find(SERVED, given(X, STRING))


def test_plans_and_places_are_bounded(memory: Memory) -> None:
    plans = Plans()
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
    place = Plans().find(SERVED, given()).at(block)
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
    plan = Plans().find(SERVED, given())
    first = block_of(memory)
    place = plan.at(first)
    other = plan.at(block_of(memory))
    assert other is not place
    memory.free(first)
    assert plan.at(block_of(memory)) is place


def test_what_lies_in_the_message_has_no_room_and_no_target(memory: Memory) -> None:
    plans, body, block = Plans(), block_of(memory), block_of(memory)
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
