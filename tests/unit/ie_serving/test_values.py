import pytest

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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        (" , ", ()),
        ("*", ("*",)),
        ("https://example.org", ("https://example.org",)),
        (
            "http://Localhost:8080, http://[::1]:80,http://localhost:8080",
            ("http://localhost:8080", "http://[::1]:80"),
        ),
    ],
)
def test_origins(text: str, found: tuple[str, ...]) -> None:
    assert values.origins(text) == found


@pytest.mark.parametrize(
    "text",
    ["example.org", "https://", "https://a/", "https://a/b", "http://a b", "https://a:port", "null", "**"],
)
def test_origins_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"origins as https://example.org:8443, or \*, are accepted"):
        values.origins(text)


@pytest.mark.parametrize(("text", "level"), [("ERROR", "ERROR"), ("info", "INFO"), (" DEBUG ", "DEBUG")])
def test_log_level(text: str, level: str) -> None:
    assert values.log_level(text) == level


@pytest.mark.parametrize("text", ["", "WARNING", "TRACE", "10"])
def test_log_level_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="ERROR, INFO and DEBUG are accepted"):
        values.log_level(text)


def test_device_python() -> None:
    assert values.device_python("MULTI:MYRIAD,CPU=/opt/a=b/python") == ("MULTI:MYRIAD,CPU", "/opt/a=b/python")


def test_emulation() -> None:
    assert values.emulation("MYRIAD=CPU") == ("MYRIAD", "CPU")


@pytest.mark.parametrize("text", ["", "MYRIAD", "MYRIAD=", "=CPU", "myriad=CPU", "STICK=CPU"])
def test_device_options_refuse(text: str) -> None:
    with pytest.raises(ValueError):
        values.device_python(text)
    with pytest.raises(ValueError):
        values.emulation(text)


def test_emulation_wants_a_device() -> None:
    with pytest.raises(ValueError, match="accepted are CPU, GPU"):
        values.emulation("MYRIAD=/bin/sh")
