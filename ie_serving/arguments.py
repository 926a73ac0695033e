"""The command line: its options. Pure.

Every option that the Python OpenVINO Model Server had is here with its name, its meaning and its default; those of our
own have defaults that leave the others as they were.
"""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from common import build, values
from common.config import (
    DEFAULT_ARENA_MB,
    DEFAULT_GRPC_PORT,
    DEFAULT_LARGE_MB,
    DEFAULT_LOAD_TIMEOUT_S,
    DEFAULT_MESSAGE_MB,
    DEFAULT_MODEL_CACHE_MB,
    DEFAULT_QUEUE,
    DEFAULT_TIMEOUT_S,
    DEFAULT_TRANSPORT,
    TRANSPORTS,
    ModelConfig,
)
from ie_serving import __version__
from ie_serving import values as server_values
from ie_serving.errors import UsageError

_MAX_FRONTENDS = 256
_MAX_MB = 1 << 20
_MAX_CACHE_MB = 1 << 30
_MAX_MESSAGE_MB = 2047
"""gRPC counts a message's bytes in 32 bits, signed."""

_MODEL = ModelConfig("", "")
"""The defaults of a model's options."""


class Parser(argparse.ArgumentParser):
    """argparse, with one line instead of its usage text when something is wrong."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_HelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raises UsageError."""
        line = " ".join(message.removeprefix("argument ").splitlines())
        raise UsageError(f"{self.prog}: {line}")


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=35, width=110)


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
    parser.add_argument("--version", action="version", version=f"ie_serving {__version__} ({build.form()})")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_model(
        commands.add_parser("model", help="serve one model", description="Serve one model.", epilog=_EPILOG)
    )
    _add_config(
        commands.add_parser(
            "config",
            help="serve the models of a configuration file",
            description="Serve the models of a configuration file. Its changes take effect while the server runs.",
            epilog=_EPILOG,
        )
    )
    _add_status(commands.add_parser("status", help="what a running server serves, and by which processes"))
    _add_scale(commands.add_parser("scale", help="change the number of a device's inference workers"))
    return parser


_VARIABLES = (
    ("LOG_LEVEL", "ERROR, INFO or DEBUG (default: INFO)"),
    ("LOG_PATH", "file that the log is written to besides the console"),
    (
        "FILE_SYSTEM_POLL_WAIT_SECONDS",
        "between two looks for changes; 0 or less: only one, at start (default: 1)",
    ),
    ("CPU_EXTENSION", "library of custom CPU layers"),
    ("IE_SERVING_RUN_DIR", "see --run_dir"),
    ("S3_ENDPOINT", "s3:// on another server than Amazon's: host:port or a URL"),
    ("AWS_ACCESS_KEY_ID", "s3://: credentials; without them, anonymous"),
    ("AWS_SECRET_ACCESS_KEY", ""),
    ("AWS_SESSION_TOKEN", ""),
    ("AWS_REGION", "s3://: region"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "gs://: file that holds the credentials; without it, anonymous"),
    ("AZURE_STORAGE_CONNECTION_STRING", "az:// and azfs://: account and credentials"),
)
_EPILOG = "environment:\n" + "\n".join(f"  {name:33}{text}".rstrip() for name, text in _VARIABLES)


def _add_model(parser: argparse.ArgumentParser) -> None:
    _add_identity(parser.add_argument_group("model"))
    _add_shapes(parser.add_argument_group("batch size and shape"))
    _add_inference(parser.add_argument_group("inference"))
    group = parser.add_argument_group("devices")
    group.add_argument(
        "--device_python",
        metavar="DEVICE=PATH",
        action="append",
        default=[],
        type=_checked(server_values.device_python),
        help="interpreter of this device's workers, with another OpenVINO in it; may be given for several devices "
        "(default: the server's own)",
    )
    group.add_argument(
        "--emulate",
        metavar="DEVICE=OTHER",
        action="append",
        default=[],
        type=_checked(server_values.emulation),
        help="for development: infer on OTHER what DEVICE is to infer; may be given for several devices",
    )
    _add_server(parser)


def _add_identity(group: Any) -> None:
    group.add_argument(
        "--model_name", required=True, type=_checked(values.text_value), help="name that clients use"
    )
    group.add_argument(
        "--model_path",
        required=True,
        type=_checked(values.base_path),
        help="directory that holds one directory per version, which need not exist yet; or its address in a store: "
        "s3://bucket/path, gs://bucket/path, az://container/path, azfs://share/path",
    )
    group.add_argument(
        "--model_version_policy",
        metavar="JSON",
        default='{"latest": {"num_versions": 1}}',
        type=_json(values.version_policy),
        help='which versions are served: {"all": {}}, {"latest": {"num_versions": N}} or '
        '{"specific": {"versions": [N, ...]}} (default: {"latest": {"num_versions": 1}})',
    )


def _add_shapes(group: Any) -> None:
    group.add_argument(
        "--batch_size",
        metavar="N",
        type=_checked(values.batch_size),
        help="first dimension of every input, or auto: each request brings its own; ignored if --shape is given "
        "(default: the model's own)",
    )
    group.add_argument(
        "--shape",
        type=_checked(values.shape),
        help='(1,3,224,224), [1,3,224,224] or, by input name, {"input": "(1,3,224,224)"}, -1 for any size; or auto: '
        "each request brings its own (default: the model's own)",
    )
    _number(
        group,
        "--max_shapes",
        _MODEL.max_shapes,
        values.integer(1, values.MAX_SHAPES),
        "compiled shapes that each worker keeps of a version of which requests bring their own",
    )


def _add_inference(group: Any) -> None:
    group.add_argument(
        "--nireq",
        metavar="N",
        type=_checked(values.integer(1, values.MAX_NIREQ)),
        help="requests of a version that each worker infers at once (default: 1; of a model on CPU that takes longer "
        "than a millisecond, as many as OpenVINO advises for throughput)",
    )
    group.add_argument(
        "--target_device",
        metavar="DEVICE",
        default=_MODEL.target_device,
        type=_checked(values.target_device),
        help="CPU, GPU, NPU, MYRIAD, HDDL, one of several as GPU.1, MULTI:A,B, HETERO:A,B, AUTO or AUTO:A,B "
        "(default: CPU)",
    )
    group.add_argument(
        "--plugin_config",
        metavar="JSON",
        default="{}",
        type=_json(values.plugin_config),
        help='OpenVINO properties, e.g. {"NUM_STREAMS": "2"} (default: none)',
    )


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument_group("models").add_argument(
        "--config_path",
        metavar="FILE",
        required=True,
        type=_checked(values.text_value),
        help="JSON file that lists the models",
    )
    _add_server(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    """What `model` and `config` have in common."""
    _add_network(parser.add_argument_group("network"))
    group = parser.add_argument_group("processes")
    _number(group, "--grpc_workers", 1, values.integer(1, _MAX_FRONTENDS), "gRPC frontend processes")
    _number(group, "--rest_workers", 1, values.integer(1, _MAX_FRONTENDS), "REST frontend processes")
    _number(
        group,
        "--workers",
        1,
        values.integer(1, values.MAX_WORKERS),
        f"inference processes per device, up to {values.MAX_WORKERS}; `ie_serving scale` changes it later",
    )
    _add_run_dir(group, "directory of this instance's sockets and state, for this user alone")
    _add_caches(parser.add_argument_group("caches"))
    _add_limits(parser.add_argument_group("limits"))


def _add_network(group: Any) -> None:
    _add_port(group, "gRPC port")
    group.add_argument(
        "--rest_port",
        metavar="PORT",
        default=0,
        type=_checked(server_values.optional_port),
        help="REST port; 0: no REST (default: 0)",
    )
    group.add_argument(
        "--bind_address",
        metavar="ADDRESS",
        default="0.0.0.0",  # noqa: S104 - a server is there to be reached
        type=_checked(server_values.address),
        help="IPv4 or IPv6 address to listen on, e.g. 127.0.0.1 or :: (default: 0.0.0.0, all of IPv4)",
    )
    _add_sockets(group)
    _add_grpc_transport(group)
    group.add_argument(
        "--rest_cors_origins",
        metavar="ORIGINS",
        default=(),
        type=_checked(server_values.origins),
        help="web pages that may call the REST API from a browser, by their origins with commas between them, e.g. "
        "https://example.org:8443; * for all (default: none)",
    )


def _add_sockets(group: Any) -> None:
    for kind, text in (
        ("grpc", "; the first gRPC frontend process serves it"),
        ("rest", "; it wants --rest_port as well"),
    ):
        group.add_argument(
            f"--{kind}_socket",
            metavar="PATH",
            type=_checked(values.text_value),
            help=f"unix socket beside the port, for clients on this host of the server's user or group{text} "
            "(default: none)",
        )


def _add_grpc_transport(group: Any) -> None:
    group.add_argument(
        "--grpc_transport",
        choices=TRANSPORTS,
        default=DEFAULT_TRANSPORT,
        help="who speaks HTTP/2 for gRPC: the package grpcio, or the server itself "
        f"(default: {DEFAULT_TRANSPORT})",
    )
    for name, text in (
        ("certificate", "PEM file with the gRPC port's certificate and those that lead to its authority"),
        ("key", "PEM file with the certificate's key, without a password"),
        ("client_ca", "PEM file with the authorities of which gRPC clients must show a certificate"),
    ):
        group.add_argument(
            f"--grpc_tls_{name}",
            metavar="FILE",
            type=_checked(values.text_value),
            help=f"{text} (default: none)",
        )


def _add_caches(group: Any) -> None:
    group.add_argument(
        "--model_cache_dir",
        metavar="DIR",
        type=_checked(values.text_value),
        help="where models from stores are kept (default: in the run directory)",
    )
    _number(
        group,
        "--model_cache_mb",
        DEFAULT_MODEL_CACHE_MB,
        values.integer(1, _MAX_CACHE_MB),
        "MB that they may take",
    )
    group.add_argument(
        "--cache_dir",
        metavar="DIR",
        type=_checked(values.text_value),
        help="where OpenVINO keeps compiled models, so that they load faster the next time (default: nowhere)",
    )


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
        _number(group, f"--{name}_timeout_seconds", default, server_values.seconds, text)


def _number(group: Any, name: str, default: float, parse: Callable[[str], Any], text: str) -> None:
    shown = f"{text} (default: {default:g})"
    group.add_argument(name, metavar="N", default=default, type=_checked(parse), help=shown)


def _add_port(group: Any, text: str) -> None:
    group.add_argument(
        "--port",
        metavar="PORT",
        default=DEFAULT_GRPC_PORT,
        type=_checked(server_values.port),
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
        type=_checked(values.integer(1, values.MAX_WORKERS)),
        help=f"workers, 1 to {values.MAX_WORKERS}",
    )
    _add_target(parser)
    parser.add_argument("--no-wait", action="store_true", help="do not wait until that many serve")


def _add_target(parser: argparse.ArgumentParser) -> None:
    _add_port(parser, "gRPC port of the instance")
    _add_run_dir(parser, "directory of the instance")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line. Raises UsageError; `--help` and `--version` print and raise SystemExit."""
    return make_parser().parse_args(argv)
