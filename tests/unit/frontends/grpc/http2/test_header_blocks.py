"""Header blocks: what is kept of them must be what hpack would say again."""

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from frontends.grpc.http2.frames import ConnectionFault, ErrorCode
from frontends.grpc.http2.header_blocks import BlockReader, Headers, literal

_LIST_BYTES = 65_536

_HEADERS = st.lists(
    st.tuples(st.sampled_from([b":path", b"te", b"user-agent", b"x-a", b"x-b"]), st.binary(max_size=40)),
    max_size=5,
)


def _reader() -> BlockReader[Headers]:
    return BlockReader(lambda headers: headers, _LIST_BYTES)


@given(st.lists(st.tuples(_HEADERS, st.sampled_from([None, 0, 64, 4096]), st.booleans()), max_size=30))
def test_kept_blocks_mean_what_they_would_mean_decoded_anew(
    blocks: list[tuple[list[tuple[bytes, bytes]], int | None, bool]],
) -> None:
    encoder, reader, judge = Encoder(), _reader(), Decoder(max_header_list_size=_LIST_BYTES)
    for headers, table_size, huffman in blocks:
        if table_size is not None:
            encoder.header_table_size = table_size
        block = encoder.encode(headers, huffman=huffman)
        again = encoder.encode(headers, huffman=huffman)
        assert list(reader.read(block)) == list(judge.decode(block, raw=True)) == headers
        assert list(reader.read(again)) == list(judge.decode(again, raw=True)) == headers
        # As a client sends it that has nothing new to put into the table: twice the same bytes.
        third = encoder.encode(headers, huffman=huffman)
        assert list(reader.read(third)) == list(judge.decode(third, raw=True)) == headers


def test_a_block_that_repeats_is_understood_once() -> None:
    understood: list[Headers] = []

    def understand(headers: Headers) -> int:
        understood.append(headers)
        return len(understood)

    reader = BlockReader(understand, _LIST_BYTES)
    encoder = Encoder()
    headers = [(b":path", b"/a"), (b"x", b"y")]
    meanings = [reader.read(encoder.encode(headers)) for _ in range(10)]
    assert meanings == [1] + [2] * 9  # the first block fills the table, and so is not like those that follow
    reader.trailers(encoder.encode([(b"new", b"entry")]))
    assert reader.read(encoder.encode(headers)) == 3


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\xff\xff\xff\xff\xff", ErrorCode.COMPRESSION_ERROR),
        (b"\x80", ErrorCode.COMPRESSION_ERROR),
        (b"\xbe", ErrorCode.COMPRESSION_ERROR),
        (b"\x00\x7f", ErrorCode.COMPRESSION_ERROR),
        (b"\x3f\xff\xff\xff\x7f", ErrorCode.COMPRESSION_ERROR),
        (
            b"".join(literal(b"n%d" % number, bytes(1000)) for number in range(70)),
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
    ],
)
def test_blocks_that_cannot_be_read_end_the_connection(block: bytes, code: ErrorCode) -> None:
    with pytest.raises(ConnectionFault) as raised:
        _reader().read(block)
    assert raised.value.code == code


def test_few_bytes_that_stand_for_many_end_the_connection() -> None:
    reader = _reader()
    big = bytes(3000)
    reader.read(b"\x40\x01x" + b"\x7f" + bytes([(3000 - 127) & 0x7F | 0x80, (3000 - 127) >> 7]) + big)
    with pytest.raises(ConnectionFault) as raised:
        reader.read(b"\xbe" * 100)
    assert raised.value.code == ErrorCode.ENHANCE_YOUR_CALM


def test_what_is_kept_of_blocks_is_small_however_much_they_stand_for() -> None:
    reader, big = _reader(), bytes(3000)
    reader.read(b"\x40\x01x" + b"\x7f" + bytes([(3000 - 127) & 0x7F | 0x80, (3000 - 127) >> 7]) + big)
    for count in range(1, 20):
        assert len(reader.read(b"\xbe" * count)) == count
    kept = sum(len(name) + len(value) for headers in reader._kept.values() for name, value in headers)
    assert 0 < kept <= 64 * 4096


@given(st.binary(max_size=40), st.binary(max_size=700))
def test_our_headers_can_be_read(name: bytes, value: bytes) -> None:
    assert list(Decoder().decode(literal(name, value), raw=True)) == [(name, value)]
