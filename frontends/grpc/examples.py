"""tensorflow.serving.Input to examples, and classes and values to the messages that answer them. Pure.

After tensorflow_serving/apis/input.proto and tensorflow/core/example/example.proto.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from common.errors import InvalidArgumentError, ResourceExhaustedError
from frontends.grpc.tensorflow_protos import classification_pb2, regression_pb2
from frontends.inference import Example, Ranking

MAX_EXAMPLES = 65_536
"""Of one request. Each takes many times the two bytes that it may come in."""


class Examples(NamedTuple):
    """What an Input holds."""

    examples: Sequence[Example]
    context: Example | None


def examples_of(given: Any) -> Examples:
    """Views of the message. Raises InvalidArgumentError for an Input without examples, ResourceExhaustedError."""
    match given.WhichOneof("kind"):
        case "example_list":
            found = Examples(_examples(given.example_list.examples), None)
        case "example_list_with_context":
            listed = given.example_list_with_context
            found = Examples(_examples(listed.examples), _features(listed.context))
        case _:
            found = Examples((), None)
    if not found.examples:
        raise InvalidArgumentError("Input is empty: at least one example is expected")
    return found


def _examples(protos: Any) -> list[Example]:
    if len(protos) > MAX_EXAMPLES:
        raise ResourceExhaustedError(f"A request has {MAX_EXAMPLES} examples at the most, got {len(protos)}")
    return [_features(proto) for proto in protos]


def _features(proto: Any) -> Example:
    """Features of which nothing is set are left out: they are how an Example says that it has no value."""
    features = {}
    for name, feature in proto.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind is not None:
            features[name] = getattr(feature, kind).value
    return features


def classification_result(rankings: Sequence[Ranking]) -> Any:
    """A ClassificationResult: the classes of each example."""
    result = classification_pb2.ClassificationResult()
    for ranking in rankings:
        result.classifications.add(
            classes=[
                classification_pb2.Class(label=label, score=score)
                for label, score in zip(ranking.labels, ranking.scores.tolist(), strict=True)
            ]
        )
    return result


def regression_result(values: np.ndarray) -> Any:
    """A RegressionResult: the value of each example."""
    return regression_pb2.RegressionResult(
        regressions=[regression_pb2.Regression(value=value) for value in values.tolist()]
    )
