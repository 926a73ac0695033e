"""The configuration file on the disk: read whole and bounded, then parsed by `common.config_parsing`.

The command reads it before the first process starts, the storekeeper whenever it has changed.
"""

import os
import stat
from pathlib import Path

from common.config import DeviceConfig, ServerConfig
from common.config_format import MAX_FILE_BYTES
from common.config_parsing import ConfigFile, parse_config

__all__ = ["ConfigFile", "ConfigFileError", "interpreter_problem", "read_config_file"]


class ConfigFileError(Exception):
    """The configuration file cannot be used. Its text is one line that names file, model and key."""


def read_config_file(path: Path, defaults: ServerConfig) -> ConfigFile:
    """The models and devices of a configuration file. Raises ConfigFileError.

    Relative paths in it count from its own directory, not from that of the process. `defaults` is the server's
    configuration without the file; from it comes where models must not lie (the model cache).
    """
    try:
        text = _read(path)
        found = parse_config(text, path.parent.absolute(), defaults)
        _check_interpreters(found.devices)
    except OSError as error:
        raise ConfigFileError(f"{path}: it cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigFileError(f"{path}: {error}") from None
    return found


def interpreter_problem(path: str) -> str:
    """Why a path is no interpreter that this process may run; empty if it is one."""
    if not Path(path).exists():
        return f"there is no {path}"
    if not Path(path).is_file() or not os.access(path, os.X_OK):
        return f"{path} is not an executable file"
    return ""


def _check_interpreters(devices: dict[str, DeviceConfig]) -> None:
    for name, device in devices.items():
        problem = interpreter_problem(device.python) if device.python else ""
        if problem:
            raise ValueError(f"device {name}: python: {problem}")


def _read(path: Path) -> str:
    # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        data = _read_bounded(descriptor)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is longer than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: it is not UTF-8") from None


def _read_bounded(descriptor: int) -> bytes:
    """The content, or one byte more than may be read."""
    parts = []
    left = MAX_FILE_BYTES + 1
    while left and (part := os.read(descriptor, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
