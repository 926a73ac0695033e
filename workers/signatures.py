"""What a model takes and gives, and by which names, before and after it is compiled."""

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

import workers.openvino_api as ov
from common.tensors import DYNAMIC, STRING, Heads, Signature, TensorSpec
from workers.engine import LoadError
from workers.mapping import Aliases, rename
from workers.ports import Port, Shape, Shapes
from workers.string_operations import refuse_operations_on_strings

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
    "string": STRING,
}
Ports: TypeAlias = tuple[Port, ...]

_LOOPS = {"If", "Loop", "TensorIterator"}
"""Operations whose running time depends on data."""


def refuse_unusable(model: ov.Model) -> None:
    """Raises LoadError for a model that remembers earlier requests, which here may come from anybody.

    And for one without outputs, which is what a reader makes of a file that is empty, and for one that does with
    strings what OpenVINO does not do right.
    """
    if not model.outputs:
        raise LoadError("the model has no outputs")
    refuse_operations_on_strings(model)
    variables = ov.variables(model)
    if variables:
        raise LoadError(f"the model is stateful ({variables} variables): not supported by this server")


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


def ports_of(model: ov.Model, aliases: Aliases) -> tuple[Ports, Ports]:
    """Inputs and outputs, by their aliases where they have one.

    Raises LoadError for element types that no client could send or read, and for aliases that fit no tensor.
    """
    inputs = tuple(_with_layout(_port(port, _input_name(port)), port) for port in model.inputs)
    outputs = tuple(
        _port(port, name) for port, name in zip(model.outputs, _output_names(model.outputs), strict=True)
    )
    return rename(inputs, aliases.inputs, "inputs"), rename(outputs, aliases.outputs, "outputs")


def compiled_signature(compiled: ov.CompiledModel, ports: tuple[Ports, Ports], heads: Heads) -> Signature:
    """Types and shapes of a compiled model, by the names and layouts of the model that it was compiled from.

    Not by its own: what comes out of OpenVINO's cache has lost the names of layers.
    """
    return Signature(
        tuple(_named(own, port.spec) for own, port in zip(compiled.inputs, ports[0], strict=True)),
        tuple(_named(own, port.spec) for own, port in zip(compiled.outputs, ports[1], strict=True)),
        heads,
    )


def open_signature(model: ov.Model, shapes: Shapes, ports: tuple[Ports, Ports], heads: Heads) -> Signature:
    """What a model takes and gives when its inputs have these shapes, some of whose dimensions are open.

    The model has these shapes afterwards, or, where it can take them only once they are known, its own.
    """
    inputs = tuple(
        port.spec if port.spec.unranked else port.reshaped(shape).spec
        for port, shape in zip(ports[0], shapes, strict=True)
    )
    try:
        reshape(model, {i: shapes[i] for i, port in enumerate(ports[0]) if not port.spec.unranked})
    except Exception:  # noqa: BLE001 - then nothing is known of the outputs
        unknown = tuple(TensorSpec(port.spec.name, port.spec.dtype, (), unranked=True) for port in ports[1])
        return Signature(inputs, unknown, heads)
    outputs = tuple(_named(own, port.spec) for own, port in zip(model.outputs, ports[1], strict=True))
    return Signature(inputs, outputs, heads)


def reshape(model: ov.Model, shapes: Mapping[int, Shape]) -> None:
    """Give inputs, by index, other shapes. Raises whatever OpenVINO raises, and then nothing has changed."""
    model.reshape({index: ov.PartialShape(list(shape)) for index, shape in shapes.items()})


def _port(port: ov.ConstOutput, name: str) -> Port:
    return Port(_spec(port, name), frozenset(port.names) | {port.get_node().get_friendly_name(), name})


def _with_layout(port: Port, own: ov.ConstOutput) -> Port:
    """With what the model says of its dimensions (`[N,C,H,W]`), if it has a letter for each."""
    layout = str(own.get_node().layout).strip("[]").replace(",", "")
    if port.spec.unranked or not layout.isalpha() or len(layout) != len(port.spec.shape):
        return port
    return Port(msgspec.structs.replace(port.spec, layout=layout), port.names)


def _named(own: ov.ConstOutput, known: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(_spec(own, known.name), layout=known.layout)


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
