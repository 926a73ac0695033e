"""A dataplane in memory: real arrays, real arithmetic, no broker and no worker.

Both rims are tested against it. It checks and converts inputs by the same modules as the real one, and keeps the real
one's promise about memory in its strictest form: an output is overwritten the moment its prediction is released, so a
rim that encodes too late sends rubbish and fails its test.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from common.config import ModelConfig
from common.dtypes import STORAGE
from common.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    WireError,
    servable_not_found,
)
from common.messages import Completed, VersionId, VersionStatus
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.checks import plan_layout
from frontends.conversion import copy_into
from frontends.forms import ArrayForm, Form
from frontends.images import ImageDecoder
from frontends.interface import (
    STRING,
    BuildInputs,
    InputTensor,
    OutputTensor,
    Reconfiguration,
    Selector,
    Served,
)
from frontends.memory import Block
from frontends.requests import Owner, RecipeRequest

Compute = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Inputs by name, of their storage types, to outputs by name."""

_RUBBISH = 0xAB


@dataclass(frozen=True)
class FakeVersion:
    """A version of a model: what it takes and gives, and what it computes."""

    signature: Signature
    compute: Compute
    state: VersionState = VersionState.AVAILABLE
    error: WireError | None = None

    def status(self, version: int) -> VersionStatus:
        """As the catalogue would list it."""
        available = self.state is VersionState.AVAILABLE
        return VersionStatus(
            version, int(self.state), self.error, self.signature if available else None, servable=available
        )


def add_one(
    dtype: str = "float32",
    shape: tuple[int, ...] = (1, 10),
    input_name: str = "data",
    output_name: str = "sum",
    unranked: bool = False,
) -> FakeVersion:
    """A model of one input and one output of the same type and shape, which adds one (bool: negates)."""

    def compute(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        array = inputs[input_name]
        one = STORAGE[dtype].type(1)
        with np.errstate(all="ignore"):
            return {output_name: ~array if dtype == "bool" else array + one}

    given = (TensorSpec(input_name, dtype, shape, unranked),)
    return FakeVersion(Signature(given, (TensorSpec(output_name, dtype, shape, unranked),)), compute)


def sum_and_difference(shape: tuple[int, ...] = (-1, 2)) -> FakeVersion:
    """A model of two float32 inputs `a` and `b` and two outputs `sum` and `difference`."""

    def compute(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return {"sum": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]}

    specs = [TensorSpec(name, "float32", shape) for name in ("a", "b", "sum", "difference")]
    return FakeVersion(Signature(tuple(specs[:2]), tuple(specs[2:])), compute)


@dataclass
class FakePrediction:
    """Counts its release, and spoils the outputs at it."""

    served: Served
    outputs: dict[str, OutputTensor]
    released: int = 0

    def release(self) -> None:
        """The outputs are another request's memory from now on."""
        self.released += 1
        for output in self.outputs.values():
            output.array.reshape(-1).view(np.uint8).fill(_RUBBISH)


@dataclass
class FakeDataplane:
    """Implements `frontends.forms.FormDataplane`.

    `gate`, when it is set, holds every request back until the event happens; `failure` is raised by every predict.
    """

    models: Mapping[str, Mapping[int, FakeVersion]]
    ready: bool = True
    gate: asyncio.Event | None = None
    failure: Exception | None = None
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By model."""
    outcome: Reconfiguration = field(default_factory=lambda: Reconfiguration(changed=True))
    """Of every `reconfigure`, unless there is a `failure`."""
    configurations: list[tuple[ModelConfig, ...] | None] = field(default_factory=list)
    """What every `reconfigure` was given."""
    predictions: list[FakePrediction] = field(default_factory=list)
    """Every answer that was given."""
    bodies: list[Block] = field(default_factory=list)
    """What the predicts were given that had one; freed by nobody here."""
    deadlines: list[int] = field(default_factory=list)
    """`deadline_ns` of every predict and reconfigure."""
    waiting: int = 0
    """Requests that are held back now."""
    cancelled: int = 0
    """Requests whose task was cancelled while they were held back."""

    def statuses(self, selector: Selector) -> tuple[VersionStatus, ...]:
        """See DataplaneInterface."""
        versions = self._versions(selector)
        if selector.version is None and selector.label is None:
            return tuple(versions[number].status(number) for number in sorted(versions))
        number = self._number(selector)
        return (versions[number].status(number),)

    def all_statuses(self) -> Mapping[str, tuple[VersionStatus, ...]]:
        """See DataplaneInterface."""
        return {
            name: tuple(versions[number].status(number) for number in sorted(versions))
            for name, versions in self.models.items()
        }

    def choose(self, selector: Selector) -> Served:
        """See DataplaneInterface."""
        number = self._number(selector)
        version = self._versions(selector)[number]
        if version.state is not VersionState.AVAILABLE:
            raise UnavailableError(
                f"Servable {selector.model} version {number} is in state {version.state.name}"
            )
        return Served(VersionId(selector.model, number), 1, version.signature)

    async def predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> FakePrediction:
        """See DataplaneInterface."""
        self.deadlines.append(deadline_ns)
        if body is not None:
            self.bodies.append(body)
        served = self.choose(selector)
        _check_outputs(served.signature, outputs)
        given = build(served)
        if any(tensor.dtype == STRING for tensor in given.values()):
            given = await self._decode(served.signature, given, deadline_ns)
        inputs = _convert(served.signature, given)
        if self.failure is not None:
            raise self.failure
        await self._hold(deadline_ns)
        answers = self.models[selector.model][served.id.version].compute(inputs)
        wanted = [spec for spec in served.signature.outputs if not outputs or spec.name in outputs]
        prediction = FakePrediction(
            served, {spec.name: OutputTensor(spec.dtype, np.array(answers[spec.name])) for spec in wanted}
        )
        self.predictions.append(prediction)
        return prediction

    def begin(
        self,
        form: Form,
        message: memoryview,
        owner: Owner,
        now: int,
        deadline_ns: int,
        body: Block | None = None,
    ) -> None:
        """See FormDataplane. Everything goes the general way here."""

    def begin_array(
        self, form: ArrayForm, array: np.ndarray, owner: Owner, now: int, deadline_ns: int
    ) -> None:
        """See RecipeDataplane. Everything goes the general way here."""

    def finish(
        self, request: RecipeRequest, completed: Completed, wanted: frozenset[str], started: int
    ) -> FakePrediction:
        """See FormDataplane."""
        raise AssertionError("nothing was begun")

    async def predict_after(
        self,
        generation: int,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> FakePrediction:
        """See FormDataplane."""
        raise AssertionError("nothing was begun")

    def take_back(self, request: RecipeRequest) -> Block | None:
        """See FormDataplane."""
        raise AssertionError("nothing was begun")

    def put_back(self, request: RecipeRequest) -> None:
        """See FormDataplane."""
        raise AssertionError("nothing was begun")

    def give_up(self, request: RecipeRequest) -> None:
        """See FormDataplane."""
        raise AssertionError("nothing was begun")

    async def reconfigure(self, models: tuple[ModelConfig, ...] | None, deadline_ns: int) -> Reconfiguration:
        """See DataplaneInterface."""
        self.configurations.append(models)
        self.deadlines.append(deadline_ns)
        if self.failure is not None:
            raise self.failure
        await self._hold(deadline_ns)
        return self.outcome

    @staticmethod
    async def _decode(
        signature: Signature, given: Mapping[str, InputTensor], deadline_ns: int
    ) -> Mapping[str, InputTensor]:
        decoder = ImageDecoder()
        try:
            return await decoder.decode(signature, given, deadline_ns)
        finally:
            decoder.close()

    async def _hold(self, deadline_ns: int) -> None:
        if self.gate is None:
            return
        self.waiting += 1
        try:
            await asyncio.wait_for(self.gate.wait(), max(0, deadline_ns - time.monotonic_ns()) / 1e9)
        except asyncio.TimeoutError:
            raise DeadlineExceededError("The deadline passed before the inference was finished") from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1

    def _versions(self, selector: Selector) -> Mapping[int, FakeVersion]:
        versions = self.models.get(selector.model)
        if versions is None:
            raise servable_not_found(selector.model, selector.version or 0)
        return versions

    def _number(self, selector: Selector) -> int:
        """A version that exists; the highest available one where none was asked for, else the highest."""
        versions = self._versions(selector)
        if selector.label is not None:
            labels = self.labels.get(selector.model, {})
            if selector.label not in labels:
                raise NotFoundError(f"Unrecognized servable version label: {selector.label}")
            selector = Selector(selector.model, labels[selector.label])
        if selector.version is None:
            available = [n for n, version in versions.items() if version.state is VersionState.AVAILABLE]
            return max(available or versions)
        if selector.version not in versions:
            raise servable_not_found(selector.model, selector.version)
        return selector.version


def _convert(signature: Signature, given: Mapping[str, InputTensor]) -> dict[str, np.ndarray]:
    """The inputs as the model takes them. Raises InvalidArgumentError with the documented texts."""
    plan_layout(signature, given)
    converted = {}
    for spec in signature.inputs:
        tensor = given[spec.name]
        converted[spec.name] = np.empty(tensor.array.shape, STORAGE[spec.dtype])
        copy_into(tensor.array, tensor.dtype, converted[spec.name], spec.dtype)
    return converted


def _check_outputs(signature: Signature, outputs: frozenset[str]) -> None:
    known = [spec.name for spec in signature.outputs]
    unknown = sorted(outputs.difference(known))
    if unknown:
        raise InvalidArgumentError(
            f"output tensor alias not found in signature: {unknown}. "
            f"Outputs expected to be in the set {{{known}}}."
        )
