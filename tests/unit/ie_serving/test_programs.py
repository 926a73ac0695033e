import configparser
import shlex

from common.config import ServerConfig
from ie_serving.programs import supervisord_text

CONFIG = ServerConfig(models=(), run_dir="/run/x", grpc_workers=2, rest_port=8000, console="/dev/fd/7")


def parsed(
    config: ServerConfig, python: str = "/usr/bin/python3", safe_path: bool = False
) -> configparser.RawConfigParser:
    """As supervisord parses it."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"), strict=False)
    parser.read_string(supervisord_text(config, python, 1024, safe_path=safe_path))
    return parser


def test_programs() -> None:
    found = parsed(CONFIG)
    commands = {
        name.removeprefix("program:"): found[name]["command"]
        for name in found.sections()
        if name.startswith("program:")
    }
    python = "/usr/bin/python3 -m"
    assert commands == {
        "broker": f"{python} broker.app --run-dir /run/x",
        "storekeeper": f"{python} broker.storekeeper --run-dir /run/x",
        "grpc-0": f"{python} frontends.grpc.service --run-dir /run/x --index 0",
        "grpc-1": f"{python} frontends.grpc.service --run-dir /run/x --index 1",
        "rest": f"{python} frontends.rest.service --run-dir /run/x",
    }


def test_frontends_are_one_group_and_stop_first() -> None:
    found = parsed(CONFIG)
    assert found["group:frontends"]["programs"] == "grpc-0,grpc-1,rest"
    priorities = [
        int(found[name]["priority"]) for name in ("program:broker", "program:storekeeper", "group:frontends")
    ]
    assert priorities == sorted(set(priorities))
    workers = 20
    assert priorities[1] < workers < priorities[2]


def test_without_rest() -> None:
    found = parsed(ServerConfig(models=(), run_dir="/run/x"))
    assert "program:rest" not in found
    assert found["group:frontends"]["programs"] == "grpc-0"


def test_a_stuck_gunicorn_leaves_nothing() -> None:
    rest = parsed(CONFIG)["program:rest"]
    assert (rest["stopasgroup"], rest["killasgroup"]) == ("true", "true")


def test_all_output_goes_to_the_console_unrotated() -> None:
    found = parsed(CONFIG)
    for name in found.sections():
        if name.startswith("program:"):
            section = found[name]
            assert (section["stdout_logfile"], section["stdout_logfile_maxbytes"]) == ("/dev/fd/7", "0")
            assert section["redirect_stderr"] == "true"


def test_everything_is_restarted_for_ever() -> None:
    found = parsed(CONFIG)
    for name in found.sections():
        if name.startswith("program:"):
            assert found[name]["autorestart"] == "true"
            assert found[name]["startsecs"] == "0"
            assert int(found[name]["startretries"]) >= 1_000_000


def test_odd_paths_reach_the_command_line_as_they_are() -> None:
    run_dir, python = "/tmp/a b%c'd", '/opt/50% "py"/bin/python'  # noqa: S108
    found = parsed(ServerConfig(models=(), run_dir=run_dir), python)
    command = shlex.split(found["program:broker"]["command"] % {})
    assert command == [python, "-m", "broker.app", "--run-dir", run_dir]
    assert found["unix_http_server"]["file"] % {} == f"{run_dir}/supervisor.sock"
    assert found["include"]["files"] == "programs/*.conf"


def test_working_directory_is_kept_out_of_the_path() -> None:
    assert "PYTHONSAFEPATH" not in parsed(CONFIG)["supervisord"]["environment"]
    environment = parsed(CONFIG, safe_path=True)["supervisord"]["environment"]
    assert environment == 'OPENBLAS_NUM_THREADS="1",PYTHONSAFEPATH="1"'
