"""How a request's tensors lie in its block, kept for the requests after it.

Clients send inputs of the same few shapes, and the allocator gives the same few places again and again. So what was
checked of a request's inputs, and what was made of their place, serves every equal request at an equal place. Places
that come free are themselves kept for the next requests of their plan, until their memory is wanted for others: the
workers, too, do better with few places than with many.

Inputs that lie in shared memory already, as parts of a large message, are not copied.
"""

from collections.abc import Mapping
from mmap import mmap
from typing import TypeAlias

import numpy as np

from common.allocator import align
from common.dtypes import STORAGE
from common.messages import OutputRef, TensorRef, VersionId
from common.tensors import Signature
from frontends.checks import Layout, plan_layout
from frontends.interface import STRING, InputTensor, OutputTensor, Served
from frontends.memory import ARENA, Block, Memory

MAX_PLANS = 128
MAX_PLACES = 32
"""Of a plan. Of both, the oldest go."""


class Place:
    """A request's tensors in memory."""

    __slots__ = ("block", "buffer", "inputs", "outputs", "reads", "results", "targets", "writes")

    def __init__(
        self,
        block: Block,
        inputs: tuple[TensorRef, ...],
        outputs: tuple[OutputRef, ...],
        targets: tuple[tuple[str, str, np.ndarray], ...],
        results: tuple[OutputTensor | None, ...],
        writes: tuple[slice, ...],
    ) -> None:
        self.block = block
        self.inputs = inputs
        self.outputs = outputs
        self.targets = targets
        """Name and type of each input that is to be written, and where; for strings all that is left of the block."""
        self.results = results
        """Each output of known shape, where it will be."""
        self.buffer: mmap = block.memory.buffer
        self.writes = writes
        """The bytes in the segment of each input that is to be written."""
        self.reads = tuple([slice(ref.offset, ref.offset + ref.nbytes) for ref in outputs])
        """The bytes in the segment of each output."""

    def without_views(self) -> "Place":
        """For a segment that is to be unmapped: an error may keep what the frames that it has passed have kept."""
        return Place(self.block, self.inputs, self.outputs, (), (None,) * len(self.outputs), ())


_NOWHERE: Mapping[str, int] = {}


class Plan:
    """A layout for requests of one version."""

    __slots__ = ("_places", "_signature", "forgotten", "layout", "size", "spare")

    def __init__(self, signature: Signature, layout: Layout) -> None:
        self._signature = signature
        self.layout = layout
        self.size = align(layout.size)
        """Bytes that a block of it takes."""
        self._places: dict[tuple[int, ...], Place] = {}
        self.spare: list[Place] = []
        """Places in the arena that nobody uses, the last used last."""
        self.forgotten = False
        """Whether nobody looks for it any more."""

    def forget(self) -> None:
        """Let go of all views of the memory."""
        self.forgotten = True
        self._places.clear()

    def at(self, block: Block, in_place: Mapping[str, int] = _NOWHERE) -> Place:
        """What is where, in this block and, of inputs that are not copied, in the rest of its segment."""
        if block.segment != ARENA:
            return self._make(block, in_place)
        key = (block.offset, *in_place.values())
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._make(block, in_place)
            if len(self._places) > MAX_PLACES:
                del self._places[next(iter(self._places))]
        return place

    def _make(self, block: Block, in_place: Mapping[str, int]) -> Place:
        layout, inputs, targets, writes = self.layout, [], [], []
        for spec, ref in zip(self._signature.inputs, layout.inputs, strict=True):
            offset = in_place.get(spec.name)
            if offset is None:
                offset = block.offset + ref.offset
                if spec.dtype == STRING:
                    # How long it becomes its strings decide; they must not go beyond the block.
                    rest = block.offset + block.size - offset
                    array = block.memory.view(offset, (rest,), STORAGE["uint8"])
                else:
                    array = block.memory.view(offset, ref.shape, STORAGE[spec.dtype])
                targets.append((spec.name, spec.dtype, array))
                writes.append(slice(offset, offset + array.nbytes))
            inputs.append(TensorRef(offset, ref.shape))
        room = tuple(OutputRef(block.offset + ref.offset, ref.nbytes) for ref in layout.outputs)
        results = tuple(
            OutputTensor(spec.dtype, block.memory.view(ref.offset, spec.shape, STORAGE[spec.dtype]))
            if spec.is_static and ref.nbytes == spec.nbytes
            else None
            for spec, ref in zip(self._signature.outputs, room, strict=True)
        )
        return Place(block, tuple(inputs), room, tuple(targets), results, tuple(writes))


_Key: TypeAlias = tuple[VersionId, int, tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, ...]]


class Plans:
    """Of one frontend, and the places that are kept for them."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._plans: dict[_Key, Plan] = {}
        self._generation = 0
        memory.give_up = self.give_up

    def find(
        self, served: Served, inputs: Mapping[str, InputTensor], in_place: Mapping[str, int] = _NOWHERE
    ) -> Plan:
        """Check the inputs and lay out those that are not `in_place`. Raises InvalidArgumentError."""
        shapes = tuple([(name, tensor.dtype, tensor.array.shape) for name, tensor in inputs.items()])
        key = (served.id, served.generation, shapes, tuple(in_place))
        plan = self._plans.get(key)
        if plan is None:
            plan = Plan(served.signature, plan_layout(served.signature, inputs, in_place))
            if any(dtype == STRING for _, dtype, _ in shapes):
                # The room for strings may be any.
                return plan
            if served.generation > self._generation:
                # Plans of older ones are hardly looked for any more.
                self._generation = served.generation
                self.give_up()
            if len(self._plans) >= MAX_PLANS:
                self._forget(next(iter(self._plans)))
            self._plans[key] = plan
        return plan

    def take(self, plan: Plan) -> Place | None:
        """A place in the arena of the caller's own, for a plan of nothing `in_place`; None when there is no room."""
        if plan.spare:
            self._memory.kept -= plan.size
            return plan.spare.pop()
        block = self._memory.allocate(plan.size)
        return None if block is None else plan.at(block)

    def put_back(self, plan: Plan, place: Place) -> None:
        """The caller's place, to which nobody can write any more, is free, or kept for the next request."""
        memory = self._memory
        kept = memory.kept + plan.size
        if len(plan.spare) < MAX_PLACES and kept <= memory.most_kept and not plan.forgotten:
            memory.kept = kept
            plan.spare.append(place)
        else:
            memory.free(place.block)

    def give_up(self) -> None:
        """Free every place that is kept."""
        for plan in self._plans.values():
            self._free_spare(plan)

    def clear(self) -> None:
        """Let go of all views of the memory."""
        for key in list(self._plans):
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        plan = self._plans.pop(key)
        plan.forget()
        self._free_spare(plan)

    def _free_spare(self, plan: Plan) -> None:
        for place in plan.spare:
            self._memory.kept -= plan.size
            self._memory.free(place.block)
        plan.spare.clear()


def find_in_place(signature: Signature, inputs: Mapping[str, InputTensor], body: Block) -> dict[str, int]:
    """The inputs that need not be copied because they lie in `body`: where, in bytes from the segment's start."""
    found = {}
    for spec in signature.inputs:
        tensor = inputs.get(spec.name)
        if tensor is not None and tensor.dtype == spec.dtype:
            offset = _find(body, tensor.array)
            if offset is not None:
                found[spec.name] = offset
    return found


def _find(body: Block, array: np.ndarray) -> int | None:
    """Where the array lies, in bytes from the segment's start; None unless a worker can read it there.

    It can when the elements lie in the block one after another and aligned to their own size. OpenVINO is hardly faster
    with tensors that are aligned to more.
    """
    if not array.nbytes or not array.flags.c_contiguous:
        return None
    offset = body.memory.find(array)
    if offset is None or offset % array.itemsize:
        return None
    return offset if body.offset <= offset <= body.offset + body.size - array.nbytes else None
