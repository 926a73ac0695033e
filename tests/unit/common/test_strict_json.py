import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.strict_json import JsonError, loads, repeated_key

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**50), 10**50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_was_written_is_read(value: object) -> None:
    assert loads(json.dumps(value)) == value
    assert repeated_key(loads(json.dumps(value))) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1, column 1: Expecting value"),
        ("{", "line 1, column 2: Expecting property name enclosed in double quotes"),
        ("[1,\n 2\n 3]", "line 3, column 2: Expecting ',' delimiter"),
        ('{"a": 1} x', "line 1, column 10: Extra data"),
        ("{'a': 1}", "line 1, column 2: Expecting property name enclosed in double quotes"),
        ('{"a": 1,}', "line 1, column 8: JSON has no trailing commas; take this one away"),
        ('{\n  "a": [1, 2,\n  ]\n}', "line 2, column 13: JSON has no trailing commas; take this one away"),
        ('{\n  "a": 1,\n\n}', "line 2, column 9: JSON has no trailing commas; take this one away"),
        ("[NaN]", "NaN is not a value of JSON"),
        ("-Infinity", "-Infinity is not a value of JSON"),
        ("9" * 5000, "a number has more than 100 digits"),
    ],
)
def test_errors_say_where(text: str, said: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(text)
    assert str(caught.value) == said


@pytest.mark.parametrize("text", ["[,]", "{,}", "[1,,]", '{"a":}', "[1 2]", ","])
def test_other_commas_are_other_errors(text: str) -> None:
    with pytest.raises(JsonError, match="column"):
        loads(text)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000])
def test_deep_nesting(text: str) -> None:
    with pytest.raises(JsonError, match=r"nested too deeply|Expecting"):
        loads(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": 1, "a": 2}', "a"),
        ('[{"b": [0, {"a": {}, "c": 1, "a": 1}]}]', "a"),
        ('{"a": {"a": 1}}', None),
        ('[{"a": 1}, {"a": 1}]', None),
    ],
)
def test_repeated_key(text: str, key: str | None) -> None:
    assert repeated_key(loads(text)) == key


def test_a_hundred_thousand_keys_take_no_time() -> None:
    text = json.dumps({f"key {number}": number for number in range(100_000)})
    assert len(loads(text)) == 100_000


@given(st.text(alphabet='{}[]",:1a \n'))
def test_no_text_raises_anything_else(text: str) -> None:
    with contextlib.suppress(JsonError):
        loads(text)
