"""Ports: free at the start, and kept for this instance as long as it lives.

One socket does both. It is bound without SO_REUSEPORT, so the bind fails beside anything that is bound to the port;
SO_REUSEPORT is set afterwards, which lets this user's frontends bind beside it and still keeps out whoever binds
without. It never listens, so no connection is ever handed to it, and while a frontend restarts the port stays taken.

SO_REUSEADDR is set for the bind alone: connections of an earlier server that are in TIME_WAIT do not matter.
"""

import errno
import os
import socket
from ipaddress import ip_address

from ie_serving.errors import CommandError


def hold_port(address: str, port: int, option: str) -> socket.socket:
    """The socket that holds `port`, to be kept open. Raises CommandError; `option` is how another port is chosen."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    try:
        holder = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise CommandError(f"cannot use {address}: {os.strerror(error.errno or 0)}") from error
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((address, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        holder.close()
        raise CommandError(_reason(error, address, port, option)) from error
    return holder


def _reason(error: OSError, address: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; choose another with {option}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine; choose another with --bind_address"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"this user may not use port {port}; choose another with {option}"
    return f"cannot use port {port} of {address}: {os.strerror(error.errno or 0)}"
