"""What is in a version's directory: the one model, mapping_config.json, labels. Raises LoadError for anything odd."""

from pathlib import Path
from typing import NamedTuple

from workers.engine import LoadError
from workers.heads import DEFAULT_LABELS, Labels
from workers.mapping import FILE_NAME, Aliases, parse

SAVED_MODEL = "saved_model.pb"
_MAPPING_BYTES = 1 << 20
_LABELS_BYTES = 1 << 20
_WEIGHTS = {".xml": ".bin", ".pdmodel": ".pdiparams"}
"""The suffix of a model's file → that of its weights, which stand beside it."""
_SUFFIXES = (".xml", ".onnx", ".pb", ".tflite", ".pdmodel")


class ModelFile(NamedTuple):
    """What OpenVINO is to read: a file, or the directory of a SavedModel."""

    path: Path

    @property
    def name(self) -> str:
        """For people."""
        return SAVED_MODEL if self.path.is_dir() else self.path.name


def find_model(directory: Path) -> ModelFile:
    """The one model in a version's directory. Raises LoadError."""
    found = _candidates(directory)
    if not found:
        kinds = "IR (.xml, .bin), ONNX, TensorFlow, TensorFlow Lite or PaddlePaddle"
        raise LoadError(f"the version's directory holds no model: {kinds}")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise LoadError(f"the version's directory holds {len(found)} models instead of one: {names}")
    (file,) = found
    if file.name == SAVED_MODEL:
        return ModelFile(directory)
    weights = _WEIGHTS.get(file.suffix)
    if weights is not None and not file.with_suffix(weights).is_file():
        raise LoadError(f"{file.name} has no {file.stem}{weights} beside it")
    return ModelFile(file)


def read_aliases(directory: Path) -> Aliases:
    """What mapping_config.json says; nothing where there is none. Raises LoadError."""
    content = _content(directory, FILE_NAME, _MAPPING_BYTES)
    return Aliases() if content is None else parse(content)


def read_labels(directory: Path, name: str) -> Labels:
    """The names of classes in the file `name`, one a line in UTF-8; in labels.txt, where there is one, if it is empty.

    Raises LoadError for a file that is named and cannot be used; one that is not is done without.
    """
    try:
        content = _content(directory, name or DEFAULT_LABELS, _LABELS_BYTES)
        if content is None and name:
            raise LoadError(f"classification: the version's directory holds no {name}")
        return Labels() if content is None else Labels(_lines(content, name or DEFAULT_LABELS))
    except LoadError as error:
        if name:
            raise
        return Labels(notes=(f"{error.reason}: classes go by their numbers",))


def _lines(content: bytes, name: str) -> tuple[str, ...]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoadError(f"{name} is not UTF-8") from error
    # Not splitlines(), which knows eleven ends of a line.
    return tuple(line.removesuffix("\r") for line in text.rstrip("\r\n").split("\n")) if text.strip() else ()


def _content(directory: Path, name: str, limit: int) -> bytes | None:
    """None where there is no such file. Raises LoadError."""
    try:
        with (directory / name).open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LoadError(f"{name} cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise LoadError(f"{name} is longer than {limit} bytes")
    return content


def _candidates(directory: Path) -> list[Path]:
    try:
        files = sorted(file for file in directory.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    except OSError as error:
        raise LoadError(f"the version's directory cannot be read: {error.strerror}") from error
    if any(file.name == SAVED_MODEL for file in files):
        # keras_metadata.pb and fingerprint.pb stand beside it and are no models.
        files = [file for file in files if file.name == SAVED_MODEL or file.suffix != ".pb"]
    return files
