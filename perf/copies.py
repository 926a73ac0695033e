"""Scenario: how many bytes the server copies in user space for each byte that it serves, of 16 MiB in and 16 MiB out.

Counted, not estimated: `copies.c` is compiled and loaded into every process of a server before libc's memcpy and
memmove, through which CPython, protobuf, grpcio, numpy and OpenVINO copy. What is read and written with each element
changed (a conversion of types, an inference) is no copy, nor is what the kernel moves between a socket and memory.
"""

import contextlib
import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from perf.bench import Bench
from perf.calls import WrongAnswerError, check_grpc, grpc_message, load_sample
from perf.plan import Setup
from perf.results import Reading
from perf.server import Server, StartFailedError, model_options
from perf.target import LoadFailedError

LINE = "copies"
MODEL = "large"
REQUESTS = 3
"""Of a round; the count does not depend on time."""
NO_COMPILER = "counting copies wants a C compiler (Debian: gcc, libc6-dev)"
_SOURCE = Path(__file__).with_name("copies.c")
_COMPILE_S = 60
_COUNTER_BYTES = 8


def compiler() -> str | None:
    """The C compiler, where there is one."""
    return shutil.which("cc")


class Counter:
    """The bytes that processes have copied which run with its environment."""

    def __init__(self, directory: Path) -> None:
        """Compile. Raises LoadFailedError."""
        library, self._file = directory / "copies.so", directory / "copies.count"
        line = [
            compiler() or "cc",
            "-shared",
            "-fPIC",
            "-O2",
            "-fno-builtin",
            "-o",
            str(library),
            str(_SOURCE),
        ]
        try:
            subprocess.run([*line, "-ldl"], capture_output=True, text=True, timeout=_COMPILE_S, check=True)
        except subprocess.CalledProcessError as error:
            raise LoadFailedError(f"copies.c does not compile: {error.stderr[-500:]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LoadFailedError(f"copies.c does not compile: {error}") from error
        self._file.write_bytes(bytes(mmap.PAGESIZE))
        self.environment = {"LD_PRELOAD": str(library), "COPIES_FILE": str(self._file)}

    def read(self) -> int:
        """Bytes so far."""
        with self._mapped() as memory:
            return int.from_bytes(memory[:_COUNTER_BYTES], "little")

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[mmap.mmap]:
        descriptor = os.open(self._file, os.O_RDONLY)
        try:
            with mmap.mmap(descriptor, _COUNTER_BYTES, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
                yield memory
        finally:
            os.close(descriptor)


def run(bench: Bench) -> None:
    """Measure; what goes wrong is written down."""
    if compiler() is None:
        bench.results.absent[LINE] = NO_COMPILER
        return
    sample = load_sample(bench.models, MODEL)
    options = model_options(MODEL, bench.models / MODEL, Setup())
    try:
        counter = Counter(bench.directory)
        with Server(options, bench.directory, bench.program, counter.environment) as server:
            served = len(grpc_message(sample)) + server.wait_grpc(sample)
            for number in range(bench.settings.rounds):
                bench.tick("16 MiB in and out")
                before = counter.read()
                for _ in range(REQUESTS):
                    check_grpc(server.grpc_port, sample)
                copied = (counter.read() - before) / (REQUESTS * served)
                bench.results.readings.append(Reading(LINE, number, copied, server.setup()))
    except (StartFailedError, WrongAnswerError, LoadFailedError) as error:
        bench.results.problems.append(f"{LINE}: {error}")


def steps(bench: Bench) -> int:
    """How many measurements it takes."""
    return bench.settings.rounds
