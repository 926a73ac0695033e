"""Answers that are ready to be sent."""

from typing import TypeAlias

from common.messages import Done, Execute, OutputResult
from workers.engine import RunResult

Answer: TypeAlias = tuple[Execute, RunResult, int]
"""A Done that was not sent yet, and the nanoseconds of inferring; its frames get their numbers when it is.

A plain tuple, because one is made for each request."""


def to_done(answer: Answer, frames: list[bytes]) -> Done:
    """The message for an answer; data that travels is appended to `frames`, which start at index 1 of the message."""
    request, result, inferring = answer
    if result.in_place is not None:
        return Done(request.key, result.in_place, None, inferring)
    outputs: list[OutputResult] = []
    for shape, data in zip(result.shapes, result.data, strict=True):
        if data is None:
            outputs.append(OutputResult(shape))
        else:
            frames.append(data)
            outputs.append(OutputResult(shape, len(frames)))
    return Done(request.key, tuple(outputs), result.error, inferring)
