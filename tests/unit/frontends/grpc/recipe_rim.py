"""The handler of Predict on a stage, and how its requests come to be carried out by recipes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from common.messages import Completed, OutputResult, Submit
from common.tensors import Signature, TensorSpec
from frontends.forms import Form
from frontends.grpc.calls import Unary, carry_out
from frontends.grpc.predict_wire import walk
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.grpc.tensorflow_serving import TensorFlowServing
from frontends.grpc.wire import DATA_TYPES, shape_proto
from tests.unit.frontends.grpc.calling import FakeCall
from tests.unit.frontends.scripted_broker import Stage, catalogue, status

X = np.arange(8, dtype=np.float32).reshape(2, 4)
ONE = Signature((TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (2, 4)),))
TWO = Signature(
    (TensorSpec("a", "float32", (2,)), TensorSpec("b", "int64", (1, 3))),
    (TensorSpec("p", "int64", (3,)), TensorSpec("q", "float32", ())),
)
A, B = np.array([1, 2], np.float32), np.array([[3, 4, 5]], np.int64)


def message_of(wanted: tuple[str, ...] = (), /, **inputs: np.ndarray) -> bytes:
    request = predict_pb2.PredictRequest(output_filter=wanted)
    request.model_spec.name = "m"
    for name, array in inputs.items():
        tensor = request.inputs[name]
        tensor.dtype = DATA_TYPES[str(array.dtype)]
        tensor.tensor_shape.CopyFrom(shape_proto(array.shape))
        tensor.tensor_content = array.tobytes()
    return bytes(request.SerializeToString(deterministic=True))


class Rim:
    """The handler under test, on a stage."""

    def __init__(self, stage: Stage, *, in_block: bool = False) -> None:
        """`in_block`: messages come in blocks of shared memory, as large ones do."""
        self.stage = stage
        self.in_block = in_block
        self.handler = TensorFlowServing(stage.dataplane, 60.0)
        predict = self.handler.methods()["/tensorflow.serving.PredictionService/Predict"]
        assert isinstance(predict, Unary)
        self.predict = predict

    def ask(self, message: bytes, deadline_ns: int | None = None) -> asyncio.Task[bytes]:
        return asyncio.create_task(self._call(message, FakeCall(deadline_ns)))

    async def _call(self, message: bytes, call: FakeCall) -> bytes:
        view = self.received(message, call) if self.in_block else memoryview(message)
        try:
            return b"".join(await carry_out(self.predict, view, call))
        finally:
            call.finish()
            block = call.take_block()
            if block is not None:
                self.stage.memory.free(block)

    def received(self, message: bytes, call: FakeCall, shift: int = 0) -> memoryview:
        """The message in a block of the arena, the first input aligned, or `shift` bytes from that."""
        call.block = block = self.stage.memory.allocate(len(message) + 128)
        assert block is not None
        form = walk(memoryview(message))
        aligned = form.inputs[0].start if form is not None and form.inputs else 0
        start = block.offset - aligned % 64 + 64 + shift
        view = block.memory.view(start, (len(message),), np.dtype(np.uint8)).data
        view[:] = message
        return view

    def form(self, message: bytes) -> Form:
        form = self.handler._reader.read(memoryview(message))
        assert form is not None
        return form.in_block() if self.in_block else form

    def seen(self, submit: Submit, number: int, dtype: type) -> np.ndarray:
        """An input as a worker sees it."""
        ref = submit.inputs[number]
        found: np.ndarray = np.ndarray(ref.shape, dtype, self.stage.memory._arena.buffer, ref.offset)
        return np.array(found)

    def answer(self, submit: Submit, *arrays: np.ndarray) -> None:
        """As a worker, into the block."""
        for ref, array in zip(submit.outputs, arrays, strict=True):
            np.copyto(
                np.ndarray(array.shape, array.dtype, self.stage.memory._arena.buffer, ref.offset), array
            )
        self.stage.broker.say(Completed(submit.id, tuple(OutputResult(array.shape) for array in arrays)))

    async def served(self, message: bytes, *arrays: np.ndarray) -> tuple[Submit, bytes]:
        """One request from end to end."""
        task = self.ask(message)
        submit = await self.stage.broker.next(Submit)
        self.answer(submit, *arrays)
        return submit, await task

    async def learn(self, message: bytes, *arrays: np.ndarray) -> bytes:
        """As many requests as it takes until there is a recipe; the answer in the general way."""
        _, first = await self.served(message, *arrays)
        assert self.form(message).recipe is None
        await self.served(message, *arrays)
        assert self.form(message).recipe is not None
        return first


async def begun(stage: Stage, signature: Signature = ONE, *, in_block: bool = False) -> Rim:
    await stage.link(catalogue(1, status(1, signature=signature)))
    return Rim(stage, in_block=in_block)


def outputs_of(answer: bytes) -> dict[str, Any]:
    return dict(predict_pb2.PredictResponse.FromString(answer).outputs)
