"""The two formats of a Predict body, TensorFlow Serving's: rows (`instances` → `predictions`) and columns (`inputs` →
`outputs`).

    {"instances": [{"a": 1, "b": [2]}, …]}    an object an instance, each with every input; stacked along dimension 0
    {"instances": [[1, 2], …]}                 the instances themselves, for a model of one input
    {"inputs": {"a": [1, …], "b": [[2], …]}}   a whole tensor an input
    {"inputs": [[1, 2], …]}                    the tensor itself, for a model of one input

`signature_name` may stand beside them; further members are ignored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import InvalidArgumentError
from common.tensors import Signature
from frontends.interface import InputTensor, OutputTensor
from frontends.rest.json_tensors import TensorReader, as_input, printable, refuse_inputs, write
from frontends.rest.json_text import JSON_ARRAY, JSON_OBJECT, Document, members_of

SIGNATURE = "serving_default"
"""The one signature that a model has here."""


@dataclass(frozen=True, slots=True)
class PredictBody:
    """A body that was read."""

    rows: bool
    """Row format; the answer follows it."""
    inputs: Mapping[str, InputTensor]


def read_body(document: Document, signature: Signature) -> PredictBody:
    """Raises InvalidArgumentError."""
    members = members_of(document.root)
    _check_signature_name(members.get("signature_name", ""))
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
    return PredictBody(rows, {name: as_input(array) for name, array in inputs.items()})


def _check_signature_name(name: Any) -> None:
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
    if not isinstance(value, JSON_OBJECT):
        if isinstance(value, JSON_ARRAY) and not len(value):
            refuse_inputs("'inputs' is empty")
        name = _only_input(types, "'inputs'")
        return {name: reader.read(name, value, types[name])}
    tensors = members_of(value)
    if not tensors:
        refuse_inputs("'inputs' is empty")
    _check_binary(tensors, types)
    return {name: reader.read(name, tensor, types.get(name)) for name, tensor in tensors.items()}


def _read_rows(reader: TensorReader, value: Any, types: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not isinstance(value, JSON_ARRAY):
        refuse_inputs("'instances' is not an array")
    if not len(value):
        refuse_inputs("'instances' is empty")
    if not isinstance(value[0], JSON_OBJECT):
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
    _check_binary(first, types)
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


def _check_binary(members: Mapping[str, Any], types: Mapping[str, str]) -> None:
    if list(members) == ["b64"] and "b64" not in types and isinstance(members["b64"], str):
        refuse_inputs("the model takes numbers, and base64 stands for binary strings")


def write_answer(outputs: Mapping[str, OutputTensor], rows: bool) -> bytes:
    """The body of a successful answer. Raises InvalidArgumentError where the outputs cannot be split into rows."""
    arrays = {name: printable(output) for name, output in outputs.items()}
    if not rows:
        return write({"outputs": next(iter(arrays.values())) if len(arrays) == 1 else arrays})
    count = _count_rows(arrays)
    if len(arrays) == 1:
        return write({"predictions": next(iter(arrays.values()))})
    predictions = [{name: array[row] for name, array in arrays.items()} for row in range(count)]
    return write({"predictions": predictions})


def _count_rows(arrays: Mapping[str, np.ndarray]) -> int:
    counts = {int(array.shape[0]) if array.ndim else -1 for array in arrays.values()}
    if len(counts) != 1 or -1 in counts:
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        raise InvalidArgumentError(
            f"The outputs have no first dimension in common, {shapes}, and cannot be answered row by row: "
            "send the request in the columnar format, with 'inputs'"
        )
    return counts.pop()
