"""`python -m perf.handler [--rounds 12]`: CPU time of a Predict in the gRPC frontend, without transport and broker.

Reading a request by protobuf, by our reader when it has not seen such a request and when it has; then all of it, from
where the transport has the message to the reply, of 16 requests at once, whose answers come together. Best of the
rounds, in microseconds. The message lies in the process's own memory ("copied") or, if it is large, in the arena ("in
place").
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.messages import (
    Catalogue,
    Completed,
    ModelStatus,
    OutputResult,
    VersionStatus,
)
from common.states import VersionState
from common.tensors import Signature, TensorSpec
from frontends.admission import Admission
from frontends.broker_client import BrokerClient
from frontends.catalogue import CatalogueView
from frontends.dataplane import Dataplane
from frontends.grpc.calls import Ended, Outcome
from frontends.grpc.predict_reader import PredictReader
from frontends.grpc.predict_wire import elements_offset, walk
from frontends.grpc.tensorflow_protos import predict_pb2
from frontends.grpc.tensorflow_serving import TensorFlowServing
from frontends.grpc.wire import DATA_TYPES, read_tensor, shape_proto
from frontends.memory import Block, Memory

_SHAPES = ((1, 10), (1, 3, 224, 224))
_ARENA_BYTES = 64 << 20
_AT_ONCE = 16
_TIMES = 20
_IN_PLACE_BYTES = 65_536
"""Shorter messages are received in memory of their own."""
_BYTES = np.dtype(np.uint8)


def _client(memory: Memory, admission: Admission, shape: tuple[int, ...]) -> BrokerClient:
    """A link that has not found its broker, with the catalogue that a broker would have sent."""
    spec = TensorSpec("data", "float32", shape)
    version = VersionStatus(1, int(VersionState.AVAILABLE), None, Signature((spec,), (spec,)), servable=True)
    client = BrokerClient(Path("/nowhere"), "perf", "grpc", memory, admission)
    client.catalogue = CatalogueView(Catalogue(1, True, (ModelStatus("m", (version,)),)))
    return client


class _Call:
    """A call without a connection."""

    metadata = ()
    deadline_ns = None

    def __init__(self, block: Block | None) -> None:
        self._block = block
        self.release: Callable[[], None] | None = None

    def take_block(self) -> Block | None:
        """See Call."""
        block, self._block = self._block, None
        return block

    def give_block(self, block: Block) -> None:
        """See Call."""
        self._block = block

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
    """A request's time from where the transport has its message to its reply. The messages are written anew for each
    request, as a transport does; that is not counted.
    """
    memory, admission = Memory(_ARENA_BYTES, 0), Admission(100)
    client = _client(memory, admission, shape)
    handler = TensorFlowServing(Dataplane(client, memory, admission), 60.0)
    best = float("inf")
    for _ in range(rounds):
        spent = 0
        for _ in range(_TIMES):
            received = [
                _received(memory, message) if in_place else (memoryview(message), None)
                for _ in range(_AT_ONCE)
            ]
            calls = [(view, _Call(block)) for view, block in received]
            began = time.process_time_ns()
            ended: list[Outcome] = []
            for view, call in calls:
                handler.begin_predict(view, call, _noting(ended))
            # The first ones of a form go the general way, in tasks.
            while len(ended) < _AT_ONCE:
                await asyncio.sleep(0)
                _answer(client, shape)
            spent += time.process_time_ns() - began
            assert not any(isinstance(outcome, BaseException) for outcome in ended), (
                "what was begun is answered"
            )
            for _, call in calls:
                if call.release is not None:
                    call.release()
        best = min(best, spent / _TIMES / _AT_ONCE / 1e3)
    assert memory.used == 0, "every block was freed"
    client.close()
    return best


def _noting(ends: list[Outcome]) -> Ended:
    return lambda _, outcome: ends.append(outcome)


def _answer(client: BrokerClient, shape: tuple[int, ...]) -> None:
    """As the broker, to all that wait; in the outputs is what was there."""
    results = (OutputResult(shape),)
    for id_ in list(client.ledger.entries):
        client.receive(Completed(id_, results), ())


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
