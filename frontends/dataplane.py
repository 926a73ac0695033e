"""The use cases of the server, in its own terms: no protobuf, no HTTP.

A rim (gRPC or REST) hands over named arrays and gets named arrays back; between the two lie shared memory and the
broker. The life of a request here:

    choose version ─▶ read inputs ─▶ decode images ─▶ check names, shapes, types ─▶ one block for inputs and outputs
      ─▶ write inputs (converting) ─▶ Submit ─▶ Completed ─▶ views of the outputs ─▶ the rim encodes them ─▶ release

A block goes back to the arena only when no worker can write to it any more; a rim that gives up earlier (deadline,
client gone) leaves it lent, and the broker's Released or Completed frees it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np

from common.config import ModelConfig
from common.dtypes import STORAGE
from common.errors import InternalError, InvalidArgumentError, UnavailableError
from common.messages import OutputResult, Submit, VersionStatus
from common.strings import BadStringsError, decode, encode_into
from common.tensors import STRING
from frontends.admission import Admission
from frontends.broker_client import Answer, BrokerClient, StaleVersionError
from frontends.catalogue import CatalogueView
from frontends.conversion import copy_into
from frontends.images import ImageDecoder
from frontends.interface import (
    BuildInputs,
    InputTensor,
    OutputTensor,
    Reconfiguration,
    Selector,
    Served,
)
from frontends.memory import ARENA, Block, Memory
from frontends.plans import Place, Plan, Plans, find_in_place

_logger = logging.getLogger("frontends")

_MAX_CHOICES = 5
"""Times that a request is resolved anew because its version left meanwhile."""

_NOWHERE: Mapping[str, int] = {}

_MISFIT = "The worker's answer does not fit the model's signature"


class Prediction:
    """An answer in place. Use it, then `release` it; the arrays are not to be touched afterwards."""

    __slots__ = (
        "_answered",
        "_block",
        "_dataplane",
        "_frame_bytes",
        "_started",
        "_submitted",
        "outputs",
        "served",
    )

    def __init__(
        self,
        dataplane: Dataplane,
        served: Served,
        block: Block,
        started: int,
        submitted: int,
        frame_bytes: int,
    ) -> None:
        self._dataplane = dataplane
        self._block: Block | None = block
        self._started = started
        self._submitted = submitted
        self._answered = time.monotonic_ns()
        self._frame_bytes = frame_bytes
        self.served = served
        self.outputs: dict[str, OutputTensor] = {}

    def release(self) -> None:
        """Give the block back. A second call does nothing."""
        block, self._block = self._block, None
        if block is None:
            return
        self.outputs = {}
        self._dataplane.take_back(block, self._frame_bytes)
        if _logger.isEnabledFor(logging.DEBUG):
            now = time.monotonic_ns()
            _logger.debug(
                "model %s version %d: deserialization %.3f ms, inference %.3f ms, serialization %.3f ms",
                self.served.id.model,
                self.served.id.version,
                (self._submitted - self._started) / 1e6,
                (self._answered - self._submitted) / 1e6,
                (now - self._answered) / 1e6,
            )


class Dataplane:
    """One a frontend process."""

    def __init__(self, client: BrokerClient, memory: Memory, admission: Admission) -> None:
        self._client = client
        self._memory = memory
        self._admission = admission
        self._images = ImageDecoder()
        self._plans = Plans()

    @property
    def ready(self) -> bool:
        """Linked to a broker, and each served version has a live worker."""
        catalogue = self._client.catalogue
        return (
            self._client.linked and not self._admission.draining and catalogue is not None and catalogue.ready
        )

    def statuses(self, selector: Selector) -> tuple[VersionStatus, ...]:
        """One version, or all of a model, ascending. Raises NotFoundError, UnavailableError."""
        return self._catalogue().statuses(selector)

    def all_statuses(self) -> Mapping[str, tuple[VersionStatus, ...]]:
        """Every model's versions, ascending, by the model's name. Raises UnavailableError."""
        return self._catalogue().all_statuses()

    def choose(self, selector: Selector) -> Served:
        """The version that a request would use. Raises NotFoundError, UnavailableError."""
        return self._catalogue().choose(selector)

    async def predict(
        self,
        selector: Selector,
        build: BuildInputs,
        deadline_ns: int,
        outputs: frozenset[str] = frozenset(),
        body: Block | None = None,
    ) -> Prediction:
        """Infer; `outputs` names the wanted ones (empty: all). `deadline_ns` is CLOCK_MONOTONIC.

        Inputs that lie in `body` are read there by the worker, if they can be. It is freed by this in any case.

        Raises ServingError. When the calling task is cancelled the block is freed as soon as nothing can write to it.
        """
        started = time.monotonic_ns()
        kept = body
        try:
            self._admission.check(len(self._client.ledger))
            for _ in range(_MAX_CHOICES):
                served = self.choose(selector)
                _check_outputs(served, outputs)
                inputs = build(served)
                for tensor in inputs.values():
                    if tensor.dtype == STRING:
                        inputs = await self._images.decode(served.signature, inputs, deadline_ns)
                        break
                plan, block, in_place = self._room(served, inputs, body)
                if block is None:
                    block = await self._memory.allocate_large(plan.layout.size)
                place = self._fill(inputs, plan, block, in_place)
                submit = self._submit(served, block, place, deadline_ns)
                del inputs
                submitted = time.monotonic_ns()
                lent, kept = (block, None) if body is None else (_beside(block, body), None)
                try:
                    answer = await self._client.run(submit, lent, deadline_ns)
                except StaleVersionError as stale:
                    kept = body
                    self._memory.free(block)
                    await self._client.wait_for_catalogue(stale.generation, deadline_ns)
                    continue
                kept = body
                return self._answer(served, block, place, answer, outputs, started, submitted)
            raise UnavailableError(
                f"Model {selector.model} changes its versions faster than the request can follow"
            )
        finally:
            if kept is not None:
                self._memory.free(kept)

    async def reconfigure(self, models: tuple[ModelConfig, ...] | None, deadline_ns: int) -> Reconfiguration:
        """Serve these models and no others; None: read the configuration file again. Raises ServingError."""
        self._admission.check_open()
        return await self._client.reconfigure(models, deadline_ns)

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._images.close()
        self._plans.clear()

    def take_back(self, block: Block, frame_bytes: int) -> None:
        """A prediction was released."""
        self._memory.free(block)
        if frame_bytes:
            self._admission.drop_frames(frame_bytes)

    def _catalogue(self) -> CatalogueView:
        catalogue = self._client.catalogue
        if catalogue is None:
            raise UnavailableError("The server is starting and does not know its models yet")
        return catalogue

    def _room(
        self, served: Served, inputs: Mapping[str, InputTensor], body: Block | None
    ) -> tuple[Plan, Block | None, Mapping[str, int]]:
        """Where everything goes, and what is not copied because it lies in `body`. Raises InvalidArgumentError.

        No block: a segment of its own must be made for the request.
        """
        # A request names one segment for all its tensors.
        if body is not None and body.segment == ARENA:
            in_place = find_in_place(served.signature, inputs, body)
            plan = self._plans.find(served, inputs, in_place)
            block = self._memory.allocate(plan.layout.size)
            if block is not None:
                return plan, block, in_place
        plan = self._plans.find(served, inputs)
        return plan, self._memory.allocate(plan.layout.size), _NOWHERE

    def _fill(
        self, inputs: Mapping[str, InputTensor], plan: Plan, block: Block, in_place: Mapping[str, int]
    ) -> Place:
        """Write the inputs into the block; where everything is."""
        try:
            place = plan.at(block, in_place)
            for name, dtype, target in place.targets:
                tensor = inputs[name]
                if dtype == STRING:
                    encode_into(tensor.array, target.data)
                else:
                    copy_into(tensor.array, tensor.dtype, target, dtype)
        except BaseException:
            self._memory.free(block)
            raise
        return place if block.segment == ARENA else place.without_views()

    def _submit(self, served: Served, block: Block, place: Place, deadline_ns: int) -> Submit:
        id_ = self._client.ledger.next_id()
        return Submit(
            id_, served.id, served.generation, block.segment, place.inputs, place.outputs, deadline_ns
        )

    def _answer(
        self,
        served: Served,
        block: Block,
        place: Place,
        answer: Answer,
        wanted: frozenset[str],
        started: int,
        submitted: int,
    ) -> Prediction:
        """Views of the outputs. From here on the block is the prediction's."""
        try:
            frame_bytes = _frame_bytes(answer)
            if frame_bytes:
                self._admission.take_frames(frame_bytes)
        except BaseException:
            self._memory.free(block)
            raise
        prediction = Prediction(self, served, block, started, submitted, frame_bytes)
        try:
            specs = served.signature.outputs
            for spec, ref, known, result in zip(
                specs, place.outputs, place.results, answer.outputs, strict=True
            ):
                if wanted and spec.name not in wanted:
                    continue
                if known is not None and not result.frame and result.shape == known.array.shape:
                    prediction.outputs[spec.name] = known
                    continue
                if spec.dtype == STRING:
                    array = _read_strings(answer, result)
                    prediction.outputs[spec.name] = OutputTensor(STRING, array)
                    continue
                storage = STORAGE[spec.dtype]
                if result.frame > 0:
                    array = np.frombuffer(answer.frames[result.frame - 1], storage).reshape(result.shape)
                else:
                    array = block.memory.view(ref.offset, result.shape, storage)
                prediction.outputs[spec.name] = OutputTensor(spec.dtype, array)
        except (ValueError, TypeError, BadStringsError) as error:
            prediction.release()
            raise InternalError(_MISFIT) from error
        return prediction


def _beside(block: Block, body: Block) -> Block:
    """The block as it is lent to a request: the body is freed with it."""
    return Block(block.segment, block.offset, block.size, block.memory, body)


def _read_strings(answer: Answer, result: OutputResult) -> np.ndarray:
    """An output of strings, as objects. Raises BadStringsError."""
    if result.frame < 1:
        raise BadStringsError("no frame came with an output of strings")
    return decode(memoryview(answer.frames[result.frame - 1]), result.shape).to_array()


def _frame_bytes(answer: Answer) -> int:
    """Bytes of the outputs that came as frames."""
    nbytes = 0
    try:
        for one in answer.outputs:
            if one.frame > 0:
                nbytes += len(answer.frames[one.frame - 1])
    except IndexError as error:
        raise InternalError(_MISFIT) from error
    return nbytes


def _check_outputs(served: Served, outputs: frozenset[str]) -> None:
    if not outputs:
        return
    known = [spec.name for spec in served.signature.outputs]
    unknown = sorted(outputs.difference(known))
    if unknown:
        raise InvalidArgumentError(
            f"output tensor alias not found in signature: {unknown}. Outputs expected to be in the set {{{known}}}."
        )
