"""The networks are of the published size; requests and weights are the same every time."""

from pathlib import Path

import numpy as np
import pytest

from perf import models

PUBLISHED = {
    # multiply-accumulates and parameters
    "resnet50": (4.1e9, 25.6e6),
    "squeezenet": (0.35e9, 1.24e6),
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_work_and_size_are_those_of_the_papers(name: str, published: tuple[float, float]) -> None:
    model = models.BUILDERS[name]()
    work, size = published
    assert models.multiply_accumulates(model) == pytest.approx(work, rel=0.10)
    assert models.parameters(model) == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("tiny", ([1, 10], [1, 10])),
        ("squeezenet", ([1, 3, 224, 224], [1, 1000])),
        ("resnet50", ([1, 3, 224, 224], [1, 1000])),
        ("large", ([1, 4 * 1024 * 1024], [1, 4 * 1024 * 1024])),
    ],
)
def test_shapes_and_names(name: str, shapes: tuple[list[int], list[int]]) -> None:
    model = models.BUILDERS[name]()
    assert [list(port.shape) for port in (*model.inputs, *model.outputs)] == list(shapes)
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == [models.INPUT, models.OUTPUT]


def test_large_input_is_sixteen_mebibytes() -> None:
    assert models.sample_input((1, models.LARGE_FLOATS)).nbytes == 16 << 20


def test_a_written_model_comes_with_its_request_and_answer(tmp_path: Path) -> None:
    models.write("tiny", tmp_path)
    request, answer = np.load(tmp_path / "tiny" / "input.npy"), np.load(tmp_path / "tiny" / "answer.npy")
    np.testing.assert_allclose(answer, request + 1)
    assert sorted(path.name for path in (tmp_path / "tiny" / "1").iterdir()) == ["tiny.bin", "tiny.xml"]


def test_weights_are_the_same_every_time(tmp_path: Path) -> None:
    models.write("squeezenet", tmp_path / "first")
    models.write("squeezenet", tmp_path / "second")
    first, second = (tmp_path / each / "squeezenet" for each in ("first", "second"))
    assert (first / "1/squeezenet.bin").read_bytes() == (second / "1/squeezenet.bin").read_bytes()
    answer = np.load(first / "answer.npy")
    assert np.isfinite(answer).all()
    assert len(np.unique(answer)) > 100  # neither saturated nor dead


def test_multiply_accumulates_of_one_product() -> None:
    assert models.multiply_accumulates(models.tiny()) == 0
