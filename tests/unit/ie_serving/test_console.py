import contextlib
import os
from collections.abc import Iterator

import pytest

from ie_serving.console import Console, LineBuffer


def taken(buffer: LineBuffer) -> bytes:
    buffer.end()
    pieces = []
    while (piece := buffer.take()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


def test_lines_pass_unchanged() -> None:
    buffer = LineBuffer()
    for data in (b"one\ntw", b"o\n", b"", b"three"):
        buffer.put(data)
    assert taken(buffer) == b"one\ntwo\nthree\n"


def test_an_endless_line_is_passed_on_in_parts() -> None:
    buffer = LineBuffer()
    buffer.put(b"x" * 70_000)
    assert buffer.take() == b"x" * 70_000 + b"\n"


def test_what_does_not_fit_is_dropped_by_lines_and_told() -> None:
    buffer = LineBuffer(limit=100)
    for number in range(50):
        buffer.put(b"line %02d\n" % number)
    lines = taken(buffer).decode().splitlines()
    kept = [line for line in lines if line.startswith("line")]
    assert kept == [f"line {number:02d}" for number in range(len(kept))]
    assert lines[len(kept) :] == [
        f"{50 - len(kept)} lines of output were dropped because the console did not take them"
    ]


def test_after_a_jam_lines_pass_again() -> None:
    buffer = LineBuffer(limit=100)
    buffer.put(b"a" * 90 + b"\n")
    buffer.put(b"b" * 90 + b"\n")
    buffer.put(b"c\nd\n")
    assert buffer.take() == b"a" * 90 + b"\n"
    buffer.put(b"e\n")
    assert taken(buffer) == b"3 lines of output were dropped because the console did not take them\ne\n"


def test_end_of_nothing() -> None:
    assert taken(LineBuffer()) == b""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    source, sink = os.pipe()
    yield source, sink
    for descriptor in (source, sink):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_console_passes_on_what_is_written_to_its_path(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    console = Console(sink)
    with open(console.path, "wb", buffering=0) as stream:  # noqa: PTH123 - as supervisord opens it
        stream.write(b"hello\nworld\n")
    console.close(5)
    os.close(sink)
    assert os.read(source, 100) == b"hello\nworld\n"


def test_console_that_is_not_read_blocks_nobody(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    console = Console(sink)
    line = b"x" * 999 + b"\n"
    with open(console.path, "wb", buffering=0) as stream:  # noqa: PTH123 - as supervisord opens it
        stream.writelines(line for _ in range(4000))
    console.close(0.05)
    # The writer is stuck in the full pipe; closing the other end lets its thread go.
    os.close(source)


def test_console_whose_reader_has_gone_drops(pipe: tuple[int, int]) -> None:
    source, sink = pipe
    os.close(source)
    console = Console(sink)
    with open(console.path, "wb", buffering=0) as stream:  # noqa: PTH123 - as supervisord opens it
        stream.write(b"hello\n" * 1000)
    console.close(5)
