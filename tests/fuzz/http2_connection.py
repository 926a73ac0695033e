"""`python -m tests.fuzz.http2_connection [CORPUS] [-max_total_time=60 …]`: the HTTP/2 connection under atheris.

The first byte of an input says how the rest is split; what is split must tell the same as what comes at once, nothing
may be raised, and what is kept stays within the limits. An input that breaks this is written to the working directory;
it is tried again by naming its file. The options are libFuzzer's. Wants the package atheris.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import interpreted


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    interpreted.prefer_sources()  # which atheris can look into
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("This wants the package atheris: python -m pip install atheris")
    with atheris.instrument_imports(include=["frontends.grpc.http2", "frontends.grpc.native", "hpack"]):
        feeding = importlib.import_module("tests.unit.frontends.grpc.http2.feeding")
    examples = importlib.import_module("tests.unit.frontends.grpc.http2.test_any_bytes")

    def one_input(data: bytes) -> None:
        if data:
            sent = examples.GREETING + data[1:]
            feeding.check(sent, examples.split(sent, [data[0] % 64 + 1, data[0] // 8 + 1]))

    arguments = sys.argv
    if not any(Path(argument).exists() for argument in arguments[1:]):
        # Good conversations to begin with; found at random, one would take days.
        directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
        for seed in range(20):
            sent = examples.conversation(seed).removeprefix(examples.GREETING)
            (directory / str(seed)).write_bytes(bytes((seed,)) + sent)
        arguments = [*arguments, str(directory)]
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
