"""Models of the fake engine that do what their inputs say."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.worker import Array
from tests.unit.workers.models import fake


def commanded(path: Path, **behaviour: Any) -> Path:
    """A fake that copies `data` and obeys `command`."""
    tensors = [("data", "float32", [4]), ("command", "int32", [1]), ("argument", "int32", [1])]
    return fake(path, tensors, tensors[:1], **behaviour)


def command(number: int, argument: int = 0) -> tuple[Array, ...]:
    """Inputs of such a fake."""
    return (
        np.arange(4, dtype=np.float32),
        np.array([number], np.int32),
        np.array([argument], np.int32),
    )
