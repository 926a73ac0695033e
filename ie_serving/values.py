"""Values of options, from text to what the configuration holds. Pure; all raise ValueError, saying what is accepted.

The texts name the value but not the option: whoever asked puts that in front.
"""

import json
import math
import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from common.config import VersionPolicy

_SHOWN = 60
"""Characters of a wrong value that are repeated to the user."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_REMOTE = {"s3", "gs", "az", "azfs", "http", "https"}
_POLICY = 'accepted are {"all": {}}, {"latest": {"num_versions": N}} and {"specific": {"versions": [N, ...]}}, N from 1'

_DEVICE = r"(?:CPU|GPU|NPU|MYRIAD|HDDL)(?:\.[0-9A-Za-z][0-9A-Za-z.-]*)?"
_DEVICES = re.compile(
    rf"""{_DEVICE}
    | (?:MULTI|HETERO):{_DEVICE}(?:\([1-9][0-9]*\))?(?:,{_DEVICE}(?:\([1-9][0-9]*\))?)*
    | AUTO(?::-?{_DEVICE}(?:,-?{_DEVICE})*)?
    | FAKE(?:\.[0-9]+)?           # an engine for development that needs no device
    """,
    re.VERBOSE,
)
_DEVICES_TEXT = (
    "CPU, GPU, NPU, MYRIAD, HDDL (with .N for one of several), MULTI:A,B, HETERO:A,B, AUTO and AUTO:A,B"
)


def shown(value: object) -> str:
    """A value as it is repeated to the user: on one line, quoted, not too long."""
    text = ascii(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{text[-1]}"


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`, both included."""
    accepted = f"a whole number from {low} to {high}" if high is not None else f"a whole number from {low}"

    def parse(text: str) -> int:
        stripped = text.strip()
        if _INTEGER.fullmatch(stripped):
            value = int(stripped)
            if value >= low and (high is None or value <= high):
                return value
        raise ValueError(f"{accepted} is accepted, not {shown(text)}")

    return parse


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


def text_value(text: str) -> str:
    """Text that the configuration can hold: not empty, UTF-8, without control characters."""
    if not text.strip():
        raise ValueError("it must not be empty")
    if _CONTROL.search(text):
        raise ValueError(f"control characters are not accepted: {shown(text)}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"it must be UTF-8: {shown(text)}") from None
    return text


def base_path(text: str) -> str:
    """A local path, which need not exist."""
    scheme = _SCHEME.match(text_value(text))
    if scheme is None:
        return text
    if scheme[1].lower() in _REMOTE:
        raise ValueError(f"{scheme[1]}:// is not supported yet: a local path is accepted, not {shown(text)}")
    raise ValueError(f"a local path is accepted, not {shown(text)}")


def log_level(text: str) -> str:
    """ERROR, INFO or DEBUG."""
    if text.strip().upper() in ("ERROR", "INFO", "DEBUG"):
        return text.strip().upper()
    raise ValueError(f"ERROR, INFO and DEBUG are accepted, not {shown(text)}")


def target_device(text: str) -> str:
    """A device in OpenVINO's own notation. Whether the machine has it, is seen when a model is loaded."""
    if _DEVICES.fullmatch(text):
        return text
    raise ValueError(f"accepted are {_DEVICES_TEXT}, not {shown(text)}")


def json_value(text: str) -> Any:
    """What a JSON text says; NaN, infinities and keys that come twice are refused."""
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repetition)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise ValueError(f"it is not JSON ({reason}): {shown(text)}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a value of JSON")


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the key {shown(name)} comes twice")
    return dict(pairs)


def version_policy(value: Any) -> VersionPolicy:
    """A policy from its JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {shown(value)}; {_POLICY}")
    if not value:
        raise ValueError(f"the object is empty; {_POLICY}")
    if len(value) > 1:
        raise ValueError(f"one key is expected, not {len(value)} ({', '.join(map(shown, value))}); {_POLICY}")
    ((kind, details),) = value.items()
    if kind not in ("all", "latest", "specific"):
        raise ValueError(f"{shown(kind)} is not known; {_POLICY}")
    field = {"all": None, "latest": "num_versions", "specific": "versions"}[kind]
    if not isinstance(details, dict) or list(details) != ([field] if field else []):
        raise ValueError(f'"{kind}" cannot hold {shown(details)}; {_POLICY}')
    if kind == "latest":
        return VersionPolicy("latest", num_versions=_version(details["num_versions"]))
    if kind == "specific":
        return VersionPolicy("specific", versions=_versions(details["versions"]))
    return VersionPolicy("all")


def _versions(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"versions must be a list that is not empty, not {shown(value)}; {_POLICY}")
    return tuple(sorted({_version(entry) for entry in value}))


def _version(value: Any) -> int:
    """Versions are int64 in the API."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 63:
        raise ValueError(f"{shown(value)} is not a whole number from 1; {_POLICY}")
    return value


def plugin_config(value: Any) -> dict[str, str]:
    """OpenVINO properties from their JSON object; values become text as OpenVINO writes them."""
    accepted = 'a JSON object such as {"NUM_STREAMS": "2"} is accepted'
    if not isinstance(value, dict):
        raise ValueError(f"{accepted}, not {shown(value)}")
    properties = {}
    for name, entry in value.items():
        if not isinstance(entry, str | int | float) or entry in (math.inf, -math.inf):
            raise ValueError(
                f"the value of {shown(name)} must be text, a number, true or false, not {shown(entry)}"
            )
        properties[text_value(name)] = _property_text(entry)
    return properties


def _property_text(value: str | int | float) -> str:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return str(value)


def batch_size(text: str) -> int | None:
    """A whole number from 1; None for `auto`."""
    if text.strip().lower() == "auto":
        return None
    try:
        return integer(1)(text)
    except ValueError:
        raise ValueError(f"a whole number from 1 and auto are accepted, not {shown(text)}") from None


Shape = tuple[int, ...] | None
"""Dimensions, or None for `auto`."""


def shape(value: Any) -> Shape | dict[str, Shape]:
    """Of the only input, or by input name: `auto`, `(1,3,224,224)`, `[1,3,224,224]`, or a JSON object of those."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json_value(value)
    if isinstance(value, dict):
        if not value or not all(isinstance(entry, str) for entry in value.values()):
            raise ValueError(f"each input must have a shape as text, not {shown(value)}")
        return {text_value(name): _dimensions(entry) for name, entry in value.items()}
    return _dimensions(value)


def _dimensions(value: Any) -> Shape:
    stripped = str(value).strip()
    if stripped.lower() == "auto":
        return None
    if len(stripped) > 2 and (stripped[0] + stripped[-1]) in ("()", "[]"):
        parts = stripped[1:-1].split(",")
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()
        try:
            return tuple(integer(1)(part) for part in parts)
        except ValueError:
            pass
    raise ValueError(
        f'accepted are auto, (1,3,224,224), [1,3,224,224] and {{"input": "(1,3,224,224)"}}, not {shown(value)}'
    )
