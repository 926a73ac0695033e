"""The lines that the classifying clients print."""

from collections.abc import Sequence

import numpy as np

from clientlib.errors import ClientError

WITH_BACKGROUND = 1001
"""Models trained by TensorFlow on ImageNet's 1000 classes have one before them, for what is none of these."""


def speed(images: int, milliseconds: float) -> float:
    """Images a second."""
    return images * 1000 / milliseconds


def classes_of(output: np.ndarray, batch: int) -> np.ndarray:
    """The class of the highest score for each image of a batch. Raises ClientError for an output of another form."""
    if output.ndim < 2 or len(output) != batch or output[0].size == 0:
        raise ClientError(
            f"an output of the shape {output.shape} does not tell the classes of {batch} images"
        )
    scores = output.reshape(batch, -1)
    found: np.ndarray = scores.argmax(axis=1)
    return found - 1 if scores.shape[1] == WITH_BACKGROUND else found


def names_for(names: Sequence[str], output: np.ndarray) -> Sequence[str]:
    """The names, if there is one for each class of the output; none otherwise."""
    count = output[0].size
    return names if len(names) == (count - 1 if count == WITH_BACKGROUND else count) else ()


def iteration_line(number: int, images: int, milliseconds: float) -> str:
    """Of one request."""
    pace = speed(images, milliseconds)
    return f"Iteration {number}; Processing time: {milliseconds:.2f} ms; speed {pace:.2f} fps"


def picture_line(milliseconds: float) -> str:
    """Of a request of one image. The pace stands in it twice, so that whoever reads either place finds it."""
    pace = speed(1, milliseconds)
    return f"Processing time: {milliseconds:.2f} ms; speed {pace:.2f} fps {round(pace, 2)}"


def top_lines(found: np.ndarray, labels: np.ndarray | None, names: Sequence[str]) -> list[str]:
    """The class that was found in each image of a request, and whether it is right where that is known."""
    lines = ["imagenet top results in a single batch:"]
    for index, number in enumerate(found):
        line = f"\t {index} {_named(int(number), names)}"
        if labels is not None and number == labels[index]:
            line += " ; Correct match."
        elif labels is not None:
            line += f" ; Incorrect match. Should be {_label(int(labels[index]), names)}"
        lines.append(line)
    return lines


def _named(number: int, names: Sequence[str]) -> str:
    return f"{names[number]} {number}" if 0 <= number < len(names) else str(number)


def _label(number: int, names: Sequence[str]) -> str:
    return f"{number} {names[number]}" if 0 <= number < len(names) else str(number)


def summary_lines(times: Sequence[float], images: int) -> list[str]:
    """Statistics of the requests' times, in ms, each with the images a second that it would mean."""
    lines = ["processing time for all iterations"]
    for name, value in (
        ("average", np.mean(times)),
        ("median", np.median(times)),
        ("max", np.max(times)),
        ("min", np.min(times)),
    ):
        lines.append(f"{name} time: {value:.2f} ms; {name} speed: {speed(images, float(value)):.2f} fps")
    for percentile in (90, 50):
        value = float(np.percentile(times, percentile))
        lines.append(
            f"time percentile {percentile}: {value:.2f} ms; "
            f"speed percentile {percentile}: {speed(images, value):.2f} fps"
        )
    lines.append(f"time standard deviation: {np.std(times):.2f}")
    lines.append(f"time variance: {np.var(times):.2f}")
    return lines
