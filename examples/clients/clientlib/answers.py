"""What a server says of its models, as both APIs have it, and the lines that the clients print of it."""

from collections.abc import Iterable
from typing import NamedTuple


class VersionStatus(NamedTuple):
    """A version of a model in GetModelStatus."""

    version: int
    state: str
    """START, LOADING, AVAILABLE, UNLOADING, END."""
    error_code: int
    """Canonical code of gRPC, 0 for none."""
    error_message: str


class Tensor(NamedTuple):
    """An input or output in GetModelMetadata."""

    name: str
    shape: list[int]
    """-1 for a dimension of any length."""
    data_type: str
    """As DT_FLOAT."""


class Metadata(NamedTuple):
    """The signature `serving_default`."""

    inputs: list[Tensor]
    outputs: list[Tensor]


def status_lines(model: str, versions: Iterable[VersionStatus]) -> list[str]:
    """The newest version first."""
    lines = [f"Getting model status for model: {model}"]
    for one in sorted(versions, reverse=True):
        lines += [
            "",
            f"Model version: {one.version}",
            f"State {one.state}",
            f"Error code:  {one.error_code}",
            f"Error message:  {one.error_message}".rstrip(),
        ]
    return lines


def metadata_lines(model: str, metadata: Metadata) -> list[str]:
    """Inputs, then outputs, each in the order of their names."""
    lines = [f"Getting model metadata for model: {model}"]
    for kind, tensors in (("Input", metadata.inputs), ("Output", metadata.outputs)):
        lines.append(f"{kind}s metadata:")
        lines += [
            f"\t{kind} name: {one.name}; shape: {one.shape}; dtype: {one.data_type}"
            for one in sorted(tensors)
        ]
    return lines
