"""Waiting for what other processes do: asked again and again, never for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 20.0
_PAUSE_S = 0.02

_Found = TypeVar("_Found")


def until(
    condition: Callable[[], _Found], what: str, patience_s: float = PATIENCE_S, pause_s: float = _PAUSE_S
) -> _Found:
    """The first true value of `condition`. Raises AssertionError, naming `what`, when there is none in time."""
    deadline = time.monotonic() + patience_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"within {patience_s:g} s this did not happen: {what}"
        time.sleep(pause_s)
