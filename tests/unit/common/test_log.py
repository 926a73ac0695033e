"""common.log: the documented line, and a queue that drops and says so instead of blocking."""

import contextlib
import logging
import queue
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from common.log import FORMAT, Logging, _DroppingHandler

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (\S+) - (\S+) - (.*)$")


@pytest.fixture
def console() -> Iterator[StringIO]:
    """What Logging takes for standard output; the root logger is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def start(console: StringIO, level: str, path: Path | None = None) -> Logging:
    with contextlib.redirect_stdout(console):
        return Logging(level, path)


def parsed(text: str) -> list[tuple[str, str, str]]:
    found = []
    for line in text.splitlines():
        match = LINE.match(line)
        assert match, line
        found.append((match[1], match[2], match[3]))
    return found


def test_the_line_has_the_documented_format(console: StringIO) -> None:
    assert FORMAT == "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    logs = start(console, "INFO")
    logging.getLogger("broker").info("model %s version %d", "resnet", 3)
    logs.close()
    assert parsed(console.getvalue()) == [("broker", "INFO", "model resnet version 3")]


@pytest.mark.parametrize(
    ("level", "seen"),
    [("ERROR", ["ERROR"]), ("INFO", ["INFO", "ERROR"]), ("DEBUG", ["DEBUG", "INFO", "ERROR"])],
)
def test_levels(console: StringIO, level: str, seen: list[str]) -> None:
    logs = start(console, level)
    logger = logging.getLogger("test")
    logger.debug("x")
    logger.info("x")
    logger.error("x")
    logs.close()
    assert [one[1] for one in parsed(console.getvalue())] == seen


def test_the_file_gets_what_the_console_gets_and_is_appended_to(console: StringIO, tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("before\n")
    logs = start(console, "INFO", path)
    logging.getLogger("test").info("größe")
    logs.close()
    assert path.read_text(encoding="utf-8") == "before\n" + console.getvalue()
    assert parsed(console.getvalue()) == [("test", "INFO", "größe")]


def test_everything_queued_is_written_before_close_returns(console: StringIO) -> None:
    logs = start(console, "INFO")
    for number in range(500):
        logging.getLogger("test").info("%d", number)
    logs.close()
    assert [one[2] for one in parsed(console.getvalue())] == [str(number) for number in range(500)]
    assert not any(isinstance(handler, _DroppingHandler) for handler in logging.getLogger().handlers)


def test_close_waits_for_room_in_a_full_queue(console: StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.log._QUEUE_LENGTH", 1)
    for _ in range(20):
        logs = start(console, "INFO")
        for number in range(20):
            logging.getLogger("test").info("%d", number)
        logs.close()


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("broker", logging.INFO, "file", 1, text, None, None)


def taken(records: "queue.Queue[logging.LogRecord]") -> list[str]:
    found = []
    while not records.empty():
        found.append(records.get_nowait().getMessage())
    return found


def test_what_does_not_fit_is_counted_and_said_once_there_is_room() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue(3)
    handler = _DroppingHandler(records)
    for number in range(10):
        handler.handle(record(str(number)))
    assert handler.dropped == 7
    assert taken(records) == ["0", "1", "2"]
    handler.handle(record("later"))
    handler.handle(record("still later"))
    note, *rest = taken(records)
    assert note.startswith("7 log lines were dropped")
    assert rest == ["later", "still later"]
    assert handler.dropped == 0


def test_the_note_is_an_error_line_so_that_no_level_hides_it() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue(2)
    handler = _DroppingHandler(records)
    for number in range(3):
        handler.handle(record(str(number)))
    taken(records)
    handler.handle(record("later"))
    assert records.get_nowait().levelno == logging.ERROR


def test_room_for_the_note_alone_counts_the_line_as_dropped() -> None:
    records: queue.Queue[logging.LogRecord] = queue.Queue(1)
    handler = _DroppingHandler(records)
    handler.handle(record("a"))
    handler.handle(record("b"))
    taken(records)
    handler.handle(record("c"))
    assert [text.split()[0] for text in taken(records)] == ["1"]
    assert handler.dropped == 1
