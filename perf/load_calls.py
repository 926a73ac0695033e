"""The clients of `perf.load`: one connection each, one request at a time, over gRPC or REST."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import grpc
import numpy as np

from frontends.grpc.tensorflow_protos import get_model_metadata_pb2, predict_pb2, types_pb2
from perf.load_inputs import DTYPES, SIGNATURE, Input, UnusableError, from_json, from_signature

_SERVICE = "/tensorflow.serving.PredictionService"
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each client
    ("grpc.enable_http_proxy", 0),
)
_NAMES = {np.dtype(dtype): types_pb2.DataType.Value(name) for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Failure:
    """A request that was not answered."""

    code: str
    text: str
    connection: bool = False
    """Whether there was nobody to answer."""


Send = Callable[[], Awaitable[Failure | None]]
"""One request; None when it was answered."""


class Api(Protocol):
    """How a model is asked."""

    async def inputs(self) -> dict[str, Input]:
        """What it wants. Raises UnusableError."""
        ...

    def client(self, arrays: Mapping[str, np.ndarray]) -> contextlib.AbstractAsyncContextManager[Send]:
        """A connection, and what sends these inputs over it."""
        ...


# Quoted: the class is generic in its stubs alone.
def _method(channel: grpc.aio.Channel, name: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(f"{_SERVICE}/{name}")


class GrpcApi:
    """tensorflow.serving.PredictionService."""

    def __init__(self, address: str, model: str, timeout_s: float) -> None:
        self._address, self._model, self._timeout_s = address, model, timeout_s

    async def inputs(self) -> dict[str, Input]:
        """By GetModelMetadata."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._model
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            call = _method(channel, "GetModelMetadata")
            try:
                raw = await call(request.SerializeToString(), timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                raise UnusableError(
                    f"{self._model} at {self._address}: {error.code().name}: {error.details()}"
                ) from error
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer = get_model_metadata_pb2.GetModelMetadataResponse.FromString(raw)
        answer.metadata["signature_def"].Unpack(signatures)
        return from_signature(signatures.signature_def[SIGNATURE])

    @contextlib.asynccontextmanager
    async def client(self, arrays: Mapping[str, np.ndarray]) -> AsyncIterator[Send]:
        """A channel of its own, and Predict."""
        message = self._message(arrays)
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            call = _method(channel, "Predict")

            async def send() -> Failure | None:
                try:
                    await call(message, timeout=self._timeout_s)
                except grpc.aio.AioRpcError as error:
                    gone = error.code() == grpc.StatusCode.UNAVAILABLE
                    return Failure(error.code().name, error.details() or "", gone)
                return None

            yield send

    def _message(self, arrays: Mapping[str, np.ndarray]) -> bytes:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._model
        for name, array in arrays.items():
            tensor = request.inputs[name]
            tensor.dtype = _NAMES[array.dtype]
            tensor.tensor_shape.SetInParent()
            for size in array.shape:
                tensor.tensor_shape.dim.add(size=size)
            tensor.tensor_content = array.tobytes()
        return bytes(request.SerializeToString())


class RestApi:
    """`/v1/models/NAME`, with a connection that is kept."""

    def __init__(self, address: str, model: str, timeout_s: float) -> None:
        """`address` is host:port."""
        self._address, self._model, self._timeout_s = address, model, timeout_s
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)

    async def inputs(self) -> dict[str, Input]:
        """By `/v1/models/NAME/metadata`."""
        head = f"GET /v1/models/{self._model}/metadata HTTP/1.1\r\nHost: {self._address}\r\n\r\n"
        connection = _Http(self._host, self._port)
        try:
            status, body = await asyncio.wait_for(connection.ask(head.encode()), self._timeout_s)
            if status != _OK:
                raise UnusableError(f"{self._model} at {self._address}: HTTP {status}: {_error_text(body)}")
            return from_json(json.loads(body))
        except _BROKEN as error:
            raise UnusableError(f"{self._model} at {self._address}: {error!r}") from error
        finally:
            connection.close()

    @contextlib.asynccontextmanager
    async def client(self, arrays: Mapping[str, np.ndarray]) -> AsyncIterator[Send]:
        """A connection of its own, and `:predict`; in row format where there is one input."""
        lists = {name: array.tolist() for name, array in arrays.items()}
        rows = len(lists) == 1 and all(array.ndim for array in arrays.values())
        content = {"instances": next(iter(lists.values()))} if rows else {"inputs": lists}
        body = json.dumps(content, separators=(",", ":")).encode()
        head = (
            f"POST /v1/models/{self._model}:predict HTTP/1.1\r\nHost: {self._address}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        connection = _Http(self._host, self._port)

        async def send() -> Failure | None:
            try:
                status, answer = await asyncio.wait_for(connection.ask(head + body), self._timeout_s)
            except asyncio.TimeoutError:
                connection.close()
                return Failure("timeout", f"no answer within {self._timeout_s:g} s")
            except _BROKEN as error:
                connection.close()
                return Failure("connection", repr(error), connection=True)
            return None if status == _OK else Failure(f"HTTP {status}", _error_text(answer))

        try:
            yield send
        finally:
            connection.close()


_OK = 200
_BROKEN = (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError)
_TEXT = 300


def _error_text(body: bytes) -> str:
    """What the server says of an error, cut."""
    try:
        return str(json.loads(body)["error"])[:_TEXT]
    except (ValueError, KeyError, TypeError):
        return body[:_TEXT].decode(errors="replace")


class _Http:
    """HTTP/1.1 over one connection, which is opened when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises what _BROKEN names; then the connection must be closed."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        status_line, _, fields = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (field.partition(b":") for field in fields.splitlines())
        }
        if b"content-length" not in headers:
            raise ValueError("an answer without Content-Length")
        body = await reader.readexactly(int(headers[b"content-length"]))
        if headers.get(b"connection", b"").lower() == b"close":
            self.close()
        return int(status_line.split()[1]), body

    def close(self) -> None:
        """Let go of the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
