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
from common.errors import InternalError, InvalidArgumentError, UnavailableError
from common.messages import OutputRef, OutputResult, Submit, TensorRef, VersionStatus
from common.strings import BadStringsError, decode, encode_into
from common.tensors import STORAGE, STRING
from frontends.admission import Admission
from frontends.broker_client import Answer, BrokerClient, StaleVersionError
from frontends.catalogue import CatalogueView
from frontends.checks import Layout, plan_layout
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
from frontends.memory import Block, Memory

_logger = logging.getLogger("frontends")

_MAX_CHOICES = 5
"""Times that a request is resolved anew because its version left meanwhile."""

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
        self, selector: Selector, build: BuildInputs, deadline_ns: int, outputs: frozenset[str] = frozenset()
    ) -> Prediction:
        """Infer; `outputs` names the wanted ones (empty: all). `deadline_ns` is CLOCK_MONOTONIC.

        Raises ServingError. When the calling task is cancelled the block is freed as soon as nothing can write to it.
        """
        started = time.monotonic_ns()
        self._admission.check(len(self._client.ledger))
        for _ in range(_MAX_CHOICES):
            served = self.choose(selector)
            _check_outputs(served, outputs)
            inputs = build(served)
            for tensor in inputs.values():
                if tensor.dtype == STRING:
                    inputs = await self._images.decode(served.signature, inputs, deadline_ns)
                    break
            layout = plan_layout(served.signature, inputs)
            block = self._memory.allocate(layout.size) or await self._memory.allocate_large(layout.size)
            submit = self._fill(served, inputs, layout, block, deadline_ns)
            del inputs
            submitted = time.monotonic_ns()
            try:
                answer = await self._client.run(submit, block, deadline_ns)
            except StaleVersionError as stale:
                await self._client.wait_for_catalogue(stale.generation, deadline_ns)
                continue
            return self._answer(served, block, submit.outputs, answer, outputs, started, submitted)
        raise UnavailableError(
            f"Model {selector.model} changes its versions faster than the request can follow"
        )

    async def reconfigure(self, models: tuple[ModelConfig, ...] | None, deadline_ns: int) -> Reconfiguration:
        """Serve these models and no others; None: read the configuration file again. Raises ServingError."""
        self._admission.check_open()
        return await self._client.reconfigure(models, deadline_ns)

    def close(self) -> None:
        """Nothing is asked of it any more."""
        self._images.close()

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

    def _fill(
        self,
        served: Served,
        inputs: Mapping[str, InputTensor],
        layout: Layout,
        block: Block,
        deadline_ns: int,
    ) -> Submit:
        """Write the inputs into the block; the message that submits it."""
        placed = []
        try:
            for spec, ref in zip(served.signature.inputs, layout.inputs, strict=True):
                offset = block.offset + ref.offset
                tensor = inputs[spec.name]
                if spec.dtype == STRING:
                    write_strings(tensor.array, block, offset)
                else:
                    target = block.memory.view(offset, ref.shape, STORAGE[spec.dtype])
                    copy_into(tensor.array, tensor.dtype, target, spec.dtype)
                placed.append(TensorRef(offset, ref.shape))
        except BaseException:
            self._memory.free(block)
            raise
        room = tuple(OutputRef(block.offset + ref.offset, ref.nbytes) for ref in layout.outputs)
        return Submit(
            self._client.ledger.next_id(),
            served.id,
            served.generation,
            block.segment,
            tuple(placed),
            room,
            deadline_ns,
        )

    def _answer(
        self,
        served: Served,
        block: Block,
        room: tuple[OutputRef, ...],
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
            for spec, ref, result in zip(specs, room, answer.outputs, strict=True):
                if wanted and spec.name not in wanted:
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


def write_strings(strings: np.ndarray, block: Block, offset: int) -> None:
    """Write them into a block, `offset` from its segment's start. Raises ValueError where they would not end in it."""
    room = block.offset + block.size - offset
    encode_into(strings, block.memory.view(offset, (room,), STORAGE["uint8"]).data)


def _read_strings(answer: Answer, result: OutputResult) -> np.ndarray:
    """An output of strings, as objects. Raises BadStringsError."""
    if result.frame < 1:
        raise BadStringsError("no frame came with an output of strings")
    return decode(memoryview(answer.frames[result.frame - 1]), result.shape).to_array()


def _frame_bytes(answer: Answer) -> int:
    """Bytes of the outputs that came as frames."""
    try:
        return sum(len(answer.frames[one.frame - 1]) for one in answer.outputs if one.frame > 0)
    except IndexError as error:
        raise InternalError(_MISFIT) from error


def _check_outputs(served: Served, outputs: frozenset[str]) -> None:
    known = [spec.name for spec in served.signature.outputs]
    unknown = sorted(outputs.difference(known))
    if unknown:
        raise InvalidArgumentError(
            f"output tensor alias not found in signature: {unknown}. Outputs expected to be in the set {{{known}}}."
        )
