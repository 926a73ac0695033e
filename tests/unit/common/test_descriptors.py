"""common.descriptors: the right memory reaches the other side, once, and nothing stays open."""

import fcntl
import gc
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.arena import Segment
from common.descriptors import DescriptorServer, SegmentUnavailableError, fetch_descriptor, socket_path

PATIENCE_S = 10.0


def count_descriptors() -> int:
    gc.collect()  # what other tests have left
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def serving(path: Path, lookup: Callable[[int], int | None]) -> Iterator[None]:
    """A thread that does what a frontend's loop does: accept and answer when there is something to."""
    server = DescriptorServer(path, lookup)
    stop_reader, stop_writer = os.pipe()

    def serve() -> None:
        while True:
            listener = server.listener.fileno()
            ready, _, _ = select.select([listener, stop_reader], [], [], PATIENCE_S)
            if listener not in ready:
                return
            connection = server.accept()
            if connection is not None:
                select.select([connection], [], [], PATIENCE_S)
                server.answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        os.write(stop_writer, b".")
        thread.join(PATIENCE_S)
        server.close()
        os.close(stop_reader)
        os.close(stop_writer)
        assert not thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return socket_path(tmp_path, "grpc-0.1.abc")


def test_the_socket_is_named_after_the_instance(tmp_path: Path) -> None:
    assert socket_path(tmp_path, "a") != socket_path(tmp_path, "b")
    assert socket_path(tmp_path, "a").parent == tmp_path


def test_each_number_brings_its_own_memory(path: Path) -> None:
    segments = {number: Segment.create(4096) for number in (0, 1, 7, (1 << 64) - 1)}
    for number, segment in segments.items():
        segment.buffer[:8] = number.to_bytes(8, "little")
    with serving(path, lambda number: segments[number].descriptor):
        for number in segments:
            received = Segment.attach(fetch_descriptor(path, number, PATIENCE_S))
            assert received.buffer[:8] == number.to_bytes(8, "little")
            received.buffer[8:12] = b"back"
            received.close()
    for segment in segments.values():
        assert segment.buffer[8:12] == b"back"
        segment.close()


def test_a_received_descriptor_is_not_inherited_by_children(path: Path) -> None:
    segment = Segment.create(4096)
    with serving(path, lambda _: segment.descriptor):
        descriptor = fetch_descriptor(path, 0, PATIENCE_S)
    assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(descriptor)
    segment.close()


def test_an_unknown_segment_is_named(path: Path) -> None:
    with serving(path, lambda _: None), pytest.raises(SegmentUnavailableError, match="no segment 5"):
        fetch_descriptor(path, 5, PATIENCE_S)


def test_an_owner_that_never_was(path: Path) -> None:
    with pytest.raises(SegmentUnavailableError, match="No such file"):
        fetch_descriptor(path, 0, PATIENCE_S)


def test_a_dead_owner_whose_socket_file_is_left(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen()
    listener.close()
    with pytest.raises(SegmentUnavailableError, match="refused"):
        fetch_descriptor(path, 0, PATIENCE_S)


def test_an_owner_that_does_not_answer_in_time(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(SegmentUnavailableError, match="timed out"):
            fetch_descriptor(path, 0, 0.05)


def test_more_descriptors_than_one_are_refused_and_closed(path: Path) -> None:
    segment = Segment.create(4096)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer_too_much() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(8)
                socket.send_fds(connection, [b"+"], [segment.descriptor, segment.descriptor])

        thread = threading.Thread(target=answer_too_much)
        before = count_descriptors()
        thread.start()
        with pytest.raises(SegmentUnavailableError):
            fetch_descriptor(path, 0, PATIENCE_S)
        thread.join(PATIENCE_S)
        assert count_descriptors() == before
    segment.close()


@pytest.mark.parametrize("question", [b"", b"short", b"much longer than eight bytes"])
def test_a_question_that_makes_no_sense_closes_the_connection(path: Path, question: bytes) -> None:
    segment = Segment.create(4096)
    with serving(path, lambda _: segment.descriptor):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(path))
            if question:
                connection.send(question)
            else:
                connection.shutdown(socket.SHUT_WR)
            data, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
            for descriptor in descriptors:
                os.close(descriptor)
            if len(question) < 8:
                assert (data, descriptors) == (b"", [])
        # The owner has survived it.
        os.close(fetch_descriptor(path, 0, PATIENCE_S))
    segment.close()


def test_accept_without_a_connection_is_none(path: Path) -> None:
    server = DescriptorServer(path, lambda _: None)
    assert server.accept() is None
    server.close()
    assert not path.exists()


def test_nothing_stays_open(path: Path) -> None:
    before = count_descriptors()
    segment = Segment.create(4096)
    with serving(path, lambda number: segment.descriptor if number == 0 else None):
        inside = count_descriptors()
        for number in (0, 1) * 20:
            try:
                os.close(fetch_descriptor(path, number, PATIENCE_S))
            except SegmentUnavailableError:
                assert number == 1
        # An answer's connection is closed by the server's thread a moment after the client has read it.
        fetch_and_close_until(path, inside)
    segment.close()
    assert count_descriptors() == before


def fetch_and_close_until(path: Path, count: int) -> None:
    """One question more shows that all earlier ones are over: the thread answers them one after another."""
    for _ in range(100):
        os.close(fetch_descriptor(path, 0, PATIENCE_S))
        if count_descriptors() == count:
            return
    assert count_descriptors() == count
