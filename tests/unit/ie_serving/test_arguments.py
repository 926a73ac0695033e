import re
from pathlib import Path

import pytest

from ie_serving.arguments import make_parser, parse
from ie_serving.errors import UsageError

NEEDED = ["model", "--model_name", "m", "--model_path", "/models/m"]


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
        (["config", "--config_path", "f", "--nireq", "2"], "unrecognized arguments: --nireq 2"),
        (["config", "--config_path", "f", "--emulate", "GPU=CPU"], "unrecognized arguments: --emulate"),
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


DOCUMENTED = {
    "model": [
        *("--model_name", "--model_path", "--batch_size", "--shape", "--port", "--rest_port", "--nireq"),
        *("--model_version_policy", "--grpc_workers", "--rest_workers", "--target_device", "--plugin_config"),
    ],
    "config": ["--config_path", "--port", "--rest_port", "--grpc_workers", "--rest_workers"],
}
VARIABLES = [
    *("LOG_LEVEL", "LOG_PATH", "FILE_SYSTEM_POLL_WAIT_SECONDS", "CPU_EXTENSION", "S3_ENDPOINT"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_CONNECTION_STRING"),
]
OF_A_MODEL = [
    *("model_name", "model_path", "model_version_policy", "batch_size", "shape", "max_shapes", "nireq"),
    *("target_device", "plugin_config", "device_python", "emulate"),
]


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse([command, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["model", "config"])
def test_help_names_options_and_variables_and_no_development_device(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys)
    assert [name for name in (*DOCUMENTED[command], *VARIABLES) if name not in text] == []
    assert "FAKE" not in text
    assert "not supported" not in text
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize(
    ("command", "groups"),
    [
        ("model", ["model", "batch size and shape", "inference", "devices"]),
        ("config", ["models"]),
    ],
)
def test_options_are_grouped(command: str, groups: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(command, capsys)
    expected = ["options", *groups, "network", "processes", "caches", "limits", "environment"]
    assert [
        line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")
    ] == expected


def test_config_has_all_options_of_model_that_are_not_about_one_model() -> None:
    of_model = vars(parse(NEEDED))
    of_config = vars(parse(["config", "--config_path", "f"]))
    assert set(of_model) - set(OF_A_MODEL) == set(of_config) - {"config_path"}
    assert {name: of_model[name] for name in of_config if name not in ("command", "config_path")} == {
        name: value for name, value in of_config.items() if name not in ("command", "config_path")
    }


def test_defaults_in_the_help_are_the_true_ones(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(help_of("model", capsys).split())
    options = parse(NEEDED)
    names = [
        "port",
        "rest_port",
        "max_shapes",
        "grpc_workers",
        "rest_workers",
        "workers",
        "arena_mb",
    ]
    for name in [*names, "max_queue", "model_cache_mb", "target_device"]:
        start = text.index(f"--{name} ", text.index("options:"))
        assert f"(default: {getattr(options, name)})" in text[start : start + 200]


def test_top_level_help_lists_the_commands() -> None:
    text = make_parser().format_help()
    assert all(name in text for name in ("model", "config", "status", "scale"))
    assert "not supported" not in text


@pytest.mark.parametrize("command", ["model", "config"])
def test_the_page_names_every_option_and_variable(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "configuration.md").read_text()
    options = re.findall(r"^  (--\w+)", help_of(command, capsys), re.MULTILINE)
    assert len(options) > 15
    assert [name for name in (*options, *VARIABLES) if f"`{name}" not in page] == []
