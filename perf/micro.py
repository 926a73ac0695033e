"""`python -m perf.micro`: what the hot functions take, in nanoseconds a call, each the median of several batches.

Of one process on one core; compare figures of one machine and hour alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from broker.scheduler import Scheduler
from broker.work import Request
from common import messages
from common.allocator import Allocator
from common.arena import Segment
from common.messages import (
    Catalogue,
    Completed,
    Envelope,
    Execute,
    ModelStatus,
    OutputRef,
    OutputResult,
    RequestKey,
    Submit,
    TensorRef,
    VersionId,
    VersionStatus,
)
from common.tensors import Signature, TensorSpec
from frontends.catalogue import CatalogueView
from frontends.grpc.predict_reader import PredictReader
from frontends.grpc.predict_wire import walk
from frontends.grpc.requests import parse
from frontends.grpc.tensorflow_protos import predict_pb2, types_pb2
from frontends.grpc.wire import output_buffers, read_tensor
from frontends.interface import OutputTensor, Selector
from perf import grpc_bytes
from workers.binding import Binder
from workers.engine import MemoryId
from workers.queue import RunQueue

BATCHES = 15
BATCH_S = 0.01
TINY = (1, 10)
IMAGE = (1, 3, 224, 224)
"""600 KB of float32."""
QUEUED = (1, 100, 10_000)
_FRONTEND = "f1"


@dataclass(frozen=True)
class Case:
    """A function without arguments, made ready."""

    name: str
    call: Callable[[], object]


def nanoseconds(call: Callable[[], object], batches: int = BATCHES, batch_s: float = BATCH_S) -> float:
    """A call's time: the median of batches, each of as many calls as take about `batch_s`."""
    calls = 1
    while (took := _batch(call, calls)) < batch_s * 1e9:
        calls = max(calls + 1, min(10 * calls, int(1.2 * calls * batch_s * 1e9 / max(took, 1))))
    return statistics.median(_batch(call, calls) / calls for _ in range(batches))


def _batch(call: Callable[[], object], calls: int) -> int:
    begun = time.perf_counter_ns()
    for _ in range(calls):
        call()
    return time.perf_counter_ns() - begun


# ---- wire


def predict_request(shape: tuple[int, ...]) -> bytes:
    """A serialized PredictRequest of one float32 input as `tensor_content`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "model"
    tensor = request.inputs["input"]
    tensor.dtype = types_pb2.DT_FLOAT
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = np.zeros(shape, np.float32).tobytes()
    return bytes(request.SerializeToString())


def _wire() -> Iterator[Case]:
    for name, shape in (("tiny", TINY), ("600 KB", IMAGE)):
        message = memoryview(predict_request(shape))
        output = OutputTensor("float32", np.zeros(shape, np.float32))

        def read(message: memoryview = message) -> object:
            request = parse(predict_pb2.PredictRequest, message)
            return {name: read_tensor(name, tensor) for name, tensor in request.inputs.items()}

        def walked(message: memoryview = message) -> object:
            form = walk(message)
            assert form is not None
            return form.read_inputs(message)

        reader = PredictReader()

        def remembered(message: memoryview = message, reader: PredictReader = reader) -> object:
            form = reader.read(message)
            assert form is not None
            return form.read_inputs(message)

        def write(output: OutputTensor = output) -> object:
            return b"".join(output_buffers("output", output))

        yield Case(f"PredictRequest, {name}: by protobuf", read)
        yield Case(f"PredictRequest, {name}: where it lies", walked)
        yield Case(f"PredictRequest, {name}: where it lies, form known", remembered)
        yield Case(f"PredictResponse, {name}: put together", write)


# ---- memory, messages, catalogue


def _memory() -> Iterator[Case]:
    for blocks in (0, 1000):
        allocator = Allocator(64 << 20)
        lent = [allocator.allocate(4096) for _ in range(blocks)]
        for offset in lent[::2]:
            allocator.free(offset or 0)

        def step(allocator: Allocator = allocator) -> None:
            offset = allocator.allocate(8192)
            assert offset is not None
            allocator.free(offset)

        yield Case(f"allocator beside {blocks} blocks, half of them freed: allocate and free", step)


def submit(number: int = 1) -> Submit:
    """A Submit of one input and one output."""
    return Submit(number, _version(), 1, 0, (TensorRef(0, TINY),), (OutputRef(64, 40),), 1 << 60)


def _version() -> VersionId:
    return VersionId("model", 1)


def _messages() -> Iterator[Case]:
    for name, message in (("Submit", submit()), ("Completed", Completed(1, (OutputResult(TINY),)))):
        for count in (1, 16):
            envelope = Envelope(messages.PROTOCOL_VERSION, 1, 1, [message] * count)
            frame = messages.encode(envelope)
            yield Case(f"{count} {name}: encode", partial(messages.encode, envelope))
            yield Case(f"{count} {name}: decode", partial(messages.decode, frame))


def _catalogue() -> Iterator[Case]:
    status = VersionStatus(1, 30, signature=Signature((), ()), servable=True)
    models = tuple(ModelStatus(f"model{number}", (status,), {"stable": 1}) for number in range(100))
    view = CatalogueView(Catalogue(1, True, models))
    for name, selector in (
        ("default", Selector("model50")),
        ("number", Selector("model50", version=1)),
        ("label", Selector("model50", label="stable")),
    ):
        yield Case(f"catalogue of 100 models: choose by {name}", partial(view.choose, selector))


# ---- worker


def _worker() -> Iterator[Case]:
    queue, version = RunQueue(), _version()
    queue.add(version, 1)
    requests = [
        Execute(
            RequestKey(_FRONTEND, number), version, 0, (TensorRef(64 * number, TINY),), (OutputRef(64, 40),)
        )
        for number in range(16)
    ]

    def run() -> None:
        for request in requests:
            queue.push(request)
        while (due := queue.next()) is not None:
            assert isinstance(due, Execute)
            queue.finish(due.key)

    yield Case("16 requests through a worker's queue", run)
    specs = (TensorSpec("x", "float32", TINY),)
    binder, segment, arena = Binder(Signature(specs, specs)), Segment.create(1 << 16), MemoryId(_FRONTEND, 0)
    for one in requests:
        binder.bind(arena, segment, one.inputs, one.outputs)
    last = requests[-1]
    yield Case(
        "a request's places in an arena, known", partial(binder.known, _FRONTEND, last.inputs, last.outputs)
    )


# ---- scheduler


def scheduler_step(queued: int) -> Callable[[], None]:
    """One request done, one submitted, one handed out, while so many wait."""
    scheduler, version = Scheduler(), _version()
    scheduler.worker_joined("w")
    scheduler.version_loaded("w", version, 1)
    number = 0

    def add() -> None:
        nonlocal number
        number += 1
        scheduler.submit(Request(RequestKey(_FRONTEND, number), version, submit(number), 0))

    in_hand: list[RequestKey] = []
    while scheduler.queued(version) < queued:
        add()
        in_hand.extend(request.key for request in scheduler.dispatch(0))

    def step() -> None:
        scheduler.done("w", in_hand.pop(0), 1)
        add()
        in_hand.extend(request.key for request in scheduler.dispatch(1))

    return step


def _scheduler() -> Iterator[Case]:
    for queued in QUEUED:
        yield Case(f"scheduler with {queued:,} queued: done, submit, dispatch", scheduler_step(queued))


# ---- the gRPC transport


def _transport() -> Iterator[Case]:
    rounds = partial(grpc_bytes.Calls(16, bytes(100), bytes).run, 10)
    yield Case("gRPC transport without sockets: 160 small calls on 16 connections", rounds)
    large = grpc_bytes.Calls(1, bytes(600_000), lambda _message: b"")
    yield Case(
        "gRPC transport without sockets: 10 calls of 600 KB in frames of 16 KB", partial(large.run, 10)
    )


def cases() -> list[Case]:
    """All of them."""
    return [
        *_wire(),
        *_memory(),
        *_messages(),
        *_catalogue(),
        *_scheduler(),
        *_worker(),
        *_transport(),
    ]


def line_of(name: str, taken: float) -> str:
    """A line of the table."""
    return f"{taken:12,.0f} ns  {name}"


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.micro", description="Nanoseconds of the hot functions."
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="those whose names contain it")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if arguments.only in case.name]
    for case in tqdm(chosen, disable=None, leave=False):
        tqdm.write(line_of(case.name, nanoseconds(case.call)))


if __name__ == "__main__":
    main()
