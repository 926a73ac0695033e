"""The demo model as it is shipped: the files in the repository, not what training would make today."""

from pathlib import Path

import numpy as np
import openvino
import pytest

from examples.digits import png, train

IMAGES = sorted(train.IMAGES.glob("*.png"))


@pytest.fixture(scope="module")
def model() -> openvino.Model:
    return openvino.Core().read_model(train.MODEL)


def classify(model: openvino.Model, path: Path) -> int:
    return int(train.classify(model, np.array([png.read(path)], np.float32))[0])


@pytest.mark.e2e
def test_interface(model: openvino.Model) -> None:
    ((image,), (probabilities,)) = model.inputs, model.outputs
    assert (image.any_name, list(image.shape)) == ("image", [1, 8, 8])
    assert (probabilities.any_name, list(probabilities.shape)) == ("probabilities", [1, 10])
    assert image.element_type == probabilities.element_type == openvino.Type.f32


@pytest.mark.e2e
def test_held_out_accuracy(model: openvino.Model) -> None:
    split = train.load_split()
    found = train.classify(model, split.test_images)
    assert float((found == split.test_labels).mean()) >= train.WANTED_ACCURACY


@pytest.mark.e2e
def test_answer_is_a_distribution(model: openvino.Model) -> None:
    answer = openvino.Core().compile_model(model, "CPU")(np.zeros((1, 8, 8), np.float32))[0]
    assert answer.sum() == pytest.approx(1)
    assert (answer >= 0).all()


@pytest.mark.e2e
def test_images_are_all_there() -> None:
    assert [path.stem for path in IMAGES] == list("0123456789")


@pytest.mark.e2e
@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_image_is_classified_as_its_name_says(model: openvino.Model, path: Path) -> None:
    assert classify(model, path) == int(path.stem)


@pytest.mark.e2e
@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_image_was_held_out(path: Path) -> None:
    image = np.array(png.read(path), np.float32)
    split = train.load_split()
    assert (split.test_images == image).all(axis=(1, 2)).any()
    assert not (split.train_images == image).all(axis=(1, 2)).any()


@pytest.mark.e2e
def test_model_is_small() -> None:
    assert sum(path.stat().st_size for path in train.MODEL.parent.iterdir()) < 100_000
