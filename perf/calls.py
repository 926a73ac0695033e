"""Requests and answers for real: what the load generators post, and whether the server answers it rightly."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt

from frontends.grpc.tensorflow_protos import predict_pb2, tensor_pb2, types_pb2
from perf.target import GRPC_PREFIX_BYTES, HOST, Target, frame

PREDICT = "/tensorflow.serving.PredictionService/Predict"
INPUT = "input"
OUTPUT = "output"
TIMEOUT_S = 60.0
RELATIVE_TOLERANCE = 1e-2
"""Of the greatest value: other thread counts sum in another order; the layouts that go wrong err by far more."""

Floats = npt.NDArray[np.float32]


class WrongAnswerError(RuntimeError):
    """The server does not answer, or not with what OpenVINO called directly gives."""


class NotReadyError(WrongAnswerError):
    """Refused in a way that a server refuses which has not loaded the model yet, or does not listen."""


_NOT_READY_GRPC = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND)
_NOT_READY_REST = (404, 503)


@dataclass(frozen=True)
class Sample:
    """A model's request and its right answer."""

    model: str
    request: Floats
    answer: Floats


def load_sample(models: Path, name: str) -> Sample:
    """What `perf.models` wrote beside the model."""
    return Sample(name, np.load(models / name / "input.npy"), np.load(models / name / "answer.npy"))


def grpc_message(sample: Sample) -> bytes:
    """A serialized PredictRequest with the tensor as `tensor_content`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = sample.model
    tensor: tensor_pb2.TensorProto = request.inputs[INPUT]
    tensor.dtype = types_pb2.DT_FLOAT
    for size in sample.request.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = sample.request.tobytes()
    return bytes(request.SerializeToString())


def rest_body(sample: Sample) -> bytes:
    """JSON in row format: one instance, of one input, numbers of four decimals."""
    rows = np.round(sample.request.astype(np.float64), 4).tolist()
    return json.dumps({"instances": rows}, separators=(",", ":")).encode()


def rest_path(model: str) -> str:
    """Where REST predicts."""
    return f"/v1/models/{model}:predict"


def call_grpc(port: int, message: bytes, timeout_s: float = TIMEOUT_S) -> bytes:
    """The serialized PredictResponse. Raises grpc.RpcError."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"{HOST}:{port}", options=options) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PREDICT)
        return call(message, timeout=timeout_s)


def call_rest(port: int, path: str, body: bytes, timeout_s: float = TIMEOUT_S) -> bytes:
    """The body of an answer of status 200. Raises OSError (urllib's errors are such)."""
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", data=body)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
        return bytes(answer.read())


def refusal(what: str, call: Callable[[], bytes]) -> bytes:
    """What a gRPC call gives. Raises NotReadyError, WrongAnswerError instead of grpc.RpcError."""
    try:
        return call()
    except grpc.RpcError as error:
        kind = NotReadyError if error.code() in _NOT_READY_GRPC else WrongAnswerError
        raise kind(f"{what} over gRPC: {error.code().name}: {error.details()}") from error


def check_grpc(port: int, sample: Sample) -> int:
    """Call and compare; the answer's length as a frame [bytes]. Raises WrongAnswerError, NotReadyError."""
    raw = refusal(sample.model, lambda: call_grpc(port, grpc_message(sample)))
    tensor = predict_pb2.PredictResponse.FromString(raw).outputs[OUTPUT]
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    values = np.frombuffer(tensor.tensor_content, np.float32)
    if shape != sample.answer.shape or values.size != sample.answer.size:
        raise WrongAnswerError(f"{sample.model} over gRPC: shape {shape}, not {sample.answer.shape}")
    _compare(f"{sample.model} over gRPC", values.reshape(shape), sample.answer)
    return len(raw) + GRPC_PREFIX_BYTES


def check_rest(port: int, sample: Sample) -> int:
    """Call and compare; the body's length [bytes]. Raises WrongAnswerError, NotReadyError."""
    try:
        raw = call_rest(port, rest_path(sample.model), rest_body(sample))
        values = np.array(json.loads(raw)["predictions"], np.float32)
    except urllib.error.HTTPError as error:
        kind = NotReadyError if error.code in _NOT_READY_REST else WrongAnswerError
        raise kind(f"{sample.model} over REST: {error.code}: {error.read()[:500]!r}") from error
    except OSError as error:
        raise NotReadyError(f"{sample.model} over REST: {error}") from error
    except (ValueError, KeyError) as error:
        raise WrongAnswerError(f"{sample.model} over REST: {error!r}") from error
    _compare(f"{sample.model} over REST", values, sample.answer)
    return len(raw)


def _compare(what: str, values: Floats, right: Floats) -> None:
    if values.shape != right.shape:
        raise WrongAnswerError(f"{what}: shape {values.shape}, not {right.shape}")
    worst = float(np.abs(values - right).max())
    if not worst <= RELATIVE_TOLERANCE * float(np.abs(right).max()):
        raise WrongAnswerError(f"{what}: differs from OpenVINO called directly by up to {worst:g}")


def grpc_target(port: int, sample: Sample, directory: Path, answer_bytes: int) -> Target:
    """What posts this sample over gRPC."""
    body = directory / f"{sample.model}.grpc"
    body.write_bytes(frame(grpc_message(sample)))
    return Target("grpc", port, PREDICT, body, answer_bytes)


def rest_target(port: int, sample: Sample, directory: Path, answer_bytes: int) -> Target:
    """What posts this sample over REST."""
    body = directory / f"{sample.model}.json"
    body.write_bytes(rest_body(sample))
    return Target("rest", port, rest_path(sample.model), body, answer_bytes)
