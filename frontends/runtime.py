"""What every frontend process is made of, whichever API it speaks: memory, broker link, descriptors, data plane."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from common.config import ServerConfig
from common.descriptors import DescriptorServer, socket_path
from frontends.admission import Admission
from frontends.broker_client import BrokerClient
from frontends.dataplane import Dataplane
from frontends.memory import Memory

_LEAVE_S = 0.02


class FrontendRuntime:
    """Made on a running event loop, after any fork; closed on the same loop."""

    def __init__(self, config: ServerConfig, kind: str, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._admission = Admission(config.max_queue)
        memory = Memory(config.arena_bytes, config.large_bytes)
        run_dir = Path(config.run_dir)
        self.memory = memory
        self._descriptors = DescriptorServer(socket_path(run_dir, name), memory.descriptor)
        self._loop.add_reader(self._descriptors.listener.fileno(), self._accept)
        self._client = BrokerClient(run_dir, name, kind, memory, self._admission)
        self.dataplane = Dataplane(self._client, memory, self._admission)

    @classmethod
    async def start(cls, config: ServerConfig, kind: str, name_hint: str) -> FrontendRuntime:
        """Make everything and greet the broker. `kind` is `grpc` or `rest`; the hint starts the instance's name."""
        name = f"{name_hint}.{os.getpid()}.{os.urandom(3).hex()}"
        runtime = cls(config, kind, name)
        runtime._client.start()
        return runtime

    def announce_listening(self) -> None:
        """The port accepts connections."""
        self._client.announce_listening()

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new requests, be not ready, and wait for the answers of those in flight; whether all came."""
        self._admission.draining = True
        self._client.announce_leaving()
        drained = await self._client.drained(timeout_s)
        # The socket is closed without lingering: the word about leaving needs a moment to go out.
        await asyncio.sleep(_LEAVE_S)
        return drained

    async def close(self) -> None:
        """End the link and remove the socket's file. The memory goes with the process."""
        self._loop.remove_reader(self._descriptors.listener.fileno())
        self._descriptors.close()
        self._client.close()
        self.dataplane.close()

    def _accept(self) -> None:
        connection = self._descriptors.accept()
        if connection is not None:
            self._loop.add_reader(connection.fileno(), self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        self._loop.remove_reader(connection.fileno())
        self._descriptors.answer(connection)
