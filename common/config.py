"""The resolved configuration: frozen records, one file in the run directory, read by every process.

The command turns arguments and environment into one `ServerConfig`, validates it, and writes it down; the other
processes read that file and nothing else. This module is the only reader of the environment.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

CONFIG_FILE = "config.json"
MEGABYTE = 1 << 20

DEFAULT_GRPC_PORT = 9000
DEFAULT_ARENA_MB = 64
DEFAULT_LARGE_MB = 2048
DEFAULT_MESSAGE_MB = 1024
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_LOAD_TIMEOUT_S = 600.0
DEFAULT_POLL_WAIT_S = 1.0
DEFAULT_LOG_LEVEL = "INFO"
DEFAULT_QUEUE = 1024
DEFAULT_MODEL_CACHE_MB = 10_240

Transport: TypeAlias = Literal["grpcio", "native"]
TRANSPORTS: tuple[Transport, ...] = ("grpcio", "native")
DEFAULT_TRANSPORT: Transport = "native"


class VersionPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which of the versions in storage are served."""

    kind: Literal["all", "latest", "specific"] = "latest"
    num_versions: int = 1
    """How many of the highest, for `latest`."""
    versions: tuple[int, ...] = ()
    """Which ones, for `specific`."""


class BatchingParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests of a model are gathered into batches. The names are TensorFlow Serving's."""

    max_batch_size: int = 32
    """Rows of a batch, at most."""
    batch_timeout_micros: int = 0
    """So long the oldest request waits for others to fill its batch although a worker is free [µs]."""
    allowed_batch_sizes: tuple[int, ...] = ()
    """Sizes that batches are padded to, ascending, the last one max_batch_size; empty: see `sizes`."""
    max_enqueued_batches: int = 0
    """So many batches' rows may wait, further requests are refused; 0: no bound but the frontends' own."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes that batches are padded to; by default the powers of two below max_batch_size, and that."""
        if self.allowed_batch_sizes:
            return self.allowed_batch_sizes
        powers = [1 << bits for bits in range((self.max_batch_size - 1).bit_length())]
        return (*powers, self.max_batch_size)


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the workers of a device are run."""

    python: str = ""
    """Interpreter of its workers, with an OpenVINO of its own; empty: the server's."""
    emulate_on: str = ""
    """For development: the device that stands in for it."""


class ClassificationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Classify reads a model's outputs."""

    output: str = ""
    """The output of scores; empty: the only one."""
    labels: str = ""
    """File in the version's directory, one name of a class a line; empty: labels.txt where there is one."""
    top_k: int = 0
    """How many classes are given, highest score first; 0: all, in the model's order."""


class RegressionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How Regress reads a model's outputs."""

    output: str = ""
    """The output of values; empty: the only one."""


AUTO: Literal["auto"] = "auto"
"""Of `batch_size` and `shape`: each request brings its own."""


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model to serve."""

    name: str
    base_path: str
    """Directory that holds a directory a version: a local path, or the address of one in a store (s3://, gs://, az://)."""
    batch_size: int | Literal["auto"] | None = None
    """First dimension of every input; None: the model's own."""
    shape: dict[str, tuple[int, ...]] | Literal["auto"] | None = None
    """Shapes by input name, `""` for the only input; None: the model's own."""
    max_shapes: int = 16
    """Compiled shapes that each worker keeps of a version of which requests bring their own."""
    nireq: int | None = None
    """Requests of a version that each worker infers at once; None: the worker decides, see docs/devices.md."""
    target_device: str = "CPU"
    """OpenVINO device string; names the pool of workers."""
    plugin_config: dict[str, str] = {}
    """OpenVINO properties by name."""
    version_policy: VersionPolicy = VersionPolicy()
    labels: dict[str, int] = {}
    """Names that clients may use for versions."""
    workers: int | None = None
    """Workers of the device; None: the server's `workers`. The greatest of the models of one device counts."""
    layout: dict[str, str] = {}
    """Layouts by input name, `""` for the only input, as `NHWC`; where it is not named, the model's own."""
    classification: ClassificationConfig = ClassificationConfig()
    regression: RegressionConfig = RegressionConfig()
    batching_parameters: BatchingParameters | None = None
    """None: each request is inferred by itself."""


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that the processes need to know."""

    models: tuple[ModelConfig, ...]
    run_dir: str
    """Directory of sockets and state, of this instance alone."""
    grpc_port: int = DEFAULT_GRPC_PORT
    rest_port: int = 0
    """0: no REST frontend."""
    bind_address: str = "0.0.0.0"  # noqa: S104 - a server is there to be reached
    grpc_transport: Transport = DEFAULT_TRANSPORT
    """Who speaks HTTP/2 for gRPC: the package grpcio, or this project's own server."""
    grpc_socket: str = ""
    """Path of a unix socket beside the gRPC port, served by the first gRPC frontend; empty: none."""
    rest_socket: str = ""
    """Path of a unix socket beside the REST port; empty: none."""
    grpc_tls_certificate: str = ""
    """PEM file, the server's certificate first; empty: the gRPC port is not encrypted."""
    grpc_tls_key: str = ""
    """PEM file, the certificate's key."""
    grpc_tls_client_ca: str = ""
    """PEM file, the authorities of clients' certificates; empty: clients show none."""
    grpc_workers: int = 1
    """gRPC frontend processes."""
    rest_workers: int = 1
    """REST frontend processes."""
    workers: int = 1
    """Inference workers a device at start; `ie_serving scale` changes it."""
    arena_bytes: int = DEFAULT_ARENA_MB * MEGABYTE
    """Shared memory of each frontend, preallocated."""
    large_bytes: int = DEFAULT_LARGE_MB * MEGABYTE
    """Most that one frontend's large requests, each in a segment of its own, may take together."""
    message_bytes: int = DEFAULT_MESSAGE_MB * MEGABYTE
    """Longest message or body that is read."""
    max_queue: int = DEFAULT_QUEUE
    """Requests that a frontend keeps in flight; further ones are refused."""
    request_timeout_s: float = DEFAULT_TIMEOUT_S
    """Deadline of a request whose client set none."""
    inference_timeout_s: float = DEFAULT_TIMEOUT_S
    """A worker that infers one request for longer is killed."""
    load_timeout_s: float = DEFAULT_LOAD_TIMEOUT_S
    """A worker that compiles one version for longer is killed."""
    poll_wait_s: float = DEFAULT_POLL_WAIT_S
    """Between two listings of storage; zero or negative: listed once, at start."""
    cpu_extension: str = ""
    """Library of custom CPU layers."""
    config_path: str = ""
    """Configuration file that is watched; empty: `models` are all there is."""
    devices: dict[str, DeviceConfig] = {}
    """By the device string of the models' `target_device`."""
    model_cache_dir: str = ""
    """Where models from stores are kept; empty: in the run directory."""
    model_cache_bytes: int = DEFAULT_MODEL_CACHE_MB * MEGABYTE
    """Most that the model cache may take."""
    rest_cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the REST API, `*` for all; empty: none."""
    cache_dir: str = ""
    """OpenVINO's cache of compiled models; empty: none."""
    log_level: str = DEFAULT_LOG_LEVEL
    log_path: str = ""
    console: str = "/dev/null"
    """What supervisord writes the output of its children to."""

    @property
    def frontends(self) -> int:
        """Frontend processes that will say Hello."""
        return self.grpc_workers + (self.rest_workers if self.rest_port else 0)


class Environment(msgspec.Struct, frozen=True):
    """What the documents let an operator set by environment variables, as text, `""` where unset."""

    log_level: str
    log_path: str
    poll_wait_seconds: str
    cpu_extension: str
    run_dir: str


def read_environment() -> Environment:
    """The environment of this process."""
    return Environment(
        log_level=os.environ.get("LOG_LEVEL", ""),
        log_path=os.environ.get("LOG_PATH", ""),
        poll_wait_seconds=os.environ.get("FILE_SYSTEM_POLL_WAIT_SECONDS", ""),
        cpu_extension=os.environ.get("CPU_EXTENSION", ""),
        run_dir=os.environ.get("IE_SERVING_RUN_DIR", ""),
    )


@dataclass(frozen=True, slots=True)
class StoreEnvironment:
    """What the environment says about model stores, `""` where unset. Never logged and never written down.

    Beside it the stores' own libraries read what they document, AWS_ACCESS_KEY_ID and its like.
    """

    s3_endpoint: str = ""
    """`host:port` or a URL; empty: Amazon's."""
    aws_region: str = ""
    google_credentials: str = ""
    """Path of a file."""
    azure_connection: str = field(default="", repr=False)
    """Holds an account's key."""


def read_store_environment() -> StoreEnvironment:
    """The part of this process's environment that is about model stores; the storekeeper alone asks for it."""
    return StoreEnvironment(
        s3_endpoint=os.environ.get("S3_ENDPOINT", "").strip(),
        aws_region=os.environ.get("AWS_REGION", "").strip(),
        google_credentials=os.environ.get("GOOGLE_APPLICATION_CREDENTIALS", "").strip(),
        azure_connection=os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").strip(),
    )


def save(config: ServerConfig) -> Path:
    """Write the configuration into its run directory; where."""
    path = Path(config.run_dir) / CONFIG_FILE
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
    return path


def load(run_dir: Path) -> ServerConfig:
    """The configuration that the command wrote. Raises OSError or msgspec.ValidationError."""
    return msgspec.json.decode((run_dir / CONFIG_FILE).read_bytes(), type=ServerConfig)


def peers_socket(run_dir: Path) -> Path:
    """The broker's ZeroMQ socket."""
    return run_dir / "broker.ipc"


def supervisor_socket(run_dir: Path) -> Path:
    """supervisord's XML-RPC socket."""
    return run_dir / "supervisor.sock"


def exit_file(run_dir: Path) -> Path:
    """Where the broker leaves code and reason when it ends the server."""
    return run_dir / "exit.json"
