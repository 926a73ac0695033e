"""Request bodies: bytes → a JSON object, through simdjson where it can, through the standard library where it cannot.

simdjson is several times faster and leaves numbers where they are until somebody asks for them as one buffer. It
follows the standard to the letter, though: NaN and the infinities, which Python's own clients write, and integers of
more than 64 bits are errors to it, and those texts are read again by the standard library. Both refuse a text that is
nested too deeply (simdjson: 1024 levels; the standard library: the interpreter's recursion limit).
"""

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import simdjson

from common.errors import InvalidArgumentError, ResourceExhaustedError

JSON_OBJECT = (simdjson.Object, dict)
JSON_ARRAY = (simdjson.Array, list)
"""For isinstance: what the two readers make of objects and arrays."""

_KEEP_BYTES = 4 << 20
"""Longer texts get a parser of their own, because a parser keeps about 15 times the longest text that it has read."""

_RETRY_BYTES = 64 << 10
"""Texts up to this length are read again after any error, for a message that says where it is."""

_STARTS_AN_OBJECT = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_NOT_FINITE = (b"NaN", b"Infinity")


@dataclass(frozen=True, slots=True)
class Document:
    """A body that was read. `root` refers to the parser's memory: drop it before the next text is read."""

    root: Any
    """A simdjson.Object or a dict."""
    brackets: int
    """Opening brackets in the text, those within strings included."""


class DocumentParser:
    """Reads one text after another, reusing memory."""

    def __init__(self) -> None:
        self._shared = simdjson.Parser()

    def parse(self, body: bytes) -> Document:
        """Raises InvalidArgumentError whose text begins `Invalid JSON`."""
        if not _STARTS_AN_OBJECT.match(body):
            _refuse("the body is empty" if not body.strip() else "the body is not a JSON object")
        try:
            root = self._read(body)
        except UnicodeDecodeError:
            _refuse("the text is not UTF-8")
        except (ValueError, RuntimeError) as error:
            root = _read_again(body, str(error))
        except MemoryError:
            raise ResourceExhaustedError("There is not enough memory to read the request's body") from None
        return Document(root, _count_brackets(body))

    def _read(self, body: bytes) -> Any:
        if len(body) > _KEEP_BYTES:
            return simdjson.Parser().parse(body)
        try:
            return self._shared.parse(body)
        except RuntimeError:
            # Something, an exception's frame perhaps, still refers to the last text. (Or an integer is too long: that
            # is a RuntimeError, too, and will be one again.)
            self._shared = simdjson.Parser()
            return self._shared.parse(body)


def _count_brackets(body: bytes) -> int:
    """numpy compares many bytes at a time, which bytes.count does not."""
    if len(body) < _RETRY_BYTES:
        return body.count(b"[")
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord("[")))


def _read_again(body: bytes, reason: str) -> Any:
    """By the standard library; `reason` is simdjson's."""
    worth_it = (
        len(body) <= _RETRY_BYTES
        or reason.startswith(("NUMBER_ERROR", "BIGINT_ERROR"))
        or any(word in body for word in _NOT_FINITE)
    )
    if not worth_it:
        _refuse("the text is not well-formed, or nested too deeply")
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique)
    except RecursionError:
        _refuse("the text is nested too deeply")
    except json.JSONDecodeError as error:
        _refuse(f"{error.msg}: line {error.lineno}, column {error.colno}")
    except UnicodeDecodeError:
        _refuse("the text is not UTF-8")
    except ValueError:
        _refuse("a number has too many digits")
    except MemoryError:
        raise ResourceExhaustedError("There is not enough memory to read the request's body") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        _refuse("an object names a member twice")
    return members


def members_of(value: Any) -> dict[str, Any]:
    """The members of a JSON object.

    Raises InvalidArgumentError when a name is there twice (which was meant?) or holds a zero byte, at which simdjson
    would end it. By keys, because simdjson's `items` turns every value into Python objects.
    """
    names = list(value.keys())
    if len(set(names)) != len(names):
        _refuse("an object names a member twice")
    if any("\0" in name for name in names):
        _refuse("the name of a member holds a zero byte")
    return {name: value[name] for name in names}


def _refuse(reason: str) -> NoReturn:
    raise InvalidArgumentError(f"Invalid JSON: {reason}")
