"""mapping_config.json: other names for a model's tensors, of which clients see these alone. Pure.

    {"inputs": {"tensor": "alias"}, "outputs": {"tensor": "alias"}}

What it does not name keeps its own name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from common import strict_json
from workers.engine import LoadError
from workers.ports import Port, find

FILE_NAME = "mapping_config.json"
_SIDES = ("inputs", "outputs")


class Aliases(NamedTuple):
    """Tensor → alias."""

    inputs: Mapping[str, str] = {}
    outputs: Mapping[str, str] = {}


def parse(content: bytes) -> Aliases:
    """What the file says. Raises LoadError."""
    try:
        document = strict_json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LoadError(f"{FILE_NAME} is not UTF-8") from error
    except strict_json.JsonError as error:
        raise LoadError(f"{FILE_NAME}: {error}") from error
    if not isinstance(document, dict):
        raise LoadError(f"{FILE_NAME} holds {_kind(document)} where an object is wanted")
    repeated = strict_json.repeated_key(document)
    if repeated is not None:
        raise LoadError(f"{FILE_NAME}: the key {repeated!r} comes twice")
    unknown = [key for key in document if key not in _SIDES]
    if unknown:
        raise LoadError(f"{FILE_NAME}: unknown key {unknown[0]!r}; it may hold inputs and outputs")
    return Aliases(*(_names(document.get(side, {}), side) for side in _SIDES))


def rename(ports: tuple[Port, ...], aliases: Mapping[str, str], side: str) -> tuple[Port, ...]:
    """The ports by their aliases. Raises LoadError for a tensor that is not there, and for a name of two tensors."""
    renamed = list(ports)
    given: dict[int, str] = {}
    for tensor, alias in aliases.items():
        found = find(ports, tensor)
        if len(found) != 1:
            known = ", ".join(port.spec.name for port in ports)
            what = "is not one of" if not found else "is the name of several of"
            raise LoadError(f"{FILE_NAME}: {tensor!r} {what} the model's {side}: {known}")
        index = found[0]
        if index in given:
            raise LoadError(f"{FILE_NAME}: {given[index]!r} and {tensor!r} of {side} are one tensor")
        given[index] = tensor
        renamed[index] = ports[index].renamed(alias)
    names = [port.spec.name for port in renamed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LoadError(f"{FILE_NAME}: two {side} would be named {twice[0]!r}")
    return tuple(renamed)


def _names(value: Any, side: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise LoadError(f"{FILE_NAME}: {side} is {_kind(value)} where an object of names is wanted")
    for tensor, alias in value.items():
        if not isinstance(alias, str) or not alias:
            raise LoadError(f"{FILE_NAME}: the alias of {tensor!r} in {side} is not a name")
    return dict(value)


def _kind(value: Any) -> str:
    kinds = {list: "an array", str: "a string", bool: "a truth value", type(None): "null", dict: "an object"}
    return kinds.get(type(value), "a number")
