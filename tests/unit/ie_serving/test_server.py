import sys
from pathlib import Path

import msgspec
import pytest

from common.config import MEGABYTE, DeviceConfig, ServerConfig, exit_file
from ie_serving.errors import CommandError
from ie_serving.server import check_files, check_memory, exit_code

CONFIG = ServerConfig(models=(), run_dir="/run/x", grpc_workers=2, rest_port=8000, rest_workers=2)


def test_memory_that_is_there() -> None:
    check_memory(CONFIG, 4 * 64 * MEGABYTE + 128 * MEGABYTE)


def test_memory_that_is_not_there_is_named_with_what_is_wanted() -> None:
    with pytest.raises(
        CommandError, match=r"64 MB each need 384 MB .*, 383 MB are available; lower --arena_mb"
    ):
        check_memory(CONFIG, 4 * 64 * MEGABYTE + 128 * MEGABYTE - 1)


def test_files(tmp_path: Path) -> None:
    library = tmp_path / "x.so"
    library.touch()
    check_files(
        ServerConfig(models=(), run_dir="", log_path=str(tmp_path / "log"), cpu_extension=str(library))
    )


@pytest.mark.parametrize("name", ["missing/log", "."])
def test_log_path_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(CommandError, match=r"^LOG_PATH: cannot write to "):
        check_files(ServerConfig(models=(), run_dir="", log_path=str(tmp_path / name)))


def test_extension_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"^CPU_EXTENSION: cannot read "):
        check_files(ServerConfig(models=(), run_dir="", cpu_extension=str(tmp_path / "x.so")))


def test_caches_are_made(tmp_path: Path) -> None:
    caches = (tmp_path / "a" / "models", tmp_path / "b" / "compiled")
    check_files(ServerConfig((), "", model_cache_dir=str(caches[0]), cache_dir=str(caches[1])))
    assert all(path.is_dir() for path in caches)


@pytest.mark.parametrize("name", ["model_cache_dir", "cache_dir"])
def test_caches_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    options = {"models": (), "run_dir": "", name: str(tmp_path / "file")}
    config = msgspec.convert(options, ServerConfig)
    with pytest.raises(CommandError, match=rf"^--{name}: cannot make {tmp_path}/file: File exists$"):
        check_files(config)


def test_interpreters(tmp_path: Path) -> None:
    check_files(ServerConfig((), "", devices={"GPU": DeviceConfig(sys.executable), "NPU": DeviceConfig()}))
    missing = ServerConfig((), "", devices={"MYRIAD": DeviceConfig(str(tmp_path / "python"))})
    with pytest.raises(
        CommandError, match=rf"^the interpreter of device MYRIAD: there is no {tmp_path}/python$"
    ):
        check_files(missing)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (None, 0, ""),
        ('{"code": 0, "reason": ""}', 0, ""),
        ('{"code": 3, "reason": "no model\\ncan be served"}', 3, "ie_serving: no model can be served\n"),
        ("{", 0, ""),
    ],
)
def test_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, code: int, said: str
) -> None:
    if text is not None:
        exit_file(tmp_path).write_text(text)
    assert exit_code(tmp_path) == code
    assert capsys.readouterr().err == said
