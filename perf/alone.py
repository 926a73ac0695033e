"""Scenario: what one server costs that is alone on the machine: its start, an idle moment, its memory after load.

Nothing else of ours may run meanwhile: shared pages of two servers would be divided between them in PSS.
"""

import time

import numpy as np

from examples.digits import png
from examples.digits.demo import HERE as DIGITS
from examples.digits.demo import SAMPLE
from frontends.grpc.tensorflow_protos import predict_pb2, types_pb2
from perf import procs
from perf.bench import Bench
from perf.calls import NotReadyError, WrongAnswerError, call_grpc, grpc_target, load_sample, refusal
from perf.generate import measure, pilot, requests_for
from perf.plan import Setup
from perf.results import Reading
from perf.server import Server, StartFailedError, model_options
from perf.target import LoadFailedError

START, IDLE, MEMORY = "start", "idle-cpu", "memory"
MEBIBYTE = 1 << 20
CLIENTS = 16
_IDLE_PER_SECOND = 4.0
_LEAST_IDLE_S = 4.0
"""Clock ticks are 10 ms, and an idle server spends few."""
_SETTLE_S = 2.0
_START_S = 60.0
_POLL_S = 0.02
_IMAGE, _PROBABILITIES, _DIGIT = "image", "probabilities", 7


def run(bench: Bench) -> None:
    """Measure; what goes wrong is written down. The first start of all warms the file cache and does not count."""
    try:
        if bench.wants(START):
            _start(bench, None)
        for number in range(bench.settings.rounds):
            if bench.wants(START):
                _start(bench, number)
            if bench.wants(IDLE, MEMORY):
                _cost(bench, number)
    except (StartFailedError, WrongAnswerError, LoadFailedError) as error:
        bench.results.problems.append(f"alone: {error}")


def steps(bench: Bench) -> int:
    """How many measurements it takes."""
    start, cost = bench.wants(START), bench.wants(IDLE, MEMORY)
    return start + bench.settings.rounds * (start + cost)


def _start(bench: Bench, number: int | None) -> None:
    """From the command to the first right answer of the demo's model."""
    bench.tick("start of the demo")
    options = model_options("digits", DIGITS / "model", Setup())
    begun = time.monotonic()
    with Server(options, bench.directory, bench.program) as server:
        while not _answers(server.grpc_port):
            if not server.lives() or time.monotonic() > begun + _START_S:
                raise StartFailedError(f"no answer within {_START_S:.0f} s\n{server.log_end()}")
            time.sleep(_POLL_S)
        took = time.monotonic() - begun
        if number is not None:
            bench.results.readings.append(Reading(START, number, took, server.setup()))


def _answers(port: int) -> bool:
    """Whether the sample image is answered, and rightly. Raises WrongAnswerError."""
    if not procs.listens(port):
        return False
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "digits"
    image = np.array([png.read(SAMPLE)], np.float32)
    tensor = request.inputs[_IMAGE]
    tensor.dtype = types_pb2.DT_FLOAT
    for size in image.shape:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = image.tobytes()
    try:
        raw = refusal("digits", lambda: call_grpc(port, request.SerializeToString(), _START_S))
    except NotReadyError:
        return False
    answer = predict_pb2.PredictResponse.FromString(raw).outputs[_PROBABILITIES]
    found = int(np.frombuffer(answer.tensor_content, np.float32).argmax())
    if found != _DIGIT:
        raise WrongAnswerError(f"the demo's sample is a {_DIGIT}, not a {found}")
    return True


def _cost(bench: Bench, number: int) -> None:
    """A server of the tiny model: idle, then under load, then its memory."""
    bench.tick("idle, and memory")
    sample = load_sample(bench.models, "tiny")
    options = model_options("tiny", bench.models / "tiny", Setup())
    with Server(options, bench.directory, bench.program) as server:
        length, _ = server.wait_ready(sample)
        setup = server.setup()
        time.sleep(_SETTLE_S)
        before, begun = procs.tree(server.pid), time.monotonic()
        time.sleep(max(_LEAST_IDLE_S, _IDLE_PER_SECOND * bench.settings.seconds))
        spent = procs.cpu_spent(before, procs.tree(server.pid))
        percent = 100 * sum(spent.values()) / (time.monotonic() - begun)
        bench.results.readings.append(Reading(IDLE, number, percent, setup))
        target = grpc_target(server.grpc_port, sample, bench.directory, length)
        seconds = bench.settings.seconds
        rate = pilot(bench.generator, target, CLIENTS, seconds, bench.directory)
        requests = requests_for(rate, seconds / 2, CLIENTS)
        done = measure(bench.generator, target, CLIENTS, requests, seconds, bench.directory)
        server.wait_ready(sample)
        used = sum(procs.memory(procs.tree(server.pid)).values()) / MEBIBYTE
        bench.results.readings.append(Reading(MEMORY, number, used, setup, done.figures.errors))
