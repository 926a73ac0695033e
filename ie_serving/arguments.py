"""The command line: its options, and from them and the environment one validated configuration. Pure.

Every option that the Python OpenVINO Model Server had is here with its name, its meaning and its default; those of our
own have defaults that leave the others as they were.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from common.config import (
    DEFAULT_ARENA_MB,
    DEFAULT_GRPC_PORT,
    DEFAULT_LARGE_MB,
    DEFAULT_LOAD_TIMEOUT_S,
    DEFAULT_LOG_LEVEL,
    DEFAULT_MESSAGE_MB,
    DEFAULT_POLL_WAIT_S,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_S,
    MEGABYTE,
    Environment,
    ModelConfig,
    ServerConfig,
)
from ie_serving import __version__, values
from ie_serving.errors import UsageError

MAX_WORKERS = 64
_MAX_FRONTENDS = 256
_MAX_MB = 1 << 20
_MAX_MESSAGE_MB = 2047
"""gRPC counts a message's bytes in 32 bits, signed."""


class Parser(argparse.ArgumentParser):
    """argparse, with one line instead of its usage text when something is wrong."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        line = " ".join(message.removeprefix("argument ").splitlines())
        raise UsageError(f"{self.prog}: {line}")


class _HelpFormatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=110)


def _checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """For argparse, which shows the text of this one exception only."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _json(parse: Callable[[Any], Any]) -> Callable[[str], Any]:
    return _checked(lambda text: parse(values.json_value(text)))


def make_parser() -> Parser:
    """The whole command line. Abbreviated options are not understood: a later option could change what they mean."""
    parser = Parser(
        prog="ie_serving",
        description="A model server for OpenVINO that speaks the TensorFlow Serving API over gRPC and REST.",
        epilog="`ie_serving COMMAND --help` lists the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"ie_serving {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_model(
        commands.add_parser("model", help="serve one model", description="Serve one model.", epilog=_EPILOG)
    )
    _add_config(
        commands.add_parser(
            "config",
            help="serve the models of a configuration file (not supported yet)",
            description="Serve the models of a configuration file. Not supported yet.",
        )
    )
    _add_status(commands.add_parser("status", help="what a running server serves, and by which processes"))
    _add_scale(commands.add_parser("scale", help="change the number of a device's inference workers"))
    return parser


_EPILOG = (
    "Environment: LOG_LEVEL (ERROR, INFO or DEBUG; default: INFO); LOG_PATH (file that the log is written to besides "
    "the console); FILE_SYSTEM_POLL_WAIT_SECONDS (seconds between two looks for new versions, 0 or less: only one at "
    "the start; default: 1); CPU_EXTENSION (library of custom CPU layers); IE_SERVING_RUN_DIR (see --run_dir)."
)


def _add_model(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--model_name", required=True, type=_checked(values.text_value), help="name that clients use")
    option(
        "--model_path",
        required=True,
        type=_checked(values.base_path),
        help="local directory that holds one directory per version; it need not exist yet",
    )
    option(
        "--batch_size",
        default=argparse.SUPPRESS,
        type=_checked(values.batch_size),
        help="a number or auto (not supported yet)",
    )
    option(
        "--shape",
        default=argparse.SUPPRESS,
        type=_checked(values.shape),
        help='auto, (1,3,224,224), [1,3,224,224] or {"input": "(1,3,224,224)"} (not supported yet)',
    )
    option(
        "--model_version_policy",
        metavar="JSON",
        default='{"latest": {"num_versions": 1}}',
        type=_json(values.version_policy),
        help='which versions are served: {"all": {}}, {"latest": {"num_versions": N}} or '
        '{"specific": {"versions": [N, ...]}} (default: {"latest": {"num_versions": 1}})',
    )
    option(
        "--nireq",
        default=1,
        type=_checked(values.integer(1)),
        help="requests of a version that each worker infers at once (default: 1)",
    )
    option(
        "--target_device",
        metavar="DEVICE",
        default="CPU",
        type=_checked(values.target_device),
        help="CPU, GPU, NPU, MYRIAD, HDDL, one of several as GPU.1, MULTI:A,B, HETERO:A,B, AUTO or AUTO:A,B "
        "(default: CPU)",
    )
    option(
        "--plugin_config",
        metavar="JSON",
        default="{}",
        type=_json(values.plugin_config),
        help='OpenVINO properties, e.g. {"NUM_STREAMS": "2"} (default: none)',
    )
    _add_server(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config_path", required=True, type=_checked(values.text_value), help="file that lists the models"
    )
    _add_server(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    """What `model` and `config` have in common."""
    group = parser.add_argument_group("network")
    _add_port(group, "gRPC port")
    group.add_argument(
        "--rest_port",
        metavar="PORT",
        default=0,
        type=_checked(values.optional_port),
        help="REST port; 0: no REST (default: 0)",
    )
    group.add_argument(
        "--bind_address",
        metavar="ADDRESS",
        default="0.0.0.0",  # noqa: S104 - a server is there to be reached
        type=_checked(values.address),
        help="IPv4 or IPv6 address to listen on, e.g. 127.0.0.1 or :: (default: 0.0.0.0, all of IPv4)",
    )
    group = parser.add_argument_group("processes")
    _number(group, "--grpc_workers", 1, values.integer(1, _MAX_FRONTENDS), "gRPC frontend processes")
    _number(group, "--rest_workers", 1, values.integer(1, _MAX_FRONTENDS), "REST frontend processes")
    _number(
        group,
        "--workers",
        1,
        values.integer(1, MAX_WORKERS),
        f"inference processes of the device, up to {MAX_WORKERS}; `ie_serving scale` changes it later",
    )
    _add_run_dir(group, "directory of this instance's sockets and state, for this user alone")
    _add_limits(parser.add_argument_group("limits"))


def _add_limits(group: Any) -> None:
    megabytes = values.integer(1, _MAX_MB)
    _number(
        group,
        "--arena_mb",
        DEFAULT_ARENA_MB,
        megabytes,
        "MB of shared memory per frontend process, taken at start",
    )
    _number(
        group,
        "--large_requests_mb",
        DEFAULT_LARGE_MB,
        megabytes,
        "MB per frontend process for requests that its arena cannot hold, all together, taken as they come",
    )
    _number(
        group,
        "--max_message_mb",
        DEFAULT_MESSAGE_MB,
        values.integer(1, _MAX_MESSAGE_MB),
        f"MB of the longest message or body that is read, up to {_MAX_MESSAGE_MB}",
    )
    _number(
        group,
        "--max_queue",
        DEFAULT_QUEUE,
        values.integer(1),
        "requests in flight per frontend process; more are refused",
    )
    for name, default, text in (
        ("request", DEFAULT_TIMEOUT_S, "seconds that a request may take whose client set no deadline"),
        (
            "inference",
            DEFAULT_TIMEOUT_S,
            "seconds after which a worker that still infers one request is killed",
        ),
        ("load", DEFAULT_LOAD_TIMEOUT_S, "seconds after which a worker that still loads a version is killed"),
    ):
        _number(group, f"--{name}_timeout_seconds", default, values.seconds, text)


def _number(group: Any, name: str, default: float, parse: Callable[[str], Any], text: str) -> None:
    shown = f"{text} (default: {default:g})"
    group.add_argument(name, metavar="N", default=default, type=_checked(parse), help=shown)


def _add_port(group: Any, text: str) -> None:
    group.add_argument(
        "--port",
        metavar="PORT",
        default=DEFAULT_GRPC_PORT,
        type=_checked(values.port),
        help=f"{text} (default: {DEFAULT_GRPC_PORT})",
    )


def _add_run_dir(group: Any, text: str) -> None:
    group.add_argument(
        "--run_dir",
        metavar="DIR",
        type=_checked(values.text_value),
        help=f"{text} (default: IE_SERVING_RUN_DIR, or one in the temporary directory, named by user and gRPC port)",
    )


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.description = "Show what a running server of this user serves, and by which processes."
    _add_target(parser)
    parser.add_argument("--any", action="store_true", help="the only instance there is, whatever its port")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the whole document as JSON")
    form.add_argument(
        "--check", action="store_true", help="print nothing; exit 0 when ready to serve, 1 otherwise"
    )


def _add_scale(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Change the number of inference workers of a device in a running server of this user."
    )
    parser.add_argument(
        "device",
        metavar="DEVICE",
        type=_checked(values.target_device),
        help="as in --target_device, e.g. CPU",
    )
    parser.add_argument(
        "replicas",
        metavar="N",
        type=_checked(values.integer(1, MAX_WORKERS)),
        help=f"workers, 1 to {MAX_WORKERS}",
    )
    _add_target(parser)
    parser.add_argument("--no-wait", action="store_true", help="do not wait until that many serve")


def _add_target(parser: argparse.ArgumentParser) -> None:
    _add_port(parser, "gRPC port of the instance")
    _add_run_dir(parser, "directory of the instance")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. Raises UsageError; `--help` and `--version` print and raise SystemExit."""
    return make_parser().parse_args(argv)


def resolve(
    options: argparse.Namespace, environment: Environment, run_dir: Path, working_dir: Path
) -> ServerConfig:
    """The configuration that the options of `model` and the environment amount to. Raises UsageError."""
    if options.port == options.rest_port:
        raise UsageError(f"ie_serving model: --port and --rest_port must differ, both are {options.port}")
    for name in ("batch_size", "shape"):
        if name in options:
            raise UsageError(f"ie_serving model: --{name} is not supported yet")
    model = ModelConfig(
        name=options.model_name,
        base_path=str(working_dir / options.model_path),
        nireq=options.nireq,
        target_device=options.target_device,
        plugin_config=options.plugin_config,
        version_policy=options.model_version_policy,
    )
    return ServerConfig(
        models=(model,),
        run_dir=str(run_dir),
        grpc_port=options.port,
        rest_port=options.rest_port,
        bind_address=options.bind_address,
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
        poll_wait_s=_variable(
            "FILE_SYSTEM_POLL_WAIT_SECONDS",
            environment.poll_wait_seconds,
            values.poll_wait,
            DEFAULT_POLL_WAIT_S,
        ),
        cpu_extension=_path(working_dir, "CPU_EXTENSION", environment.cpu_extension),
        log_level=_variable("LOG_LEVEL", environment.log_level, values.log_level, DEFAULT_LOG_LEVEL),
        log_path=_path(working_dir, "LOG_PATH", environment.log_path),
    )


_Value = TypeVar("_Value")


def _variable(name: str, text: str, parse: Callable[[str], _Value], default: _Value) -> _Value:
    """An environment variable's value; unset and blank mean the default."""
    if not text.strip():
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"ie_serving model: {name}: {error}") from None


def _path(working_dir: Path, name: str, text: str) -> str:
    """An environment variable that holds a path: absolute, so that no process depends on where it was started."""
    path = _variable(name, text, values.text_value, "")
    return str(working_dir / path) if path else ""
