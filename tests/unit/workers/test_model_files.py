"""What is in a version's directory."""

from pathlib import Path

import pytest

from workers.engine import LoadError
from workers.heads import Labels
from workers.model_files import find_model, read_aliases, read_labels


def touch(directory: Path, *names: str) -> Path:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    return directory


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.xml", "model.bin", "model.mapping", "mapping_config.json"], "model.xml"),
        (["net.onnx", "weights.data"], "net.onnx"),
        (["frozen.pb"], "frozen.pb"),
        (["saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "variables/variables.index"], "."),
        (["net.tflite"], "net.tflite"),
        (["net.pdmodel", "net.pdiparams", "net.pdiparams.info"], "net.pdmodel"),
        (["net.onnx", "sub/other.onnx"], "net.onnx"),
    ],
)
def test_the_one_model(tmp_path: Path, names: list[str], expected: str) -> None:
    assert find_model(touch(tmp_path, *names)).path == tmp_path / expected


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], "holds no model: IR"),
        (["model.bin"], "holds no model"),
        (["model.xml"], r"model\.xml has no model\.bin beside it"),
        (["model.xml", "other.bin"], r"model\.xml has no model\.bin beside it"),
        (["net.pdmodel"], r"net\.pdmodel has no net\.pdiparams beside it"),
        (["a.xml", "a.bin", "b.xml", "b.bin"], r"2 models instead of one: a\.xml, b\.xml"),
        (["a.xml", "a.bin", "b.onnx"], r"2 models instead of one: a\.xml, b\.onnx"),
        (["saved_model.pb", "b.onnx"], r"2 models instead of one: b\.onnx, saved_model\.pb"),
        (["a.pb", "b.pb", "c.tflite"], "3 models"),
    ],
)
def test_not_the_one_model(tmp_path: Path, names: list[str], text: str) -> None:
    with pytest.raises(LoadError, match=text):
        find_model(touch(tmp_path, *names))


def test_directories_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "model.xml").mkdir()
    with pytest.raises(LoadError, match="no model"):
        find_model(tmp_path)


def test_links_that_lead_nowhere_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(LoadError, match="no model"):
        find_model(tmp_path)


def test_directory_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="cannot be read: No such file"):
        find_model(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(LoadError, match="cannot be read: Not a directory"):
        find_model(tmp_path / "file")


def test_aliases(tmp_path: Path) -> None:
    assert read_aliases(tmp_path) == ({}, {})
    (tmp_path / "mapping_config.json").write_text('{"inputs": {"x": "data"}}')
    assert read_aliases(tmp_path) == ({"x": "data"}, {})


def test_aliases_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mapping_config.json"
    path.mkdir()
    with pytest.raises(LoadError, match=r"mapping_config\.json cannot be read: Is a directory"):
        read_aliases(tmp_path)
    path.rmdir()
    path.write_bytes(b" " * (1 << 20) + b"{}")
    with pytest.raises(LoadError, match="longer than"):
        read_aliases(tmp_path)


# ---- labels


def test_labels_are_the_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\nmaltese dog\n\nüber\u2028owl\n\n".encode())
    assert read_labels(tmp_path, "names.txt").names == ("cat", "maltese dog", "", "über\u2028owl")


def test_labels_txt_is_read_where_none_is_named(tmp_path: Path) -> None:
    assert read_labels(tmp_path, "") == Labels()
    (tmp_path / "labels.txt").write_text("cat\ndog")
    assert read_labels(tmp_path, "") == Labels(("cat", "dog"))
    (tmp_path / "labels.txt").write_text(" \n")
    assert read_labels(tmp_path, "") == Labels()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe", "is not UTF-8"), (b"x" * (1 << 20) + b"x", "is longer than 1048576 bytes")],
)
def test_labels_that_cannot_be_used(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(LoadError) as caught:
        read_labels(tmp_path, "labels.txt")
    assert caught.value.reason == f"labels.txt {reason}"
    assert read_labels(tmp_path, "") == Labels(notes=(f"labels.txt {reason}: classes go by their numbers",))


def test_labels_that_are_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        read_labels(tmp_path, "names.txt")
    assert caught.value.reason == "classification: the version's directory holds no names.txt"


def test_labels_that_are_a_directory(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").mkdir()
    assert "cannot be read" in read_labels(tmp_path, "").notes[0]
