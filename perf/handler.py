"""`python -m perf.handler [--rounds 12]`: CPU time of a Predict in the gRPC frontend, without transport and broker.

Reading a request by protobuf, by our reader when it has not seen such a request and when it has; then the handler as a
whole, whose broker answers at once. Best of the rounds, in microseconds. The message lies in the process's own memory
("copied") or, if it is large, in the arena ("in place").
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from common.messages import (
    Catalogue,
    Completed,
    ModelStatus,
    OutputResult,
    Submit,
    Timing,
    VersionStatus,
)
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.admission import Admission
from frontends.catalogue import CatalogueView
from frontends.dataplane import Dataplane
from frontends.grpc.predict_reader import PredictReader
from frontends.grpc.predict_wire import elements_offset, walk
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.grpc.tensorflow_serving import TensorFlowServing
from frontends.grpc.wire import DATA_TYPES, read_tensor, shape_proto
from frontends.ledger import Ledger
from frontends.memory import Block, Memory
from frontends.requests import Answer, Request

_SHAPES = ((1, 10), (1, 3, 224, 224))
_ARENA_BYTES = 16 << 20
_IN_PLACE_BYTES = 65_536
"""Shorter messages are received in memory of their own."""
_BYTES = np.dtype(np.uint8)


class _Broker:
    """Stands for the BrokerClient: answers at once, and leaves in the output what was there."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        spec = TensorSpec("data", "float32", shape)
        version = VersionStatus(
            1, int(VersionState.AVAILABLE), None, Signature((spec,), (spec,)), servable=True
        )
        self.catalogue = CatalogueView(Catalogue(1, True, (ModelStatus("m", (version,)),)))
        self.ledger: Ledger[Request] = Ledger()
        self.linked = True
        self.loop = asyncio.get_running_loop()
        self._results = (OutputResult(shape),)

    async def run(self, submit: Submit, block: Block) -> Answer:
        """See BrokerClient."""
        return Answer(self._results, (), Timing())

    def begin(self, request: Request, now: int) -> None:
        """See BrokerClient."""
        request.waiter.set_result(Completed(request.submit.id, self._results))


class _Call:
    """A call without a connection."""

    metadata = ()
    deadline_ns = None

    def __init__(self, block: Block | None) -> None:
        self._block = block
        self.release: Callable[[], None] | None = None

    def take_block(self) -> Block | None:
        """See Call."""
        return self._block

    def after_reply(self, release: Callable[[], None]) -> None:
        """See Call."""
        self.release = release


def _message(shape: tuple[int, ...]) -> bytes:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    tensor = request.inputs["data"]
    tensor.dtype = DATA_TYPES["float32"]
    tensor.tensor_shape.CopyFrom(shape_proto(shape))
    tensor.tensor_content = np.ones(shape, np.float32).tobytes()
    return bytes(request.SerializeToString())


def _by_protobuf(message: memoryview) -> Any:
    request = predict_pb2.PredictRequest.FromString(message)
    return {name: read_tensor(name, tensor) for name, tensor in request.inputs.items()}


def _walked(message: memoryview) -> Any:
    form = walk(message)
    assert form is not None
    return form.read_inputs(message)


def _known(reader: PredictReader) -> Callable[[memoryview], Any]:
    def read(message: memoryview) -> Any:
        form = reader.read(message)
        assert form is not None
        return form.read_inputs(message)

    return read


def _reading(message: bytes, rounds: int) -> Iterator[tuple[str, float]]:
    """Each way of reading, in turns, and its time."""
    ways = {"protobuf": _by_protobuf, "walked": _walked, "known form": _known(PredictReader())}
    best = dict.fromkeys(ways, float("inf"))
    view, times = memoryview(message), 500
    for _ in range(rounds):
        for name, read in ways.items():
            began = time.process_time_ns()
            for _ in range(times):
                read(view)
            best[name] = min(best[name], (time.process_time_ns() - began) / times / 1e3)
    yield from best.items()


async def _handling(message: bytes, shape: tuple[int, ...], rounds: int, *, in_place: bool) -> float:
    """The handler's time. The message is written anew for each request, as a transport does; that is not counted."""
    memory, broker = Memory(_ARENA_BYTES, 0), _Broker(shape)
    handler = TensorFlowServing(Dataplane(broker, memory, Admission(100)), 60.0)  # type: ignore[arg-type]
    best = float("inf")
    for _ in range(rounds):
        spent = 0
        for _ in range(200):
            view, block = _received(memory, message) if in_place else (memoryview(message), None)
            call = _Call(block)
            began = time.process_time_ns()
            await handler.predict(view, call)
            spent += time.process_time_ns() - began
            if call.release is not None:
                call.release()
        best = min(best, spent / 200 / 1e3)
    assert memory.used == 0, "every block was freed"
    return best


def _received(memory: Memory, message: bytes) -> tuple[memoryview, Block]:
    block = memory.allocate(len(message) + 64)
    assert block is not None, "the arena has room for one message"
    offset = block.offset - elements_offset(memoryview(message)) % 64 + 64
    view = block.memory.view(offset, (len(message),), _BYTES).data
    view[:] = message
    return view, block


def measure(rounds: int) -> list[tuple[str, str, float]]:
    """Message, what was done with it, microseconds."""
    found = []
    for shape in _SHAPES:
        name, message = "×".join(map(str, shape)), _message(shape)
        found += [(name, f"read, {way}", took) for way, took in _reading(message, rounds)]
        for in_place in (False, True) if len(message) >= _IN_PLACE_BYTES else (False,):
            took = asyncio.run(_handling(message, shape, rounds, in_place=in_place))
            found.append((name, "handled, in place" if in_place else "handled, copied", took))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="perf.handler", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    for name, what, took in measure(parser.parse_args(arguments).rounds):
        print(f"{name:12} {what:20} {took:8.2f} µs")


if __name__ == "__main__":
    main()
