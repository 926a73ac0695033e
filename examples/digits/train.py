"""Trains the demo model and writes it, with some held-out images, beside this file.

    python -m examples.digits.train

The data are the 1,797 scanned digits that come with scikit-learn. A quarter of them, the same in each run, is held
out: the network never sees them, and the accuracy that is printed is measured on them. The network is dense, 64-64-10.
It is written as OpenVINO IR in version layout; the scaling of the pixels is part of the model, so that clients send the
levels 0 to 16 as they are. Running it again on the same packages gives the same files.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset13 as ops
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from examples.digits import png

HERE = Path(__file__).resolve().parent
MODEL = HERE / "model" / "1" / "digits.xml"
IMAGES = HERE / "images"
SEED = 1797
HIDDEN = 64
WANTED_ACCURACY = 0.97

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Split(NamedTuple):
    """Images are N x 8 x 8, levels 0 to 16; labels are the digits."""

    train_images: Floats
    test_images: Floats
    train_labels: Labels
    test_labels: Labels


def load_split() -> Split:
    """The data, divided into what is learned from and what is held out."""
    digits = load_digits()
    images = digits.images.astype(np.float32)
    parts = train_test_split(images, digits.target, test_size=0.25, random_state=SEED, stratify=digits.target)
    return Split(*parts)


def train(images: Floats, labels: Labels) -> MLPClassifier:
    """A network fitted to levels scaled to 0 to 1."""
    network = MLPClassifier((HIDDEN,), alpha=0.01, max_iter=500, random_state=SEED)
    return network.fit(images.reshape(len(images), -1) / png.MAX_LEVEL, labels)


def to_openvino(network: MLPClassifier) -> openvino.Model:
    """The same network as an OpenVINO model: `image` [1,8,8] in, `probabilities` [1,10] out, both float32."""
    image = ops.parameter([1, png.SIDE, png.SIDE], np.float32, name="image")
    image.output(0).get_tensor().set_names({"image"})
    scaled = ops.divide(image, ops.constant(np.float32(png.MAX_LEVEL)))
    node: Any = ops.reshape(scaled, ops.constant(np.array([1, png.SIDE**2])), False)
    last = len(network.coefs_) - 1
    for layer, (weights, bias) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        product = ops.matmul(node, ops.constant(weights.astype(np.float32)), False, False)
        node = ops.add(product, ops.constant(bias.astype(np.float32)[None]))
        if layer < last:
            node = ops.relu(node)
    probabilities = ops.softmax(node, 1)
    probabilities.output(0).get_tensor().set_names({"probabilities"})
    return openvino.Model([ops.result(probabilities)], [image], "digits")


def classify(model: openvino.Model, images: Floats) -> Labels:
    """The digit that the model finds most probable, for each of N x 8 x 8 images."""
    compiled = openvino.Core().compile_model(model, "CPU")
    return np.array([compiled(image[None])[0].argmax() for image in images])


def write_images(split: Split, found: Labels) -> None:
    """One held-out image a digit: the first that the model reads rightly, so that the demo is no lottery."""
    IMAGES.mkdir(exist_ok=True)
    for digit in range(10):
        right = np.flatnonzero((split.test_labels == digit) & (found == digit))
        png.write(IMAGES / f"{digit}.png", split.test_images[right[0]].astype(int).tolist())


def main() -> int:
    """Train, write, and say how good it is; 1 if it is not good enough to be shipped."""
    split = load_split()
    model = to_openvino(train(split.train_images, split.train_labels))
    found = classify(model, split.test_images)
    accuracy = float((found == split.test_labels).mean())
    print(f"held-out accuracy {accuracy:.4f} ({len(found)} images, {len(split.train_labels)} trained on)")
    if accuracy < WANTED_ACCURACY:
        print(f"below {WANTED_ACCURACY}: nothing written", file=sys.stderr)
        return 1
    MODEL.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(model, MODEL, compress_to_fp16=False)
    write_images(split, found)
    print(f"wrote {MODEL.relative_to(HERE)}, {MODEL.with_suffix('.bin').relative_to(HERE)} and 10 images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
