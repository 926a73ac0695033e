"""What is read in one pass, small calls and the frames of long bodies, means what it means frame by frame."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http2_peer import block, frame, message, request_headers
from tests.unit.frontends.grpc.http2.feeding import LIMITS, Owner, check_bounded, check_legal
from tests.unit.frontends.grpc.http2.test_any_bytes import GREETING

DATA, HEADERS, RST_STREAM, PING, WINDOW_UPDATE = 0, 1, 3, 6, 8
END_STREAM, END_HEADERS, PADDED = 1, 4, 8

_PLAIN = block(request_headers())
_BODY = message(b"0123456789")


def _head(stream: int, length: int | None = None, flags: int = END_HEADERS) -> bytes:
    more = () if length is None else ((b"content-length", b"%d" % length),)
    return frame(HEADERS, flags, stream, block(request_headers("Echo", *more)))


def _call(stream: int, body: bytes = _BODY) -> bytes:
    return _head(stream) + frame(DATA, END_STREAM, stream, body)


def both(frames: Sequence[bytes], *, gives_back: bool = True) -> Owner:
    """Feed the frames at once, and each by itself, its head first: both tell the same. The one that had all at once."""
    at_once, one_by_one = Owner(gives_back=gives_back), Owner(gives_back=gives_back)
    at_once.feed([GREETING + b"".join(frames)])
    heads_alone = (part for each in _split(b"".join(frames)) for part in (each[:9], each[9:]) if part)
    one_by_one.feed([GREETING, *heads_alone])
    assert one_by_one.came_whole == 0
    assert at_once.events == one_by_one.events
    assert at_once.connection.fault == one_by_one.connection.fault
    assert at_once.connection.closed == one_by_one.connection.closed
    assert _without_windows(at_once) == _without_windows(one_by_one)
    for owner in (at_once, one_by_one):
        check_bounded(owner)
        check_legal(owner)
        assert 0 <= owner.connection._to_credit < LIMITS.connection_window // 2 or owner.connection.closed
    return at_once


def _split(data: bytes) -> list[bytes]:
    """Bytes in their frames."""
    frames = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        frames.append(data[:end])
        data = data[end:]
    return frames


def _without_windows(owner: Owner) -> list[bytes]:
    """The frames that were sent but for WINDOW_UPDATEs, of which there may be fewer; in order, stream by stream."""
    frames = [one for one in _split(bytes(owner.output)) if one[3] != WINDOW_UPDATE]
    return sorted(frames, key=lambda one: one[5:9])


# ---- small calls


def test_calls_with_a_known_head_are_read_in_one_pass() -> None:
    owner = both([_call(number) for number in range(1, 20, 2)])
    assert owner.came_whole == 9  # all but the first, whose head was not known
    assert len([event for event in owner.events if event[0] == "sent"]) == 10
    assert not owner.connection.streams


@pytest.mark.parametrize(
    "odd_one",
    [
        frame(DATA, 0, 3, _BODY),
        frame(DATA, PADDED | END_STREAM, 3, b"\x02" + _BODY + bytes(2)),
        frame(DATA, PADDED | END_STREAM, 3, b"\xff" + _BODY),
        frame(DATA, END_STREAM, 3, b""),
        frame(DATA, END_STREAM, 1, _BODY),
        frame(DATA, END_STREAM, 5, _BODY),
        frame(DATA, END_STREAM, 0, _BODY),
        frame(DATA, END_STREAM, 3 | 1 << 31, _BODY),
        frame(DATA, END_STREAM, 3, bytes(LIMITS.frame_bytes)),
        frame(DATA, END_STREAM, 3, bytes(LIMITS.frame_bytes + 1)),
        frame(HEADERS, END_HEADERS | END_STREAM, 3, block([(b"trailer", b"x")])),
        frame(RST_STREAM, 0, 3, (8).to_bytes(4, "big")),
        frame(PING, 0, 0, bytes(8)),
    ],
)
def test_what_follows_a_known_head_is_judged_as_ever(odd_one: bytes) -> None:
    both([_call(1), _head(3), odd_one, _call(5)])


@pytest.mark.parametrize("number", [0, 1, 2, 4, 2**31 - 1])
def test_a_known_head_of_a_stream_that_cannot_be_opened_is_judged_as_ever(number: int) -> None:
    both([_call(1), _call(3), _call(number), _call(9)])


def test_a_known_head_within_a_header_block_is_a_fault() -> None:
    owner = both([_call(1), _head(3, flags=0), _call(5)])
    assert owner.connection.closed
    assert owner.connection.fault == "a header block is not at its end"


@pytest.mark.parametrize("length", [0, 1, len(_BODY), len(_BODY) + 1])
def test_the_content_length_of_a_known_head_holds(length: int) -> None:
    calls = [_head(number, length) + frame(DATA, END_STREAM, number, _BODY) for number in (1, 3, 5)]
    owner = both(calls)
    answered = [event for event in owner.events if event[0] == "sent"]
    assert len(answered) == (3 if length == len(_BODY) else 0)


def test_a_known_head_opens_no_more_streams_than_are_allowed() -> None:
    waiting = [_head(number) for number in range(1, 2 * LIMITS.streams, 2)]
    over = 2 * LIMITS.streams + 1
    owner = both([*waiting, _call(over)])
    assert ("request", over) not in [event[:2] for event in owner.events]
    assert frame(RST_STREAM, 0, over, (7).to_bytes(4, "big")) in owner.output


def test_calls_whose_handlers_still_run_count_for_known_heads_too() -> None:
    owner = Owner()
    owner.feed([GREETING, _call(1), _call(3)])
    owner.connection.unanswered = LIMITS.streams
    owner.feed([_call(5)])
    assert owner.came_whole == 1
    assert frame(RST_STREAM, 0, 5, (7).to_bytes(4, "big")) in owner.output


def test_after_the_end_was_said_a_known_head_opens_nothing() -> None:
    owner = Owner()
    owner.feed([GREETING, _call(1), _call(3)])
    owner.connection.end()
    owner.feed([_call(5)])
    assert owner.came_whole == 1
    assert not [event for event in owner.events if event[1] == 5]


def test_small_calls_open_the_connections_window_again() -> None:
    count = 3 * LIMITS.connection_window // 10_000
    owner = both([_call(2 * number + 1, bytes(10_000)) for number in range(count)])
    assert not owner.connection.closed
    assert owner.came_whole > count // 2


# ---- long bodies


def test_frames_of_a_long_body_are_put_into_their_place_together() -> None:
    body = bytes(range(250)) * 150
    frames = [frame(DATA, 0, 1, body[at : at + 1000]) for at in range(0, len(body), 1000)]
    owner = both([_head(1), *frames, frame(DATA, END_STREAM, 1, b"end")])
    assert owner.placed_bytes == len(body) + 3
    assert bytes(owner.bodies[1]) == body + b"end"


@pytest.mark.parametrize("content_length", [None, 2000, 5999, 6000, 6001, 7000])
@pytest.mark.parametrize(
    "odd_one",
    [
        b"",
        frame(DATA, 0, 1, b""),
        frame(DATA, PADDED, 1, b"\x02abcd"),
        frame(DATA, PADDED, 1, b"\xffabcd"),
        frame(DATA, END_STREAM, 1, b"end"),
        frame(DATA, END_STREAM, 1, b""),
        frame(DATA, 0, 0, b"abc"),
        frame(DATA, 0, 3, b"abc"),
        frame(DATA, 0, 5, b"abc"),
        frame(DATA, 0, 1 | 1 << 31, bytes(1000)),
        frame(DATA, 0, 1, bytes(LIMITS.frame_bytes + 1)),
        frame(RST_STREAM, 0, 1, (8).to_bytes(4, "big")),
        frame(PING, 0, 0, bytes(8)),
        frame(PING, 0, 0, bytes(7)),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, block([(b"trailer", b"x")])),
        frame(HEADERS, END_HEADERS, 1, block([(b"trailer", b"x")])),
        frame(77, 0xFF, 1, bytes(30)),
    ],
)
def test_what_comes_between_the_frames_of_a_long_body_is_judged_as_ever(
    odd_one: bytes, content_length: int | None
) -> None:
    pieces = [frame(DATA, 0, 1, bytes(1000))] * 3
    last = frame(DATA, END_STREAM, 1, bytes(1000))
    both([_head(1, content_length), *pieces, *([odd_one] if odd_one else []), *pieces[:2], last])


@pytest.mark.parametrize("stream", [1, 3, 5])
def test_a_stream_s_window_holds_in_one_pass(stream: int) -> None:
    frames = [frame(DATA, 0, stream, bytes(10_000)) for _ in range(7)]
    fits = both([_head(stream), *frames[:6], frame(DATA, 0, stream, bytes(5535))], gives_back=False)
    assert not [event for event in fits.events if event[0] == "reset"]
    too_much = both([_head(stream), *frames], gives_back=False)
    assert ("reset", stream) in too_much.events
    assert frame(RST_STREAM, 0, stream, (3).to_bytes(4, "big")) in too_much.output


def test_a_body_longer_than_both_windows_comes_through_as_they_open() -> None:
    frames = [frame(DATA, 0, 1, bytes(16_000))] * 40
    owner = both([_head(1), *frames, frame(DATA, END_STREAM, 1, b"end")])
    assert not owner.connection.closed
    assert len(owner.bodies[1]) == 40 * 16_000 + 3


_FRAMES = st.one_of(
    st.builds(
        frame,
        st.just(DATA),
        st.sampled_from([0, 0, 0, 0, 0, 1, 8, 9]),
        st.sampled_from([1, 1, 1, 1, 3, 5, 7]),
        st.sampled_from([0, 1, 100, 399, 401, 1000, 3000]).map(bytes),
    ),
    st.builds(_call, st.sampled_from([1, 3, 5, 7, 9, 11]), st.sampled_from([_BODY, b"", bytes(500)])),
    st.just(frame(PING, 0, 0, bytes(8))),
)


@given(
    st.lists(_FRAMES, max_size=15),
    st.sampled_from([None, 5000]),
    st.lists(st.integers(1, 9000), min_size=1, max_size=4),
)
def test_any_frames_in_one_pass(frames: list[bytes], length: int | None, sizes: list[int]) -> None:
    opened = [_head(1, length), _head(3), _head(5)]
    both([*opened, *frames])
    sent, pieces, index = GREETING + b"".join([*opened, *frames]), [], 0
    while sent:
        size = sizes[index % len(sizes)]
        pieces.append(sent[:size])
        sent, index = sent[size:], index + 1
    split, whole = Owner(), Owner()
    split.feed(pieces)
    whole.feed([b"".join(pieces)])
    assert split.events == whole.events
    assert split.connection.fault == whole.connection.fault
