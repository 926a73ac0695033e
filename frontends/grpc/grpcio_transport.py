"""The table of methods, served by grpcio.

grpcio hands over and takes raw bytes (no serializers); there are no interceptors, and nothing is logged a call. It
answers unknown methods (UNIMPLEMENTED) and messages that are too long
(RESOURCE_EXHAUSTED) by itself, and cancels a handler's task when its client goes away or its deadline passes.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc

from frontends import unix_socket
from frontends.grpc.calls import Reply, Stream, Table, Unary, carry_out
from frontends.grpc.errors import status_of
from frontends.grpc.grpcio_server import GrpcioServer
from frontends.grpc.listening import Listening
from frontends.memory import Block, Memory

_MAX_INT = 2**31 - 1
"""grpcio's options are 32-bit integers."""

_WAIT_S = 3600.0

_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class GrpcioTransport:
    """A server on one port. Several processes may listen on the same one (SO_REUSEPORT)."""

    def __init__(
        self, table: Table, listening: Listening, message_bytes: int, memory: Memory | None = None
    ) -> None:
        """Longer requests than `message_bytes` are refused, answers have no bound.

        grpcio receives messages into memory of its own: `memory`, in which another transport may, is not used.
        """
        self._listening = listening
        self._table = table
        self._options = (
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", min(message_bytes, _MAX_INT)),
            ("grpc.max_send_message_length", -1),
        )
        self._server: GrpcioServer | None = None

    async def start(self) -> int:
        """Listen and serve; the port. Raises OSError when port or socket cannot be had, or TLS's files not be used."""
        handlers = {path: _method_handler(method) for path, method in self._table.items()}
        server = GrpcioServer(handlers, self._options)
        port = _listen_on_port(server, self._listening)
        if self._listening.socket:
            _listen_on_socket(server, self._listening.socket)
        await server.start()
        self._server = server
        return port

    async def wait_ended(self) -> None:
        """Return when the server has ended, by `stop` or by itself. May be cancelled."""
        if self._server is None:
            return
        # Without a time limit grpcio waits for its own future unshielded: cancelling us would cancel `stop` as well.
        while await self._server.wait_for_termination(_WAIT_S):
            continue

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more at once, wait `grace_s` seconds for calls that run, then cancel them."""
        if self._server is not None:
            await self._server.shutdown(grace_s)


def _listen_on_port(server: GrpcioServer, listening: Listening) -> int:
    host, port, tls = listening.host, listening.port, listening.tls
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if tls is None:
        found = server.add_insecure_port(address.encode())
    else:
        # grpcio does not say what it dislikes about files; this does.
        tls.context()
        authority = Path(tls.client_authority).read_bytes() if tls.client_authority else None
        credentials = grpc.ssl_server_credentials(
            [(Path(tls.key).read_bytes(), Path(tls.certificate).read_bytes())],
            root_certificates=authority,
            require_client_auth=authority is not None,
        )
        found = server.add_secure_port(address.encode(), credentials)
    if found == 0:
        raise OSError(f"cannot listen on {address}")
    return int(found)


def _listen_on_socket(server: GrpcioServer, path: str) -> None:
    """grpcio binds a path itself, and removes the file when it stops."""
    unix_socket.clear(path)
    # Its addresses are URIs.
    if server.add_insecure_port(f"unix:{quote(path)}".encode()) == 0:
        raise OSError(f"cannot listen on {path}")
    Path(path).chmod(unix_socket.MODE)


class _Call:
    """A `frontends.grpc.calls.Call` over grpcio's context."""

    __slots__ = ("_context", "_releases")

    def __init__(self, context: Any) -> None:
        self._context = context
        self._releases: list[Callable[[], None]] = []

    @property
    def deadline_ns(self) -> int | None:
        """See Call."""
        remaining: float | None = self._context.time_remaining()
        return None if remaining is None else time.monotonic_ns() + int(remaining * 1e9)

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """See Call."""
        return tuple(self._context.invocation_metadata())

    def take_block(self) -> Block | None:
        """See Call. What grpcio hands over lies in its own memory."""
        return None

    def give_block(self, block: Block) -> None:
        """See Call. Nobody has one to give."""
        raise AssertionError("no block was taken of this call")

    def after_reply(self, release: Callable[[], None]) -> None:
        """See Call."""
        self._releases.append(release)

    def finish(self) -> None:
        """The reply was copied, or there is none."""
        for release in self._releases:
            release()


def _method_handler(method: Unary | Stream) -> Any:
    if isinstance(method, Unary):
        return grpc.unary_unary_rpc_method_handler(_unary(method))
    return grpc.stream_stream_rpc_method_handler(_stream(method))


def _unary(method: Unary) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def serve(message: bytes, context: Any) -> bytes:
        call = _Call(context)
        try:
            return _joined(await carry_out(method, memoryview(message), call))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            refused = error
        finally:
            call.finish()
        return await _refuse(context, refused)

    return serve


def _stream(method: Stream) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
    handler = method.handler

    async def serve(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async def views() -> AsyncIterator[memoryview]:
            async for message in messages:
                yield memoryview(message)

        call = _Call(context)
        try:
            async with aclosing(handler(views(), call)) as replies:  # type: ignore[type-var]
                async for reply in replies:
                    yield _joined(reply)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a status
            refused = error
        else:
            return
        finally:
            call.finish()
        await _refuse(context, refused)

    return serve


def _joined(reply: Reply) -> bytes:
    """One object of bytes, which is all that grpcio takes."""
    if len(reply) == 1 and isinstance(reply[0], bytes):
        return reply[0]
    return b"".join(reply)


async def _refuse(context: Any, error: Exception) -> bytes:
    """End the call with the status of `error`. Always raises grpcio's AbortError, which it expects and does not log."""
    number, text = status_of(error)
    await context.abort(_STATUS_CODES[number], text)
    raise AssertionError("abort always raises")
