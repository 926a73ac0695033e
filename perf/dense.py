"""A model that gains from batches: dense layers, whose weights cost more to read than to use.

`python -m perf.dense DIRECTORY` writes it in version layout, with a request of one row (`input.npy`) and OpenVINO's
own answer to that (`answer.npy`). On one core with AMX one row takes 1 ms and 16 take 3 ms.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from perf.calls import INPUT, OUTPUT

NAME = "dense-layers"
SEED = 20
FEATURES = 64
HIDDEN = 2048
LAYERS = 5
SCORES = 16


def dense() -> ov.Model:
    """Layers of HIDDEN neurons with ReLU between a [rows, FEATURES] input and [rows, SCORES] output, float32."""
    random = np.random.default_rng(SEED)
    parameter = ops.parameter([-1, FEATURES], np.float32, name=INPUT)
    parameter.output(0).set_names({INPUT})
    node, width = parameter, FEATURES
    for out in (*[HIDDEN] * LAYERS, SCORES):
        weights = random.standard_normal((width, out), np.float32) * np.float32(math.sqrt(2 / width))
        node, width = ops.relu(ops.matmul(node, ops.constant(weights), False, False)), out
    result = ops.result(node)
    result.output(0).tensor.set_names({OUTPUT})
    return ov.Model([result], [parameter], NAME)


def write(directory: Path) -> None:
    """The model, a request and its answer."""
    model = dense()
    version = directory / NAME / "1"
    version.mkdir(parents=True)
    ov.save_model(model, version / "model.xml", compress_to_fp16=False)
    request = np.random.default_rng(SEED).standard_normal((1, FEATURES), np.float32)
    answer = ov.Core().compile_model(model, "CPU")(request)[0]
    np.save(directory / NAME / "input.npy", request)
    np.save(directory / NAME / "answer.npy", answer)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m perf.dense", description="Write the dense model.")
    parser.add_argument("directory", type=Path)
    write(parser.parse_args().directory)


if __name__ == "__main__":
    main()
