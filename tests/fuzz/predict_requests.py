"""`python -m tests.fuzz.predict_requests [CORPUS] [-max_total_time=60 …]`: our reader of PredictRequest under atheris.

Each input is a message, read by us and by protobuf. One that we read, but protobuf refuses or reads differently, is
written to the working directory; it is tried again by naming its file. The options are libFuzzer's. Wants the package
atheris.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import interpreted

_READERS = ("frontends.grpc.predict_reader", "frontends.grpc.predict_wire")


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    interpreted.prefer_sources()  # which atheris can look into
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("This wants the package atheris: python -m pip install atheris")
    with atheris.instrument_imports(include=list(_READERS)):
        reading = importlib.import_module("tests.unit.frontends.grpc.reading")

    def one_input(data: bytes) -> None:
        reading.check_read_alike(data)

    arguments = sys.argv
    if not any(Path(argument).exists() for argument in arguments[1:]):
        directory = Path(tempfile.mkdtemp(prefix="fuzz-"))
        for number, message in enumerate(reading.good_messages()):
            (directory / str(number)).write_bytes(message)
        arguments = [*arguments, str(directory)]
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
