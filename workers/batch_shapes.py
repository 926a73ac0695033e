"""Whether a model can be inferred by batches, and the shapes that it has then. Pure.

It can if every input has a first dimension that counts examples, and every output has as many of them, whatever their
number. That the rows do not depend on each other is what the operator says by asking for batches.
"""

from collections.abc import Mapping, Sequence

import msgspec

from common.config import BatchingParameters, ModelConfig
from common.tensors import DYNAMIC, ITEMSIZE, Signature, TensorSpec, with_rows
from workers.ports import Port, Shape


class UnbatchableError(Exception):
    """Why a model cannot be inferred by batches; for operators."""


def check_inputs(ports: Sequence[Port], config: ModelConfig) -> tuple[str, ...]:
    """Raises UnbatchableError for inputs without a batch dimension. What else is to be said of the options."""
    if config.shape == "auto":
        raise UnbatchableError("with shape auto each request is inferred in its own shape")
    if not ports:
        raise UnbatchableError("the model has no inputs")
    for spec in (port.spec for port in ports):
        if spec.dtype not in ITEMSIZE:
            raise UnbatchableError(f"input {spec.name!r} is of type {spec.dtype}")
        if spec.unranked or not spec.shape:
            raise UnbatchableError(f"input {spec.name!r} has no first dimension")
        if spec.layout and spec.layout[0] != "N":
            raise UnbatchableError(
                f"the first dimension of input {spec.name!r} is not the batch: {spec.layout}"
            )
    own = {port.spec.shape[0] for port in ports} - {DYNAMIC}
    if len(own) > 1:
        lengths = ", ".join(f"{port.spec.name} {port.spec.shape[0]}" for port in ports)
        raise UnbatchableError(f"the first dimensions of the inputs differ: {lengths}")
    if isinstance(config.batch_size, int):
        return ("batching_parameters are given, so batch_size is not used",)
    return ()


def sized(ports: Sequence[Port], fixed: Mapping[int, Shape], rows: int) -> dict[int, Shape]:
    """The inputs' shapes, by index, for batches of so many rows; `fixed`: what the option `shape` says."""
    shapes = [fixed.get(index, port.spec.shape) for index, port in enumerate(ports)]
    return {index: (rows, *shape[1:]) for index, shape in enumerate(shapes)}


def check_outputs(outputs: Sequence[TensorSpec], rows: int) -> None:
    """Raises UnbatchableError for outputs that do not have as many rows as the inputs."""
    for spec in outputs:
        if spec.dtype not in ITEMSIZE:
            raise UnbatchableError(f"output {spec.name!r} is of type {spec.dtype}")
        if spec.unranked or not spec.shape or spec.shape[0] != rows:
            shape = "unknown" if spec.unranked else list(spec.shape)
            raise UnbatchableError(f"for {rows} rows of input, output {spec.name!r} has the shape {shape}")


def open_rows(signature: Signature, most: int) -> Signature:
    """The signature of one batch size made that of all up to `most` rows."""
    return msgspec.structs.replace(
        signature,
        inputs=tuple(with_rows(spec, DYNAMIC) for spec in signature.inputs),
        outputs=tuple(with_rows(spec, DYNAMIC) for spec in signature.outputs),
        max_rows=most,
    )


def same_but_for_rows(signatures: Sequence[Signature]) -> Signature:
    """The signature that several batch sizes have in common. Raises UnbatchableError where there is none."""
    opened = [open_rows(signature, 0) for signature in signatures]
    for other in opened[1:]:
        for one, two in zip(opened[0].outputs, other.outputs, strict=True):
            if one != two:
                raise UnbatchableError(
                    f"output {one.name!r} has the rows {list(one.shape[1:])} or {list(two.shape[1:])}, "
                    "depending on their number"
                )
    return opened[0]


def probe_sizes(parameters: BatchingParameters) -> tuple[int, ...]:
    """Numbers of rows for which a model's shapes are looked at: the allowed ones, and one more.

    A model that was made for exactly one size, the only one allowed, is not taken for one that takes any.
    """
    return (*parameters.sizes, parameters.max_batch_size + 1)
