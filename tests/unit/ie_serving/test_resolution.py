from pathlib import Path

import pytest

from common.config import DeviceConfig, Environment, ModelConfig, ServerConfig, VersionPolicy
from ie_serving.arguments import parse
from ie_serving.errors import UsageError
from ie_serving.resolution import resolve, warnings

CONFIG = ["config", "--config_path", "models.json"]
NEEDED = ["model", "--model_name", "m", "--model_path", "/models/m"]
UNSET = Environment("", "", "", "", "")


def resolved(*more: str, environment: Environment = UNSET, command: list[str] = NEEDED) -> ServerConfig:
    return resolve(parse([*command, *more]), environment, Path("/run/x"), Path("/here"))


def test_defaults_are_those_of_the_documents() -> None:
    assert resolved() == ServerConfig(
        models=(ModelConfig("m", "/models/m"),),
        run_dir="/run/x",
        grpc_port=9000,
        rest_port=0,
        grpc_workers=1,
        rest_workers=1,
        workers=1,
        log_level="INFO",
        poll_wait_s=1.0,
    )


@pytest.mark.parametrize(
    ("option", "text", "field", "value"),
    [
        ("--port", "9001", "grpc_port", 9001),
        ("--rest_port", "8001", "rest_port", 8001),
        ("--rest_port", "", "rest_port", 0),
        ("--bind_address", "127.0.0.1", "bind_address", "127.0.0.1"),
        ("--rest_cors_origins", "http://a,http://b:1", "rest_cors_origins", ("http://a", "http://b:1")),
        ("--grpc_transport", "grpcio", "grpc_transport", "grpcio"),
        ("--grpc_transport", "native", "grpc_transport", "native"),
        ("--grpc_socket", "run/grpc.sock", "grpc_socket", "/here/run/grpc.sock"),
        ("--grpc_socket", "/" + "x" * 106, "grpc_socket", "/" + "x" * 106),
        ("--grpc_workers", "3", "grpc_workers", 3),
        ("--rest_workers", "4", "rest_workers", 4),
        ("--workers", "64", "workers", 64),
        ("--arena_mb", "2", "arena_bytes", 2 << 20),
        ("--large_requests_mb", "3", "large_bytes", 3 << 20),
        ("--max_message_mb", "2047", "message_bytes", 2047 << 20),
        ("--max_queue", "5", "max_queue", 5),
        ("--request_timeout_seconds", "0.5", "request_timeout_s", 0.5),
        ("--inference_timeout_seconds", "1.5", "inference_timeout_s", 1.5),
        ("--load_timeout_seconds", "7", "load_timeout_s", 7.0),
        ("--model_cache_dir", "cache", "model_cache_dir", "/here/cache"),
        ("--model_cache_dir", "/cache", "model_cache_dir", "/cache"),
        ("--model_cache_mb", "5", "model_cache_bytes", 5 << 20),
        ("--cache_dir", "compiled", "cache_dir", "/here/compiled"),
    ],
)
def test_option_of_the_server(option: str, text: str, field: str, value: object) -> None:
    assert getattr(resolved(option, text), field) == value
    assert getattr(resolved(option, text, command=CONFIG), field) == value


def test_options_that_want_others() -> None:
    config = resolved(
        *("--rest_port", "8000", "--rest_socket", "rest.sock", "--grpc_tls_certificate", "server.crt"),
        *("--grpc_tls_key", "/keys/server.key", "--grpc_tls_client_ca", "clients.pem"),
    )
    assert config.rest_socket == "/here/rest.sock"
    assert (config.grpc_tls_certificate, config.grpc_tls_key) == ("/here/server.crt", "/keys/server.key")
    assert config.grpc_tls_client_ca == "/here/clients.pem"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--rest_socket", "s"], "--rest_socket wants --rest_port as well"),
        (
            ["--rest_port", "1", "--rest_socket", "s", "--grpc_socket", "/here/s"],
            "--grpc_socket and --rest_socket must differ, both are /here/s",
        ),
        (["--grpc_tls_key", "k"], "--grpc_tls_certificate and --grpc_tls_key want each other"),
        (["--grpc_tls_certificate", "c"], "--grpc_tls_certificate and --grpc_tls_key want each other"),
        (["--grpc_tls_client_ca", "a"], "--grpc_tls_client_ca wants --grpc_tls_certificate"),
        (["--grpc_socket", "/" + "x" * 107], "--grpc_socket: the path of a socket has 107 bytes at the most"),
        (["--grpc_socket", "/" + "\u00e9" * 54], "--grpc_socket: the path of a socket has 107 bytes"),
    ],
)
def test_options_that_do_not_go_together(more: list[str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        resolved(*more)


@pytest.mark.parametrize(
    ("option", "text", "field", "value"),
    [
        ("--model_name", "other", "name", "other"),
        ("--model_path", "relative/path", "base_path", "/here/relative/path"),
        ("--nireq", "9", "nireq", 9),
        ("--target_device", "MULTI:MYRIAD,CPU", "target_device", "MULTI:MYRIAD,CPU"),
        ("--plugin_config", '{"A": true}', "plugin_config", {"A": "YES"}),
        ("--model_version_policy", '{"all": {}}', "version_policy", VersionPolicy("all")),
        ("--model_path", "s3://bucket/m", "base_path", "s3://bucket/m"),
        ("--model_path", "GS://bucket/m", "base_path", "gs://bucket/m"),
        ("--batch_size", "4", "batch_size", 4),
        ("--batch_size", "auto", "batch_size", "auto"),
        ("--shape", "auto", "shape", "auto"),
        ("--shape", "(1,3,224,224)", "shape", {"": (1, 3, 224, 224)}),
        ("--shape", "[1,-1]", "shape", {"": (1, -1)}),
        ("--shape", '{"a": "(1)", "b": [2, 3]}', "shape", {"a": (1,), "b": (2, 3)}),
        ("--max_shapes", "3", "max_shapes", 3),
    ],
)
def test_option_of_the_model(option: str, text: str, field: str, value: object) -> None:
    assert getattr(resolved(option, text).models[0], field) == value


@pytest.mark.parametrize(
    ("option", "text"),
    [
        *(("--port", bad) for bad in ("0", "65536", "", "x")),
        *(("--rest_port", bad) for bad in ("-1", "65536", "x")),
        *((name, bad) for name in ("--grpc_workers", "--rest_workers") for bad in ("0", "257", "")),
        *(("--workers", bad) for bad in ("0", "65")),
        *(("--nireq", bad) for bad in ("0", "-1", "1025", "auto")),
        *((name, "0") for name in ("--arena_mb", "--large_requests_mb", "--max_message_mb", "--max_queue")),
        ("--max_message_mb", "2048"),
        *((f"--{name}_timeout_seconds", "0") for name in ("request", "inference", "load")),
        ("--bind_address", "localhost"),
        ("--rest_cors_origins", "example.org"),
        ("--model_name", ""),
        ("--model_name", "a\nb"),
        ("--model_path", ""),
        ("--model_path", "s3://"),
        ("--model_path", "https://h/m.zip"),
        ("--max_shapes", "0"),
        ("--model_cache_mb", "0"),
        ("--model_cache_dir", ""),
        ("--cache_dir", "a\nb"),
        ("--device_python", "MYRIAD"),
        ("--device_python", "stick=/p"),
        ("--emulate", "MYRIAD=stick"),
        ("--emulate", "MYRIAD=MYRIAD"),
        ("--target_device", "cpu"),
        ("--plugin_config", "x"),
        ("--plugin_config", "[]"),
        ("--model_version_policy", "{}"),
        ("--batch_size", "0"),
        ("--shape", "(0)"),
        ("--run_dir", ""),
    ],
)
def test_wrong_value_is_one_line_that_names_the_option(option: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolved(option, text)
    line = str(caught.value)
    assert line.startswith(f"ie_serving model: {option}: ")
    assert "\n" not in line


def test_ports_must_differ() -> None:
    with pytest.raises(UsageError, match="--port and --rest_port must differ, both are 9000"):
        resolved("--rest_port", "9000")


def test_shape_wins_over_batch_size() -> None:
    both = ("--shape", "(1,3)", "--batch_size", "4")
    (model,) = resolved(*both).models
    assert (model.shape, model.batch_size) == ({"": (1, 3)}, None)
    assert warnings(parse([*NEEDED, *both])) == [
        "--shape and --batch_size are both given: --batch_size is ignored"
    ]


@pytest.mark.parametrize(
    "argv", [NEEDED, [*NEEDED, "--shape", "auto"], [*NEEDED, "--batch_size", "4"], CONFIG]
)
def test_nothing_to_warn_of(argv: list[str]) -> None:
    assert warnings(parse(argv)) == []


def test_devices() -> None:
    config = resolved(
        *("--device_python", "MYRIAD=old/bin/python", "--device_python", "GPU=/p"),
        *("--emulate", "HDDL=CPU", "--emulate", "GPU=CPU"),
    )
    assert config.devices == {
        "MYRIAD": DeviceConfig(python="/here/old/bin/python"),
        "GPU": DeviceConfig(python="/p", emulate_on="CPU"),
        "HDDL": DeviceConfig(emulate_on="CPU"),
    }


@pytest.mark.parametrize(
    ("option", "first", "second"), [("--emulate", "CPU", "GPU"), ("--device_python", "/p", "/q")]
)
def test_each_device_once(option: str, first: str, second: str) -> None:
    with pytest.raises(UsageError, match=f"^ie_serving model: {option}: each device once, not HDDL, HDDL$"):
        resolved(option, f"HDDL={first}", option, f"HDDL={second}")


def test_a_model_in_the_cache_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"--model_path: /here/a/m is in --model_cache_dir, which holds fetched"
    ):
        resolved("--model_path", "a/m", "--model_cache_dir", "a")


@pytest.mark.parametrize(
    ("given", "path"), [("models.json", "/here/models.json"), ("/etc/m.json", "/etc/m.json")]
)
def test_config(given: str, path: str) -> None:
    expected = ServerConfig(models=(), run_dir="/run/x", config_path=path)
    assert resolved(command=["config", "--config_path", given]) == expected


def test_errors_name_the_command() -> None:
    with pytest.raises(
        UsageError, match=r"^ie_serving config: --port and --rest_port must differ, both are 9000"
    ):
        resolved("--rest_port", "9000", command=CONFIG)
    with pytest.raises(UsageError, match=r"^ie_serving config: LOG_LEVEL: "):
        resolved(environment=Environment("LOUD", "", "", "", ""), command=CONFIG)


@pytest.mark.parametrize(
    ("environment", "field", "value"),
    [
        (Environment("DEBUG", "", "", "", ""), "log_level", "DEBUG"),
        (Environment("", "log.txt", "", "", ""), "log_path", "/here/log.txt"),
        (Environment("", "/var/log.txt", "", "", ""), "log_path", "/var/log.txt"),
        (Environment("", "", "0", "", ""), "poll_wait_s", 0.0),
        (Environment("", "", "-1", "", ""), "poll_wait_s", -1.0),
        (Environment("", "", "", "/lib/x.so", ""), "cpu_extension", "/lib/x.so"),
        (Environment(" ", "", " ", "", ""), "log_level", "INFO"),
    ],
)
def test_environment(environment: Environment, field: str, value: object) -> None:
    assert getattr(resolved(environment=environment), field) == value


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        (Environment("TRACE", "", "", "", ""), "LOG_LEVEL"),
        (Environment("", "a\nb", "", "", ""), "LOG_PATH"),
        (Environment("", "", "often", "", ""), "FILE_SYSTEM_POLL_WAIT_SECONDS"),
        (Environment("", "", "", "\x01", ""), "CPU_EXTENSION"),
    ],
)
def test_wrong_environment_names_the_variable(environment: Environment, name: str) -> None:
    with pytest.raises(UsageError, match=f"^ie_serving model: {name}: [^\n]+$"):
        resolved(environment=environment)
