"""What the rims (gRPC, REST) and the data plane say to each other: named arrays, no protobuf, no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from common.config import ModelConfig
from common.messages import VersionId, VersionStatus
from common.tensors import STRING as STRING
from common.tensors import Signature
from frontends.memory import Block


@dataclass(frozen=True, slots=True)
class InputTensor:
    """An input as a rim has read it: not yet of the model's type, perhaps not even of its shape."""

    dtype: str
    """Key of common.tensors.ITEMSIZE, or STRING: the type that the client sent."""
    array: np.ndarray
    """Of STORAGE[dtype], in the client's shape; may be a view of the request's bytes. Of STRING: objects, `bytes` each;
    for an input of numbers one is an encoded image, and the data plane decodes them for the model."""


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output in place."""

    dtype: str
    array: np.ndarray
    """Of STORAGE[dtype]; a view of shared memory, valid until `Prediction.release`. Of STRING:
    objects, `bytes` each."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which version a client asked for: a number, a label, or (neither) the default one."""

    model: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """A version that was chosen."""

    id: VersionId
    generation: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class Reconfiguration:
    """What a new configuration has brought about; it is in force."""

    changed: bool
    """Whether it differs from the one before."""
    failures: tuple[str, ...] = ()
    """Models of which no version could be loaded, and why."""


class BuildInputs(Protocol):
    """Reads the request's inputs for this version; may raise a ServingError. Called again if the version changes."""

    def __call__(self, served: Served, /) -> Mapping[str, InputTensor]: ...


class Prediction(Protocol):
    """An answer whose outputs lie in shared memory until it is released."""

    served: Served
    outputs: dict[str, OutputTensor]

    def release(self) -> None: ...


class DataplaneInterface(Protocol):
    """What the rims use."""

    @property
    def ready(self) -> bool:
        """Linked to a broker, and each served version has a live worker."""
        ...

    def statuses(self, selector: Selector) -> tuple[VersionStatus, ...]:
        """One version, or all of them (ascending). Raises NotFoundError."""
        ...

    def all_statuses(self) -> Mapping[str, tuple[VersionStatus, ...]]:
        """Every model's versions (ascending), by the model's name. Raises UnavailableError."""
        ...

    def choose(self, selector: Selector) -> Served:
        """The version that a request would use. Raises NotFoundError, UnavailableError."""
        ...

    async def predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> Prediction:
        """Infer; `outputs` names the wanted ones (empty: all), in the signature's order.

        `body` is the block in which the message lies, and with it perhaps what `build` gives. It is freed by this,
        whatever happens, as soon as nothing reads it.

        `deadline_ns` is CLOCK_MONOTONIC. Raises ServingError. When the calling task is cancelled, nothing is lost:
        the block is freed as soon as no worker can write to it.
        """
        ...

    async def reconfigure(self, models: tuple[ModelConfig, ...] | None, deadline_ns: int) -> Reconfiguration:
        """Serve these models and no others from now on, or (None) read the configuration file again.

        Returns when each version that is wanted was loaded or has failed to load. Raises ServingError: nothing has
        changed, except after DEADLINE_EXCEEDED and UNAVAILABLE, when the configuration may be in force.
        """
        ...
