"""The models that are measured, built with OpenVINO's opset and seeded random weights.

The topologies are the published ones, so that the work a request costs is right; what the networks answer means
nothing. Batch normalization is folded into the convolutions, as every converter for inference does.

Run as a process (`python -m perf.models DIRECTORY NAME …`), so that the one that measures never loads OpenVINO.
It writes each model in version layout, its request (`input.npy`) and the answer of OpenVINO called directly
(`answer.npy`).
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset1
from openvino import opset13 as ops

INPUT = "input"
OUTPUT = "output"
SEED = 20
IMAGE_SHAPE = (1, 3, 224, 224)
CLASSES = 1000
LARGE_FLOATS = 4 << 20
"""16 MiB of float32."""

Floats = npt.NDArray[np.float32]


class _Builder:
    """Adds layers with random weights drawn in order from one seed."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(SEED)

    def _weights(self, shape: tuple[int, ...], fan_in: int, gain: float) -> Floats:
        return (self._random.standard_normal(shape, np.float32) * math.sqrt(2 * gain / fan_in)).astype(
            np.float32
        )

    def conv(
        self, node: ov.Node, out: int, kernel: int, stride: int = 1, pad: int = 0, gain: float = 1.0
    ) -> ov.Node:
        """Convolution and bias. `gain` scales the variance of what it adds to a sum, so that depth does not."""
        channels = node.get_output_shape(0)[1]
        fan_in = channels * kernel * kernel
        weights = ops.constant(self._weights((out, channels, kernel, kernel), fan_in, gain))
        pads = [pad, pad]
        convolution = ops.convolution(node, weights, [stride, stride], pads, pads, [1, 1])
        return ops.add(convolution, ops.constant(self._weights((1, out, 1, 1), out, gain)))

    def dense(self, node: ov.Node, out: int) -> ov.Node:
        """Fully connected layer and bias."""
        features = node.get_output_shape(0)[1]
        weights = ops.constant(self._weights((features, out), features, 1.0))
        return ops.add(
            ops.matmul(node, weights, False, False), ops.constant(self._weights((1, out), out, 1.0))
        )


def _max_pool(node: ov.Node, pad: int, rounding: str) -> ov.Node:
    return opset1.max_pool(
        node, [2, 2], [pad, pad], [pad, pad], [3, 3], rounding
    )  # later ones have two outputs


def _model(name: str, parameter: ov.Node, result: ov.Node) -> ov.Model:
    parameter.output(0).tensor.set_names({INPUT})
    result.output(0).tensor.set_names({OUTPUT})
    return ov.Model([result], [parameter], name)


def _parameter(shape: tuple[int, ...]) -> ov.Node:
    return ops.parameter(list(shape), np.float32, name=INPUT)


def tiny() -> ov.Model:
    """1×10 floats, x + 1: nothing but the cost of the way."""
    parameter = _parameter((1, 10))
    return _model("tiny", parameter, ops.add(parameter, ops.constant(np.ones((1, 1), np.float32))))


def large() -> ov.Model:
    """16 MiB in and out, x + 1: nothing but the cost of moving large tensors."""
    parameter = _parameter((1, LARGE_FLOATS))
    return _model("large", parameter, ops.add(parameter, ops.constant(np.ones((1, 1), np.float32))))


def squeezenet() -> ov.Model:
    """SqueezeNet 1.1: Iandola et al., arXiv:1602.07360, and its authors' later release 1.1."""
    build = _Builder()

    def fire(node: ov.Node, squeeze: int, expand: int) -> ov.Node:
        squeezed = ops.relu(build.conv(node, squeeze, 1))
        small = ops.relu(build.conv(squeezed, expand, 1))
        large = ops.relu(build.conv(squeezed, expand, 3, pad=1))
        return ops.concat([small, large], 1)

    parameter = _parameter(IMAGE_SHAPE)
    node = ops.relu(build.conv(parameter, 64, 3, stride=2))
    for group in (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256))):
        node = _max_pool(node, 0, "ceil")
        for squeeze, expand in group:
            node = fire(node, squeeze, expand)
    node = ops.relu(build.conv(node, CLASSES, 1))
    node = ops.reduce_mean(node, ops.constant([2, 3]), keep_dims=False)
    return _model("squeezenet", parameter, ops.softmax(node, 1))


def resnet50() -> ov.Model:
    """ResNet-50: He et al., arXiv:1512.03385, table 1; the stride is in the 3×3 layer (the usual "v1.5")."""
    build = _Builder()

    def bottleneck(node: ov.Node, width: int, stride: int) -> ov.Node:
        out = 4 * width
        branch = ops.relu(build.conv(node, width, 1))
        branch = ops.relu(build.conv(branch, width, 3, stride, pad=1))
        branch = build.conv(branch, out, 1, gain=0.1)
        same = stride == 1 and node.get_output_shape(0)[1] == out
        return ops.relu(ops.add(branch, node if same else build.conv(node, out, 1, stride, gain=0.5)))

    parameter = _parameter(IMAGE_SHAPE)
    node = _max_pool(ops.relu(build.conv(parameter, 64, 7, stride=2, pad=3)), 1, "floor")
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            node = bottleneck(node, width, 2 if stage and not block else 1)
    node = ops.reduce_mean(node, ops.constant([2, 3]), keep_dims=False)
    return _model("resnet50", parameter, ops.softmax(build.dense(node, CLASSES), 1))


BUILDERS: dict[str, Callable[[], ov.Model]] = {
    "tiny": tiny,
    "squeezenet": squeezenet,
    "resnet50": resnet50,
    "large": large,
}


def multiply_accumulates(model: ov.Model) -> int:
    """Multiply-accumulate operations of one inference, of convolutions and matrix products alone, as papers count."""
    total = 0
    for node in model.get_ops():
        if node.get_type_name() == "Convolution":
            total += math.prod(node.get_output_shape(0)) * math.prod(node.get_input_shape(1)[1:])
        elif node.get_type_name() == "MatMul":
            total += math.prod(node.get_output_shape(0)) * node.get_input_shape(0)[-1]
    return total


def parameters(model: ov.Model) -> int:
    """Elements of all floating-point constants."""
    constants = (node for node in model.get_ops() if node.get_type_name() == "Constant")
    return sum(
        math.prod(node.get_output_shape(0))
        for node in constants
        if node.get_output_element_type(0) == ov.Type.f32
    )


def sample_input(shape: tuple[int, ...]) -> Floats:
    """A request: numbers from 0 to 1 of four decimals, so that JSON is neither absurdly short nor long."""
    return np.round(np.random.default_rng(SEED).random(shape, np.float32), 4).astype(np.float32)


def write(name: str, directory: Path) -> None:
    """Build one model and write it, its request and its answer under `directory/name`."""
    model = BUILDERS[name]()
    base = directory / name
    (base / "1").mkdir(parents=True)
    ov.save_model(model, base / "1" / f"{name}.xml", compress_to_fp16=False)
    request = sample_input(tuple(model.inputs[0].shape))
    answer = ov.Core().compile_model(model, "CPU")(request)[0]
    np.save(base / "input.npy", request)
    np.save(base / "answer.npy", answer)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description="write the models that are measured")
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="+", choices=list(BUILDERS))
    arguments = parser.parse_args()
    for name in arguments.names:
        write(name, arguments.directory)


if __name__ == "__main__":
    main()
