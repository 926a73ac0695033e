"""Which directories are versions of a model. Pure, and the same for every store.

A version is a directory whose name is all digits and that holds a model in one of the forms that OpenVINO reads.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from common.storage.interface import Listing, StoredFile, StoredVersion

MAX_VERSION = (1 << 63) - 1
"""ModelSpec.version is an int64."""

VARIABLES = "variables"
"""The directory of a SavedModel's weights, beside saved_model.pb."""

_SAVED_MODEL = "saved_model.pb"
_PAIRS = ((".xml", ".bin"), (".pdmodel", ".pdiparams"))
"""OpenVINO IR and PaddlePaddle: graph and weights, of one basename."""
_SINGLE = (".onnx", ".tflite", ".pb")
"""Also a frozen TensorFlow graph."""

NEEDED = (
    "an .xml and a .bin file of one name, an .onnx file, a TensorFlow SavedModel or frozen .pb, "
    "a .pdmodel and a .pdiparams file of one name, or a .tflite file is needed"
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A directory with a number for a name."""

    name: str
    location: str
    files: tuple[StoredFile, ...] = ()
    problem: str = ""
    """Why it cannot be looked into: the end of a sentence that begins with its location."""


def is_number(name: str) -> bool:
    """Whether a directory of this name may be a version."""
    return name.isascii() and name.isdigit()


def holds_model(names: Iterable[str]) -> bool:
    """Whether files of these names, relative to one directory, are a model."""
    top, variables = set(), set()
    for name in names:
        head, slash, rest = name.partition("/")
        if not slash:
            top.add(name)
        elif head == VARIABLES:
            variables.add(rest)
    if _SAVED_MODEL in top:
        return not variables or _complete(variables)
    return any(_is_model(name, top) for name in top)


def _is_model(name: str, names: set[str]) -> bool:
    if any(name.endswith(graph) and name[: -len(graph)] + weights in names for graph, weights in _PAIRS):
        return True
    return any(name.endswith(ending) and name != ending for ending in _SINGLE)


def _complete(variables: set[str]) -> bool:
    """Whether the index and all shards that their names count are there: `variables.data-00000-of-00002`."""
    shards = sorted(name for name in variables if name.startswith("variables.data-"))
    counts = {name.rpartition("-of-")[2] for name in shards}
    if "variables.index" not in variables or len(counts) != 1:
        return False
    count = counts.pop()
    return count.isdigit() and int(count) == len(shards)


def choose(base: str, candidates: Iterable[Candidate]) -> Listing:
    """The versions among the directories under `base`, with a warning for each that is none."""
    versions: dict[int, StoredVersion] = {}
    warnings: list[str] = []
    refused: list[str] = []
    for candidate in sorted(candidates, key=lambda one: one.name):
        complaint = _complaint(candidate, versions)
        if complaint:
            warnings.append(f"{candidate.location}{complaint}")
            refused.append(candidate.location)
        else:
            files = tuple(sorted(candidate.files, key=lambda file: file.name))
            versions[_number(candidate.name)] = StoredVersion(candidate.name, candidate.location, files)
    if not versions and not warnings:
        warnings.append(f"{base} holds no version; versions are picked up when they appear")
    return Listing(versions, tuple(warnings), tuple(refused))


def _complaint(candidate: Candidate, known: dict[int, StoredVersion]) -> str:
    """Why a directory with a number for a name is no version; empty if it is one."""
    number = _number(candidate.name)
    if number == 0:
        return ": version 0 is not served, because 0 stands for an unspecified version in the API"
    if number > MAX_VERSION:
        return f": the version number is larger than {MAX_VERSION}"
    if candidate.problem:
        return candidate.problem
    if not holds_model(file.name for file in candidate.files):
        return f" holds no model: {NEEDED}"
    if number in known:
        return f" has the same number as {known[number].location}, which is served"
    return ""


def _number(name: str) -> int:
    """The number that digits stand for, or one past MAX_VERSION: int() refuses to read thousands of digits."""
    digits = name.lstrip("0")
    return int(digits or "0") if len(digits) <= len(str(MAX_VERSION)) else MAX_VERSION + 1
