"""Answers that are ready to be sent."""

from typing import NamedTuple

from common.messages import Done, Execute, OutputResult
from workers.engine import RunResult


class Answer(NamedTuple):
    """A Done that was not sent yet; its frames get their numbers when it is."""

    request: Execute
    result: RunResult
    inferring: int
    """Nanoseconds."""


def to_done(answer: Answer, frames: list[bytes]) -> Done:
    """The message for an answer; data that travels is appended to `frames`, which start at index 1 of the message."""
    result = answer.result
    outputs: list[OutputResult] = []
    for shape, data in zip(result.shapes, result.data, strict=True):
        if data is None:
            outputs.append(OutputResult(shape))
        else:
            frames.append(data)
            outputs.append(OutputResult(shape, len(frames)))
    return Done(answer.request.key, tuple(outputs), result.error, answer.inferring)
