"""A request's inputs against a version's signature: names, types, shapes; and where all tensors go in its block. Pure.

The texts are those that clients of the Python OpenVINO Model Server know.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from common.allocator import align
from common.errors import InvalidArgumentError
from common.messages import OutputRef, TensorRef
from common.strings import MAX_BYTES, MAX_STRINGS, encoded_size
from common.tensors import STRING, Signature, TensorSpec, byte_size, with_rows
from frontends.conversion import check_convertible
from frontends.interface import InputTensor


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets from the start of the block, in the signature's order, and the block's size in bytes."""

    inputs: tuple[TensorRef, ...]
    outputs: tuple[OutputRef, ...]
    size: int


def plan_layout(
    signature: Signature, inputs: Mapping[str, InputTensor], in_place: Container[str] = ()
) -> Layout:
    """Check the inputs and lay out the block; those named `in_place` need no room. Raises InvalidArgumentError."""
    check_names(signature, inputs)
    offset = 0
    placed = []
    for spec in signature.inputs:
        tensor = inputs[spec.name]
        shape = tensor.array.shape
        check_shape(spec, shape)
        if tensor.dtype != spec.dtype:
            check_convertible(spec.name, tensor.dtype, spec.dtype)
        placed.append(TensorRef(offset, shape))
        if spec.dtype == STRING:
            offset += align(_size_of_strings(spec, tensor))
        elif spec.name not in in_place:
            offset += align(byte_size(spec.dtype, shape))
    specs = signature.outputs
    if signature.max_rows:
        rows = check_rows(signature, placed)
        specs = tuple(with_rows(spec, rows) for spec in specs)
    room = []
    for spec in specs:
        size = spec.nbytes if spec.is_static else 0
        room.append(OutputRef(offset, size))
        offset += align(size) if size else 0
    return Layout(tuple(placed), tuple(room), offset)


def _size_of_strings(spec: TensorSpec, tensor: InputTensor) -> int:
    if tensor.array.size > MAX_STRINGS:
        raise InvalidArgumentError(
            f"Input {spec.name!r}: a tensor of strings has {MAX_STRINGS} elements at the most, got {tensor.array.size}"
        )
    size = encoded_size(tensor.array)
    if size > MAX_BYTES:
        raise InvalidArgumentError(
            f"Input {spec.name!r}: the strings of a tensor have {MAX_BYTES} bytes at the most, got {size}"
        )
    return size


def check_names(signature: Signature, inputs: Mapping[str, InputTensor]) -> None:
    """Every input of the signature, and no other."""
    expected = [spec.name for spec in signature.inputs]
    if len(inputs) == len(expected) and all(name in inputs for name in expected):
        return
    unknown = [name for name in inputs if name not in expected]
    if unknown:
        raise InvalidArgumentError(
            f"input tensor alias not found in signature: {unknown}. "
            f"Inputs expected to be in the set {{{expected}}}."
        )
    missing = [name for name in expected if name not in inputs]
    raise InvalidArgumentError(f"Missing inputs: {missing}. Inputs expected to be in the set {{{expected}}}.")


def check_rows(signature: Signature, placed: Sequence[TensorRef]) -> int:
    """How many rows all inputs bring. Raises InvalidArgumentError if they disagree or are too many."""
    rows = signature.rows_of([one.shape for one in placed])
    if rows:
        return rows
    counts = {spec.name: one.shape[0] for spec, one in zip(signature.inputs, placed, strict=True)}
    if len(set(counts.values())) > 1:
        raise InvalidArgumentError(f"Input batch size is incorrect. The inputs' batch sizes differ: {counts}")
    raise InvalidArgumentError(
        f"Input batch size is incorrect. Obtained batch size {next(iter(counts.values()))}, "
        f"required batch size 1 to {signature.max_rows} (max_batch_size)"
    )


def check_shape(spec: TensorSpec, shape: tuple[int, ...]) -> None:
    """The shape that came against the one that is asked for (-1: any)."""
    if spec.accepts(shape):
        return
    rest = TensorSpec(spec.name, spec.dtype, spec.shape[1:])
    if spec.shape and shape and rest.accepts(shape[1:]):
        raise InvalidArgumentError(
            f"Input batch size is incorrect. "
            f"Obtained batch size {shape[0]}, required batch size {spec.shape[0]}"
        )
    raise InvalidArgumentError(
        f"The input data is incorrect. Obtained shape {list(shape)}, required shape {list(spec.shape)}"
    )


def check_outputs(signature: Signature, wanted: frozenset[str]) -> None:
    """Whether there are outputs of these names; none stand for all. Raises InvalidArgumentError."""
    if not wanted:
        return
    known = [spec.name for spec in signature.outputs]
    unknown = sorted(wanted.difference(known))
    if unknown:
        raise InvalidArgumentError(
            f"output tensor alias not found in signature: {unknown}. Outputs expected to be in the set {{{known}}}."
        )
