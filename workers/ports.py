"""An input or output of a model as the pure modules see it. Pure."""

from typing import NamedTuple

import msgspec

from common.tensors import DYNAMIC, TensorSpec

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
"""One for each input, in the model's order."""


class Port(NamedTuple):
    """What clients are shown of a tensor, and what else it is called."""

    spec: TensorSpec
    names: frozenset[str]
    """Everything that the model calls this tensor; options may use any of it."""

    def renamed(self, name: str) -> "Port":
        """The same tensor, shown to clients by another name."""
        return Port(msgspec.structs.replace(self.spec, name=name), self.names | {name})

    def reshaped(self, shape: Shape) -> "Port":
        """The same tensor in another shape."""
        return Port(msgspec.structs.replace(self.spec, shape=shape, unranked=False), self.names)


def all_open(shape: Shape) -> Shape:
    """A shape of the same rank in which every dimension is open."""
    return (DYNAMIC,) * len(shape)


def find(ports: tuple[Port, ...], name: str) -> list[int]:
    """Which ports a name may mean: the one that is shown by it, or else all that are called it."""
    shown = [index for index, port in enumerate(ports) if port.spec.name == name]
    return shown or [index for index, port in enumerate(ports) if name in port.names]
