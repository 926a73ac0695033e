"""What the options `batch_size` and `shape` mean for a model's inputs. Pure.

    batch_size n      the first dimension of every input is n                         ┐ reshaped once, at load
    shape fixed       by input name, tensor name or alias; "" for the only input      ┘ (-1: that dimension is open)
    batch_size auto   each request brings the first dimension of every input          ┐ compiled anew for each set of
    shape auto        each request brings every dimension; the rank is the model's    ┘ shapes, see workers.variants

`shape` wins over `batch_size`. A model that leaves open what an option would open is served as it is.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from common.tensors import DYNAMIC, TensorSpec
from workers.engine import LoadError
from workers.ports import Port, Shape, Shapes, all_open, find

BatchSize = int | Literal["auto"] | None
ShapeOption = Mapping[str, Shape] | Literal["auto"] | None


class ShapePlan(NamedTuple):
    """What is to be done to a model before it is compiled."""

    fixed: Mapping[int, Shape] = {}
    """Inputs that are to be reshaped once, by index."""
    per_request: Shapes | None = None
    """The inputs' shapes, open where each request decides."""
    notes: tuple[str, ...] = ()


def plan(ports: tuple[Port, ...], batch_size: BatchSize, shape: ShapeOption) -> ShapePlan:
    """The plan for a model with these inputs. Raises LoadError for names that are not its inputs'."""
    notes: tuple[str, ...] = ()
    if shape is not None and batch_size is not None:
        notes = ("shape is given, so batch_size is not used",)
    if shape == "auto":
        return _per_request(ports, {i: all_open(port.spec.shape) for i, port in _ranked(ports)}, notes)
    if shape is not None:
        return ShapePlan(_changes(ports, _by_name(ports, shape)), notes=notes)
    if batch_size == "auto":
        return _per_request(ports, _batches(ports, DYNAMIC), notes)
    if batch_size is not None:
        return ShapePlan(_changes(ports, _batches(ports, batch_size)), notes=notes)
    return ShapePlan()


def describe(ports: tuple[Port, ...], shapes: Mapping[int, Shape]) -> str:
    """Shapes for people: `x (1,3), y (2,)`."""
    return ", ".join(f"{ports[index].spec.name} {text(shape)}" for index, shape in shapes.items())


def text(shape: Shape) -> str:
    """A shape for people, as it is written in the configuration."""
    return f"({','.join(map(str, shape))})"


def fits(spec: TensorSpec, produced: TensorSpec) -> bool:
    """Whether what a compiled variant gives out is what the version promises."""
    if spec.dtype != produced.dtype:
        return False
    return spec.unranked or (not produced.unranked and spec.accepts(produced.shape))


def _ranked(ports: tuple[Port, ...]) -> list[tuple[int, Port]]:
    return [(index, port) for index, port in enumerate(ports) if not port.spec.unranked]


def _batches(ports: tuple[Port, ...], size: int) -> dict[int, Shape]:
    """Scalars have no first dimension, and what has no fixed rank takes any."""
    return {index: (size, *port.spec.shape[1:]) for index, port in _ranked(ports) if port.spec.shape}


def _changes(ports: tuple[Port, ...], shapes: Mapping[int, Shape]) -> dict[int, Shape]:
    """Those that differ from what the model has."""
    return {
        index: shape
        for index, shape in shapes.items()
        if ports[index].spec.unranked or ports[index].spec.shape != shape
    }


def _per_request(ports: tuple[Port, ...], shapes: Mapping[int, Shape], notes: tuple[str, ...]) -> ShapePlan:
    if not _changes(ports, shapes):
        return ShapePlan(notes=notes)
    opened = tuple(shapes.get(index, port.spec.shape) for index, port in enumerate(ports))
    return ShapePlan(per_request=opened, notes=notes)


def _by_name(ports: tuple[Port, ...], shapes: Mapping[str, Shape]) -> dict[int, Shape]:
    known = ", ".join(port.spec.name for port in ports)
    found: dict[int, Shape] = {}
    for name, shape in shapes.items():
        indices = find(ports, name) if name else list(range(len(ports)))
        if not name and len(indices) != 1:
            raise LoadError(f"the model has {len(ports)} inputs ({known}): shape must name them")
        if len(indices) != 1:
            what = "no input" if not indices else "several inputs"
            raise LoadError(f"shape names {name!r}, which is {what} of the model; it has {known}")
        if indices[0] in found:
            raise LoadError(f"shape names the input {ports[indices[0]].spec.name!r} twice")
        found[indices[0]] = shape
    return found
