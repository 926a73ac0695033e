"""What is in a version's directory and in the model there, before and after it is compiled."""

from pathlib import Path

import openvino as ov

from common.tensors import DYNAMIC, Signature, TensorSpec
from workers.engine import LoadError

_DTYPES = {
    "boolean": "bool",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "f16": "float16",
    "bf16": "bfloat16",
    "f32": "float32",
    "f64": "float64",
}
_LOOPS = {"If", "Loop", "TensorIterator"}
"""Operations whose running time depends on data."""


def find_model(path: Path) -> Path:
    """The one model in a version's directory. Raises LoadError."""
    try:
        found = sorted(file for file in path.iterdir() if file.suffix == ".xml")
    except OSError as error:
        raise LoadError(f"the version's directory cannot be read: {error.strerror}") from error
    if len(found) != 1:
        raise LoadError(f"the version's directory holds {len(found)} files *.xml instead of one")
    if not found[0].with_suffix(".bin").is_file():
        raise LoadError(f"{found[0].name} has no {found[0].stem}.bin beside it")
    return found[0]


def refuse_stateful(model: ov.Model) -> None:
    """Raises LoadError for a model that remembers earlier requests, which here may come from anybody."""
    variables = model.get_variables()
    if variables:
        raise LoadError(f"the model is stateful ({len(variables)} variables): not supported by this server")


def is_wholly_static(model: ov.Model) -> bool:
    """Whether every shape within the graph is known, so that nothing can fail on shapes or take a different course."""
    return all(
        node.get_type_name() not in _LOOPS
        and all(output.get_partial_shape().is_static for output in node.outputs())
        for node in model.get_ops()
    )


def passed_through(model: ov.Model) -> dict[int, int]:
    """Outputs that are an input as it came, by index."""
    parameters = {node.get_friendly_name(): i for i, node in enumerate(model.get_parameters())}
    sources = [result.input_value(0).get_node() for result in model.get_results()]
    return {
        index: parameters[source.get_friendly_name()]
        for index, source in enumerate(sources)
        if source.get_type_name() == "Parameter"
    }


def signature_of(compiled: ov.CompiledModel) -> Signature:
    """The ports of a compiled model. Raises LoadError for element types that no client could send or read."""
    return Signature(
        inputs=tuple(_spec(port, _input_name(port)) for port in compiled.inputs),
        outputs=tuple(
            _spec(port, name)
            for port, name in zip(compiled.outputs, _output_names(compiled.outputs), strict=True)
        ),
    )


def _spec(port: ov.ConstOutput, name: str) -> TensorSpec:
    kind = port.get_element_type().get_type_name()
    if kind not in _DTYPES:
        raise LoadError(f"tensor {name!r} is of type {kind}: not supported by this server")
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return TensorSpec(name, _DTYPES[kind], (), unranked=True)
    return TensorSpec(name, _DTYPES[kind], tuple(d.get_length() if d.is_static else DYNAMIC for d in shape))


def _input_name(port: ov.ConstOutput) -> str:
    """The layer's name where it names the tensor too, else the tensor's.

    Models of 2020 were addressed by layer names, and OpenVINO adds those to the tensor's names when it reads an IR of
    that time; a port may have further names, and a model converted today may have no name but the layer's.
    """
    layer: str = port.get_node().get_friendly_name()
    names: set[str] = port.names
    return layer if not names or layer in names else min(names)


def _output_names(ports: list[ov.ConstOutput]) -> list[str]:
    """Likewise, by the layer that produces the output; where two outputs are one tensor, by their own layers."""
    names: list[str] = []
    for port in ports:
        own = port.get_node()
        source = own.input_value(0)
        producer = source.get_node()
        layer = producer.get_friendly_name()
        if producer.get_output_size() > 1:
            layer = f"{layer}.{source.get_index()}"
        name = layer if not port.names or layer in port.names else min(port.names)
        names.append(own.get_friendly_name() if name in names else name)
    return names
