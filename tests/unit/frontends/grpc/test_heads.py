"""Classify, Regress and MultiInference by real messages, against the dataplane in memory."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from common.errors import (
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    UnimplementedError,
)
from common.tensors import Heads, Signature, TensorSpec
from frontends.grpc.calls import Table
from frontends.grpc.examples import MAX_EXAMPLES
from frontends.grpc.heads import CLASSIFY_METHOD, MAX_MESSAGE_BYTES, REGRESS_METHOD
from frontends.grpc.tensorflow_protos import (
    classification_pb2,
    example_pb2,
    inference_pb2,
    regression_pb2,
)
from frontends.grpc.tensorflow_serving import TensorFlowServing
from tests.support.pictures import plain
from tests.unit.frontends.fake_dataplane import FakeDataplane, FakeVersion, add_one
from tests.unit.frontends.grpc.calling import run, unary

_SERVICE = "/tensorflow.serving.PredictionService"
_CLASSIFY, _REGRESS, _MULTI = f"{_SERVICE}/Classify", f"{_SERVICE}/Regress", f"{_SERVICE}/MultiInference"
_REQUESTS = {
    _CLASSIFY: classification_pb2.ClassificationRequest,
    _REGRESS: regression_pb2.RegressionRequest,
    _MULTI: inference_pb2.MultiInferenceRequest,
}
_RESPONSES = {
    _CLASSIFY: classification_pb2.ClassificationResponse,
    _REGRESS: regression_pb2.RegressionResponse,
    _MULTI: inference_pb2.MultiInferenceResponse,
}


def _two_heads(heads: Heads, *inputs: TensorSpec) -> FakeVersion:
    """Scores x, 2x, 3x and the value of the sum of each row, x its first element."""

    def compute(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        rows = given[inputs[0].name].reshape(len(given[inputs[0].name]), -1).astype(np.float32)
        return {"scores": rows[:, :1] * np.array([1, 2, 3], np.float32), "value": rows.sum(1, keepdims=True)}

    outputs = (TensorSpec("scores", "float32", (-1, 3)), TensorSpec("value", "float32", (-1, 1)))
    return FakeVersion(Signature(inputs, outputs, heads), compute)


_HEADS = Heads("scores", ("cat", "dog", "owl"), 2, "value")
_X = TensorSpec("x", "float32", (-1, 2))


@pytest.fixture
def dataplane() -> FakeDataplane:
    """Models with heads and without."""
    return FakeDataplane(
        {
            "heads": {1: _two_heads(_HEADS, _X), 5: _two_heads(_HEADS, _X)},
            "silent": {1: _two_heads(Heads(), _X)},
            "single": {1: add_one(shape=(-1, 1))},
            "fixed": {1: add_one(shape=(1, 4))},
            "picture": {1: _two_heads(_HEADS, TensorSpec("image", "uint8", (-1, 2, 2, 3)))},
        }
    )


@pytest.fixture
def table(dataplane: FakeDataplane) -> Table:
    """The methods over them."""
    return TensorFlowServing(dataplane, 60).methods()


def _example(**features: Any) -> Any:
    example = example_pb2.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if isinstance(values[0], bytes):
            feature.bytes_list.value.extend(values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return example


def _request(path: str, model: str, *examples: Any, context: Any = None, signature: str = "") -> Any:
    request = _REQUESTS[path]()
    if path != _MULTI:
        request.model_spec.name = model
        request.model_spec.signature_name = signature
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.examples.extend(examples)
        request.input.example_list_with_context.context.CopyFrom(context)
    return request


def _tasks(request: Any, *tasks: tuple[str, str, str]) -> Any:
    for model, signature, method in tasks:
        task = request.tasks.add(method_name=method)
        task.model_spec.name = model
        task.model_spec.signature_name = signature
    return request


def _ask(table: Table, path: str, request: Any) -> Any:
    return _RESPONSES[path].FromString(run(unary(table, path, request.SerializeToString())))


def _refusal(table: Table, path: str, request: Any, kind: type[ServingError] = InvalidArgumentError) -> str:
    message = request if isinstance(request, bytes) else request.SerializeToString()
    with pytest.raises(ServingError) as caught:
        run(unary(table, path, message))
    assert type(caught.value) is kind, caught.value
    return caught.value.message


def _classes(result: Any) -> list[list[tuple[str, float]]]:
    return [[(one.label, one.score) for one in each.classes] for each in result.classifications]


def _released(dataplane: FakeDataplane) -> list[int]:
    return [prediction.released for prediction in dataplane.predictions]


# ---- what is served


def test_classify(table: Table, dataplane: FakeDataplane) -> None:
    response = _ask(
        table, _CLASSIFY, _request(_CLASSIFY, "heads", _example(x=[1.0, 0.0]), _example(x=[-1.0, 0.0]))
    )
    assert _classes(response.result) == [[("owl", 3), ("dog", 2)], [("cat", -1), ("dog", -2)]]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("heads", 5, "serving_default")
    assert _released(dataplane) == [1]


def test_classes_without_names_are_numbers_in_order(table: Table) -> None:
    response = _ask(table, _CLASSIFY, _request(_CLASSIFY, "fixed", _example(anything=[4, 3, 2, 1])))
    assert _classes(response.result) == [[("0", 5), ("1", 4), ("2", 3), ("3", 2)]]


def test_regress(table: Table, dataplane: FakeDataplane) -> None:
    response = _ask(
        table, _REGRESS, _request(_REGRESS, "heads", _example(x=[1.0, 2.0]), _example(x=[3.5, 4.0]))
    )
    assert [one.value for one in response.result.regressions] == [3, 7.5]
    assert response.model_spec.version.value == 5
    assert _released(dataplane) == [1]


def test_the_only_output_needs_no_configuration(table: Table) -> None:
    response = _ask(table, _REGRESS, _request(_REGRESS, "single", _example(feature=[41])))
    assert [one.value for one in response.result.regressions] == [42]


def test_the_context_is_merged_in(table: Table) -> None:
    request = _request(_REGRESS, "heads", _example(), _example(x=[1.0, 1.0]), context=_example(x=[9.0, 1.0]))
    assert [one.value for one in _ask(table, _REGRESS, request).result.regressions] == [10, 2]


def test_a_feature_without_values_is_none(table: Table) -> None:
    example = _example(x=[1.0, 2.0])
    example.features.feature["unset"].SetInParent()
    assert len(_ask(table, _REGRESS, _request(_REGRESS, "heads", example)).result.regressions) == 1


def test_bytes_are_encoded_images(table: Table) -> None:
    request = _request(_CLASSIFY, "picture", _example(image=[plain(5, 5, (0, 0, 7))]))
    assert _classes(_ask(table, _CLASSIFY, request).result) == [[("owl", 21), ("dog", 14)]]


def test_a_version_and_a_signature_may_be_named(table: Table) -> None:
    request = _request(_CLASSIFY, "heads", _example(x=[1.0, 0.0]), signature="classification")
    request.model_spec.version.value = 1
    spec = _ask(table, _CLASSIFY, request).model_spec
    assert (spec.version.value, spec.signature_name) == (1, "classification")


def test_multi_inference_infers_once(table: Table, dataplane: FakeDataplane) -> None:
    request = _tasks(
        _request(_MULTI, "", _example(x=[1.0, 2.0])),
        ("heads", "", CLASSIFY_METHOD),
        ("heads", "regression", REGRESS_METHOD),
    )
    response = _ask(table, _MULTI, request)
    first, second = response.results
    assert _classes(first.classification_result) == [[("owl", 3), ("dog", 2)]]
    assert [one.value for one in second.regression_result.regressions] == [3]
    assert [one.model_spec.signature_name for one in response.results] == ["serving_default", "regression"]
    assert [one.model_spec.version.value for one in response.results] == [5, 5]
    assert _released(dataplane) == [1]


def test_one_task_may_name_the_version_for_all(table: Table) -> None:
    request = _tasks(
        _request(_MULTI, "", _example(x=[1.0, 2.0])),
        ("heads", "", CLASSIFY_METHOD),
        ("heads", "regression", REGRESS_METHOD),
    )
    request.tasks[1].model_spec.version.value = 1
    assert [one.model_spec.version.value for one in _ask(table, _MULTI, request).results] == [1, 1]


# ---- what is refused


@pytest.mark.parametrize("path", [_CLASSIFY, _REGRESS])
@pytest.mark.parametrize("context", [None, _example(x=[1.0, 2.0])])
def test_no_examples_are_refused(table: Table, path: str, context: Any) -> None:
    assert "Input is empty" in _refusal(table, path, _request(path, "heads", context=context))


@pytest.mark.parametrize("path", [_CLASSIFY, _REGRESS, _MULTI])
def test_an_input_of_no_kind_is_refused(table: Table, path: str) -> None:
    request = _request(path, "heads", _example(x=[1.0, 2.0]))
    if path == _MULTI:
        _tasks(request, ("heads", "", CLASSIFY_METHOD))
    request.ClearField("input")
    assert "Input is empty" in _refusal(table, path, request)


@pytest.mark.parametrize("path", [_CLASSIFY, _REGRESS, _MULTI])
def test_bytes_that_are_no_message_are_refused(table: Table, path: str) -> None:
    good = _request(path, "heads", _example(x=[1.0, 2.0])).SerializeToString()
    assert "is not a tensorflow.serving." in _refusal(table, path, b"\xff\xff\xff")
    assert "is not a tensorflow.serving." in _refusal(table, path, good[:-1])


@pytest.mark.parametrize("path", [_CLASSIFY, _REGRESS])
def test_unknown_models_and_versions_are_not_found(table: Table, path: str) -> None:
    request = _request(path, "nobody", _example(x=[1.0, 2.0]))
    assert (
        _refusal(table, path, request, NotFoundError) == "Servable not found for request: Specific(nobody, 0)"
    )
    request = _request(path, "heads", _example(x=[1.0, 2.0]))
    request.model_spec.version.value = 77
    assert (
        _refusal(table, path, request, NotFoundError) == "Servable not found for request: Specific(heads, 77)"
    )
    request.model_spec.version_label = "canary"
    assert "canary" in _refusal(table, path, request, NotFoundError)


@pytest.mark.parametrize(
    ("path", "signature"),
    [(_CLASSIFY, "regression"), (_REGRESS, "classification"), (_CLASSIFY, "x"), (_REGRESS, "x")],
)
def test_other_signatures_are_refused_with_the_known_ones(table: Table, path: str, signature: str) -> None:
    request = _request(path, "heads", _example(x=[1.0, 2.0]), signature=signature)
    text = _refusal(table, path, request)
    assert f"{signature!r} not found" in text
    assert "'serving_default'" in text


@pytest.mark.parametrize("path", [_CLASSIFY, _REGRESS])
def test_a_model_that_cannot_be_used_so_is_refused_before_it_infers(
    table: Table, dataplane: FakeDataplane, path: str
) -> None:
    text = _refusal(table, path, _request(path, "silent", _example(x=[1.0, 2.0])))
    assert "has the outputs ['scores', 'value']" in text
    assert not dataplane.predictions


def test_outputs_that_are_no_values_are_refused_and_released(table: Table, dataplane: FakeDataplane) -> None:
    text = _refusal(table, _REGRESS, _request(_REGRESS, "fixed", _example(x=[1.0, 2.0, 3.0, 4.0])))
    assert "of shape [1, 4] cannot be read as one value" in text
    assert _released(dataplane) == [1]


@pytest.mark.parametrize(
    ("example", "text"),
    [
        (_example(), "lacks the features ['x']"),
        (_example(x=[1.0, 2.0], y=[1]), "['y'] are not inputs of the model"),
        (_example(x=[1.0]), "'x' has 1 values"),
        (_example(x=[b"picture"]), "takes no strings"),
    ],
)
def test_examples_that_do_not_fit_are_refused(table: Table, example: Any, text: str) -> None:
    assert text in _refusal(table, _CLASSIFY, _request(_CLASSIFY, "heads", example))


def test_a_batch_that_does_not_fit_is_refused(table: Table) -> None:
    request = _request(_CLASSIFY, "fixed", *[_example(x=[1.0, 2.0, 3.0, 4.0])] * 2)
    assert _refusal(table, _CLASSIFY, request) == (
        "Input batch size is incorrect. Obtained batch size 2, required batch size 1"
    )


def test_the_number_of_examples_is_bounded(table: Table) -> None:
    request = _request(_CLASSIFY, "heads", *[_example()] * (MAX_EXAMPLES + 1), context=_example(x=[1.0, 2.0]))
    assert f"{MAX_EXAMPLES} examples at the most" in _refusal(
        table, _CLASSIFY, request, ResourceExhaustedError
    )


@pytest.mark.parametrize("path", [_CLASSIFY, _REGRESS, _MULTI])
def test_the_length_of_a_message_is_bounded(table: Table, path: str) -> None:
    text = _refusal(table, path, bytes(MAX_MESSAGE_BYTES + 1), ResourceExhaustedError)
    assert str(MAX_MESSAGE_BYTES) in text


def test_errors_of_the_dataplane_are_passed_on(table: Table, dataplane: FakeDataplane) -> None:
    dataplane.failure = UnavailableError("not now")
    request = _request(_CLASSIFY, "heads", _example(x=[1.0, 2.0]))
    assert _refusal(table, _CLASSIFY, request, UnavailableError) == "not now"


@pytest.mark.parametrize(
    ("tasks", "kind", "text"),
    [
        ([], InvalidArgumentError, "at least one task"),
        ([("", "", CLASSIFY_METHOD)], InvalidArgumentError, "Found ModelSpec with an empty model name."),
        (
            [("heads", "", CLASSIFY_METHOD), ("single", "regression", REGRESS_METHOD)],
            InvalidArgumentError,
            "All ModelSpecs in a MultiInferenceRequest must access the same model name.",
        ),
        (
            [("heads", "", CLASSIFY_METHOD), ("heads", "serving_default", REGRESS_METHOD)],
            InvalidArgumentError,
            "Duplicate evaluation of signature: serving_default",
        ),
        ([("heads", "", "tensorflow/serving/predict")], UnimplementedError, "tensorflow/serving/predict"),
        ([("heads", "", "")], UnimplementedError, "Unsupported signature method_name: "),
        ([("heads", "regression", CLASSIFY_METHOD)], InvalidArgumentError, "'regression' not found"),
        ([("nobody", "", CLASSIFY_METHOD)], NotFoundError, "Specific(nobody, 0)"),
        ([("silent", "", CLASSIFY_METHOD)], InvalidArgumentError, "cannot be used for classification"),
    ],
)
def test_tasks_that_are_refused(
    table: Table, tasks: list[tuple[str, str, str]], kind: type[ServingError], text: str
) -> None:
    request = _tasks(_request(_MULTI, "", _example(x=[1.0, 2.0])), *tasks)
    assert text in _refusal(table, _MULTI, request, kind)


def test_tasks_of_different_versions_are_refused(table: Table) -> None:
    request = _tasks(
        _request(_MULTI, "", _example(x=[1.0, 2.0])),
        ("heads", "", CLASSIFY_METHOD),
        ("heads", "regression", REGRESS_METHOD),
    )
    request.tasks[0].model_spec.version.value = 1
    request.tasks[1].model_spec.version.value = 5
    assert "must access the same version" in _refusal(table, _MULTI, request)
