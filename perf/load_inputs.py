"""The inputs that `perf.load` sends: as the model's metadata describes them, of random numbers or from files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frontends.grpc.tensorflow_protos import types_pb2

DTYPES: dict[str, type[np.generic]] = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_HALF": np.float16,
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT16": np.uint16,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
    "DT_BOOL": np.bool_,
}
SIGNATURE = "serving_default"
_SEED = 20


class UnusableError(RuntimeError):
    """The load cannot begin; the text says what to do."""


@dataclass(frozen=True)
class Input:
    """What the metadata says of an input."""

    dtype: str
    """As tensorflow.DataType calls it."""
    shape: tuple[int, ...] | None
    """-1: any; None: of any rank."""


def from_signature(definition: Any) -> dict[str, Input]:
    """Of a tensorflow.SignatureDef."""
    return {
        name: Input(
            types_pb2.DataType.Name(info.dtype),
            None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in definition.inputs.items()
    }


def from_json(metadata: Any) -> dict[str, Input]:
    """Of the REST API's answer, in whose names servers differ: signature_def or signatureDef. Raises UnusableError."""
    try:
        definitions = _either(_either(metadata["metadata"], "signature_def"), "signature_def")
        return {name: _input(info) for name, info in definitions[SIGNATURE]["inputs"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableError(f"the server's metadata cannot be read: {error!r}") from error


def _input(info: Any) -> Input:
    shape = _either(info, "tensor_shape", {})
    dims = tuple(int(dim["size"]) for dim in shape.get("dim", []))
    return Input(info["dtype"], None if _either(shape, "unknown_rank", False) else dims)


def _either(found: Any, name: str, default: Any = None) -> Any:
    """What has this name, or the same in protobuf's JSON form (`aName`). Raises KeyError where there is no default."""
    first, *others = name.split("_")
    camel = first + "".join(word.capitalize() for word in others)
    key = name if name in found or camel not in found else camel
    return found[key] if default is None else found.get(key, default)


def arrays(
    inputs: Mapping[str, Input], files: Mapping[str, Path], batch: int | None
) -> dict[str, np.ndarray]:
    """An array for each input. `batch` replaces the first dimension of the random ones. Raises UnusableError."""
    unknown = [name for name in files if name not in inputs]
    if unknown:
        raise UnusableError(f"the model has no input {unknown[0]!r}; it has {', '.join(sorted(inputs))}")
    random = np.random.default_rng(_SEED)
    return {
        name: _load(name, files[name], each) if name in files else _random(name, each, batch, random)
        for name, each in inputs.items()
    }


def _dtype(name: str, described: Input) -> type[np.generic]:
    if described.dtype not in DTYPES:
        raise UnusableError(f"input {name!r} is of type {described.dtype}, of which no load can be made")
    return DTYPES[described.dtype]


def _load(name: str, path: Path, described: Input) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UnusableError(f"--input {name}={path}: {error}") from error
    return np.ascontiguousarray(array, _dtype(name, described))


def _random(name: str, described: Input, batch: int | None, random: np.random.Generator) -> np.ndarray:
    """Numbers from 0 to 1, of eight bits from 0 to 255; of integers 0 and 1, which are valid indices too."""
    dtype = np.dtype(_dtype(name, described))
    if described.shape is None or -1 in described.shape[1:]:
        shape = "any rank" if described.shape is None else f"shape {list(described.shape)}"
        raise UnusableError(f"input {name!r} is of {shape}: say which, with --input {name}=FILE.npy")
    shape_ = described.shape
    if shape_ and (batch is not None or shape_[0] == -1):
        shape_ = (batch or 1, *shape_[1:])
    if dtype.kind == "f":
        return np.array(random.random(shape_).round(4), dtype)
    return np.array(random.integers(0, 256 if dtype == np.uint8 else 2, shape_), dtype)
