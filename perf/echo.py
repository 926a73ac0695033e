"""The transport limit: a bare grpc.aio echo on uvloop, raw bytes in and out, in a process of its own.

Any unary method is answered with the message itself, or, where a model answers with less than it is sent, with
`--answer-bytes` zeros. Prints the port that it listens on as its first line, and ends with its parent.
"""

import argparse
import asyncio
import os
import signal

import grpc
import uvloop

from common.process import die_with_parent

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)


class _Echo(grpc.GenericRpcHandler):
    """Answers every method."""

    def __init__(self, answer_bytes: int) -> None:
        fixed = bytes(answer_bytes)

        async def echo(message: bytes, _context: object) -> bytes:
            return message

        async def answer(_message: bytes, _context: object) -> bytes:
            return fixed

        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            answer if answer_bytes else echo
        )

    # Quoted: the class is generic in its stubs alone.
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return self._handler


async def serve(answer_bytes: int) -> None:
    """Serve on a free port of 127.0.0.1 until SIGTERM."""
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((_Echo(answer_bytes),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description="bare gRPC echo server")
    parser.add_argument(
        "--answer-bytes", type=int, default=0, help="length of every answer; 0: the message itself"
    )
    arguments = parser.parse_args()
    die_with_parent(os.getppid())
    uvloop.run(serve(arguments.answer_bytes))


if __name__ == "__main__":
    main()
