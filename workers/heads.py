"""How inputs are laid out and outputs are read as classes or values: a model's options against its ports. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from common.config import ModelConfig
from common.tensors import DYNAMIC, Heads
from workers.engine import LoadError
from workers.ports import Port, find

DEFAULT_LABELS = "labels.txt"


class Labels(NamedTuple):
    """Names of classes as a file in the version's directory lists them."""

    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Why there are none, where that is worth a word."""


def with_layouts(ports: tuple[Port, ...], layouts: Mapping[str, str]) -> tuple[Port, ...]:
    """The inputs in the layouts that the configuration names, by input, `""` for the only one.

    Raises LoadError for what is not an input, and for a layout of another rank.
    """
    changed = list(ports)
    for name, layout in layouts.items():
        index = _index(ports, name)
        spec = ports[index].spec
        if not spec.unranked and len(layout) != len(spec.shape):
            raise LoadError(
                f"layout {layout} of input {spec.name!r} has {len(layout)} letters, and the input "
                f"{len(spec.shape)} dimensions"
            )
        changed[index] = Port(msgspec.structs.replace(spec, layout=layout), ports[index].names)
    return tuple(changed)


def heads_of(outputs: tuple[Port, ...], config: ModelConfig, labels: Labels) -> tuple[Heads, tuple[str, ...]]:
    """How the outputs are read, and notes. Raises LoadError for what is not an output."""
    classification = _output(outputs, config.classification.output, "classification")
    regression = _output(outputs, config.regression.output, "regression")
    names, notes = labels
    count = _scores(outputs, classification)
    if names and count is not None and count != len(names):
        text = f"there are {len(names)} labels for {count} scores"
        if config.classification.labels:
            raise LoadError(f"classification: {text}")
        names, notes = (), (*notes, f"{text}: classes go by their numbers")
    return Heads(classification, names, config.classification.top_k, regression), notes


def _output(outputs: tuple[Port, ...], name: str, option: str) -> str:
    """The output that an option names, by the name that clients know; empty where it names none."""
    if not name:
        return ""
    found = find(outputs, name)
    if len(found) != 1:
        known = ", ".join(port.spec.name for port in outputs)
        what = "no output" if not found else "several outputs"
        raise LoadError(f"{option} names {name!r}, which is {what} of the model; it has {known}")
    return outputs[found[0]].spec.name


def _scores(outputs: tuple[Port, ...], chosen: str) -> int | None:
    """How many scores an example has; None where the model leaves that open or nothing is chosen."""
    specs = [port.spec for port in outputs if chosen in ("", port.spec.name)]
    if len(specs) != 1 or specs[0].unranked or len(specs[0].shape) < 2:
        return None
    count = specs[0].shape[1]
    return None if count == DYNAMIC else count


def _index(ports: tuple[Port, ...], name: str) -> int:
    known = ", ".join(port.spec.name for port in ports)
    found = find(ports, name) if name else list(range(len(ports)))
    if not name and len(found) != 1:
        raise LoadError(f"the model has {len(ports)} inputs ({known}): layout must name them")
    if len(found) != 1:
        what = "no input" if not found else "several inputs"
        raise LoadError(f"layout names {name!r}, which is {what} of the model; it has {known}")
    return found[0]
