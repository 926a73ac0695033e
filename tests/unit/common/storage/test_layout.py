"""common.storage.layout: which files are a model, and which directories are versions."""

import pytest

from common.storage.interface import StoredFile, StoredVersion
from common.storage.layout import MAX_VERSION, Candidate, choose, holds_model, is_number

IR = ("model.xml", "model.bin")


def files(*names: str) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(name, 1, "mark") for name in names)


def candidate(name: str, *names: str, problem: str = "") -> Candidate:
    return Candidate(name, f"s3://b/m/{name}", files(*(names or IR)), problem)


@pytest.mark.parametrize(
    "names",
    [
        IR,
        ("model.onnx",),
        ("model.onnx", "weights.data"),
        ("saved_model.pb",),
        ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"),
        (
            "saved_model.pb",
            "variables/variables.index",
            "variables/variables.data-00000-of-00002",
            "variables/variables.data-00001-of-00002",
        ),
        ("saved_model.pb", "assets/vocabulary.txt"),
        ("frozen.pb",),
        ("model.pdmodel", "model.pdiparams"),
        ("model.tflite",),
        ("model.tflite", "mapping_config.json"),
    ],
)
def test_models(names: tuple[str, ...]) -> None:
    assert holds_model(names)


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("model.xml",),
        ("model.xml", "other.bin"),
        ("model.bin",),
        (".onnx",),
        ("onnx",),
        ("deeper/model.onnx",),
        ("deeper/model.xml", "deeper/model.bin"),
        ("model.pdmodel",),
        ("model.pdmodel", "other.pdiparams"),
        ("model.onnx.part",),
        ("saved_model.pb", "variables/variables.index"),
        ("saved_model.pb", "variables/variables.data-00000-of-00001"),
        ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00002"),
        ("saved_model.pb", "variables/variables.index", "variables/variables.data-odd"),
        ("variables/variables.index", "variables/variables.data-00000-of-00001"),
        ("mapping_config.json",),
    ],
)
def test_no_models(names: tuple[str, ...]) -> None:
    assert not holds_model(names)


@pytest.mark.parametrize(
    ("name", "number"), [("1", 1), ("001", 1), ("0010", 10), (str(MAX_VERSION), MAX_VERSION)]
)
def test_digits_are_versions(name: str, number: int) -> None:
    assert is_number(name)
    listing = choose("s3://b/m", [candidate(name)])
    assert listing.versions == {
        number: StoredVersion(name, f"s3://b/m/{name}", files("model.bin", "model.xml"))
    }
    assert (listing.warnings, listing.refused) == ((), ())


@pytest.mark.parametrize("name", ["", "-1", "+1", "1a", "v1", "1.0", " 1", "1_0", "¹"])
def test_other_names_are_not(name: str) -> None:
    assert not is_number(name)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (candidate("0"), ": version 0 is not served, because 0 stands for an unspecified version in the API"),
        (candidate(str(MAX_VERSION + 1)), f": the version number is larger than {MAX_VERSION}"),
        (candidate("9" * 10_000), f": the version number is larger than {MAX_VERSION}"),
        (candidate("1", "readme.txt"), " holds no model: an .xml and a .bin file of one name"),
        (candidate("1", problem=" cannot be read: Permission denied"), " cannot be read: Permission denied"),
    ],
)
def test_what_is_said_of_the_others(one: Candidate, text: str) -> None:
    listing = choose("s3://b/m", [one, candidate("7")])
    assert set(listing.versions) == {7}
    (warning,) = listing.warnings
    assert warning.startswith(f"{one.location}{text}")
    assert listing.refused == (one.location,)


def test_of_two_names_of_one_number_the_first_with_a_model_counts() -> None:
    listing = choose("s3://b/m", [candidate("1"), candidate("01"), candidate("001", "readme.txt")])
    assert listing.versions[1].location == "s3://b/m/01"
    assert "s3://b/m/1 has the same number as s3://b/m/01, which is served" in listing.warnings


def test_nothing_there_is_said_too() -> None:
    assert choose("s3://b/m", []).warnings == (
        "s3://b/m holds no version; versions are picked up when they appear",
    )


def test_a_fingerprint_tells_versions_apart() -> None:
    one = StoredVersion("1", "x", (StoredFile("a", 1, "m"), StoredFile("b", 1, "m")))
    others = [
        StoredVersion("1", "x", (StoredFile("a", 1, "m"),)),
        StoredVersion("1", "x", (StoredFile("a", 2, "m"), StoredFile("b", 1, "m"))),
        StoredVersion("1", "x", (StoredFile("a", 1, "n"), StoredFile("b", 1, "m"))),
        StoredVersion("1", "x", (StoredFile("a", 1, "m"), StoredFile("c", 1, "m"))),
    ]
    assert len({version.fingerprint for version in [one, *others]}) == 5
    assert StoredVersion("2", "y", one.files).fingerprint == one.fingerprint
    assert one.size == 2
