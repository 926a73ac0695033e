"""From the options of `model` or `config` and the environment to one validated configuration. Pure."""

import argparse
from pathlib import Path
from typing import Any

from common import values
from common.config import MEGABYTE, DeviceConfig, Environment, ModelConfig, ServerConfig
from ie_serving import values as server_values
from ie_serving.errors import UsageError

_SOCKET_PATH_BYTES = 107
"""unix(7): sun_path has 108, the last of which ends it."""


def resolve(
    options: argparse.Namespace, environment: Environment, run_dir: Path, working_dir: Path
) -> ServerConfig:
    """The configuration that the options of `model` or `config` and the environment amount to. Raises UsageError.

    That of `config` has no models yet: they are in the file that it names.
    """
    _check_network(options, working_dir)
    return ServerConfig(
        models=(_model(options, working_dir),) if options.command == "model" else (),
        devices=_devices(options, working_dir) if options.command == "model" else {},
        config_path=_path(working_dir, options.config_path) if options.command == "config" else "",
        run_dir=str(run_dir),
        grpc_port=options.port,
        rest_port=options.rest_port,
        bind_address=options.bind_address,
        grpc_transport=options.grpc_transport,
        grpc_socket=_socket(options, "grpc_socket", working_dir),
        rest_socket=_socket(options, "rest_socket", working_dir),
        grpc_tls_certificate=_path(working_dir, options.grpc_tls_certificate),
        grpc_tls_key=_path(working_dir, options.grpc_tls_key),
        grpc_tls_client_ca=_path(working_dir, options.grpc_tls_client_ca),
        rest_cors_origins=options.rest_cors_origins,
        grpc_workers=options.grpc_workers,
        rest_workers=options.rest_workers,
        workers=options.workers,
        arena_bytes=options.arena_mb * MEGABYTE,
        large_bytes=options.large_requests_mb * MEGABYTE,
        message_bytes=options.max_message_mb * MEGABYTE,
        max_queue=options.max_queue,
        request_timeout_s=options.request_timeout_seconds,
        inference_timeout_s=options.inference_timeout_seconds,
        load_timeout_s=options.load_timeout_seconds,
        model_cache_dir=_path(working_dir, options.model_cache_dir),
        model_cache_bytes=options.model_cache_mb * MEGABYTE,
        cache_dir=_path(working_dir, options.cache_dir),
        **_from_environment(options, environment, working_dir),
    )


def _check_network(options: argparse.Namespace, working_dir: Path) -> None:
    """What options say together. Raises UsageError."""
    if options.port == options.rest_port:
        raise _usage(options, f"--port and --rest_port must differ, both are {options.port}")
    grpc_socket = _socket(options, "grpc_socket", working_dir)
    if grpc_socket and grpc_socket == _socket(options, "rest_socket", working_dir):
        raise _usage(options, f"--grpc_socket and --rest_socket must differ, both are {grpc_socket}")
    if options.rest_socket and not options.rest_port:
        raise _usage(options, "--rest_socket wants --rest_port as well")
    if bool(options.grpc_tls_certificate) != bool(options.grpc_tls_key):
        raise _usage(options, "--grpc_tls_certificate and --grpc_tls_key want each other")
    if options.grpc_tls_client_ca and not options.grpc_tls_certificate:
        raise _usage(options, "--grpc_tls_client_ca wants --grpc_tls_certificate and --grpc_tls_key as well")


def _socket(options: argparse.Namespace, name: str, working_dir: Path) -> str:
    """The path of a unix socket, absolute; empty for none. Raises UsageError."""
    path = _path(working_dir, getattr(options, name))
    if len(path.encode(errors="surrogateescape")) > _SOCKET_PATH_BYTES:
        raise _usage(
            options, f"--{name}: the path of a socket has {_SOCKET_PATH_BYTES} bytes at the most, not {path}"
        )
    return path


def warnings(options: argparse.Namespace) -> list[str]:
    """What is to be said of options that are right each for itself."""
    if options.command == "model" and options.shape is not None and options.batch_size is not None:
        return ["--shape and --batch_size are both given: --batch_size is ignored"]
    return []


def _model(options: argparse.Namespace, working_dir: Path) -> ModelConfig:
    base_path = values.located(options.model_path, working_dir)
    cache = _path(working_dir, options.model_cache_dir)
    if values.is_in_cache(base_path, cache):
        raise _usage(
            options, f"--model_path: {base_path} is in --model_cache_dir, which holds fetched models alone"
        )
    return ModelConfig(
        name=options.model_name,
        base_path=base_path,
        batch_size=options.batch_size if options.shape is None else None,
        shape=options.shape,
        max_shapes=options.max_shapes,
        nireq=options.nireq,
        target_device=options.target_device,
        plugin_config=options.plugin_config,
        version_policy=options.model_version_policy,
    )


def _devices(options: argparse.Namespace, working_dir: Path) -> dict[str, DeviceConfig]:
    pythons = {device: str(working_dir / path) for device, path in options.device_python}
    emulated = dict(options.emulate)
    for name, given, once in (
        ("--device_python", options.device_python, pythons),
        ("--emulate", options.emulate, emulated),
    ):
        if len(given) > len(once):
            raise _usage(options, f"{name}: each device once, not {', '.join(device for device, _ in given)}")
    devices = {
        device: DeviceConfig(python=pythons.get(device, ""), emulate_on=emulated.get(device, ""))
        for device in {**pythons, **emulated}
    }
    try:
        values.check_devices(devices)
    except ValueError as error:
        raise _usage(options, f"--emulate: {error}") from None
    return devices


def _from_environment(
    options: argparse.Namespace, environment: Environment, working_dir: Path
) -> dict[str, Any]:
    """Fields of the configuration that environment variables set; unset and blank mean the default."""
    fields: dict[str, Any] = {}
    for field, name, text, parse in (
        (
            "poll_wait_s",
            "FILE_SYSTEM_POLL_WAIT_SECONDS",
            environment.poll_wait_seconds,
            server_values.poll_wait,
        ),
        ("log_level", "LOG_LEVEL", environment.log_level, server_values.log_level),
        ("log_path", "LOG_PATH", environment.log_path, values.text_value),
        ("cpu_extension", "CPU_EXTENSION", environment.cpu_extension, values.text_value),
    ):
        if not text.strip():
            continue
        try:
            fields[field] = parse(text)
        except ValueError as error:
            raise _usage(options, f"{name}: {error}") from None
    for field in ("log_path", "cpu_extension"):
        fields[field] = _path(working_dir, fields.get(field, ""))
    return fields


def _path(working_dir: Path, text: str | None) -> str:
    """A path, absolute, so that no process depends on where it was started; empty for none."""
    return str(working_dir / text) if text else ""


def _usage(options: argparse.Namespace, text: str) -> UsageError:
    return UsageError(f"ie_serving {options.command}: {text}")
