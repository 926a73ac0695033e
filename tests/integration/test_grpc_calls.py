"""Classify, Regress, MultiInference and images against a whole server; what is bad about them harms nobody."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from frontends.grpc.heads import CLASSIFY_METHOD, REGRESS_METHOD
from frontends.grpc.tensorflow_protos import (
    classification_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
    types_pb2,
)
from frontends.grpc.wire import shape_proto
from tests.support.clients import GrpcClient, refusal, to_array
from tests.support.pictures import bomb_png, claiming_png, plain
from tests.support.repositories import ConfigServer
from tests.unit.workers.models import fake, named, parameter, save

pytestmark = pytest.mark.integration

INVALID = grpc.StatusCode.INVALID_ARGUMENT
_LARGE = plain(5000, 5000, kind="JPEG")
"""A fraction of a megabyte that takes a tenth of a second to decode."""
_KB_OF_A_BOMB = 150_000
"""Less than any of the bombs here would come to (400 MB as grey pixels), more than a frontend grows by itself."""


def _two_heads(path: Path) -> str:
    """Fake: scores are the input a, values the input b."""
    tensors = [("a", "float32", [-1, 3]), ("b", "float32", [-1, 1])]
    outputs = [("scores", "float32", [-1, 3]), ("value", "float32", [-1, 1])]
    version = fake(path / "1", tensors, outputs)
    (version / "labels.txt").write_text("cat\ndog\nowl\n")
    return str(path)


def _mean_colour(path: Path) -> str:
    """OpenVINO: the mean of each channel of images of 3 by 3 pixels; by its shape alone it could be NCHW, too."""
    x = parameter("image", "float32", (-1, 3, 3, 3))
    x.set_layout(ov.Layout("NHWC"))
    save(path / "1", [named(op.reduce_mean(x, np.array([1, 2])), "means")], [x])
    (path / "1" / "colours.txt").write_text("blue\ngreen\nred\n")
    return str(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfigServer]:
    """Both models; the same processes serve to the end."""
    directory = tmp_path_factory.mktemp("calls")
    entries: dict[str, dict[str, Any]] = {
        "heads": {
            "base_path": _two_heads(directory / "heads"),
            "classification": {"output": "scores", "top_k": 2},
            "regression": {"output": "value"},
        },
        "silent": {"base_path": _two_heads(directory / "silent")},
        "colours": {
            "base_path": _mean_colour(directory / "colours"),
            "target_device": "CPU",
            "classification": {"labels": "colours.txt", "top_k": 1},
        },
    }
    with ConfigServer(directory, entries, rest=False) as started:
        family = {(one.pid, one.kind) for one in started.processes()}
        yield started
        assert {(one.pid, one.kind) for one in started.processes()} == family
        assert "Traceback" not in started.log()


@pytest.fixture
def client(server: ConfigServer) -> Iterator[GrpcClient]:
    """After each test the same connection must still serve."""
    with GrpcClient(server.grpc_port) as opened:
        yield opened
        assert _labels(opened.stub.Classify(_classification("heads", a=[[1, 3, 2]], b=[[0]]))) == [
            ["dog", "owl"]
        ]
    server.wait_idle()


def _add_examples(target: Any, **rows: list[Any]) -> None:
    for index in range(len(next(iter(rows.values()), []))):
        features = target.examples.add().features
        for name, values in rows.items():
            if isinstance(values[index], bytes):
                features.feature[name].bytes_list.value.append(values[index])
            else:
                features.feature[name].float_list.value.extend(values[index])


def _classification(model: str, **rows: list[Any]) -> Any:
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = model
    _add_examples(request.input.example_list, **rows)
    return request


def _labels(answer: Any) -> list[list[str]]:
    return [[one.label for one in each.classes] for each in answer.result.classifications]


def _images(*images: bytes, model: str = "colours") -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["image"]
    tensor.dtype = types_pb2.DT_STRING
    tensor.tensor_shape.CopyFrom(shape_proto((len(images),)))
    tensor.string_val.extend(images)
    return request


# ---- what is served


def test_regress_with_a_context(client: GrpcClient) -> None:
    request = regression_pb2.RegressionRequest()
    request.model_spec.name = "heads"
    listed = request.input.example_list_with_context
    _add_examples(listed, b=[[1.5], [2.5]])
    listed.context.features.feature["a"].float_list.value.extend([1, 2, 3])
    answer = client.stub.Regress(request)
    assert [one.value for one in answer.result.regressions] == [1.5, 2.5]
    assert answer.model_spec.version.value == 1


def test_multi_inference(client: GrpcClient) -> None:
    request = inference_pb2.MultiInferenceRequest()
    for name, method in (("classification", CLASSIFY_METHOD), ("regression", REGRESS_METHOD)):
        task = request.tasks.add(method_name=method)
        task.model_spec.name, task.model_spec.signature_name = "heads", name
    _add_examples(request.input.example_list, a=[[5, 6, 7]], b=[[8]])
    first, second = client.stub.MultiInference(request).results
    assert [(one.label, one.score) for one in first.classification_result.classifications[0].classes] == [
        ("owl", 7),
        ("dog", 6),
    ]
    assert second.regression_result.regressions[0].value == 8


def test_images_by_the_models_own_layout(client: GrpcClient) -> None:
    pictures = [plain(50, 40, (1, 2, 3)), plain(3, 3, (250, 100, 50), "JPEG")]
    means = to_array(client.stub.Predict(_images(*pictures)).outputs["means"])
    np.testing.assert_allclose(means[0], [3, 2, 1])
    np.testing.assert_allclose(means[1], [50, 100, 250], atol=3)


def test_images_in_examples(client: GrpcClient) -> None:
    request = _classification(
        "colours", **{"image/encoded": [plain(9, 9, (255, 0, 0)), plain(9, 9, (0, 0, 255))]}
    )
    assert _labels(client.stub.Classify(request)) == [["red"], ["blue"]]


def test_many_large_images_do_not_hold_up_others(client: GrpcClient) -> None:
    """While large images are decoded, small requests are answered: the last of these before the first of those."""
    large = client.stub.Predict.future(_images(*[_LARGE] * 16))
    for _ in range(5):
        client.stub.Classify(_classification("heads", a=[[1, 2, 3]], b=[[0]]))
    assert not large.done()
    assert to_array(large.result().outputs["means"]).shape == (16, 3)


def test_a_cancelled_request_stops_decoding(client: GrpcClient) -> None:
    large = client.stub.Predict.future(_images(*[_LARGE] * 64))
    client.stub.Classify(_classification("heads", a=[[1, 2, 3]], b=[[0]]))
    large.cancel()
    assert large.cancelled()
    assert to_array(client.stub.Predict(_images(plain(3, 3)), timeout=5).outputs["means"]).shape == (1, 3)


# ---- what is refused


def test_bad_images(client: GrpcClient, server: ConfigServer) -> None:
    before = _resident_kb(server)
    cut = plain(64, 64, kind="JPEG")[:200]
    for picture, text in (
        (b"", "neither a JPEG nor a PNG"),
        (os.urandom(1000), "neither a JPEG nor a PNG"),
        (cut, "cannot be decoded"),
        (claiming_png(20_000, 20_000), "at the most, got 20000×20000"),
        (bomb_png(20_000, 20_000), "at the most, got 20000×20000"),
    ):
        assert refusal(client.stub.Predict, _images(plain(3, 3), picture))[0] is INVALID
        assert text in refusal(client.stub.Predict, _images(picture))[1]
        assert refusal(client.stub.Classify, _classification("colours", image=[picture]))[0] is INVALID
    assert _resident_kb(server) - before < _KB_OF_A_BOMB
    assert to_array(client.stub.Predict(_images(plain(1, 1, (7, 8, 9)))).outputs["means"]).tolist() == [
        [9, 8, 7]
    ]


def _resident_kb(server: ConfigServer) -> int:
    """The most that the gRPC frontend has ever had in memory."""
    status = Path(f"/proc/{server.pid('grpc')}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def test_bad_examples(client: GrpcClient) -> None:
    for request, text in (
        (_classification("heads"), "Input is empty"),
        (_classification("heads", a=[[1, 2, 3]]), "lacks the features ['b']"),
        (_classification("heads", a=[[1, 2]], b=[[1]]), "'a' has 2 values"),
        (_classification("heads", a=[[1, 2, 3]], b=[[1]], c=[[1]]), "['c'] are not inputs"),
        (_classification("silent", a=[[1, 2, 3]], b=[[1]]), "cannot be used for classification"),
        (_classification("heads", a=[b"image"], b=[[1]]), "takes no strings"),
    ):
        code, said = refusal(client.stub.Classify, request)
        assert code is INVALID
        assert text in said


def test_bytes_that_are_no_message(client: GrpcClient) -> None:
    for method in ("Classify", "Regress", "MultiInference"):
        call: Any = client.channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}")
        for message in (b"\xff" * 50, os.urandom(200) + b"\xff"):
            assert refusal(call, message)[0] in (INVALID, grpc.StatusCode.NOT_FOUND)
