"""Values of the server's options, from text to what the configuration holds. Pure; all raise ValueError, saying what is
accepted, without the name of the option. Those of a model's options are in `common.values`.
"""

import math
import re
from ipaddress import ip_address

from common.values import integer, shown, target_device, text_value


def seconds(text: str) -> float:
    """A positive, finite number of seconds."""
    value = _number(text)
    if value is None or value <= 0:
        raise ValueError(f"a number of seconds above 0 is accepted, not {shown(text)}")
    return value


def poll_wait(text: str) -> float:
    """A finite number of seconds; zero and less switch polling off."""
    value = _number(text)
    if value is None:
        raise ValueError(f"a number of seconds is accepted (0 or less: no updates), not {shown(text)}")
    return value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e9 else None


def port(text: str) -> int:
    """A TCP port."""
    return integer(1, 65535)(text)


def optional_port(text: str) -> int:
    """A TCP port; 0 for 0 and for nothing."""
    return integer(0, 65535)(text) if text.strip() else 0


def address(text: str) -> str:
    """An IP address to bind to, IPv4 or IPv6 (without brackets)."""
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"an IPv4 or IPv6 address is accepted, not {shown(text)}") from None


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
"""Scheme, host and perhaps port, as browsers write them (RFC 6454 section 6.2)."""


def origins(text: str) -> tuple[str, ...]:
    """Origins of web pages, with commas between them, `*` for all; none for nothing."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        origin = part.lower()
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"origins as https://example.org:8443, or *, are accepted, not {shown(part)}")
        found.append(origin)
    return tuple(dict.fromkeys(found))


def log_level(text: str) -> str:
    """ERROR, INFO or DEBUG."""
    if text.strip().upper() in ("ERROR", "INFO", "DEBUG"):
        return text.strip().upper()
    raise ValueError(f"ERROR, INFO and DEBUG are accepted, not {shown(text)}")


def device_python(text: str) -> tuple[str, str]:
    """`DEVICE=PATH`: a device and the interpreter of its workers."""
    device, path = _pair(text, "DEVICE=PATH")
    return target_device(device), text_value(path)


def emulation(text: str) -> tuple[str, str]:
    """`DEVICE=OTHER`: a device and the one that stands in for it."""
    device, other = _pair(text, "DEVICE=OTHER")
    return target_device(device), target_device(other)


def _pair(text: str, form: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals:
        raise ValueError(f"{form} is accepted, not {shown(text)}")
    return left, right
