"""JSON as people write it into files and options: read strictly, and with errors that help to mend it. Pure.

The standard library's parser is used rather than a faster one because it says where a text is wrong. What it lets pass
is refused here: NaN and infinities, keys that come twice, numbers of any length.
"""

import json
from typing import Any

_MAX_DIGITS = 100
_BLANK = " \t\r\n"


class JsonObject(dict[str, Any]):
    """An object that remembers a key that came twice, so that whoever knows its place can say it."""

    repeated: str | None = None


class JsonError(ValueError):
    """`reason` says what is wrong, without the place; the whole text begins with the place where it is known."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason = reason


def loads(text: str) -> Any:
    """What a JSON text says, its objects as JsonObject. Raises JsonError."""
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_whole_number
        )
    except json.JSONDecodeError as error:
        comma = _trailing_comma(text, error.pos)
        if comma is not None:
            raise JsonError("JSON has no trailing commas; take this one away", _place(text, comma)) from None
        raise JsonError(error.msg, _place(text, error.pos)) from None
    except RecursionError:
        raise JsonError("it is nested too deeply") from None


def repeated_key(value: Any) -> str | None:
    """A key that comes twice in one object anywhere in what `loads` returned."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, JsonObject):
            if one.repeated is not None:
                return one.repeated
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return None


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    found = JsonObject()
    for name, value in pairs:
        if name in found:
            found.repeated = name
        found[name] = value
    return found


def _refuse_constant(name: str) -> None:
    raise JsonError(f"{name} is not a value of JSON")


def _whole_number(text: str) -> int:
    """The time that int() takes grows with the square of the digits, and before Python 3.11 without a bound."""
    if len(text) > _MAX_DIGITS:
        raise JsonError(f"a number has more than {_MAX_DIGITS} digits")
    return int(text)


def _trailing_comma(text: str, position: int) -> int | None:
    """Where the comma is if that is the error: parsers before Python 3.13 stop behind it, later ones at it."""
    here = text[position : position + 1]
    if here in ("}", "]"):
        before = text[:position].rstrip(_BLANK)
        return len(before) - 1 if before.endswith(",") else None
    if here == "," and text[position + 1 :].lstrip(_BLANK)[:1] in ("}", "]"):
        return position
    return None


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f"line {line}, column {position - text.rfind(chr(10), 0, position)}"
