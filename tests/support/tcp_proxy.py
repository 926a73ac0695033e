"""A network that a test can break: a TCP proxy in threads, which forwards, delays, stalls or cuts, and listens in."""

import contextlib
import select
import socket
import threading
import time

_HOST = "127.0.0.1"


class TcpProxy:
    """Between clients and one port of this machine."""

    def __init__(self, target_port: int) -> None:
        self._target = (_HOST, target_port)
        self._listener = socket.create_server((_HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.requests = bytearray()
        """Everything that clients have sent."""
        self.stalled = False
        """Nothing comes back, while connections stay."""
        self.cut_after: int | None = None
        """Each connection is cut after so many bytes have come back on it."""
        self.pause_s = 0.0
        """Before each piece that comes back."""
        self.answered = 0
        """Bytes that have come back."""
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._closed = True
        # shutdown, because close alone does not wake a thread out of accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            came_back = 0
            while not self._closed:
                ready, _, _ = select.select([client, server], [], [], 0.05)
                if client in ready:
                    data = client.recv(65536)
                    if not data:
                        return
                    self.requests += data
                    server.sendall(data)
                if server in ready and not self.stalled:
                    data = server.recv(16384)
                    if not data:
                        return
                    time.sleep(self.pause_s)
                    if self.cut_after is not None and came_back + len(data) > self.cut_after:
                        client.sendall(data[: max(0, self.cut_after - came_back)])
                        return
                    client.sendall(data)
                    came_back += len(data)
                    self.answered += len(data)
                elif server in ready:
                    time.sleep(0.01)


def accepts(port: int) -> bool:
    """Whether something on this machine listens there."""
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0
