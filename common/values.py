"""Values of a model's options, from what was written to what the configuration holds. Pure.

The command line gives text, the configuration file JSON; every function here takes either where both occur. All raise
ValueError, saying what is accepted. The texts name the value but not the option: whoever asked puts that in front.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from common import strict_json
from common.config import (
    AUTO,
    BatchingParameters,
    ClassificationConfig,
    DeviceConfig,
    RegressionConfig,
    VersionPolicy,
)

MAX_NIREQ = 1024
MAX_SHAPES = 1024
MAX_WORKERS = 64
MAX_TOP_K = 1_000_000
_MAX_BATCH = 65_536
_MAX_BATCH_WAIT_MICROS = 60_000_000
_MAX_VERSION = (1 << 63) - 1
"""Versions are int64 in the API."""

_SHOWN = 60
"""Characters of a wrong value that are repeated to the user."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_MOST = 10**18 - 1
"""The greatest number that `_INTEGER` lets pass."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_STORES = ("s3", "gs", "az", "azfs")
_ARCHIVES = ("http", "https")
_POLICY = 'accepted are {"all": {}}, {"latest": {"num_versions": N}} and {"specific": {"versions": [N, ...]}}, N from 1'
_LAYOUT = re.compile(r"[A-Za-z]{1,8}")
_LAYOUTS = 'accepted are a letter for each dimension, such as NHWC, and {"input": "NHWC"}'
_SHAPES = 'accepted are auto, (1,3,224,224), [1,3,224,224] and {"input": "(1,3,224,224)"}, -1 for any size'

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


# ---- anything


def shown(value: object) -> str:
    """A value as it is repeated to the user: on one line, quoted, not too long."""
    try:
        text = ascii(value)
    except RecursionError:
        return "what is nested so deeply"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{text[-1]}"


def unknown_key(key: str, known: Collection[str]) -> str:
    """What to say of a key that is not known: the nearest one that is, or all of them."""
    near = get_close_matches(key.lower(), known, n=1)
    if near:
        return f"unknown key {shown(key)}, did you mean {shown(near[0])}?"
    return f"unknown key {shown(key)}; known: {', '.join(known)}"


def json_object(value: Any, known: Collection[str], required: Collection[str] = ()) -> dict[str, Any]:
    """An object that has no keys but `known` ones, and has those that are `required`."""
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {shown(value)}")
    for key in value:
        if key not in known:
            raise ValueError(unknown_key(key, known))
    for key in required:
        if key not in value:
            raise ValueError(f"the key {shown(key)} is missing")
    return value


def json_value(text: str) -> Any:
    """What a JSON text says; NaN, infinities and keys that come twice are refused."""
    try:
        value = strict_json.loads(text)
    except strict_json.JsonError as error:
        raise ValueError(f"it is not JSON ({error.reason}): {shown(text)}") from None
    repeated = strict_json.repeated_key(value)
    if repeated is not None:
        raise ValueError(f"it is not JSON (the key {shown(repeated)} comes twice): {shown(text)}")
    return value


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers in text, from `low` to `high`, both included."""
    check = whole_number(low, high)

    def parse(text: str) -> int:
        stripped = text.strip()
        return check(int(stripped) if _INTEGER.fullmatch(stripped) else text)

    return parse


def whole_number(low: int, high: int | None = None) -> Callable[[Any], int]:
    """A parser of whole numbers in JSON, from `low` to `high`, both included. Text and truth values are no numbers."""
    accepted = f"a whole number from {low} to {high}" if high is not None else f"a whole number from {low}"
    most = _MOST if high is None else high

    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= most:
            return value
        raise ValueError(f"{accepted} is accepted, not {shown(value)}")

    return parse


def text_value(value: Any) -> str:
    """Text that the configuration can hold: not empty, UTF-8, without control characters."""
    if not isinstance(value, str):
        raise ValueError(f"text is accepted, not {shown(value)}")
    if not value.strip():
        raise ValueError("it must not be empty")
    if _CONTROL.search(value):
        raise ValueError(f"control characters are not accepted: {shown(value)}")
    return _utf8(value)


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"it must be UTF-8: {shown(text)}") from None
    return text


# ---- where a model is, and on what it runs


def base_path(value: Any) -> str:
    """A local path, which need not exist, or the address of a directory in a store, its scheme in small letters."""
    text = text_value(value)
    address = _ADDRESS.fullmatch(text)
    if address is None:
        return text
    scheme, rest = address[1].lower(), address[2]
    if scheme in _STORES:
        if not rest.split("/")[0].strip():
            raise ValueError(f"a bucket or container must be named, as in {scheme}://bucket/models/resnet")
        return f"{scheme}://{rest}"
    if scheme in _ARCHIVES:
        raise ValueError(f"archives ({scheme}://) are not supported: {shown(text)}; {_paths_text()}")
    raise ValueError(f"{_paths_text()}, not {shown(text)}")


def _paths_text() -> str:
    return f"a local path and {', '.join(f'{scheme}://' for scheme in _STORES)} are accepted"


def is_remote(path: str) -> bool:
    """Whether a base path is the address of a directory in a store."""
    return _ADDRESS.fullmatch(path) is not None


def located(path: str, directory: PurePath) -> str:
    """A base path that no process has to be in `directory` for: local ones are made absolute."""
    return path if is_remote(path) else str(directory / path)


def is_in_cache(base_path: str, model_cache_dir: str) -> bool:
    """Whether a model lies where the server keeps fetched ones, and takes away what it does not need."""
    return bool(model_cache_dir) and PurePath(base_path).is_relative_to(model_cache_dir)


def target_device(value: Any) -> str:
    """A device in OpenVINO's own notation. Whether the machine has it, is seen when a model is loaded."""
    if isinstance(value, str) and _DEVICES.fullmatch(value):
        return value
    raise ValueError(f"accepted are {_DEVICES_TEXT}, not {shown(value)}")


def check_devices(devices: Mapping[str, DeviceConfig]) -> None:
    """That a device which stands in for another is one that exists."""
    for name, device in devices.items():
        other = device.emulate_on
        if other == name:
            raise ValueError(f"device {name} cannot stand in for itself")
        if other in devices and devices[other].emulate_on:
            raise ValueError(f"device {other}, which is to stand in for {name}, is emulated itself")


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
    return _utf8(str(value))


# ---- versions


def version_policy(value: Any) -> VersionPolicy:
    """A policy from its JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {shown(value)}; {_POLICY}")
    if not value:
        raise ValueError(f"the object is empty; {_POLICY}")
    if len(value) > 1:
        raise ValueError(f"one key is expected, not {len(value)}: {shown(list(value))}; {_POLICY}")
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
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_VERSION:
        raise ValueError(f"{shown(value)} is not a whole number from 1; {_POLICY}")
    return value


def labels(value: Any) -> dict[str, int]:
    """Versions by the names that clients may use for them."""
    if not isinstance(value, dict):
        raise ValueError(f'a JSON object such as {{"stable": 3}} is accepted, not {shown(value)}')
    version = whole_number(1, _MAX_VERSION)
    found = {}
    for name, number in value.items():
        try:
            found[text_value(name)] = version(number)
        except ValueError as error:
            raise ValueError(f"{shown(name)}: {error}") from None
    return found


# ---- batch size and shape

Auto: TypeAlias = Literal["auto"]
Shape: TypeAlias = tuple[int, ...]


def batch_size(value: Any) -> int | Auto:
    """A whole number from 1, as a number or as text, or `auto`."""
    if isinstance(value, str):
        if value.strip().lower() == AUTO:
            return AUTO
        value = int(value) if _INTEGER.fullmatch(value.strip()) else value
    try:
        return whole_number(1)(value)
    except ValueError:
        raise ValueError(f"a whole number from 1 and auto are accepted, not {shown(value)}") from None


def shape(value: Any) -> dict[str, Shape] | Auto:
    """Shapes by input name, `""` standing for the only input; or `auto`.

    Written as `auto`, `(1,3,224,224)`, `[1,3,224,224]` or a JSON object of such values by input name. A dimension of -1
    takes any size.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = json_value(value)
    if not isinstance(value, dict):
        found = _dimensions(value)
        return AUTO if found == AUTO else {"": found}
    if not value:
        raise ValueError(f"each input must have a shape, and none is named; {_SHAPES}")
    shapes: dict[str, Shape] = {}
    free = []
    for name, entry in value.items():
        dimensions = _dimensions(entry)
        if dimensions == AUTO:
            free.append(text_value(name))
        else:
            shapes[text_value(name)] = dimensions
    if free and shapes:
        raise ValueError(
            f"auto is for all inputs or for none, not for {shown(free[0])} alone; -1 is for any size"
        )
    return AUTO if free else shapes


def _dimensions(value: Any) -> Shape | Auto:
    parts: list[Any] = []
    if isinstance(value, list):
        parts = value
    elif isinstance(value, str):
        stripped = value.strip()
        if stripped.lower() == AUTO:
            return AUTO
        if len(stripped) > 2 and (stripped[0] + stripped[-1]) in ("()", "[]"):
            parts = stripped[1:-1].split(",")
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()
    try:
        found = tuple(
            integer(-1)(part) if isinstance(value, str) else whole_number(-1)(part) for part in parts
        )
    except ValueError:
        found = ()
    if not found or 0 in found:
        raise ValueError(f"{_SHAPES}, not {shown(value)}")
    return found


# ---- what dimensions and outputs mean


def layout(value: Any) -> dict[str, str]:
    """Layouts by input name, `""` standing for the only input: a letter for each dimension, or an object of such."""
    if not isinstance(value, dict):
        return {"": _letters(value)}
    if not value:
        raise ValueError(f"no input is named; {_LAYOUTS}")
    return {text_value(name): _letters(entry) for name, entry in value.items()}


def _letters(value: Any) -> str:
    if not isinstance(value, str) or not _LAYOUT.fullmatch(value) or len(set(value.upper())) != len(value):
        raise ValueError(f"{_LAYOUTS}, not {shown(value)}")
    return value.upper()


def classification(value: Any) -> ClassificationConfig:
    """How outputs are read as classes, from its JSON object."""
    return ClassificationConfig(**_fields(value, _CLASSIFICATION))


def regression(value: Any) -> RegressionConfig:
    """Which output is a value, from its JSON object."""
    return RegressionConfig(**_fields(value, _REGRESSION))


def _file_name(value: Any) -> str:
    name = text_value(value)
    if "/" in name or name in (".", ".."):
        raise ValueError(f"the name of a file in the version's directory is accepted, not {shown(value)}")
    return name


def _fields(value: Any, parsers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """An object of which each key has its parser."""
    given = {}
    for key, entry in json_object(value, parsers).items():
        try:
            given[key] = parsers[key](entry)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return given


_CLASSIFICATION: dict[str, Callable[[Any], Any]] = {
    "output": text_value,
    "labels": _file_name,
    "top_k": whole_number(1, MAX_TOP_K),
}
_REGRESSION: dict[str, Callable[[Any], Any]] = {"output": text_value}


# ---- batching


def batching_parameters(value: Any) -> BatchingParameters:
    """How requests are gathered, from its JSON object."""
    parameters = BatchingParameters(**_fields(value, _BATCHING))
    sizes = parameters.allowed_batch_sizes
    if sizes and sizes[-1] != parameters.max_batch_size:
        raise ValueError(
            f"the last of allowed_batch_sizes must be max_batch_size, {parameters.max_batch_size}"
        )
    return parameters


def _ascending(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"a list such as [1, 8, 32] is accepted, not {shown(value)}")
    sizes = tuple(whole_number(1, _MAX_BATCH)(entry) for entry in value)
    if list(sizes) != sorted(set(sizes)):
        raise ValueError(f"sizes must be ascending, not {shown(value)}")
    return sizes


_BATCHING: dict[str, Callable[[Any], Any]] = {
    "max_batch_size": whole_number(1, _MAX_BATCH),
    "batch_timeout_micros": whole_number(0, _MAX_BATCH_WAIT_MICROS),
    "allowed_batch_sizes": _ascending,
    "max_enqueued_batches": whole_number(1, _MAX_BATCH),
}
