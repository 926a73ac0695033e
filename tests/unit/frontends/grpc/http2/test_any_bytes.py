"""Bytes of any kind, and conversations that are damaged: they end in GOAWAY at worst, however they are split."""

import random
from collections.abc import Sequence

import hpack
from hypothesis import given
from hypothesis import strategies as st

from tests.support.http2_peer import PREFACE, block, frame, message, request_headers, settings
from tests.unit.frontends.grpc.http2.feeding import Owner, check

GREETING = PREFACE + settings()

_NUMBERS = st.sampled_from([0, 1, 1, 1, 3, 3, 5, 7, 2, 9, 41, 2**31 - 1])
_BLOCKS = st.one_of(
    st.just(block(request_headers())),
    st.just(block(request_headers("Echo", (b"content-length", b"10")))),
    st.just(block([(b"trailer", b"x")])),
    st.just(hpack.Encoder().encode(request_headers())),
    st.binary(max_size=40),
)
_WORDS = st.sampled_from([0, 1, 2, 8, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1]).map(
    lambda n: n.to_bytes(4, "big")
)
_SETTINGS = st.lists(
    st.tuples(
        st.integers(0, 7), st.sampled_from([0, 1, 2, 100, 16_384, 65_535, 2**24 - 1, 2**31 - 1, 2**31])
    ),
    max_size=4,
)
FRAMES = st.one_of(
    st.builds(frame, st.just(1), st.sampled_from([0, 1, 4, 5, 5, 5, 4, 0x0C, 0x24, 0x2D]), _NUMBERS, _BLOCKS),
    st.builds(
        frame, st.just(0), st.sampled_from([0, 1, 1, 8, 9]), _NUMBERS, st.binary(max_size=300).map(message)
    ),
    st.builds(frame, st.just(9), st.sampled_from([0, 4]), _NUMBERS, _BLOCKS),
    st.builds(frame, st.sampled_from([3, 8]), st.just(0), _NUMBERS, _WORDS),
    st.builds(frame, st.just(6), st.sampled_from([0, 1]), st.just(0), st.just(b"8 bytes!")),
    _SETTINGS.map(lambda pairs: settings(*pairs)),
    st.builds(frame, st.integers(0, 255), st.integers(0, 255), _NUMBERS, st.binary(max_size=20)),
)


def split(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """In pieces of these sizes, again and again."""
    pieces, at, index = [], 0, 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        pieces.append(data[at : at + size])
        at, index = at + size, index + 1
    return pieces


_SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=5)


@given(st.binary(max_size=500), _SIZES, st.booleans())
def test_any_bytes(data: bytes, sizes: list[int], greeted: bool) -> None:
    sent = GREETING + data if greeted else data
    check(sent, split(sent, sizes))


@given(st.lists(FRAMES, max_size=30), _SIZES)
def test_any_frames(frames: list[bytes], sizes: list[int]) -> None:
    sent = GREETING + b"".join(frames)
    check(sent, split(sent, sizes))


@given(
    st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4), _SIZES
)
def test_a_good_conversation_that_is_damaged(
    seed: int, damage: list[tuple[int, int]], sizes: list[int]
) -> None:
    sent = bytearray(conversation(seed))
    for at, byte in damage:
        sent[at % len(sent)] = byte
    check(bytes(sent), split(bytes(sent), sizes))


@given(st.integers(0, 2**32), _SIZES)
def test_a_good_conversation_is_understood(seed: int, sizes: list[int]) -> None:
    sent = conversation(seed)
    owner = check(sent, split(sent, sizes))
    assert not owner.connection.closed
    assert len([event for event in owner.events if event[0] == "body"]) == 5


def conversation(seed: int) -> bytes:
    """Five calls, whose frames are mixed, with pings and windows between them."""
    chance, encoder = random.Random(seed), hpack.Encoder()
    sent = GREETING
    bodies: dict[int, bytes] = {}
    for stream in (1, 3, 5, 7, 9):
        sent += frame(
            1, 4, stream, encoder.encode(request_headers("Echo", (b"x-n", b"%d" % chance.randrange(3))))
        )
        bodies[stream] = message(chance.randbytes(chance.randrange(300)))
    while bodies:
        stream = chance.choice(list(bodies))
        size = chance.randrange(1, 200)
        piece, bodies[stream] = bodies[stream][:size], bodies[stream][size:]
        sent += frame(0, 0 if bodies[stream] else 1, stream, piece)
        if not bodies[stream]:
            del bodies[stream]
        sent += chance.choice([b"", frame(6, 0, 0, bytes(8)), frame(8, 0, 0, (1).to_bytes(4, "big"))])
    return sent


def test_the_answers_are_the_bodies() -> None:
    owner = Owner()
    owner.feed([conversation(0)])
    assert all(bytes(body) in owner.output for body in owner.bodies.values())
