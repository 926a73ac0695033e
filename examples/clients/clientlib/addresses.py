"""Whether a host is this machine: a proxy that the environment names has then no part in the connection."""

import ipaddress


def is_local(host: str) -> bool:
    """True for `localhost` and loopback addresses."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
