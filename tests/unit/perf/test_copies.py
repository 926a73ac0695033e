"""The counter of copies sees what Python, numpy and protobuf copy, in whatever process it is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf.copies import Counter, compiler

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(compiler() is None, reason="no C compiler is installed (gcc)"),
]

SIZE = 4 << 20
COPIES = {
    "bytes": "bytes(memoryview(data))",
    "join": "b''.join([data, b'x'])",
    "numpy": "np.copyto(np.empty(len(data), np.uint8), np.frombuffer(data, np.uint8))",
    "numpy floats": "np.empty(len(data) // 4, np.float32)[:] = np.frombuffer(data, np.float32)",
    "protobuf": "wrappers_pb2.BytesValue.FromString(message)",
}


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Counter:
    return Counter(tmp_path_factory.mktemp("counter"))


def copied(counter: Counter, code: str) -> int:
    before = counter.read()
    environment = {**os.environ, **counter.environment}
    subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=True)
    return counter.read() - before


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_is_counted_once(counter: Counter, what: str) -> None:
    prepare = (
        f"import numpy as np; from google.protobuf import wrappers_pb2; data = bytes({SIZE}); "
        "message = wrappers_pb2.BytesValue(value=data).SerializeToString(); "
    )
    base = copied(counter, prepare)
    assert copied(counter, prepare + COPIES[what]) - base == pytest.approx(SIZE, rel=0.05)


def test_views_are_no_copies(counter: Counter, tmp_path: Path) -> None:
    code = f"import numpy as np; data = bytes({SIZE}); np.frombuffer(memoryview(data), np.float32).reshape(4, -1)"
    assert copied(counter, code) < SIZE / 4
