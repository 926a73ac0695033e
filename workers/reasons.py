"""What OpenVINO's exceptions say to people. Pure.

Their texts are stacks: a line for each source file passed through, checks with their expressions, and at the end the
reason. Clients get the reason alone, and neither paths nor addresses of this machine.
"""

import re

_TRACE = re.compile(r"^(Caught exception: )?Exception from [^\n]*?:\d+:?\s*", re.MULTILINE)
_CHECK = re.compile(r"\s*(Check '[^\n]*' )?failed at [^\s:]+:\d+:?\s*")
_PATH = re.compile(r"(?<![\w./-])/(?:[\w.+@-]+/)+([\w.+@-]+)")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
_SHAPE = re.compile(r"\b(shapes?|dim(ension)?s?|incompatible|broadcast\w*|rank)\b", re.IGNORECASE)
_LONGEST = 600


def reason_of(error: Exception) -> str:
    """The meaningful part of an exception's text, on one line."""
    text = _TRACE.sub("", str(error))
    text = _CHECK.sub(": ", text)
    text = _ADDRESS.sub("(address)", _PATH.sub(r"\1", text))
    lines = [line.strip() for line in text.splitlines()]
    joined = " ".join(line for line in lines if line).strip(": ")
    return joined[:_LONGEST] or type(error).__name__


def blames_shape(error: Exception) -> bool:
    """Whether the exception seems to say that the model cannot take a shape."""
    return bool(_SHAPE.search(str(error)))
