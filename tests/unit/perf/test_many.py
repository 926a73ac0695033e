"""perf.many: the configuration that it makes, and what it prints."""

from pathlib import Path

from common.config import ServerConfig
from common.config_file import read_config_file
from perf.many import Cost, configure, line_of


def test_each_model_has_files_of_its_own(tmp_path: Path) -> None:
    version = tmp_path / "tiny" / "1"
    version.mkdir(parents=True)
    (version / "tiny.xml").touch()
    (tmp_path / "tiny" / "input.npy").touch()
    found = read_config_file(configure(tmp_path, tmp_path / "tiny", 3), ServerConfig((), "")).models
    assert [model.name for model in found] == ["m000", "m001", "m002"]
    for model in found:
        assert [each.name for each in Path(model.base_path).iterdir()] == ["1"]
        assert (Path(model.base_path) / "1" / "tiny.xml").is_file()


def test_a_line_says_which_processes_are_not_idle() -> None:
    line = line_of(Cost(10, 2.5, {"broker": 0.3, "worker": 0.1, "grpc": 0.0}, 345.6))
    assert line.split() == ["10", "2.50", "0.40", "(broker", "0.30,", "worker", "0.10)", "346"]
