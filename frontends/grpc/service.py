"""A gRPC frontend process: `python -m frontends.grpc.service --run-dir DIR --index N`.

Start: runtime (arena, link to the broker) → listen → announce. End, on SIGTERM or SIGINT: not healthy → accept nothing
more and finish what is in flight, for a bounded time → give everything back.
"""

import argparse
import asyncio
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import uvloop

from common.config import ServerConfig, load
from common.log import Logging
from common.process import die_with_parent, spare_heap
from frontends.grpc.calls import Table
from frontends.grpc.listening import Listening, Tls
from frontends.grpc.methods import make_health, method_table
from frontends.memory import Memory
from frontends.runtime import FrontendRuntime

DRAIN_S = 2.0
"""Requests in flight get this long at shutdown."""

_log = logging.getLogger("frontends.grpc")


_TRANSPORTS = {
    "grpcio": ("frontends.grpc.grpcio_transport", "GrpcioTransport"),
    "native": ("frontends.grpc.native_transport", "NativeTransport"),
}


class Transport(Protocol):
    """Serves a table of methods; made of it, of where it listens, and of the bytes of the longest message,
    and of the memory in which it may receive.
    """

    async def start(self) -> int:
        """Listen and serve; the port. Raises OSError."""
        ...

    async def wait_ended(self) -> None:
        """Return when the server has ended, by `stop` or by itself. May be cancelled."""
        ...

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more at once, wait so long for calls that run, then cancel them."""
        ...


async def serve(config: ServerConfig, index: int) -> int:
    """Serve until a signal comes; the exit code. Raises OSError when the port or the memory cannot be had."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runtime = await FrontendRuntime.start(config, kind="grpc", name_hint=f"grpc-{index}")
    health = make_health(runtime.dataplane)
    table = method_table(runtime.dataplane, health, config.request_timeout_s)
    transport = make_transport(config, index, table, runtime.memory)
    try:
        await transport.start()
        spare_heap()
        runtime.announce_listening()
        ended_by_itself = await _first_of(stop, transport)
        health.shut_down()
        await asyncio.gather(runtime.drain(DRAIN_S), transport.stop(DRAIN_S))
    finally:
        await runtime.close()
    if ended_by_itself:
        _log.error("The gRPC server ended by itself")
    return int(ended_by_itself)


def make_transport(config: ServerConfig, index: int, table: Table, memory: Memory | None = None) -> Transport:
    """The one that is configured. The first process alone has the unix socket: a path can be bound only once."""
    tls = None
    if config.grpc_tls_certificate:
        tls = Tls(config.grpc_tls_certificate, config.grpc_tls_key, config.grpc_tls_client_ca)
    socket = config.grpc_socket if index == 0 else ""
    listening = Listening(config.bind_address, config.grpc_port, socket, tls)
    # The other one, and what it needs, is not even imported.
    module, name = _TRANSPORTS[config.grpc_transport]
    make: Callable[..., Transport] = getattr(importlib.import_module(module), name)
    return make(table, listening, config.message_bytes, memory)


async def _first_of(stop: asyncio.Event, transport: Transport) -> bool:
    """Wait for the signal or for the transport's own end; whether it was the latter."""
    tasks = [asyncio.create_task(stop.wait()), asyncio.create_task(transport.wait_ended())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return not stop.is_set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    die_with_parent(os.getppid())
    parser = argparse.ArgumentParser(prog="frontends.grpc.service", description="A gRPC frontend process")
    parser.add_argument("--run-dir", type=Path, required=True, help="directory that holds the configuration")
    parser.add_argument("--index", type=int, required=True, help="number of this process among its kind")
    options = parser.parse_args(arguments)
    config = load(options.run_dir)
    log = Logging(config.log_level, Path(config.log_path) if config.log_path else None)
    for chatty in ("asyncio", "grpc", "hpack"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return uvloop.run(serve(config, options.index))
    except OSError as error:
        _log.error("The gRPC frontend cannot start: %s", error)
        return 1
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main())
