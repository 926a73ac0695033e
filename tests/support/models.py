"""Models that the tests of the whole server load.

    echo        fake: output y is input x; an input `command` may tell it to fail, to sleep, to die
    add         OpenVINO: y = x + number
    rigid       OpenVINO: y = x + 1, of one shape alone

Every answer can be held against its request, so that no request can be answered with another's answer unseen.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from tests.unit.workers.models import fake, named, parameter, save
from workers.fake_engine import CRASH, ECHO, FAIL, HANG, SLEEP

__all__ = ["CRASH", "FAIL", "HANG", "SLEEP"]

STATIC = (1, 16)
DYNAMIC = (-1, -1)


def echo(
    base: Path,
    version: int = 1,
    shape: Sequence[int] = DYNAMIC,
    *,
    commands: bool = False,
    dtype: str = "float32",
    **behaviour: object,
) -> Path:
    """Write a version of the fake model; the base path. With `commands` it has the inputs that tell it what to do."""
    inputs = [("x", dtype, list(shape))]
    if commands:
        inputs += [("command", "int32", [1]), ("argument", "int32", [1])]
    fake(base / str(version), inputs, [("y", dtype, list(shape))], **behaviour)
    return base


def commanded(command: int, value: float = 0.0, argument: int = 0) -> dict[str, np.ndarray]:
    """Inputs of an `echo` with commands; x is this one number."""
    return {"x": np.array([[value]], np.float32), **_words(command, argument)}


def _words(command: int, argument: int) -> dict[str, np.ndarray]:
    return {"command": np.array([command], np.int32), "argument": np.array([argument], np.int32)}


NO_COMMAND = _words(ECHO, 0)
"""What goes with an x that is to be echoed."""


def add(base: Path, version: int = 1, shape: Sequence[int] = DYNAMIC, number: float = 1.0) -> Path:
    """Write a version of an OpenVINO model, y = x + number in float32; the base path."""
    x = parameter("x", "float32", shape)
    save(base / str(version), [named(ops.add(x, ops.constant(np.float32(number))), "y")], [x])
    return base


def rigid(base: Path, version: int = 1) -> Path:
    """Write a version of an OpenVINO model, y = x + 1 in float32, that takes no shape but STATIC; the base path."""
    x = parameter("x", "float32", STATIC)
    # Of a matrix product the inner dimension must fit.
    product = ops.matmul(x, ops.constant(np.eye(STATIC[1], dtype=np.float32)), False, False)
    y = ops.add(product, ops.constant(np.float32(1.0)))
    save(base / str(version), [named(y, "y")], [x])
    return base


def corrupt(base: Path, version: int) -> Path:
    """Write a version that looks like a model and is none; the base path."""
    directory = base / str(version)
    directory.mkdir(parents=True)
    (directory / "model.xml").write_text("<net this is no model")
    (directory / "model.bin").write_bytes(b"")
    return base


def appear(base: Path, version: int, source: Path) -> None:
    """A version comes as careful operators let it come: under another name, then renamed. `source` is its directory."""
    staged = base / f"staged-{version}"
    staged.mkdir()
    for file in sorted(source.iterdir()):
        (staged / file.name).write_bytes(file.read_bytes())
    staged.rename(base / str(version))


def infer(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What OpenVINO, called directly, answers; `path` is a version's directory. bfloat16 is the uint16 of its bits."""
    core = ov.Core()
    compiled = core.compile_model(core.read_model(path / "model.xml"), "CPU")
    request = compiled.create_infer_request()
    # Held until the end: a tensor that was set does not keep its memory alive.
    arrays = {name: np.array(array, order="C") for name, array in inputs.items()}
    for port in compiled.inputs:
        array = arrays[port.get_any_name()]
        request.set_tensor(port, ov.Tensor(array, list(array.shape), port.get_element_type()))
    request.infer()
    answer = {}
    for port in compiled.outputs:
        data = np.array(request.get_tensor(port).data)
        answer[port.get_any_name()] = (
            data.view(np.uint16) if port.get_element_type() == ov.Type.bf16 else data
        )
    return answer
