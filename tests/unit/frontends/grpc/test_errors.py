"""frontends.grpc.errors: codes to status numbers, and what becomes of unexpected exceptions."""

import logging
from urllib.parse import quote

import grpc
import pytest

from common.errors import INTERNAL_TEXT, Code, NotFoundError, ResourceExhaustedError
from frontends.grpc.errors import STATUS, status_of


def test_every_code_has_its_namesakes_number() -> None:
    assert {code.name: number for code, number in STATUS.items()} == {
        code.name: grpc.StatusCode[code.name].value[0] for code in Code
    }


def test_a_serving_error_is_told_as_it_stands(caplog: pytest.LogCaptureFixture) -> None:
    assert status_of(NotFoundError("no such model")) == (5, "no such model")
    assert not caplog.records


def test_anything_else_is_logged_and_told_as_a_constant(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        assert status_of(KeyError("secret")) == (13, INTERNAL_TEXT)
    assert caplog.records[0].exc_info is not None
    assert "secret" in caplog.text


@pytest.mark.parametrize("character", ["x", "é", "語", "🙂", "\n"])
def test_a_long_text_fits_a_header(character: str) -> None:
    """The bound of a client's headers is 8 KiB, and the text is percent-encoded in them."""
    _, text = status_of(ResourceExhaustedError(character * 10_000))
    assert 3_900 < len(quote(text, safe="".join(map(chr, range(32, 127))))) < 4_100
    assert text.endswith("…")


def test_a_text_within_the_bound_is_not_cut() -> None:
    text = "x" * 4_000
    assert status_of(NotFoundError(text)) == (5, text)
