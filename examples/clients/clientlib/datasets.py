"""Images, labels and names of classes as numpy files and a text file hold them."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clientlib.errors import ClientError

NAMES_FILE = "labels.txt"
"""Beside the images: the name of each class, one a line, in the order of the classes. It need not be there."""

_ORDERS = {"nhwc2nchw": (0, 3, 1, 2), "nchw2nhwc": (0, 2, 3, 1)}


class Dataset(NamedTuple):
    """Images N x …, and what is known of them."""

    images: np.ndarray
    labels: np.ndarray | None
    """N whole numbers."""
    names: list[str]
    """Of the classes; empty when nobody named them."""


def load(images_path: str, labels_path: str | None, transpose_method: str | None) -> Dataset:
    """Read the files; images are transposed by a method, None leaves them. Raises ClientError."""
    images = _read(images_path)
    if images.ndim == 0 or len(images) == 0:
        raise ClientError(f"{images_path}: there are no images in an array of the shape {images.shape}")
    if transpose_method is not None:
        if images.ndim != 4:
            raise ClientError(
                f"{images_path}: only images of 4 dimensions can be transposed, these are {images.shape}; "
                "leave them as they are with --transpose_input False"
            )
        images = images.transpose(_ORDERS[transpose_method])
    labels = None if labels_path is None else _read_labels(labels_path, len(images))
    return Dataset(images, labels, read_names(Path(images_path).with_name(NAMES_FILE)))


def _read(path: str) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ClientError(f"{path} is no file of a numpy array, as numpy.save writes it") from error
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror or error}") from error
    if not isinstance(array, np.ndarray):
        raise ClientError(f"{path} holds several arrays; one, of numpy.save, is wanted")
    if array.dtype.kind not in "biuf":
        raise ClientError(f"{path} holds {array.dtype}, not numbers")
    return array


def _read_labels(path: str, count: int) -> np.ndarray:
    labels = _read(path).reshape(-1)
    if len(labels) < count:
        raise ClientError(f"{path} has {len(labels)} labels for {count} images")
    whole = labels.astype(np.int64)
    if not np.array_equal(whole, labels):
        raise ClientError(f"{path}: labels are whole numbers, the numbers of classes")
    return whole


def read_names(path: Path) -> list[str]:
    """Empty when there is no such file. Raises ClientError when it is no text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError(f"{path} cannot be read: {error}") from error


def batches(dataset: Dataset, size: int, iterations: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Images and labels of each request. Every one has `size` of them: at the end they begin again."""
    count = len(dataset.images)
    for number in range(iterations):
        chosen = np.arange(number * size, (number + 1) * size) % count
        labels = None if dataset.labels is None else dataset.labels[chosen]
        yield np.ascontiguousarray(dataset.images[chosen]), labels


def requests_for_all(dataset: Dataset, size: int) -> int:
    """How many requests of `size` images it takes until each image was sent."""
    return -(-len(dataset.images) // size)
