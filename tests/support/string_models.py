"""OpenVINO models that take and give strings, and what OpenVINO itself answers.

shout       y: the strings of x, each byte of which is one higher
weigh       total: the lengths of strings x plus numbers n, both of one shape; x itself is an output too
judge       of strings x [N, 1]: scores [N, 2], their length and its negative, and value [N, 1], their length
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset15 as op

from tests.unit.workers.models import named, save


def strings_of(values: Sequence[bytes], shape: tuple[int, ...] | None = None) -> np.ndarray:
    """An array of `bytes` objects."""
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array.reshape((len(values),) if shape is None else shape)


def text(name: str, shape: Sequence[int]) -> Any:
    """An input of strings."""
    return named(op.parameter(ov.PartialShape(list(shape)), ov.Type.string, name=name), name)


def shout(path: Path, shape: Sequence[int] = (-1,), output: str = "y") -> Path:
    """Write it into a version's directory."""
    x = text("x", shape)
    parts = op.string_tensor_unpack(x)
    higher = op.convert(op.add(op.convert(parts.output(2), "i32"), op.constant(np.int32(1))), "u8")
    return save(path, [named(op.string_tensor_pack(parts.output(0), parts.output(1), higher), output)], [x])


def shouted(values: Sequence[bytes]) -> list[bytes]:
    """What `shout` makes of them."""
    return [bytes((byte + 1) % 256 for byte in value) for value in values]


def weigh(path: Path, shape: Sequence[int] = (-1, 2)) -> Path:
    """Likewise."""
    x, n = text("x", shape), named(op.parameter(ov.PartialShape(list(shape)), ov.Type.f32, name="n"), "n")
    return save(path, [named(op.add(_lengths(x), n), "total"), x], [x, n])


def judge(path: Path) -> Path:
    """Likewise."""
    x = text("x", (-1, 1))
    value = _lengths(x)
    scores = op.concat([value, op.negative(value)], 1)
    return save(path, [named(scores, "scores"), named(op.abs(value), "value")], [x])


def _lengths(x: Any) -> Any:
    parts = op.string_tensor_unpack(x)
    return op.convert(op.subtract(parts.output(1), parts.output(0)), "f32")


def infer(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What OpenVINO, called directly, answers, as lists; of strings without zeros at the end."""
    core = ov.Core()
    request = core.compile_model(core.read_model(path / "model.xml"), "CPU").create_infer_request()
    kept = []
    for port in request.get_compiled_model().inputs:
        array = inputs[port.get_any_name()]
        tensor = ov.Tensor(array.reshape(-1).tolist() if array.dtype == np.object_ else array)
        tensor.shape = list(array.shape)
        request.set_tensor(port, tensor)
        kept.append((array, tensor))
    request.start_async(share_inputs=True)
    request.wait()
    answer = {}
    for port in request.get_compiled_model().outputs:
        found = request.get_tensor(port)
        data = found.bytes_data if port.get_element_type() == ov.Type.string else found.data
        answer[port.get_any_name()] = data.tolist()
    return answer
