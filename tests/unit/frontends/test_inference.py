"""frontends.inference: examples to inputs, outputs to classes and values."""

from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgumentError, ResourceExhaustedError
from common.messages import VersionId
from common.tensors import Heads, Signature, TensorSpec
from frontends.inference import (
    Example,
    check_classifiable,
    check_regressable,
    classify,
    read_examples,
    regress,
)
from frontends.interface import STRING, OutputTensor, Served


def _takes(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, ())


_ROW = _takes(TensorSpec("data", "float32", (-1, 2)))
_TWO = _takes(TensorSpec("a", "float32", (-1, 2)), TensorSpec("b", "int32", (-1,)))


def _refusal(signature: Signature, examples: list[Example], context: Example | None = None) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        read_examples(signature, examples, context)
    return caught.value.message


# ---- examples


def test_a_feature_is_a_row_of_the_input_of_its_name() -> None:
    inputs = read_examples(_TWO, [{"a": [1.0, 2.0], "b": [3]}, {"b": [6], "a": [4.0, 5.0]}])
    assert inputs["a"].dtype == "float32"
    assert inputs["a"].array.tolist() == [[1, 2], [4, 5]]
    assert inputs["b"].dtype == "int64"
    assert inputs["b"].array.tolist() == [3, 6]


def test_the_only_feature_is_the_only_input_whatever_its_name() -> None:
    assert read_examples(_ROW, [{"anything": [1.0, 2.0]}])["data"].array.tolist() == [[1, 2]]
    assert read_examples(_ROW, [{}], {"anything": [1.0, 2.0]})["data"].array.tolist() == [[1, 2]]


def test_the_context_is_part_of_each_example_and_yields_to_it() -> None:
    examples: list[Example] = [{"b": [1]}, {"b": [2], "a": [9.0, 9.0]}, {"b": [3], "a": []}]
    inputs = read_examples(_TWO, examples, {"a": [0.0, 0.5], "b": [7]})
    assert inputs["a"].array.tolist() == [[0, 0.5], [9, 9], [0, 0.5]]
    assert inputs["b"].array.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("shape", "values", "expected"),
    [
        ((-1, 2, 3), 6, (2, 2, 3)),
        ((2, 6), 6, (2, 6)),
        ((-1,), 1, (2,)),
        ((-1, 1, 1), 1, (2, 1, 1)),
        ((-1, -1), 5, (2, 5)),
        ((-1, 2, -1, 1), 6, (2, 2, 3, 1)),
        ((-1, 0), 0, (2, 0)),
    ],
)
def test_values_fill_the_shape(shape: tuple[int, ...], values: int, expected: tuple[int, ...]) -> None:
    examples: list[Example] = [{"data": [float(row)] * values, "other": [1]} for row in range(2)]
    signature = _takes(TensorSpec("data", "float32", shape), TensorSpec("other", "int64", (-1,)))
    if not values:
        assert "lacks the features ['data']" in _refusal(signature, examples)
        return
    assert read_examples(signature, examples)["data"].array.shape == expected


def test_an_input_of_unknown_rank_takes_rows() -> None:
    signature = _takes(TensorSpec("data", "float32", (), unranked=True))
    assert read_examples(signature, [{"data": [1.0, 2.0, 3.0]}])["data"].array.shape == (1, 3)


@pytest.mark.parametrize(
    ("model", "values", "dtype"),
    [
        ("float32", [1.5], "float32"),
        ("float64", [0.1], "float64"),
        ("float16", [1, 2.5], "float32"),
        ("float32", [1], "int64"),
        ("int32", [-1], "int64"),
        ("uint64", [2**64 - 1], "uint64"),
        ("int64", [-(2**63)], "int64"),
        ("float32", [1e300], "float32"),
        ("bool", [True], "int64"),
    ],
)
def test_types_of_numbers(model: str, values: list[Any], dtype: str) -> None:
    signature = _takes(TensorSpec("data", model, (-1, len(values))))
    tensor = read_examples(signature, [{"data": values}])["data"]
    assert tensor.dtype == dtype
    expected = np.inf if values == [1e300] else values[-1]
    assert tensor.array[0, -1] == np.array(expected, tensor.array.dtype)


def test_floats_in_one_example_make_floats_of_all() -> None:
    signature = _takes(TensorSpec("data", "float32", (-1, 1)))
    inputs = read_examples(signature, [{"data": [1]}, {"data": [2.5]}])
    assert inputs["data"].dtype == "float32"
    assert inputs["data"].array.tolist() == [[1], [2.5]]


def test_bytes_are_an_encoded_image() -> None:
    signature = _takes(TensorSpec("image", "float32", (-1, 3, 8, 8)))
    tensor = read_examples(signature, [{"image/encoded": [b"one"]}, {"image/encoded": [b"two"]}])["image"]
    assert tensor.dtype == STRING
    assert tensor.array.tolist() == [b"one", b"two"]


@pytest.mark.parametrize(
    ("signature", "examples", "texts"),
    [
        (_ROW, [], ["Input is empty"]),
        (_ROW, [{}], ["Example 0 lacks the features ['data']"]),
        (_ROW, [{"data": [1.0, 2.0]}, {}], ["Example 1 lacks the features ['data']"]),
        (_TWO, [{"a": [1.0, 2.0]}], ["Example 0 lacks the features ['b']", "['a', 'b']"]),
        (_ROW, [{"data": [1.0, 2.0], "more": [1]}], ["['more'] are not inputs", "['data']"]),
        (_ROW, [{"x": [1.0, 2.0]}, {"y": [1.0, 2.0]}], ["['x', 'y'] are not inputs"]),
        (_ROW, [{"data": [1.0, 2.0, 3.0]}], ["'data' has 3 values", "[2]"]),
        (_ROW, [{"data": [1.0, 2.0]}, {"data": [1.0]}], ["the first one has 2, example 1 has 1"]),
        (_ROW, [{"data": [1.0, b"x"]}], ["not bytes and float"]),
        (_ROW, [{"data": [1.0, "text"]}], ["not float and str"]),
        (_ROW, [{"data": [b"x", b"y"]}], ["one an example; 2 came"]),
        (_ROW, [{"data": [2**64, 1]}], ["type int64 cannot hold"]),
        (_takes(TensorSpec("data", "float32", ())), [{"data": [1.0]}], ["is a scalar"]),
        (_takes(TensorSpec("data", "float32", (1, -1, -1))), [{"data": [1.0]}], ["several dimensions"]),
        (_takes(TensorSpec("data", "float32", (1, 0, -1))), [{"data": [1.0]}], ["do not fill"]),
    ],
    ids=lambda value: None if isinstance(value, Signature) else str(value),
)
def test_examples_that_are_refused(signature: Signature, examples: list[Example], texts: list[str]) -> None:
    message = _refusal(signature, examples)
    assert all(text in message for text in texts), message


def test_a_name_list_in_an_error_is_bounded() -> None:
    text = _refusal(_ROW, [{f"feature{n}": [1.0] for n in range(100)}])
    assert "and 92 more" in text
    assert len(text) < 400


def test_a_repeated_context_is_bounded() -> None:
    signature = _takes(TensorSpec("a", "float32", (-1, 100_000)), TensorSpec("b", "float32", (-1, 1)))
    examples: list[Example] = [{"b": [1.0]}] * 1000
    with pytest.raises(ResourceExhaustedError) as caught:
        read_examples(signature, examples, {"a": [0.0] * 100_000})
    assert "400000000 bytes" in caught.value.message


_VALUES = st.one_of(
    st.lists(st.floats(width=32), max_size=3),
    st.lists(st.integers(-(2**70), 2**70), max_size=3),
    st.lists(st.binary(max_size=3), max_size=2),
    st.lists(st.one_of(st.booleans(), st.text(max_size=2), st.none()), max_size=2),
)
_EXAMPLES = st.lists(st.dictionaries(st.sampled_from(["a", "b", "data"]), _VALUES, max_size=3), max_size=4)


@given(
    signature=st.sampled_from([_ROW, _TWO]),
    examples=_EXAMPLES,
    context=st.none() | st.dictionaries(st.sampled_from(["a", "b", "data"]), _VALUES, max_size=2),
)
def test_any_examples_are_read_or_refused(
    signature: Signature, examples: list[Any], context: dict[str, Any] | None
) -> None:
    try:
        inputs = read_examples(signature, examples, context)
    except (InvalidArgumentError, ResourceExhaustedError):
        return
    assert list(inputs) == [spec.name for spec in signature.inputs]
    assert all(len(tensor.array) == len(examples) for tensor in inputs.values())


# ---- outputs


@dataclass
class _Answer:
    """A prediction that is there."""

    served: Served
    outputs: dict[str, OutputTensor] = field(default_factory=dict)

    def release(self) -> None:
        """Nothing to give back."""


def _answer(heads: Heads = Heads(), dtype: str | None = None, **outputs: np.ndarray) -> _Answer:  # noqa: B008
    specs = tuple(TensorSpec(name, "float32", array.shape) for name, array in outputs.items())
    served = Served(VersionId("model", 1), 1, Signature((), specs, heads))
    tensors = {name: OutputTensor(dtype or array.dtype.name, array) for name, array in outputs.items()}
    return _Answer(served, tensors)


_SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.5]], np.float32)


def _pairs(answer: _Answer, examples: int = 2) -> list[list[tuple[str, float]]]:
    return [
        [(label, round(score, 4)) for label, score in zip(one.labels, one.scores.tolist(), strict=True)]
        for one in classify(answer, examples)
    ]


def test_all_classes_in_the_models_order_by_their_numbers() -> None:
    assert _pairs(_answer(scores=_SCORES)) == [
        [("0", 0.1), ("1", 0.7), ("2", 0.2)],
        [("0", 0.5), ("1", 0.2), ("2", 0.5)],
    ]


def test_the_highest_first_by_their_names() -> None:
    heads = Heads(classes=("cat", "dog", "owl"), top_k=2)
    assert _pairs(_answer(heads, scores=_SCORES)) == [
        [("dog", 0.7), ("owl", 0.2)],
        [("cat", 0.5), ("owl", 0.5)],
    ]


def test_more_than_all_classes_are_all() -> None:
    assert [label for label, _ in _pairs(_answer(Heads(top_k=9), scores=_SCORES))[0]] == ["1", "2", "0"]


def test_nan_is_the_lowest_score() -> None:
    scores = np.array([[np.nan, -np.inf, 1.0]], np.float32)
    (ranking,) = classify(_answer(Heads(top_k=3), scores=scores), 1)
    assert ranking.labels == ["2", "1", "0"]


def test_the_output_that_is_named_counts() -> None:
    answer = _answer(Heads(classification="b"), a=np.zeros((2, 9), np.float32), b=_SCORES)
    assert len(_pairs(answer)[0]) == 3


def test_trailing_dimensions_of_one_are_left_out() -> None:
    assert _pairs(_answer(scores=_SCORES.reshape(2, 3, 1, 1))) == _pairs(_answer(scores=_SCORES))


def test_scores_do_not_point_into_the_answers_memory() -> None:
    memory = _SCORES.copy()
    rankings = classify(_answer(scores=memory), 2)
    memory.fill(-1)
    assert rankings[0].scores[1] == np.float32(0.7)


def test_types_of_scores() -> None:
    half = np.array([[1.5, 2]], np.float16)
    brain = np.array([[1.5, 2]], ml_dtypes.bfloat16).view(np.uint16)
    whole = np.array([[1, 2]], np.int32)
    assert classify(_answer(scores=half), 1)[0].scores.tolist() == [1.5, 2]
    assert classify(_answer(dtype="bfloat16", scores=brain), 1)[0].scores.tolist() == [1.5, 2]
    assert classify(_answer(scores=whole), 1)[0].scores.dtype == np.float32
    assert classify(_answer(scores=half.astype(np.float64)), 1)[0].scores.dtype == np.float64


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (_answer(scores=np.zeros(2)), "Output 'scores' of shape [2] cannot be read as scores"),
        (_answer(scores=np.zeros((3, 4))), "scores of shape [2, classes]"),
        (_answer(scores=np.zeros((2, 3, 4))), "of shape [2, 3, 4]"),
        (_answer(scores=np.zeros(())), "of shape []"),
        (_answer(a=_SCORES, b=_SCORES), "has the outputs ['a', 'b']"),
        (_answer(Heads(classification="x"), a=_SCORES), "has no output 'x', only ['a']"),
        (_answer(Heads(classes=("one", "two")), a=_SCORES), "gives 3 scores, and its labels are 2"),
    ],
)
def test_outputs_that_are_no_classes(answer: _Answer, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        classify(answer, 2)
    assert text in caught.value.message


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 1, 1)])
def test_a_value_an_example(shape: tuple[int, ...]) -> None:
    values = regress(_answer(y=np.array([1.5, -2.0], np.float32).reshape(shape)), 2)
    assert values.tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (_answer(y=np.zeros((2, 2))), "Output 'y' of shape [2, 2] cannot be read as one value for each of 2"),
        (_answer(y=np.zeros((1, 2))), "of shape [1, 2]"),
        (_answer(y=np.zeros(())), "of shape []"),
        (_answer(a=np.zeros(2), b=np.zeros(2)), "cannot be used for regression: it has the outputs"),
        (_answer(Heads(regression="x"), a=np.zeros(2)), "has no output 'x'"),
    ],
)
def test_outputs_that_are_no_values(answer: _Answer, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        regress(answer, 2)
    assert text in caught.value.message


def test_what_a_model_can_be_used_for_is_known_beforehand() -> None:
    two = (TensorSpec("a", "float32", (-1, 3)), TensorSpec("b", "float32", (-1,)))
    check_classifiable(Signature((), two, Heads(classification="a")))
    check_regressable(Signature((), two, Heads(regression="b")))
    with pytest.raises(InvalidArgumentError, match="regression: output"):
        check_regressable(Signature((), two, Heads(classification="a")))
    with pytest.raises(InvalidArgumentError, match="classification: output"):
        check_classifiable(Signature((), two, Heads(regression="b")))
