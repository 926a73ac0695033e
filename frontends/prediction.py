"""An answer in shared memory: what the broker says of a request's outputs, as arrays."""

import logging
import time

import numpy as np

from common.dtypes import STORAGE
from common.errors import InternalError
from common.messages import OutputResult
from common.strings import BadStringsError, decode
from common.tensors import STRING
from frontends.admission import Admission
from frontends.interface import OutputTensor, Served
from frontends.memory import Block, Memory
from frontends.plans import Place
from frontends.requests import Answer

_logger = logging.getLogger("frontends")

_MISFIT = "The worker's answer does not fit the model's signature"


class Prediction:
    """An answer in place. Use it, then `release` it; the arrays are not to be touched afterwards."""

    __slots__ = (
        "_admission",
        "_answered",
        "_block",
        "_frame_bytes",
        "_memory",
        "_started",
        "_submitted",
        "outputs",
        "served",
    )

    def __init__(
        self,
        memory: Memory,
        admission: Admission,
        served: Served,
        block: Block,
        times: tuple[int, int],
        frame_bytes: int,
    ) -> None:
        """`times`: when the request came and when it was submitted, by CLOCK_MONOTONIC."""
        self._memory = memory
        self._admission = admission
        self._block: Block | None = block
        self._started, self._submitted = times
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
        self._memory.free(block)
        if self._frame_bytes:
            self._admission.drop_frames(self._frame_bytes)
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


def read_answer(
    prediction: Prediction, block: Block, place: Place, answer: Answer, wanted: frozenset[str]
) -> None:
    """Views of the outputs, those that are wanted (empty: all). A prediction whose answer does not fit is released.

    Raises InternalError.
    """
    try:
        for spec, ref, known, result in zip(
            prediction.served.signature.outputs, place.outputs, place.results, answer.outputs, strict=True
        ):
            if wanted and spec.name not in wanted:
                continue
            if known is not None and result.frame <= 0 and result.shape == known.array.shape:
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


def _read_strings(answer: Answer, result: OutputResult) -> np.ndarray:
    """An output of strings, as objects. Raises BadStringsError."""
    if result.frame < 1:
        raise BadStringsError("no frame came with an output of strings")
    return decode(memoryview(answer.frames[result.frame - 1]), result.shape).to_array()


def frame_bytes_of(answer: Answer) -> int:
    """Bytes of the outputs that came as frames. Raises InternalError when they did not come."""
    nbytes = 0
    try:
        for one in answer.outputs:
            if one.frame > 0:
                nbytes += len(answer.frames[one.frame - 1])
    except IndexError as error:
        raise InternalError(_MISFIT) from error
    return nbytes
