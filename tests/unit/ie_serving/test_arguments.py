from collections.abc import Iterator
from pathlib import Path

import pytest

from common.config import Environment, ModelConfig, ServerConfig, VersionPolicy
from ie_serving.arguments import make_parser, parse, resolve
from ie_serving.errors import UsageError

NEEDED = ["model", "--model_name", "m", "--model_path", "/models/m"]
UNSET = Environment("", "", "", "", "")


def resolved(*more: str, environment: Environment = UNSET) -> ServerConfig:
    return resolve(parse([*NEEDED, *more]), environment, Path("/run/x"), Path("/here"))


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
    ],
)
def test_option_of_the_server(option: str, text: str, field: str, value: object) -> None:
    assert getattr(resolved(option, text), field) == value


@pytest.mark.parametrize(
    ("option", "text", "field", "value"),
    [
        ("--model_name", "other", "name", "other"),
        ("--model_path", "relative/path", "base_path", "/here/relative/path"),
        ("--nireq", "9", "nireq", 9),
        ("--target_device", "MULTI:MYRIAD,CPU", "target_device", "MULTI:MYRIAD,CPU"),
        ("--plugin_config", '{"A": true}', "plugin_config", {"A": "YES"}),
        ("--model_version_policy", '{"all": {}}', "version_policy", VersionPolicy("all")),
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
        *(("--nireq", bad) for bad in ("0", "-1", "auto")),
        *((name, "0") for name in ("--arena_mb", "--large_requests_mb", "--max_message_mb", "--max_queue")),
        ("--max_message_mb", "2048"),
        *((f"--{name}_timeout_seconds", "0") for name in ("request", "inference", "load")),
        ("--bind_address", "localhost"),
        ("--model_name", ""),
        ("--model_name", "a\nb"),
        ("--model_path", ""),
        ("--model_path", "s3://bucket/m"),
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


@pytest.mark.parametrize(
    ("option", "text"),
    [("--batch_size", "4"), ("--batch_size", "auto"), ("--shape", "auto"), ("--shape", '{"a": "(1)"}')],
)
def test_batch_size_and_shape_are_refused(option: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is not supported yet"):
        resolved(option, text)


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


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["model"], "the following arguments are required: --model_name, --model_path"),
        (["model", "--model_name", "m"], "required: --model_path"),
        (["config"], "required: --config_path"),
        (["serve"], "invalid choice: 'serve'"),
        ([*NEEDED, "--bogus"], "unrecognized arguments: --bogus"),
        ([*NEEDED, "--rest_por", "1"], "unrecognized arguments: --rest_por 1"),
        ([*NEEDED, "--bogus\nline"], "unrecognized arguments: --bogus line"),
        (["scale", "CPU"], "required: N"),
        (["scale", "CPU", "0"], "from 1 to 64"),
        (["scale", "cpu", "1"], "accepted are CPU"),
        (["status", "--json", "--check"], "not allowed with"),
        (["status", "--port", "x"], "--port: a whole number"),
        (["config", "--config_path", "f", "--rest_workers", "0"], "--rest_workers: a whole number"),
    ],
)
def test_wrong_command_line_is_one_line(argv: list[str], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(argv)
    line = str(caught.value)
    assert part in line
    assert "\n" not in line


def test_config_parses_the_options_of_the_server() -> None:
    options = parse(
        ["config", "--config_path", "f.json", "--port", "1", "--rest_port", "2", "--grpc_workers", "3"]
    )
    assert (options.config_path, options.port, options.rest_port, options.grpc_workers) == ("f.json", 1, 2, 3)


def documented_options() -> Iterator[str]:
    yield from ("--model_name", "--model_path", "--batch_size", "--shape", "--port", "--rest_port", "--nireq")
    yield from (
        "--model_version_policy",
        "--grpc_workers",
        "--rest_workers",
        "--target_device",
        "--plugin_config",
    )


def test_help_names_every_option_and_no_development_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["model", "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(option in text for option in documented_options())
    assert "FAKE" not in text


def test_defaults_in_the_help_are_the_true_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["model", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    options = parse(NEEDED)
    for name in (
        "port",
        "rest_port",
        "nireq",
        "grpc_workers",
        "rest_workers",
        "workers",
        "arena_mb",
        "max_queue",
    ):
        start = text.index(f"--{name} ", text.index("network:") if "port" in name else text.index("options:"))
        assert f"(default: {getattr(options, name)})" in text[start : start + 200]


def test_top_level_help_lists_the_commands() -> None:
    text = make_parser().format_help()
    assert all(name in text for name in ("model", "config", "status", "scale"))
