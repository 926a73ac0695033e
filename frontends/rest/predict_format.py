"""The two formats of a Predict body, TensorFlow Serving's: rows (`instances` → `predictions`) and columns (`inputs` →
`outputs`).

    {"instances": [{"a": 1, "b": [2]}, …]}    an object an instance, each with every input; stacked along dimension 0
    {"instances": [[1, 2], …]}                 the instances themselves, for a model of one input
    {"inputs": {"a": [1, …], "b": [[2], …]}}   a whole tensor an input
    {"inputs": [[1, 2], …]}                    the tensor itself, for a model of one input

`signature_name` may stand beside them; further members are ignored. Bytes, `{"b64": "…"}`, and text, for an input of
strings, stand wherever a number does; for a model of one input they may be a bare value like a number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import InvalidArgumentError
from common.tensors import Signature
from frontends.interface import STRING, InputTensor, OutputTensor
from frontends.rest.json_tensors import (
    PIECE_ELEMENTS,
    TensorReader,
    as_input,
    is_binary,
    pieces_of,
    printable,
    refuse_inputs,
    write,
)
from frontends.rest.json_text import JSON_ARRAY, JSON_OBJECT, Document, members_of

SIGNATURE = "serving_default"
"""The one signature that a model has here."""

_IMAGE_RANK = 4
"""Dimensions of an input that images can be decoded for."""

_ROW_WEIGHT = 16
"""Elements that are written in the time that one more output of one more row costs."""


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A body that was read."""

    rows: bool
    """Row format; the answer follows it."""
    inputs: Mapping[str, InputTensor]


def read_body(document: Document, signature: Signature) -> PredictBody:
    """Raises InvalidArgumentError."""
    members = members_of(document.root)
    check_signature_name(members.get("signature_name", ""))
    rows = "instances" in members
    if rows == ("inputs" in members):
        refuse_inputs(
            f"{'both' if rows else 'neither'} of 'instances' and 'inputs' in it; exactly one is expected"
        )
    reader = TensorReader(quick=True)
    inputs = _read(reader, members, rows, signature)
    if reader.arrays != document.brackets:
        # An array hides among the numbers, or there are brackets in names or in members of no interest.
        inputs = _read(TensorReader(quick=False), members, rows, signature)
    tensors = {name: as_input(array) for name, array in inputs.items()}
    _check_strings(tensors, signature)
    return PredictBody(rows, tensors)


def _check_strings(tensors: Mapping[str, InputTensor], signature: Signature) -> None:
    """Whether bytes came for inputs alone that are strings or can be images; how, the data plane knows."""
    for spec in signature.inputs:
        tensor = tensors.get(spec.name)
        if spec.dtype == STRING:
            continue
        if tensor is not None and tensor.dtype == STRING and len(spec.shape) != _IMAGE_RANK:
            refuse_inputs(
                f"{spec.name!r} takes numbers, and base64 stands for an image, for an input of 4 dimensions"
            )


def check_signature_name(name: Any) -> None:
    """Whether it is the one that there is, or empty. Raises InvalidArgumentError."""
    if name not in ("", SIGNATURE):
        raise InvalidArgumentError(
            f"Serving signature key {name!r} not found. Signatures expected to be in the set {{{[SIGNATURE]}}}."
            if isinstance(name, str)
            else "Invalid inputs in request body: 'signature_name' is not a string"
        )


def _read(
    reader: TensorReader, members: Mapping[str, Any], rows: bool, signature: Signature
) -> dict[str, np.ndarray]:
    types = {spec.name: spec.dtype for spec in signature.inputs}
    if rows:
        return _read_rows(reader, members["instances"], types)
    return _read_columns(reader, members["inputs"], types)


def _read_columns(reader: TensorReader, value: Any, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not isinstance(value, JSON_OBJECT) or _is_bare_binary(value, types):
        if isinstance(value, JSON_ARRAY) and not len(value):
            refuse_inputs("'inputs' is empty")
        name = _only_input(types, "'inputs'")
        return {name: reader.read(name, value, types[name])}
    tensors = members_of(value)
    if not tensors:
        refuse_inputs("'inputs' is empty")
    return {name: reader.read(name, tensor, types.get(name)) for name, tensor in tensors.items()}


def _read_rows(reader: TensorReader, value: Any, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not isinstance(value, JSON_ARRAY):
        refuse_inputs("'instances' is not an array")
    if not len(value):
        refuse_inputs("'instances' is empty")
    if not isinstance(value[0], JSON_OBJECT) or _is_bare_binary(value[0], types):
        name = _only_input(types, "an instance")
        return {name: reader.read(name, value, types[name])}
    reader.arrays += 1
    columns = _columns_of(value, types)
    return {name: reader.read_batch(name, column, types.get(name)) for name, column in columns.items()}


def _columns_of(instances: Any, types: Mapping[str, str]) -> dict[str, list[Any]]:
    """Name → that input's value in each instance."""
    first = members_of(instances[0])
    if not first:
        refuse_inputs("the first instance is empty")
    columns: dict[str, list[Any]] = {name: [] for name in first}
    for number, instance in enumerate(instances):
        if not isinstance(instance, JSON_OBJECT):
            refuse_inputs(f"instance {number} is not an object as the first one is")
        members = members_of(instance)
        if members.keys() != columns.keys():
            refuse_inputs(
                f"instance {number} has the inputs {sorted(members)}, the first one has {sorted(first)}"
            )
        for name, tensor in members.items():
            columns[name].append(tensor)
    return columns


def _only_input(types: Mapping[str, str], where: str) -> str:
    if len(types) != 1:
        refuse_inputs(f"the model has the inputs {sorted(types)}: {where} must be an object that names them")
    return next(iter(types))


def _is_bare_binary(value: Any, types: Mapping[str, str]) -> bool:
    """Whether an object is a value rather than values by name."""
    return "b64" not in types and is_binary(value)


def write_answer(outputs: Mapping[str, OutputTensor], rows: bool) -> bytes:
    """The body of a successful answer. Raises InvalidArgumentError where the outputs cannot be split into rows."""
    arrays = {name: printable(output, name) for name, output in outputs.items()}
    if len(arrays) == 1:
        array = next(iter(arrays.values()))
        if not rows:
            return write({"outputs": array})
        if array.ndim:
            return write({"predictions": array})
    elif not rows:
        return write({"outputs": arrays})
    return write({"predictions": _rows(arrays, range(_count_rows(arrays)))})


def is_long_answer(outputs: Mapping[str, OutputTensor]) -> bool:
    """Whether an answer is better written in pieces."""
    return sum(output.array.size for output in outputs.values()) > PIECE_ELEMENTS


def answer_pieces(outputs: Mapping[str, OutputTensor], rows: bool) -> Iterator[bytes]:
    """The same as write_answer gives, in pieces none of which takes long. Raises InvalidArgumentError."""
    arrays = {name: printable(output, name) for name, output in outputs.items()}
    if rows:
        count = _count_rows(arrays)
        yield b'{"predictions":'
        yield from _row_pieces(arrays, count) if len(arrays) > 1 else pieces_of(next(iter(arrays.values())))
    else:
        yield b'{"outputs":'
        yield from _member_pieces(arrays) if len(arrays) > 1 else pieces_of(next(iter(arrays.values())))
    yield b"}"


def _rows(arrays: Mapping[str, np.ndarray], rows: range) -> list[dict[str, np.ndarray]]:
    return [{name: array[row] for name, array in arrays.items()} for row in rows]


def _row_pieces(arrays: Mapping[str, np.ndarray], count: int) -> Iterator[bytes]:
    # A row takes time even if it has few elements.
    weight = sum(array.size for array in arrays.values()) + _ROW_WEIGHT * count * len(arrays)
    step = count * PIECE_ELEMENTS // weight if weight else 1
    for start in range(0, count, max(1, step)):
        yield b"," if start else b"["
        if step:
            yield write(_rows(arrays, range(start, min(start + step, count))))[1:-1]
        else:
            yield from _member_pieces({name: array[start, ...] for name, array in arrays.items()})
    yield b"]" if count else b"[]"


def _member_pieces(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes]:
    for number, (name, array) in enumerate(arrays.items()):
        yield (b"," if number else b"{") + write(name) + b":"
        yield from pieces_of(array)
    yield b"}"


def _count_rows(arrays: Mapping[str, np.ndarray]) -> int:
    counts = {int(array.shape[0]) if array.ndim else -1 for array in arrays.values()}
    if len(counts) != 1 or -1 in counts:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        raise InvalidArgumentError(
            f"The outputs have no first dimension in common, {shapes}, and cannot be answered row by row: "
            "send the request in the columnar format, with 'inputs'"
        )
    return counts.pop()
