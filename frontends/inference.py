"""Classification and regression, which both APIs share: examples become inputs, outputs become classes or values. Pure.

    examples, context ─ read_examples ─▶ inputs ─ the data plane ─▶ Prediction ─▶ classify ─▶ a Ranking an example
                                                                              └─▶ regress ──▶ a value an example

An example holds lists of values by the names of features (tensorflow/core/example/example.proto); what is the same for
all examples stands in the context. A feature is an input of the model; of a model of one input, the only feature is
that input whatever its name.

    def build(served): check_classifiable(served.signature); return read_examples(served.signature, examples, context)
    prediction = await dataplane.predict(selector, build, deadline_ns)
    try: rankings = classify(prediction, len(examples))
    finally: prediction.release()
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NoReturn, TypeAlias

import ml_dtypes
import numpy as np

from common.dtypes import STORAGE
from common.errors import InvalidArgumentError, ResourceExhaustedError
from common.strings import MAX_STRINGS, encoded_size
from common.tensors import DYNAMIC, Signature, TensorSpec
from frontends.interface import STRING, InputTensor, OutputTensor, Prediction

Feature: TypeAlias = Sequence[bytes] | Sequence[float] | Sequence[int]
"""Values of one kind; whole numbers among others count as such."""
Example: TypeAlias = Mapping[str, Feature]

MAX_EXAMPLE_BYTES = 256 << 20
"""Of one input made from examples. A context of a few MB, repeated for many examples, would else come to any size."""

_SHOWN = 8
"""Names that an error lists."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The classes of one example. Independent of the prediction's memory."""

    labels: Sequence[str]
    scores: np.ndarray
    """float32 or float64, one for each label; highest first where the model has a `top_k`, else in its own order."""


def read_examples(
    signature: Signature, examples: Sequence[Example], context: Example | None = None
) -> Mapping[str, InputTensor]:
    """The inputs of a model, their first dimension the examples. An example's own feature wins over the context's.

    A feature's values are the elements of one row of the input, in order. Bytes for an input of numbers stand for an
    encoded image, one an example. Raises InvalidArgumentError, which names the features that are missing, too many or
    of different lengths, and ResourceExhaustedError.
    """
    if not examples:
        raise InvalidArgumentError("Input is empty: at least one example is expected")
    shared: Example = context or {}
    names = _features_of(signature, examples, shared)
    return {
        spec.name: _input_of(spec, name, [example.get(name) or shared[name] for example in examples])
        for spec, name in zip(signature.inputs, names, strict=True)
    }


def check_classifiable(signature: Signature) -> None:
    """Whether the model has an output of scores, before anything is inferred. Raises InvalidArgumentError."""
    _head(signature, signature.heads.classification, "classification")


def check_regressable(signature: Signature) -> None:
    """Whether the model has an output of values, before anything is inferred. Raises InvalidArgumentError."""
    _head(signature, signature.heads.regression, "regression")


def classify(prediction: Prediction, examples: int) -> list[Ranking]:
    """The classes of each example. Raises InvalidArgumentError for outputs that cannot be read as scores."""
    signature = prediction.served.signature
    heads = signature.heads
    name = _head(signature, heads.classification, "classification")
    scores = _floats(prediction.outputs[name])
    while scores.ndim > 2 and scores.shape[-1] == 1:
        scores = scores[..., 0]
    if scores.ndim != 2 or len(scores) != examples:
        _refuse_output(name, prediction, f"scores of shape [{examples}, classes]")
    count = scores.shape[1]
    if heads.classes and len(heads.classes) != count:
        raise InvalidArgumentError(
            f"The model cannot be used for classification: it gives {count} scores, and its labels are "
            f"{len(heads.classes)}"
        )
    labels = heads.classes or tuple(map(str, range(count)))
    if not heads.top_k:
        return [Ranking(labels, row) for row in scores]
    return [_highest(labels, row, heads.top_k) for row in scores]


def regress(prediction: Prediction, examples: int) -> np.ndarray:
    """The value of each example, float32 or float64 of shape (examples,). Independent of the prediction's memory.

    Raises InvalidArgumentError for outputs that are not one value an example.
    """
    signature = prediction.served.signature
    name = _head(signature, signature.heads.regression, "regression")
    values = _floats(prediction.outputs[name])
    if not values.ndim or len(values) != examples or values.size != examples:
        _refuse_output(name, prediction, f"one value for each of {examples} examples")
    return values.reshape(examples)


# ---- examples


def _features_of(signature: Signature, examples: Sequence[Example], shared: Example) -> list[str]:
    """The feature of each input, all of them there in each example. Raises InvalidArgumentError."""
    wanted = [spec.name for spec in signature.inputs]
    found = {name for name, values in shared.items() if len(values)}
    common = frozenset(found)
    for example in examples:
        found.update(example)
    if len(wanted) == 1 and len(found) == 1:
        names = list(found)
    else:
        names = wanted
    extra = sorted(found.difference(names))
    if extra:
        raise InvalidArgumentError(
            f"The features {_shown(extra)} are not inputs of the model, which are {_shown(wanted)}"
        )
    needed = [name for name in names if name not in common]
    for index, example in enumerate(examples):
        missing = [name for name in needed if not len(example.get(name, ()))]
        if missing:
            raise InvalidArgumentError(
                f"Example {index} lacks the features {_shown(missing)}; the model's inputs are {_shown(wanted)}"
            )
    return names


def _input_of(spec: TensorSpec, name: str, rows: Sequence[Feature]) -> InputTensor:
    length = len(rows[0])
    for index, row in enumerate(rows):
        if len(row) != length:
            raise InvalidArgumentError(
                f"Feature {name!r}: the examples must have equally many values; the first one has {length}, "
                f"example {index} has {len(row)}"
            )
    kinds = _kinds_of(rows)
    if kinds == {bytes}:
        return _images(name, rows, length) if spec.dtype != STRING else _strings(spec, name, rows, length)
    if not kinds <= {bool, int, float}:
        words = sorted("bytes" if kind is bytes else kind.__name__ for kind in kinds)
        raise InvalidArgumentError(
            f"Feature {name!r} must hold numbers or bytes alone, not {' and '.join(words)}"
        )
    shape = _shape_of(spec, name, len(rows), length)
    if float in kinds:
        return _numbers(name, rows, shape, "float64" if spec.dtype == "float64" else "float32")
    return _numbers(name, rows, shape, "uint64" if spec.dtype == "uint64" else "int64")


def _kinds_of(rows: Sequence[Feature]) -> set[type]:
    """The types of the values; a row that is the context's is looked at once."""
    kinds: set[type] = set()
    last: Feature | None = None
    for row in rows:
        if row is not last:
            kinds.update(map(type, row))
            last = row
    return kinds


def _strings(spec: TensorSpec, name: str, rows: Sequence[Feature], length: int) -> InputTensor:
    """Strings for a model that takes strings. Raises InvalidArgumentError, ResourceExhaustedError."""
    shape = _shape_of(spec, name, len(rows), length)
    if prod(shape) > MAX_STRINGS:
        raise ResourceExhaustedError(
            f"Feature {name!r} has {prod(shape)} strings in {len(rows)} examples, more than the {MAX_STRINGS} that an "
            "input may have"
        )
    array = np.empty(prod(shape), np.object_)
    array[:] = [value for row in rows for value in row]
    if (size := encoded_size(array)) > MAX_EXAMPLE_BYTES:
        raise ResourceExhaustedError(
            f"Feature {name!r} takes {size} bytes in {len(rows)} examples, more than the {MAX_EXAMPLE_BYTES} that an "
            "input made from examples may have"
        )
    return InputTensor(STRING, array.reshape(shape))


def _images(name: str, rows: Sequence[Feature], length: int) -> InputTensor:
    if length != 1:
        raise InvalidArgumentError(
            f"Feature {name!r}: bytes stand for an encoded image, one an example; {length} came"
        )
    array = np.empty(len(rows), np.object_)
    array[:] = [row[0] for row in rows]
    return InputTensor(STRING, array)


def _numbers(name: str, rows: Sequence[Feature], shape: tuple[int, ...], dtype: str) -> InputTensor:
    storage = STORAGE[dtype]
    if prod(shape) * storage.itemsize > MAX_EXAMPLE_BYTES:
        raise ResourceExhaustedError(
            f"Feature {name!r} takes {prod(shape) * storage.itemsize} bytes in {len(rows)} examples, more than the "
            f"{MAX_EXAMPLE_BYTES} that an input made from examples may have"
        )
    array = np.empty((len(rows), len(rows[0])), storage)
    try:
        with np.errstate(over="ignore"):
            for index, row in enumerate(rows):
                array[index] = row
    except OverflowError:
        raise InvalidArgumentError(f"Feature {name!r} holds a number that type {dtype} cannot hold") from None
    return InputTensor(dtype, array.reshape(shape))


def _shape_of(spec: TensorSpec, name: str, rows: int, length: int) -> tuple[int, ...]:
    """`rows` rows of `length` values each in the model's shape. Raises InvalidArgumentError."""
    if spec.unranked:
        return (rows, length)
    if not spec.shape:
        raise InvalidArgumentError(
            f"Input {spec.name!r} is a scalar, without a dimension for the examples: the model takes none"
        )
    rest = spec.shape[1:]
    known = prod(size for size in rest if size != DYNAMIC)
    match rest.count(DYNAMIC):
        case 0 if length == known:
            return (rows, *rest)
        case 1 if known and length % known == 0:
            return (rows, *(length // known if size == DYNAMIC else size for size in rest))
        case 0 | 1:
            raise InvalidArgumentError(
                f"Feature {name!r} has {length} values an example, which do not fill the shape {list(rest)} of a row "
                f"of input {spec.name!r}"
            )
    raise InvalidArgumentError(
        f"Input {spec.name!r} leaves several dimensions of a row open, {list(rest)}: values alone do not say its shape"
    )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{list(names[:_SHOWN])}{more}"


# ---- outputs


def _head(signature: Signature, chosen: str, use: str) -> str:
    """The output for a use; `chosen` is what the configuration says. Raises InvalidArgumentError."""
    name = _chosen_output(signature, chosen, use)
    if any(spec.name == name and spec.dtype == STRING for spec in signature.outputs):
        raise InvalidArgumentError(
            f"The model cannot be used for {use}: its output {name!r} is of type {STRING}, not of numbers"
        )
    return name


def _chosen_output(signature: Signature, chosen: str, use: str) -> str:
    names = [spec.name for spec in signature.outputs]
    if chosen:
        if chosen not in names:
            raise InvalidArgumentError(
                f"The model cannot be used for {use}: it has no output {chosen!r}, only {_shown(names)}"
            )
        return chosen
    if len(names) != 1:
        raise InvalidArgumentError(
            f"The model cannot be used for {use}: it has the outputs {_shown(names)}, and its configuration does not "
            f"say which one is meant ({use}: output)"
        )
    return names[0]


def _floats(output: OutputTensor) -> np.ndarray:
    """A copy, as float64 where the output is, else as float32."""
    array = output.array
    if output.dtype == "bfloat16":
        array = array.view(ml_dtypes.bfloat16)
    return array.astype(np.float64 if output.dtype == "float64" else np.float32)


def _highest(labels: Sequence[str], scores: np.ndarray, count: int) -> Ranking:
    """Equal scores stay in the model's order; NaN comes last."""
    order = np.argsort(-scores, kind="stable")[:count]
    return Ranking([labels[index] for index in order], scores[order])


def _refuse_output(name: str, prediction: Prediction, expected: str) -> NoReturn:
    raise InvalidArgumentError(
        f"Output {name!r} of shape {list(prediction.outputs[name].array.shape)} cannot be read as {expected}"
    )
