"""`python -m tests.fuzz.grpc_messages [CORPUS] [-max_total_time=60 …]`: the gRPC methods under atheris.

libFuzzer follows the branches of our readers, which hypothesis cannot. The first byte of an input chooses the method,
the rest is the message. An input that ends in anything but an answer or a refusal is written to the working directory;
it is tried again by naming its file. The options are libFuzzer's. Wants the package atheris.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import interpreted

_READERS = (
    "frontends.checks",
    "frontends.conversion",
    "frontends.grpc.examples",
    "frontends.grpc.heads",
    "frontends.grpc.model_management",
    "frontends.grpc.predict_reader",
    "frontends.grpc.predict_wire",
    "frontends.grpc.tensorflow_serving",
    "frontends.grpc.wire",
    "frontends.inference",
)


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    interpreted.prefer_sources()  # which atheris can look into
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("This wants the package atheris: python -m pip install atheris")
    with atheris.instrument_imports(include=list(_READERS)):
        answering = importlib.import_module("tests.unit.frontends.grpc.answering")
    paths = list(answering.METHODS)

    def one_input(data: bytes) -> None:
        if data:
            answering.check_answered(paths[data[0] % len(paths)], data[1:])

    arguments = sys.argv
    if not any(Path(argument).exists() for argument in arguments[1:]):
        # Good messages to begin with; found at random, one would take days.
        directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
        for number, path in enumerate(paths):
            for model in ("one", "two", "picture", "heads"):
                message = answering.good_message(path, model).SerializeToString()
                (directory / f"{number}-{model}").write_bytes(bytes([number]) + message)
        arguments = [*arguments, str(directory)]
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
