"""Sends a numpy file of images, a batch a request, and prints what was found in them and how long it took."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clientlib import datasets, report
from clientlib.progress import Progress


@dataclass(frozen=True)
class Exchange:
    """One request in three steps. `send` alone is timed; the others are the client's own work."""

    prepare: Callable[[np.ndarray], Any]
    """Images → request."""
    send: Callable[[Any], Any]
    """Request → answer."""
    read: Callable[[Any], np.ndarray]
    """Answer → the output that tells the classes."""


def run(arguments: argparse.Namespace, exchange: Exchange) -> None:
    """`arguments` are those of Options.add_images and add_requests. Raises ClientError."""
    method = arguments.transpose_method if arguments.transpose_input == "True" else None
    dataset = datasets.load(arguments.images_numpy_path, arguments.labels_numpy_path, method)
    size = arguments.batchsize
    iterations = arguments.iterations or datasets.requests_for_all(dataset, size)
    print(
        "Start processing:\n"
        f"\tModel name: {arguments.model_name}\n"
        f"\tIterations: {iterations}\n"
        f"\tImages numpy path: {arguments.images_numpy_path}\n"
        f"\tImages in shape: {dataset.images.shape}\n"
    )
    times: list[float] = []
    right = 0
    with Progress(iterations) as progress:
        for images, labels in datasets.batches(dataset, size, iterations):
            output, milliseconds = _measure(exchange, images)
            times.append(milliseconds)
            found = report.classes_of(output, size)
            right += 0 if labels is None else int((found == labels).sum())
            names = report.names_for(dataset.names, output)
            line = report.iteration_line(len(times), size, milliseconds)
            progress.step([line, *report.top_lines(found, labels, names)])
    print("", *report.summary_lines(times, size), sep="\n")
    if dataset.labels is not None:
        print(f"Classification accuracy: {100 * right / (size * iterations):.2f}")


def _measure(exchange: Exchange, images: np.ndarray) -> tuple[np.ndarray, float]:
    """The output, and milliseconds."""
    request = exchange.prepare(images)
    start = time.perf_counter()
    answer = exchange.send(request)
    milliseconds = (time.perf_counter() - start) * 1000
    return exchange.read(answer), milliseconds
