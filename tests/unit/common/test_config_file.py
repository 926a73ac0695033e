"""The configuration file: every key, and for every bad input its message."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import config_format, config_parsing
from common.config import (
    BatchingParameters,
    ClassificationConfig,
    DeviceConfig,
    ModelConfig,
    RegressionConfig,
    ServerConfig,
    VersionPolicy,
)
from common.config_file import ConfigFile, ConfigFileError, interpreter_problem, read_config_file
from common.config_parsing import parse_config
from ie_serving.config_schema import main, schema_text

SAMPLES = Path(__file__).resolve().parents[3] / "configs"
SERVER = ServerConfig(models=(), run_dir="/run/x", model_cache_dir="/var/cache/models")
HERE = Path("/here")

DOCUMENTED = """
{
   "model_config_list":[
      {
         "config":{
            "name":"model_name1",
            "base_path":"/opt/ml/models/model1",
            "batch_size": "16"
         }
      },
      {
         "config":{
            "name":"model_name2",
            "base_path":"/opt/ml/models/model2",
            "batch_size": "auto",
            "model_version_policy": {"all": {}}
         }
      },
      {
         "config":{
            "name":"model_name3",
            "base_path":"gs://bucket/models/model3",
            "model_version_policy": {"specific": { "versions":[1, 3] }},
            "shape": "auto"
         }
      },
      {
         "config":{
             "name":"model_name4",
             "base_path":"s3://bucket/models/model4",
             "shape": {
                "input1": "(1,3,200,200)",
                "input2": "(1,3,50,50)"
             },
             "plugin_config": {"CPU_THROUGHPUT_STREAMS": "CPU_THROUGHPUT_AUTO"}
         }
      },
      {
         "config":{
             "name":"model_name5",
             "base_path":"s3://bucket/models/model5",
             "shape": "auto",
             "nireq": 32,
             "target_device": "HDDL",
         }
      }
   ]
}
"""
"""What users of the Python OpenVINO Model Server have, with the comma that its documentation has too many."""

MENDED = DOCUMENTED.replace('"HDDL",', '"HDDL"')


def parsed(text: str) -> ConfigFile:
    return parse_config(text, HERE, SERVER)


def of_model(**keys: Any) -> str:
    """A file of one model."""
    return json.dumps({"model_config_list": [{"config": {"name": "m", "base_path": "/m", **keys}}]})


def of_devices(**devices: Any) -> str:
    return json.dumps({"model_config_list": [], "devices": devices})


def test_the_documented_file() -> None:
    assert parsed(MENDED) == ConfigFile(
        models=(
            ModelConfig("model_name1", "/opt/ml/models/model1", batch_size=16),
            ModelConfig(
                "model_name2",
                "/opt/ml/models/model2",
                batch_size="auto",
                version_policy=VersionPolicy("all"),
            ),
            ModelConfig(
                "model_name3",
                "gs://bucket/models/model3",
                shape="auto",
                version_policy=VersionPolicy("specific", versions=(1, 3)),
            ),
            ModelConfig(
                "model_name4",
                "s3://bucket/models/model4",
                shape={"input1": (1, 3, 200, 200), "input2": (1, 3, 50, 50)},
                plugin_config={"CPU_THROUGHPUT_STREAMS": "CPU_THROUGHPUT_AUTO"},
            ),
            ModelConfig(
                "model_name5", "s3://bucket/models/model5", shape="auto", nireq=32, target_device="HDDL"
            ),
        ),
        devices={},
    )


def test_the_comma_that_the_document_has_too_many() -> None:
    with pytest.raises(
        ValueError, match=r"^line 44, column 37: JSON has no trailing commas; take this one away$"
    ):
        parsed(DOCUMENTED)


def test_another_documented_file() -> None:
    text = """{"model_config_list": [
   {"config": {
      "name": "resnet",
      "base_path": "/opt/ml/resnet",
      "batch_size": "1",
      "nireq": 6,
      "target_device": "MULTI:MYRIAD,CPU"}
   }]
}"""
    expected = ModelConfig(
        "resnet", "/opt/ml/resnet", batch_size=1, nireq=6, target_device="MULTI:MYRIAD,CPU"
    )
    assert parsed(text).models == (expected,)


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("base_path", "relative/m", "base_path", "/here/relative/m"),
        ("base_path", "S3://bucket/m", "base_path", "s3://bucket/m"),
        (
            "model_version_policy",
            {"latest": {"num_versions": 2}},
            "version_policy",
            VersionPolicy("latest", 2),
        ),
        ("labels", {"stable": 1}, "labels", {"stable": 1}),
        ("batch_size", 4, "batch_size", 4),
        ("shape", [1, -1], "shape", {"": (1, -1)}),
        ("shape", "(1,3)", "shape", {"": (1, 3)}),
        ("max_shapes", 3, "max_shapes", 3),
        ("nireq", 1024, "nireq", 1024),
        ("target_device", "HETERO:GPU,CPU", "target_device", "HETERO:GPU,CPU"),
        ("plugin_config", {"A": 1, "B": True}, "plugin_config", {"A": "1", "B": "YES"}),
        ("workers", 64, "workers", 64),
        ("layout", "nhwc", "layout", {"": "NHWC"}),
        ("layout", {"a": "NCHW", "b": "NC"}, "layout", {"a": "NCHW", "b": "NC"}),
        ("classification", {}, "classification", ClassificationConfig()),
        (
            "classification",
            {"output": "prob", "labels": "names.txt", "top_k": 5},
            "classification",
            ClassificationConfig("prob", "names.txt", 5),
        ),
        ("regression", {"output": "age"}, "regression", RegressionConfig("age")),
        ("batching_parameters", {}, "batching_parameters", BatchingParameters()),
        ("batching_parameters", {"max_batch_size": 8}, "batching_parameters", BatchingParameters(8)),
    ],
)
def test_key_of_a_model(key: str, value: object, field: str, expected: object) -> None:
    found = parsed(of_model(**{key: value}))
    assert getattr(found.models[0], field) == expected
    assert found.warnings == ()


def test_a_key_of_the_file_for_each_field_of_a_model() -> None:
    keys = set(config_format.Model.__struct_encode_fields__)
    assert keys == {
        "model_version_policy" if name == "version_policy" else name for name in ModelConfig.__struct_fields__
    }
    assert keys == set(config_parsing._MODEL)
    assert set(config_format.Device.__struct_encode_fields__) == set(DeviceConfig.__struct_fields__)
    assert set(config_format.Device.__struct_encode_fields__) == set(config_parsing._DEVICE)
    assert set(config_format.Batching.__struct_encode_fields__) == set(BatchingParameters.__struct_fields__)


def test_no_models() -> None:
    assert parsed('{"model_config_list": []}') == ConfigFile((), {})


def test_devices() -> None:
    devices = {"MYRIAD": {"python": "old/bin/python"}, "HDDL": {"emulate_on": "CPU"}}
    assert parsed(of_devices(**devices)).devices == {
        "MYRIAD": DeviceConfig(python="/here/old/bin/python"),
        "HDDL": DeviceConfig(emulate_on="CPU"),
    }


def test_shape_wins_over_batch_size() -> None:
    found = parsed(of_model(shape="(1,3)", batch_size=4))
    assert (found.models[0].shape, found.models[0].batch_size) == ({"": (1, 3)}, None)
    assert found.warnings == ("model m: shape and batch_size are both given: batch_size is ignored",)


def test_a_label_that_the_policy_leaves_out() -> None:
    found = parsed(of_model(model_version_policy={"specific": {"versions": [1]}}, labels={"a": 1, "b": 2}))
    assert found.warnings == ("model m: labels: 'b' names version 2, which model_version_policy leaves out",)


def test_a_byte_order_mark_and_a_schema_are_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"$schema": "schema.json", "model_config_list": []}')
    assert read_config_file(path, SERVER) == ConfigFile((), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty; at least "),
        (" \n ", "the file is empty; at least "),
        ("[]", "a JSON object is expected, not []"),
        ("null", "a JSON object is expected, not None"),
        ("models:\n  - m", "line 1, column 1: Expecting value"),
        ('{"model_config_list": []', "line 1, column 25: Expecting ',' delimiter"),
        ("{}", "the key 'model_config_list' is missing"),
        ('{"model_config": []}', "unknown key 'model_config', did you mean 'model_config_list'?"),
        (
            '{"model_config_list": [], "colour": 1}',
            "unknown key 'colour'; known: $schema, model_config_list, devices",
        ),
        ('{"model_config_list": [], "model_config_list": []}', "the key 'model_config_list' comes twice"),
        ('{"model_config_list": [], "$schema": 1}', "$schema: text is accepted, not 1"),
        ('{"model_config_list": {}}', "model_config_list: a list is accepted, not {}"),
        ('{"model_config_list": NaN}', "NaN is not a value of JSON"),
        ('{"model_config_list": [1]}', "model_config_list[0]: a JSON object is expected, not 1"),
        ('{"model_config_list": [{}]}', "model_config_list[0]: the key 'config' is missing"),
        (
            '{"model_config_list": [{"name": "m", "base_path": "/m"}]}',
            "model_config_list[0]: unknown key 'name'; known: config",
        ),
        (
            '{"model_config_list": [{"config": []}]}',
            "model_config_list[0]: a JSON object is expected, not []",
        ),
        (
            '{"model_config_list": [{"config": {"base_path": "/m"}}]}',
            "model_config_list[0]: the key 'name' is missing",
        ),
        ('{"model_config_list": [{"config": {"name": "m"}}]}', "model m: the key 'base_path' is missing"),
        (
            '{"model_config_list": [{"config": {"name": "m", "base_path": "/m", "nireq": 1, "nireq": 2}}]}',
            "model m: the key 'nireq' comes twice",
        ),
        (
            '{"model_config_list": [{"config": {"name": "m", "base_path": "/m", "labels": {"a": 1, "a": 2}}}]}',
            "model m: the key 'a' comes twice",
        ),
        (
            '{"model_config_list": [{"config": {}, "config": {}}]}',
            "model_config_list[0]: the key 'config' comes twice",
        ),
        (
            '{"model_config_list": [{"config": {"name": "m", "base_path": "/m"}}, '
            '{"config": {"name": "m", "base_path": "/n"}}]}',
            "model m: name: it comes twice, the second time in model_config_list[1]",
        ),
    ],
)
def test_a_bad_file(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parsed(text)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"nireqs": 1}, "model m: unknown key 'nireqs', did you mean 'nireq'?"),
        ({"batchsize": 1}, "model m: unknown key 'batchsize', did you mean 'batch_size'?"),
        ({"colour": 1}, "model m: unknown key 'colour'; known: name, base_path, "),
        ({"name": ""}, "model_config_list[0]: name: it must not be empty"),
        ({"name": 1}, "model_config_list[0]: name: text is accepted, not 1"),
        ({"name": "a\nb"}, "model_config_list[0]: name: control characters are not accepted: 'a\\nb'"),
        ({"name": None}, "model_config_list[0]: name: text is accepted, not None"),
        ({"name": "n" * 100, "nireq": 0}, "model_config_list[0]: nireq: "),
        ({"base_path": ""}, "model m: base_path: it must not be empty"),
        ({"base_path": ["/m"]}, "model m: base_path: text is accepted, not ['/m']"),
        ({"base_path": "https://h/m.zip"}, "model m: base_path: archives (https://) are not supported"),
        ({"base_path": "hdfs://h/m"}, "model m: base_path: a local path and s3://"),
        ({"base_path": "gs://"}, "model m: base_path: a bucket or container must be named"),
        (
            {"base_path": "/var/cache/models/m"},
            "model m: base_path: '/var/cache/models/m' is in --model_cache_dir, which holds fetched models alone",
        ),
        (
            {"batch_size": "many"},
            "model m: batch_size: a whole number from 1 and auto are accepted, not 'many'",
        ),
        ({"batch_size": None}, "model m: batch_size: a whole number from 1 and auto are accepted, not None"),
        ({"shape": {"a": 1}}, "model m: shape: accepted are auto, (1,3,224,224)"),
        ({"nireq": "4"}, "model m: nireq: a whole number from 1 to 1024 is accepted, not '4'"),
        ({"nireq": 1025}, "model m: nireq: a whole number from 1 to 1024 is accepted, not 1025"),
        ({"nireq": True}, "model m: nireq: a whole number from 1 to 1024 is accepted, not True"),
        ({"target_device": "TPU"}, "model m: target_device: accepted are CPU, GPU"),
        ({"target_device": None}, "model m: target_device: accepted are CPU, GPU"),
        ({"plugin_config": "x"}, "model m: plugin_config: a JSON object such as "),
        ({"plugin_config": {"A": [1]}}, "model m: plugin_config: the value of 'A' must be text"),
        ({"model_version_policy": {}}, "model m: model_version_policy: the object is empty; accepted are "),
        ({"labels": {"a": 0}}, "model m: labels: 'a': a whole number from 1"),
        ({"workers": 65}, "model m: workers: a whole number from 1 to 64 is accepted, not 65"),
        ({"max_shapes": 0}, "model m: max_shapes: a whole number from 1 to 1024 is accepted, not 0"),
        ({"layout": "NHWC:NCHW"}, "model m: layout: accepted are a letter for each dimension"),
        ({"layout": "NCHC"}, "model m: layout: accepted are a letter for each dimension"),
        ({"layout": {}}, "model m: layout: no input is named"),
        ({"layout": {"a": 4}}, "model m: layout: accepted are a letter for each dimension"),
        ({"classification": "prob"}, "model m: classification: a JSON object is expected, not 'prob'"),
        ({"classification": {"top": 1}}, "model m: classification: unknown key 'top', did you mean 'top_k'?"),
        ({"classification": {"top_k": 0}}, "model m: classification: top_k: a whole number from 1"),
        ({"classification": {"labels": "../x"}}, "model m: classification: labels: the name of a file in"),
        ({"classification": {"labels": ".."}}, "model m: classification: labels: the name of a file in"),
        ({"regression": {"output": ""}}, "model m: regression: output: it must not be empty"),
        (
            {"batching_parameters": {"max_batch": 1}},
            "model m: batching_parameters: unknown key 'max_batch', did you",
        ),
    ],
)
def test_a_bad_model(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parsed(of_model(**keys))
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ([], "devices: a JSON object is expected, not []"),
        ({"myriad": {"python": "/p"}}, "devices: accepted are CPU, GPU"),
        ({"MYRIAD": "/p"}, "device MYRIAD: a JSON object is expected, not '/p'"),
        ({"MYRIAD": {}}, "device MYRIAD: at least one key is expected of python, emulate_on"),
        ({"MYRIAD": {"pyhton": "/p"}}, "device MYRIAD: unknown key 'pyhton', did you mean 'python'?"),
        ({"MYRIAD": {"python": ""}}, "device MYRIAD: python: it must not be empty"),
        ({"MYRIAD": {"emulate_on": "TPU"}}, "device MYRIAD: emulate_on: accepted are CPU, GPU"),
        ({"MYRIAD": {"emulate_on": "MYRIAD"}}, "devices: device MYRIAD cannot stand in for itself"),
    ],
)
def test_bad_devices(devices: object, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        parsed(json.dumps({"model_config_list": [], "devices": devices}))
    assert str(caught.value).startswith(said)


def test_an_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(of_model(name="resnet", nireqs=1))
    with pytest.raises(ConfigFileError) as caught:
        read_config_file(path, SERVER)
    assert str(caught.value) == f"{path}: model resnet: unknown key 'nireqs', did you mean 'nireq'?"


def unreadable(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "a.json"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a loop":
        path.symlink_to(path)
    elif kind == "long":
        path.write_bytes(b" " * (config_format.MAX_FILE_BYTES + 1))
    elif kind == "binary":
        path.write_bytes(b'{"a":\n\xff}')
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "it cannot be read: No such file or directory"),
        ("a directory", "it is not a regular file"),
        ("a pipe", "it is not a regular file"),
        ("a loop", "it cannot be read: Too many levels of symbolic links"),
        ("long", "it is longer than 1048576 bytes"),
        ("binary", "line 2: it is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, kind: str, said: str) -> None:
    path = unreadable(tmp_path, kind)
    with pytest.raises(ConfigFileError) as caught:
        read_config_file(path, SERVER)
    assert str(caught.value) == f"{path}: {said}"


def test_paths_count_from_the_directory_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.json").write_text(of_model(base_path="models/m"))
    monkeypatch.chdir(tmp_path)
    found = read_config_file(Path("there/a.json"), SERVER)
    assert found.models[0].base_path == str(tmp_path / "there" / "models" / "m")


def test_interpreters(tmp_path: Path) -> None:
    assert interpreter_problem(sys.executable) == ""
    text = tmp_path / "text"
    text.write_text("")
    text.chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert interpreter_problem(str(text)) == f"{text} is not an executable file"
    assert interpreter_problem(str(tmp_path)) == f"{tmp_path} is not an executable file"
    assert interpreter_problem(str(tmp_path / "none")) == f"there is no {tmp_path / 'none'}"

    path = tmp_path / "a.json"
    path.write_text(of_devices(MYRIAD={"python": "none"}))
    with pytest.raises(
        ConfigFileError, match=rf"^{path}: device MYRIAD: python: there is no {tmp_path}/none$"
    ):
        read_config_file(path, SERVER)
    path.write_text(of_devices(MYRIAD={"python": sys.executable}))
    assert read_config_file(path, SERVER).devices == {"MYRIAD": DeviceConfig(python=sys.executable)}


def test_thousands_of_models() -> None:
    entries = [{"config": {"name": f"m{number}", "base_path": f"/m/{number}"}} for number in range(5000)]
    found = parsed(json.dumps({"model_config_list": entries}))
    assert [model.name for model in found.models] == [f"m{number}" for number in range(5000)]


# ---- anything


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["a", "b"]),
    "base_path": st.sampled_from(["/m", "m", "s3://b/m", "https://h/m", "az://"]),
    "batch_size": st.sampled_from(["auto", "4", 4, 0, "-1"]),
    "shape": st.sampled_from(
        ["auto", "(1,2)", [1, -1], [0], {"a": "auto"}, {"a": [1], "b": "(2)"}, '{"a": [1]}']
    ),
    "model_version_policy": st.sampled_from(
        [{"all": {}}, {"latest": {"num_versions": 2}}, {}, {"specific": {}}]
    ),
    "target_device": st.sampled_from(["CPU", "MULTI:GPU,CPU", "TPU"]),
    "nireq": st.integers(-1, 2000),
    "workers": st.integers(-1, 100),
    "labels": st.dictionaries(st.text(max_size=3), st.integers(-1, 5)),
    "plugin_config": st.dictionaries(st.text(max_size=3), SCALARS),
    "layout": st.sampled_from(["NHWC", "nc", "NN", {"a": "NCHW"}, {}, {"": "N"}]),
    "classification": st.fixed_dictionaries(
        {},
        optional={
            "output": st.sampled_from(["a", "", 1]),
            "labels": st.sampled_from(["labels.txt", "a/b", "."]),
            "top_k": st.integers(-1, 9),
        },
    ),
    "regression": st.fixed_dictionaries({}, optional={"output": st.sampled_from(["a", ""])}),
    "batching_parameters": st.fixed_dictionaries({}, optional={"max_batch_size": st.integers(-1, 9)}),
}
MODELS = st.fixed_dictionaries(
    {"name": VALUES["name"], "base_path": VALUES["base_path"]},
    optional={key: value | ANY for key, value in VALUES.items() if key not in ("name", "base_path")}
    | {"x": ANY},
)
DEVICES = st.dictionaries(
    st.sampled_from(["MYRIAD", "CPU", "x"]),
    st.fixed_dictionaries(
        {}, optional={"emulate_on": st.sampled_from(["CPU", "GPU"]), "python": st.just("/p")}
    ),
)
FILES = st.fixed_dictionaries(
    {"model_config_list": st.lists(st.fixed_dictionaries({"config": MODELS | ANY}) | ANY, max_size=3) | ANY},
    optional={"devices": DEVICES | ANY, "more": ANY},
)


def accepted(text: str) -> ConfigFile | None:
    try:
        return parsed(text)
    except ValueError as error:
        line = str(error)
    assert line.isprintable()
    assert len(line) < 1000
    return None


@given(ANY | FILES)
def test_any_json_is_read_or_refused_in_one_line(value: object) -> None:
    accepted(json.dumps(value))


@given(st.binary())
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    with pytest.raises(ConfigFileError):
        read_config_file(path, SERVER)


VALIDATOR = jsonschema.Draft202012Validator(config_format.json_schema())


LIKELY = st.fixed_dictionaries(
    {
        "model_config_list": st.lists(
            st.fixed_dictionaries(
                {
                    "config": st.fixed_dictionaries(
                        {
                            "name": st.text("abÄ:/", min_size=1),
                            "base_path": st.sampled_from(["/m", "s3://b/m"]),
                        },
                        optional={
                            "batch_size": VALUES["batch_size"],
                            "shape": VALUES["shape"],
                            "labels": st.dictionaries(st.text("xyz", min_size=1), st.integers(1, 5)),
                            "plugin_config": VALUES["plugin_config"],
                            "nireq": st.integers(1, 1025),
                            "layout": VALUES["layout"],
                            "classification": VALUES["classification"],
                            "regression": VALUES["regression"],
                            "batching_parameters": VALUES["batching_parameters"],
                        },
                    )
                }
            ),
            max_size=2,
        )
    },
    optional={"devices": st.dictionaries(st.sampled_from(["GPU", "HDDL"]), st.just({"emulate_on": "CPU"}))},
)
"""Files of which about a third is accepted and has models."""


@given(LIKELY)
def test_what_is_accepted_can_be_sent_and_is_valid_by_the_schema(value: object) -> None:
    found = accepted(json.dumps(value))
    if found is not None:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=ConfigFile) == found
        VALIDATOR.validate(value)


# ---- the schema and the samples


def samples() -> list[str]:
    return sorted(path.name for path in SAMPLES.glob("*.json") if path.name != "schema.json")


def test_the_schema_is_current_and_a_schema(tmp_path: Path) -> None:
    assert (SAMPLES / "schema.json").read_text() == schema_text(), "make schema writes it anew"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))
    assert main([str(tmp_path / "schema.json")]) == 0
    assert (tmp_path / "schema.json").read_text() == schema_text()


def described(schema: Any) -> int:
    """Checks that all keys of all objects are described; how many there are."""
    found = 0
    for name, definition in schema["$defs"].items():
        for key, value in definition["properties"].items():
            assert "description" in value or "$ref" in value, f"{name}.{key}"
            found += 1
    return found


def test_every_key_is_described() -> None:
    assert described(config_format.json_schema()) > 20


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"model_config_list": [{"config": {"name": "m"}}]},
        {"model_config_list": [{"config": {"name": "m", "base_path": "/m", "nireqs": 1}}]},
        {"model_config_list": [{"config": {"name": "m", "base_path": "/m", "nireq": "1"}}]},
        {"model_config_list": [{"config": {"name": "m", "base_path": "/m", "nireq": None}}]},
        {"model_config_list": [{"config": {"name": "m", "base_path": "/m", "model_version_policy": {}}}]},
        {"model_config_list": [], "devices": {"MYRIAD": {}}},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(value: object) -> None:
    assert accepted(json.dumps(value)) is None
    assert not VALIDATOR.is_valid(value)


def test_there_are_samples() -> None:
    assert len(samples()) >= 5


@pytest.mark.parametrize("name", samples())
def test_sample(tmp_path: Path, name: str) -> None:
    text = (SAMPLES / name).read_text()
    VALIDATOR.validate(json.loads(text))
    # The interpreter that a sample names need not be on this machine.
    path = tmp_path / name
    path.write_text(text.replace("/opt/openvino-2022.3/bin/python", sys.executable))
    found = read_config_file(path, SERVER)
    assert found.models
    assert found.warnings == ()


def test_the_samples_show_every_key() -> None:
    shown: set[str] = set()
    for name in samples():
        content = json.loads((SAMPLES / name).read_text())
        shown.update(*(entry["config"] for entry in content["model_config_list"]))
        shown.update(*content.get("devices", {}).values())
    assert shown == {
        *config_format.Model.__struct_encode_fields__,
        *config_format.Device.__struct_encode_fields__,
    }


def test_the_smallest_sample_names_the_demo_model() -> None:
    (model,) = read_config_file(SAMPLES / "minimal.json", SERVER).models
    assert (Path(model.base_path) / "1").is_dir()


PAGE = (SAMPLES.parent / "docs" / "configuration.md").read_text()


def test_the_page_names_every_key() -> None:
    keys = {
        *config_format.ConfigurationFile.__struct_encode_fields__,
        *config_format.Model.__struct_encode_fields__,
        *config_format.Device.__struct_encode_fields__,
        *config_format.Batching.__struct_encode_fields__,
    }
    assert [key for key in sorted(keys) if f"`{key}`" not in PAGE] == []


def test_the_example_on_the_page() -> None:
    text = PAGE.partition("```json\n")[2].partition("```")[0]
    VALIDATOR.validate(json.loads(text))
    assert [model.name for model in parsed(text).models] == ["resnet", "detector"]
