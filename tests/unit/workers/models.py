"""Models that the tests of the workers load, built on the spot for both engines."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino as ov
from openvino import opset13 as op

from common.config import ModelConfig
from workers.openvino_engine import OpenVinoEngine
from workers.openvino_model import OpenVinoModel

TYPES = {
    "bool": "boolean",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
}
"""Names of element types → OpenVINO's."""

Tensors = Sequence[tuple[str, str, Sequence[int]]]


def model_config(nireq: int = 1, **options: Any) -> ModelConfig:
    """The configuration of a model, as far as workers care for it."""
    return ModelConfig("m", "", nireq=nireq, **options)


def parameter(name: str, dtype: str, shape: Sequence[int]) -> Any:
    """An input, its tensor named."""
    node = op.parameter(ov.PartialShape(list(shape)), getattr(ov.Type, TYPES[dtype]), name=name)
    node.output(0).set_names({name})
    return node


def named(node: Any, name: str) -> Any:
    """The node with its only output named."""
    node.output(0).set_names({name})
    return node


def save(path: Path, results: Sequence[Any], parameters: Sequence[Any], **extra: Any) -> Path:
    """Write a model into a version's directory."""
    path.mkdir(parents=True, exist_ok=True)
    model = ov.Model([op.result(node) for node in results], list(parameters), "model", **extra)
    ov.save_model(model, path / "model.xml", compress_to_fp16=False)
    return path


def openvino_copies(path: Path, tensors: Tensors) -> Path:
    """Inputs in_0, in_1 … and outputs out_0, out_1 …, each a copy of the input of its index."""
    parameters = [parameter(name, dtype, shape) for name, dtype, shape in tensors]
    results = [
        # A conversion to its own type is kept as an operation by the reader, so the output is not the input itself.
        named(op.convert(node, TYPES[dtype]), f"out_{index}")
        for index, (node, (_, dtype, _)) in enumerate(zip(parameters, tensors, strict=True))
    ]
    return save(path, results, parameters)


def fake_copies(path: Path, tensors: Tensors, **behaviour: Any) -> Path:
    """The same for the fake engine."""
    outputs = [(f"out_{index}", dtype, list(shape)) for index, (_, dtype, shape) in enumerate(tensors)]
    return fake(path, [(name, dtype, list(shape)) for name, dtype, shape in tensors], outputs, **behaviour)


def fake(path: Path, inputs: Tensors, outputs: Tensors, **behaviour: Any) -> Path:
    """A fake model's directory."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.xml").write_text("fake")
    (path / "model.bin").write_text(json.dumps({"inputs": inputs, "outputs": outputs, **behaviour}))
    return path


def load_static(engine: OpenVinoEngine, path: Path, config: ModelConfig) -> OpenVinoModel:
    """For a version of which requests do not bring their shapes."""
    model = engine.load(path, config)
    assert isinstance(model, OpenVinoModel)
    return model


def relu(path: Path, shape: tuple[int, ...] = (2, 3)) -> Path:
    """What is above zero, of `x`."""
    x = parameter("x", "float32", shape)
    return save(path, [named(op.relu(x), "y")], [x])
