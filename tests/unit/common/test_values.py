from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import values
from common.config import BatchingParameters, DeviceConfig, VersionPolicy


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "\x00", "a\x7f", "\udcff"])
def test_text_value_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        values.text_value(text)


@pytest.mark.parametrize("text", ["resnet", "Ähre 1", "a/b"])
def test_text_value(text: str) -> None:
    assert values.text_value(text) == text


@pytest.mark.parametrize("value", [1, None, True, [], {}])
def test_text_value_refuses_what_is_no_text(value: object) -> None:
    with pytest.raises(ValueError, match="text is accepted, not "):
        values.text_value(value)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("s3://bucket/models/m", "s3://bucket/models/m"),
        ("gs://bucket", "gs://bucket"),
        ("az://container/m/", "az://container/m/"),
        ("azfs://share/m", "azfs://share/m"),
        ("S3://Bucket/M", "s3://Bucket/M"),
    ],
)
def test_base_path_in_a_store(text: str, path: str) -> None:
    assert values.base_path(text) == path
    assert values.is_remote(path)
    assert values.located(path, PurePath("/here")) == path


@pytest.mark.parametrize("text", ["s3://", "gs:///models", "az:// /m"])
def test_base_path_names_a_bucket(text: str) -> None:
    with pytest.raises(ValueError, match="a bucket or container must be named, as in "):
        values.base_path(text)


@pytest.mark.parametrize("text", ["http://h/m.zip", "https://h/m.tar.gz", "HTTPS://h/m"])
def test_base_path_refuses_archives(text: str) -> None:
    with pytest.raises(ValueError, match=r"archives \(https?://\) are not supported: "):
        values.base_path(text)


@pytest.mark.parametrize("text", ["hdfs://h/m", "file:///m"])
def test_base_path_refuses_other_schemes(text: str) -> None:
    with pytest.raises(ValueError, match=r"a local path and s3://, gs://, az://, azfs:// are accepted, not "):
        values.base_path(text)


@pytest.mark.parametrize("text", ["/opt/model", "model", "./s3", "C:/x"])
def test_base_path(text: str) -> None:
    assert values.base_path(text) == text
    assert not values.is_remote(text)


def test_located() -> None:
    assert values.located("/opt/m", PurePath("/here")) == "/opt/m"
    assert values.located("m", PurePath("/here")) == "/here/m"


@pytest.mark.parametrize(
    ("path", "cache", "inside"),
    [
        ("/cache/m", "/cache", True),
        ("/cache", "/cache", True),
        ("/cache2/m", "/cache", False),
        ("/m", "", False),
        ("s3://cache/m", "/cache", False),
    ],
)
def test_is_in_cache(path: str, cache: str, inside: bool) -> None:
    assert values.is_in_cache(path, cache) is inside


@pytest.mark.parametrize(
    "text",
    [
        *("CPU", "GPU", "GPU.1", "GPU.0.1", "NPU", "MYRIAD", "MYRIAD.1.2-ma2480", "HDDL", "FAKE", "FAKE.1"),
        *("MULTI:MYRIAD,CPU", "MULTI:CPU(4),GPU.1(8)", "HETERO:GPU,CPU", "HETERO:GPU.0,GPU.1,CPU"),
        *("AUTO", "AUTO:GPU,CPU", "AUTO:-GPU.1"),
    ],
)
def test_target_device(text: str) -> None:
    assert values.target_device(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "cpu",
            "CPU ",
            "CPU.",
            "CPU,GPU",
            "TPU",
            "MULTI",
            "MULTI:",
            "MULTI:CPU,",
            "HETERO:",
            "AUTO:",
            "AUTO:CPU,",
        ),
        *("MULTI:AUTO", "CPU\n", "CPU;x", "MULTI:CPU(0)", "FAKE:1"),
    ],
)
def test_target_device_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"accepted are CPU, GPU, .*, not ") as caught:
        values.target_device(text)
    assert "FAKE" not in str(caught.value).partition(", not ")[0]


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ({"all": {}}, VersionPolicy("all")),
        ({"latest": {"num_versions": 3}}, VersionPolicy("latest", num_versions=3)),
        ({"specific": {"versions": [3, 1, 3]}}, VersionPolicy("specific", versions=(1, 3))),
    ],
)
def test_version_policy(value: object, policy: VersionPolicy) -> None:
    assert values.version_policy(value) == policy


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "the object is empty"),
        ({"all": {}, "latest": {"num_versions": 1}}, "one key is expected, not 2"),
        ({"newest": {}}, "'newest' is not known"),
        ([], "a JSON object is expected"),
        ("all", "a JSON object is expected"),
        (None, "a JSON object is expected"),
        ({"all": {"x": 1}}, '"all" cannot hold'),
        ({"all": None}, '"all" cannot hold'),
        ({"latest": {}}, '"latest" cannot hold'),
        ({"latest": {"num": 1}}, '"latest" cannot hold'),
        ({"latest": {"num_versions": 0}}, "0 is not a whole number from 1"),
        ({"latest": {"num_versions": -1}}, "-1 is not a whole number from 1"),
        ({"latest": {"num_versions": 1.5}}, "1.5 is not a whole number from 1"),
        ({"latest": {"num_versions": True}}, "True is not a whole number from 1"),
        ({"latest": {"num_versions": "1"}}, "'1' is not a whole number from 1"),
        ({"specific": {"versions": []}}, "a list that is not empty"),
        ({"specific": {"versions": 1}}, "a list that is not empty"),
        ({"specific": {"versions": [0]}}, "0 is not a whole number from 1"),
        ({"specific": {"versions": [1 << 63]}}, "is not a whole number from 1"),
        ({"specific": {"version": [1]}}, '"specific" cannot hold'),
        ({f"key {number}": {} for number in range(10_000)}, "one key is expected, not 10000"),
    ],
)
def test_version_policy_refuses(value: object, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.version_policy(value)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300
    assert 'accepted are {"all": {}}, {"latest": {"num_versions": N}} and {"specific"' in str(caught.value)


def test_plugin_config_writes_values_as_openvino_does() -> None:
    given = {"NUM_STREAMS": 2, "PERF_COUNT": True, "B": False, "HINT": "LATENCY", "F": 0.5}
    expected = {"NUM_STREAMS": "2", "PERF_COUNT": "YES", "B": "NO", "HINT": "LATENCY", "F": "0.5"}
    assert values.plugin_config(given) == expected


@pytest.mark.parametrize(
    "value",
    [
        [],
        "x",
        1,
        None,
        {"A": None},
        {"A": []},
        {"A": {}},
        {"": "x"},
        {"A": float("inf")},
        {"A": "\ud800"},
        {"\ud800": "A"},
    ],
)
def test_plugin_config_refuses(value: object) -> None:
    with pytest.raises(ValueError):
        values.plugin_config(value)


@pytest.mark.parametrize(
    "text", ["", "{", "{'a': 1}", "NaN", '{"a": Infinity}', '{"a": 1, "a": 2}', "[" * 100_000]
)
def test_json_value_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="it is not JSON"):
        values.json_value(text)


@pytest.mark.parametrize(
    ("value", "size"), [("1", 1), (" 16 ", 16), ("auto", "auto"), (" AUTO", "auto"), (1, 1), (16, 16)]
)
def test_batch_size(value: object, size: object) -> None:
    assert values.batch_size(value) == size


@pytest.mark.parametrize("value", ["0", "-1", "", "1.5", "many", 0, -1, 1.0, True, None, [1], 10**18])
def test_batch_size_refuses(value: object) -> None:
    with pytest.raises(ValueError, match="a whole number from 1 and auto are accepted, not "):
        values.batch_size(value)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("auto", "auto"),
        (" Auto ", "auto"),
        ("(1,3,224,224)", {"": (1, 3, 224, 224)}),
        ("[1, 3, 224, 224]", {"": (1, 3, 224, 224)}),
        ("(5,)", {"": (5,)}),
        ("[5]", {"": (5,)}),
        ("(-1,3)", {"": (-1, 3)}),
        ([1, -1, 3], {"": (1, -1, 3)}),
        ('{"data": "(1,3)", "info": "[4]"}', {"data": (1, 3), "info": (4,)}),
        ('{"data": [1, 3]}', {"data": (1, 3)}),
        ({"data": "[2]", "info": [1, 2]}, {"data": (2,), "info": (1, 2)}),
        ({"data": "auto", "info": "auto"}, "auto"),
    ],
)
def test_shape(value: object, shape: object) -> None:
    assert values.shape(value) == shape


@pytest.mark.parametrize(
    "value",
    [
        *("", "()", "[]", "(1,3", "1,3", "(0)", "(-2,3)", "(1,,3)", "(,)", "(a)", "(1]", "(1.0)", "{}", "{"),
        *([], [0], [-2], [1.5], [True], ["1"], [[1]], 5, None, True, {}),
        *('{"a": 1}', '{"a": "x"}', {"a": None}, {"a": []}, {"": "(1)"}, {"a": {"b": "(1)"}}, [10**18]),
    ],
)
def test_shape_refuses(value: object) -> None:
    with pytest.raises(ValueError):
        values.shape(value)


def test_shape_is_auto_for_all_inputs_or_for_none() -> None:
    with pytest.raises(
        ValueError, match="auto is for all inputs or for none, not for 'b' alone; -1 is for any size"
    ):
        values.shape({"a": "(1,3)", "b": "auto"})


def test_labels() -> None:
    assert values.labels({}) == {}
    assert values.labels({"stable": 1, "canary": (1 << 63) - 1}) == {"stable": 1, "canary": (1 << 63) - 1}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], 'a JSON object such as {"stable": 3} is accepted'),
        ({"stable": "3"}, "'stable': a whole number from 1 to 9223372036854775807 is accepted, not '3'"),
        ({"stable": 0}, "'stable': a whole number"),
        ({"stable": 1 << 63}, "'stable': a whole number"),
        ({"": 1}, "'': it must not be empty"),
    ],
)
def test_labels_refuses(value: object, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.labels(value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("value", "parameters"),
    [
        ({}, BatchingParameters()),
        ({"max_batch_size": 8}, BatchingParameters(max_batch_size=8)),
        ({"batch_timeout_micros": 0}, BatchingParameters(batch_timeout_micros=0)),
        (
            {"max_batch_size": 8, "allowed_batch_sizes": [1, 4, 8]},
            BatchingParameters(max_batch_size=8, allowed_batch_sizes=(1, 4, 8)),
        ),
        ({"allowed_batch_sizes": [32]}, BatchingParameters(allowed_batch_sizes=(32,))),
        ({"allowed_batch_sizes": []}, BatchingParameters()),
        ({"max_enqueued_batches": 3}, BatchingParameters(max_enqueued_batches=3)),
    ],
)
def test_batching_parameters(value: object, parameters: BatchingParameters) -> None:
    assert values.batching_parameters(value) == parameters


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "a JSON object is expected, not None"),
        ({"max_batch": 8}, "unknown key 'max_batch', did you mean 'max_batch_size'?"),
        ({"num_batch_threads": 8}, "unknown key 'num_batch_threads'"),
        ({"max_batch_size": 0}, "max_batch_size: a whole number from 1 to 65536 is accepted, not 0"),
        (
            {"max_enqueued_batches": 0},
            "max_enqueued_batches: a whole number from 1 to 65536 is accepted, not 0",
        ),
        ({"batch_timeout_micros": -1}, "batch_timeout_micros: a whole number from 0 to 60000000"),
        ({"allowed_batch_sizes": 4}, "allowed_batch_sizes: a list such as [1, 8, 32] is accepted, not 4"),
        ({"allowed_batch_sizes": [0]}, "allowed_batch_sizes: a whole number from 1"),
        ({"allowed_batch_sizes": [4, 2]}, "allowed_batch_sizes: sizes must be ascending, not [4, 2]"),
        ({"allowed_batch_sizes": [4, 4]}, "sizes must be ascending"),
        ({"allowed_batch_sizes": [1, 4]}, "the last of allowed_batch_sizes must be max_batch_size, 32"),
    ],
)
def test_batching_parameters_refuses(value: object, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.batching_parameters(value)
    assert reason in str(caught.value)


@pytest.mark.parametrize("value", ["1", 1.0, True, None, 0, 5, 10**30])
def test_whole_number_refuses(value: object) -> None:
    with pytest.raises(ValueError, match="a whole number from 1 to 4 is accepted, not "):
        values.whole_number(1, 4)(value)


def test_whole_number() -> None:
    assert [values.whole_number(1, 4)(value) for value in (1, 4)] == [1, 4]
    assert values.whole_number(0)(10**18 - 1) == 10**18 - 1
    with pytest.raises(ValueError, match="a whole number from 0 is accepted"):
        values.whole_number(0)(10**18)


KNOWN = ("name", "base_path", "nireq")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nireqs", "unknown key 'nireqs', did you mean 'nireq'?"),
        ("NIREQ", "unknown key 'NIREQ', did you mean 'nireq'?"),
        ("base-path", "unknown key 'base-path', did you mean 'base_path'?"),
        ("colour", "unknown key 'colour'; known: name, base_path, nireq"),
        ("", "unknown key ''; known: name, base_path, nireq"),
    ],
)
def test_unknown_key(key: str, said: str) -> None:
    assert values.unknown_key(key, KNOWN) == said


def test_json_object() -> None:
    assert values.json_object({"name": 1}, KNOWN, required=("name",)) == {"name": 1}
    with pytest.raises(ValueError, match="the key 'name' is missing"):
        values.json_object({"nireq": 1}, KNOWN, required=("name",))
    with pytest.raises(ValueError, match="a JSON object is expected, not \\['name'\\]"):
        values.json_object(["name"], KNOWN)


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ({"MYRIAD": DeviceConfig(emulate_on="MYRIAD")}, "device MYRIAD cannot stand in for itself"),
        (
            {"MYRIAD": DeviceConfig(emulate_on="HDDL"), "HDDL": DeviceConfig(emulate_on="CPU")},
            "device HDDL, which is to stand in for MYRIAD, is emulated itself",
        ),
    ],
)
def test_devices_that_cannot_be(devices: dict[str, DeviceConfig], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        values.check_devices(devices)


def test_devices() -> None:
    values.check_devices({"MYRIAD": DeviceConfig(emulate_on="GPU"), "GPU": DeviceConfig(python="/x")})


@given(st.text())
def test_a_shown_value_is_one_short_line(text: str) -> None:
    shown = values.shown(text)
    assert len(shown) <= 60
    assert shown.isprintable()
    assert shown.isascii()


def test_a_shown_value_may_be_nested_deeply() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    assert values.shown(value) == "what is nested so deeply"
