"""How this installation was built."""

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec

LIBRARY = "ie_serving__mypyc"
"""What the compiled modules share, in the directory of the packages."""

_HOT = "common.allocator"
"""One of the modules that setup.py compiles, together or not at all."""


def form() -> str:
    """`compiled` where the hot modules are compiled for this interpreter, else `interpreted`."""
    found = find_spec(_HOT)
    origin = (found and found.origin) or ""
    return "compiled" if origin.endswith(tuple(EXTENSION_SUFFIXES)) else "interpreted"
