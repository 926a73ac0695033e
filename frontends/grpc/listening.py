"""Where a gRPC frontend listens: what both transports take."""

import ssl
from dataclasses import dataclass

from common.tls import server_context


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files by which connections are encrypted."""

    certificate: str
    """The server's certificate, and those that lead to its authority."""
    key: str
    """Of the certificate, not encrypted."""
    client_authority: str = ""
    """Clients must show a certificate of this authority; empty: they need none."""

    def context(self) -> ssl.SSLContext:
        """For asyncio's servers, which speak HTTP/2 then and nothing else. Raises TlsError, which is an OSError."""
        return server_context(self.certificate, self.key, self.client_authority)


@dataclass(frozen=True, slots=True)
class Listening:
    """Addresses of one server. Several processes may listen on the same port (SO_REUSEPORT)."""

    host: str
    port: int
    """0 takes a free one."""
    socket: str = ""
    """Path of a unix socket beside the port; empty: none. `frontends.unix_socket` binds it."""
    tls: Tls | None = None
    """Of the port. The unix socket is never encrypted."""
