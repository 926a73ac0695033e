"""The model that gains from batches, and what is printed of it."""

from pathlib import Path

import numpy as np
import pytest

from perf import batching, dense
from perf.calls import Sample, load_sample
from perf.target import Target


def test_the_model_takes_rows_and_its_answer_is_openvino_s(tmp_path: Path) -> None:
    dense.write(tmp_path)
    sample = load_sample(tmp_path, dense.NAME)
    assert sample.request.shape == (1, dense.FEATURES)
    assert sample.answer.shape == (1, dense.SCORES)
    assert np.isfinite(sample.answer).all()
    assert sample.answer.any()
    assert (tmp_path / dense.NAME / "1" / "model.xml").is_file()


def variant(name: str, rates: list[float]) -> batching.Variant:
    sample = Sample(dense.NAME, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32))
    made = batching.Variant(name, 1, Target("grpc", 1, "", Path()), sample)
    made.rates, made.p50_ms, made.requests, made.cpu_ms = rates, [2.0] * 3, 100, {"worker": 50.0}
    return made


def test_ratios_are_taken_within_a_round() -> None:
    text = batching.report(variant("without", [100, 10, 50]), variant("batching", [300, 40, 100]))
    assert text.splitlines()[-1] == "batching ÷ without, by round: 3.00, 4.00, 2.00; median 3.00"
    assert text.splitlines()[0] == (
        " without:      50 req/s, p50 2.00 ms, 0 errors, CPU ms a request: 0.500 (worker 0.500)"
    )


@pytest.mark.parametrize("rows", [1, 16])
def test_the_model_takes_batches(rows: int) -> None:
    model = dense.dense()
    model.reshape([rows, dense.FEATURES])
    assert list(model.output(0).shape) == [rows, dense.SCORES]
