import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import VersionPolicy
from ie_serving import values


@pytest.mark.parametrize(("text", "number"), [("1", 1), (" 7 ", 7), ("+3", 3), ("65535", 65535)])
def test_port(text: str, number: int) -> None:
    assert values.port(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "65536", "", "x", "1.0", "1_0", "٣", "9" * 30, "0x10", "1\n2"])
def test_port_says_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number from 1 to 65535 is accepted, not "):
        values.port(text)


@pytest.mark.parametrize(("text", "number"), [("", 0), ("  ", 0), ("0", 0), ("8000", 8000)])
def test_optional_port(text: str, number: int) -> None:
    assert values.optional_port(text) == number


@pytest.mark.parametrize("text", ["-1", "65536", "none"])
def test_optional_port_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        values.optional_port(text)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "", "1e400"])
def test_seconds_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="above 0 is accepted"):
        values.seconds(text)


def test_seconds() -> None:
    assert values.seconds("0.5") == 0.5


@pytest.mark.parametrize(("text", "number"), [("0", 0.0), ("-1", -1.0), ("2.5", 2.5)])
def test_poll_wait(text: str, number: float) -> None:
    assert values.poll_wait(text) == number


@pytest.mark.parametrize("text", ["nan", "inf", "often"])
def test_poll_wait_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="a number of seconds is accepted"):
        values.poll_wait(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "127.0.0.1", "::", "::1"])  # noqa: S104
def test_address(text: str) -> None:
    assert values.address(text) == text


@pytest.mark.parametrize("text", ["", "localhost", "[::1]", "1.2.3", "1.2.3.4:5"])
def test_address_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="an IPv4 or IPv6 address is accepted"):
        values.address(text)


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "\x00", "a\x7f", "\udcff"])
def test_text_value_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        values.text_value(text)


@pytest.mark.parametrize("text", ["resnet", "Ähre 1", "a/b"])
def test_text_value(text: str) -> None:
    assert values.text_value(text) == text


@pytest.mark.parametrize("text", ["s3://b/m", "gs://b", "az://b", "azfs://b", "http://h/m", "HTTPS://h/m"])
def test_base_path_refuses_remote(text: str) -> None:
    with pytest.raises(ValueError, match="is not supported yet"):
        values.base_path(text)


def test_base_path_refuses_unknown_scheme() -> None:
    with pytest.raises(ValueError, match="a local path is accepted"):
        values.base_path("hdfs://h/m")


@pytest.mark.parametrize("text", ["/opt/model", "model", "./s3", "C:/x"])
def test_base_path(text: str) -> None:
    assert values.base_path(text) == text


@pytest.mark.parametrize(("text", "level"), [("ERROR", "ERROR"), ("info", "INFO"), (" DEBUG ", "DEBUG")])
def test_log_level(text: str, level: str) -> None:
    assert values.log_level(text) == level


@pytest.mark.parametrize("text", ["", "WARNING", "TRACE", "10"])
def test_log_level_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="ERROR, INFO and DEBUG are accepted"):
        values.log_level(text)


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
    ],
)
def test_version_policy_refuses(value: object, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        values.version_policy(value)
    assert reason in str(caught.value)
    assert 'accepted are {"all": {}}, {"latest": {"num_versions": N}} and {"specific"' in str(caught.value)


def test_plugin_config_writes_values_as_openvino_does() -> None:
    given = {"NUM_STREAMS": 2, "PERF_COUNT": True, "B": False, "HINT": "LATENCY", "F": 0.5}
    expected = {"NUM_STREAMS": "2", "PERF_COUNT": "YES", "B": "NO", "HINT": "LATENCY", "F": "0.5"}
    assert values.plugin_config(given) == expected


@pytest.mark.parametrize(
    "value", [[], "x", 1, None, {"A": None}, {"A": []}, {"A": {}}, {"": "x"}, {"A": float("inf")}]
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


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("16", 16), ("auto", None)])
def test_batch_size(text: str, size: int | None) -> None:
    assert values.batch_size(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "", "1.5", "many"])
def test_batch_size_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number from 1 and auto are accepted"):
        values.batch_size(text)


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("auto", None),
        ("(1,3,224,224)", (1, 3, 224, 224)),
        ("[1, 3, 224, 224]", (1, 3, 224, 224)),
        ("(5,)", (5,)),
        ("[5]", (5,)),
        ('{"data": "(1,3)", "info": "auto"}', {"data": (1, 3), "info": None}),
        ({"data": "[2]"}, {"data": (2,)}),
    ],
)
def test_shape(value: object, shape: object) -> None:
    assert values.shape(value) == shape


@pytest.mark.parametrize(
    "value",
    [
        "",
        "()",
        "[]",
        "(1,3",
        "1,3",
        "(0)",
        "(-1,3)",
        "(1,,3)",
        "(a)",
        "(1]",
        "{}",
        '{"a": 1}',
        '{"a": "x"}',
        5,
    ],
)
def test_shape_refuses(value: object) -> None:
    with pytest.raises(ValueError):
        values.shape(value)


@given(st.text())
def test_a_shown_value_is_one_short_line(text: str) -> None:
    shown = values.shown(text)
    assert len(shown) <= 60
    assert shown.isprintable()
    assert shown.isascii()
