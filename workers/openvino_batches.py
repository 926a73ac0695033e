"""A version compiled for every allowed batch size: one model as it was read, reshaped and compiled again and again."""

from collections.abc import Mapping, Sequence

import workers.openvino_api as ov
from common.config import BatchingParameters
from common.tensors import Signature
from workers.batch_shapes import (
    UnbatchableError,
    check_outputs,
    open_rows,
    probe_sizes,
    same_but_for_rows,
    sized,
)
from workers.compile_cache import CompileCache
from workers.engine import Model
from workers.openvino_compiler import Compiler
from workers.openvino_model import OpenVinoModel
from workers.ports import Port, Shape
from workers.reasons import reason_of
from workers.shapes import describe
from workers.signatures import model_signature, reshape


class OpenVinoBatches:
    """See workers.engine.BatchableModel."""

    def __init__(
        self, models: dict[int, OpenVinoModel], signature: Signature, notes: tuple[str, ...]
    ) -> None:
        self.signature = signature
        self.notes = notes
        self._models = models

    def take(self) -> dict[int, Model]:
        """See workers.engine.BatchableModel."""
        models: dict[int, Model] = dict(self._models)
        self._models = {}
        return models


def compile_batches(
    model: ov.Model,
    compiler: Compiler,
    fixed: Mapping[int, Shape],
    batching: BatchingParameters,
    cache: CompileCache | None,
    notes: tuple[str, ...],
) -> OpenVinoBatches:
    """Compile it for every allowed size. `fixed`: shapes of inputs, by index. Raises UnbatchableError."""
    inputs = compiler.ports[0]
    looks = [_look(model, compiler, inputs, fixed, rows) for rows in probe_sizes(batching)]
    signature = open_rows(same_but_for_rows(looks), batching.max_batch_size)
    models: dict[int, OpenVinoModel] = {}
    try:
        for size in batching.sizes:
            reshape(model, sized(inputs, fixed, size))
            models[size] = compiler.compile(model, cache)
    except Exception as error:
        for compiled in models.values():
            compiled.close()
        raise UnbatchableError(f"it cannot be compiled for {size} rows: {reason_of(error)}") from error
    return OpenVinoBatches(models, signature, notes)


def _look(
    model: ov.Model, compiler: Compiler, inputs: Sequence[Port], fixed: Mapping[int, Shape], rows: int
) -> Signature:
    """What the model takes and gives with so many rows. Raises UnbatchableError."""
    shapes = sized(inputs, fixed, rows)
    try:
        reshape(model, shapes)
    except Exception as error:
        wanted = describe(tuple(inputs), shapes)
        raise UnbatchableError(f"it cannot be reshaped to {wanted}: {reason_of(error)}") from error
    signature = model_signature(model, compiler.ports, compiler.heads)
    check_outputs(signature.outputs, rows)
    return signature
