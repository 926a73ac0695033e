"""What the data plane knows about requests that are equal but for their elements: chosen, checked and laid out once.

A recipe holds for one catalogue. It says where the elements lie in the message and which plan they are written by, so
that such a request costs a copy, a place and a Submit; and what the broker's answer is when nothing about it is out of
the ordinary, so that the rim can answer by bytes that it has made before.
"""

from typing import NamedTuple

from common.messages import OutputResult
from common.tensors import Signature
from frontends.checks import Layout
from frontends.interface import Served
from frontends.plans import Plan

MAX_EXPECTED_BYTES = 16 << 10
"""Outputs of fewer bytes together are copied whole into the answer. More is sent out of the block."""


class InPlace(NamedTuple):
    """An input that lies in a message in shared memory, and stays there."""

    name: str
    start: int
    """Of its elements: bytes from the message's start."""
    itemsize: int
    """Bytes of an element, to a multiple of which it must lie aligned."""


class Recipe:
    """For all requests of one form, under one catalogue."""

    __slots__ = ("expected", "heads", "in_place", "plan", "served", "sources")

    def __init__(
        self,
        served: Served,
        plan: Plan,
        sources: tuple[slice, ...],
        expected: tuple[OutputResult, ...] | None,
        in_place: tuple[InPlace, ...] = (),
    ) -> None:
        self.served = served
        self.plan = plan
        self.sources = sources
        """Where the message holds the elements of each input that is copied, in the signature's order."""
        self.in_place = in_place
        """Inputs that the worker reads in the message, which lies in shared memory then; with the others none is."""
        self.expected = expected
        """The answer whose outputs are all wanted and lie in the block, each in its one shape, and are short; None:
        there is no such answer.
        """
        self.heads: tuple[bytes, ...] = ()
        """The rim's own: what it answers before each output's elements; empty before the first answer."""


def expected_results(
    signature: Signature, layout: Layout, wanted: frozenset[str]
) -> tuple[OutputResult, ...] | None:
    """What Recipe.expected says; `wanted` names outputs, or none for all."""
    total = 0
    for spec, ref in zip(signature.outputs, layout.outputs, strict=True):
        # With `max_rows` the shape that the signature gives may not be the answer's.
        if not spec.is_static or not ref.nbytes or ref.nbytes != spec.nbytes:
            return None
        if wanted and spec.name not in wanted:
            return None
        total += ref.nbytes
    if not 0 < total < MAX_EXPECTED_BYTES:
        return None
    return tuple([OutputResult(spec.shape) for spec in signature.outputs])
