"""Bodies in chunks: the published examples hold however they are cut, and what was changed or left out is refused."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.s3_api.chunks import LINE_BYTES_MAX, ChunkedBody
from proxy.s3_api.claims import read_claim
from proxy.s3_api.signatures import Head, Payload, Proven, SignatureRefused
from tests.unit.proxy.s3_api.published import (
    CHUNK_SIGNATURES,
    CHUNKED,
    CHUNKS,
    NOW_US,
    RULES,
    SECRET,
    TRAILED,
    TRAILED_CHUNK_SIGNATURES,
    TRAILER,
    TRAILER_SIGNATURE,
)

SIZE = sum(map(len, CHUNKS))
NAME = "x-amz-checksum-crc32c"


def signed_chunks(signatures: Sequence[str]) -> bytes:
    """Write the published chunks; nothing behind the head of the last."""
    heads = (f"{len(data):x};chunk-signature={one}\r\n" for data, one in zip(CHUNKS, signatures, strict=True))
    return b"".join(
        one.encode() + data + (b"\r\n" if data else b"") for one, data in zip(heads, CHUNKS, strict=True)
    )


SIGNED = signed_chunks(CHUNK_SIGNATURES) + b"\r\n"
TRAILER_LINES = TRAILER + b"\r\nx-amz-trailer-signature:" + TRAILER_SIGNATURE.encode() + b"\r\n\r\n"
SIGNED_AND_TRAILED = signed_chunks(TRAILED_CHUNK_SIGNATURES) + TRAILER_LINES
UNSIGNED = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n" + TRAILER + b"\r\n\r\n"


def body_of(head: Head, size: int = SIZE, trailers: Sequence[str] = ()) -> ChunkedBody:
    claim = read_claim(head, RULES, NOW_US)
    assert claim is not None
    return ChunkedBody(claim.prove(SECRET), size, trailers)


def unsigned(size: int = 5, trailers: Sequence[str] = (NAME,)) -> ChunkedBody:
    return ChunkedBody(Proven(Payload.UNSIGNED_AND_TRAILER), size, trailers)


def decode(body: ChunkedBody, raw: bytes, cuts: Sequence[int] = ()) -> tuple[bytes, dict[str, str]]:
    """Feed a body in the pieces that the cuts make of it."""
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[start:stop] for start, stop in pairwise(edges)]
    data = b"".join(bytes(part) for piece in pieces for part in body.feed(piece))
    return data, dict(body.finish())


CUTS = st.lists(st.integers(0, 70_000), max_size=12)
TINY_CUTS = st.lists(st.integers(0, 200), max_size=12)


@given(CUTS)
def test_the_published_chunks_decode_however_they_are_cut(cuts: list[int]) -> None:
    assert decode(body_of(CHUNKED), SIGNED, cuts) == (b"".join(CHUNKS), {})


@given(CUTS)
def test_the_published_trailer_decodes_however_it_is_cut(cuts: list[int]) -> None:
    body = body_of(TRAILED, trailers=[NAME])
    assert decode(body, SIGNED_AND_TRAILED, cuts) == (b"".join(CHUNKS), {NAME: "sOO8/Q=="})


@given(TINY_CUTS)
def test_unsigned_chunks_decode_however_they_are_cut(cuts: list[int]) -> None:
    assert decode(unsigned(), UNSIGNED, cuts) == (b"abcde", {NAME: "sOO8/Q=="})


def test_byte_by_byte_is_the_same() -> None:
    raw = UNSIGNED
    assert decode(unsigned(), raw, range(len(raw))) == (b"abcde", {NAME: "sOO8/Q=="})


@pytest.mark.parametrize(
    "raw",
    [
        signed_chunks(TRAILED_CHUNK_SIGNATURES)
        + TRAILER
        + b"\n\r\nx-amz-trailer-signature:"
        + TRAILER_SIGNATURE.encode()
        + b"\r\n\r\n",
        SIGNED_AND_TRAILED.replace(b"crc32c:sOO8", b"crc32c: sOO8").replace(
            b"x-amz-checksum", b"X-Amz-Checksum"
        ),
        SIGNED_AND_TRAILED[:-2],
    ],
    ids=["as AWS writes it out", "other spelling", "without the last CRLF"],
)
def test_a_signed_trailer_may_be_written_in_other_ways(raw: bytes) -> None:
    assert decode(body_of(TRAILED, trailers=[NAME]), raw)[1] == {NAME: "sOO8/Q=="}


def test_an_empty_body_has_one_chunk() -> None:
    assert decode(unsigned(0, ()), b"0\r\n\r\n") == (b"", {})
    assert decode(unsigned(0, ()), b"0\r\n") == (b"", {})


def test_data_comes_out_as_soon_as_it_came_in() -> None:
    body = unsigned(1000)
    assert [bytes(part) for part in body.feed(b"3e8\r\nabc")] == [b"abc"]
    assert [bytes(part) for part in body.feed(b"def")] == [b"def"]


@pytest.mark.parametrize("at", [0, 3, 90, 40_000, 65_530, 65_700, 66_500, 66_800, -90, -100, -160])
def test_one_flipped_bit_anywhere_is_refused(at: int) -> None:
    for raw, head, trailers in ((SIGNED, CHUNKED, ()), (SIGNED_AND_TRAILED, TRAILED, (NAME,))):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(SignatureRefused):
            decode(body_of(head, trailers=trailers), bytes(changed))


@pytest.mark.parametrize(
    ("raw", "head", "trailers"),
    [(SIGNED[:-2], CHUNKED, ()), (SIGNED_AND_TRAILED[:-4], TRAILED, (NAME,)), (UNSIGNED[:-2], None, (NAME,))],
    ids=["chunks", "trailer", "unsigned"],
)
def test_a_body_that_is_cut_off_anywhere_is_refused(
    raw: bytes, head: Head | None, trailers: tuple[str, ...]
) -> None:
    interesting = {*range(100), *range(len(raw) - 300, len(raw)), *range(65_500, 65_800)}
    for stop in sorted(at for at in interesting if 0 <= at < len(raw)):
        body = unsigned() if head is None else body_of(head, trailers=trailers)
        whole = raw[:stop].endswith(b"sOO8/Q==\r\n") and head is None
        if not whole:
            with pytest.raises(SignatureRefused):
                decode(body, raw[:stop])


def test_chunks_out_of_order_or_left_out_are_refused() -> None:
    to_second, to_rest = SIGNED.index(b"400;"), SIGNED.index(b"\r\n0;") + 2
    first, second, rest = SIGNED[:to_second], SIGNED[to_second:to_rest], SIGNED[to_rest:]
    assert decode(body_of(CHUNKED), first + second + rest)
    for raw in (second + first + rest, first + rest, first + first + rest, rest):
        with pytest.raises(SignatureRefused):
            decode(body_of(CHUNKED), raw)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"5\r\nabcde\r\n0\r\n" + TRAILER + b"\r\n\r\nmore", "IncompleteBody"),
        (b"6\r\nabcdef\r\n", "IncompleteBody"),
        (b"4\r\nabcd\r\n0\r\n" + TRAILER + b"\r\n\r\n", "IncompleteBody"),
        (b"5\r\nabcdef\r\n0\r\n", "IncompleteBody"),
        (b"ffffffffffffffff\r\n", "IncompleteBody"),
        (b"fffffffffffffffff\r\n", "IncompleteBody"),
        (b"-5\r\nabcde", "IncompleteBody"),
        (b"0x5\r\nabcde", "IncompleteBody"),
        (b"\r\n5\r\nabcde", "IncompleteBody"),
        (b"5 \r\nabcde", "IncompleteBody"),
        (b"\xd9\xa3\r\nabcde", "IncompleteBody"),
        (b"5;" + b"x" * LINE_BYTES_MAX, "IncompleteBody"),
        (b"5\r\nabcde\r\n0\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nabcde\r\n0\r\nx-amz-checksum-sha1:x\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nabcde\r\n0\r\n" + TRAILER + b"\r\n" + TRAILER + b"\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nabcde\r\n0\r\nno colon\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nabcde\r\n0\r\n: x\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nabcde\r\n0\r\nx-amz-trailer-signature:" + b"0" * 64 + b"\r\n\r\n", "MalformedTrailerError"),
        (b"5\r\nabcde\r\n0\r\n" + b"x" * (LINE_BYTES_MAX + 1), "IncompleteBody"),
    ],
)
def test_what_is_malformed_is_refused_by_its_code(raw: bytes, code: str) -> None:
    for cuts in ((), range(len(raw))):
        with pytest.raises(SignatureRefused) as refused:
            decode(unsigned(), raw, cuts)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (TRAILER + b"\r\n\r\n", "IncompleteBody"),
        (TRAILER_LINES.replace(b"d81f", b"d81e"), "SignatureDoesNotMatch"),
        (TRAILER_LINES.replace(b"sOO8", b"sOO9"), "SignatureDoesNotMatch"),
        (TRAILER_LINES.replace(b"d81f", b"d8"), "MalformedTrailerError"),
        (TRAILER_LINES.replace(b"d81f", b"\xff\xff\xff\xff"), "MalformedTrailerError"),
        (TRAILER_LINES[:-2] + TRAILER + b"\r\n\r\n", "MalformedTrailerError"),
        (TRAILER_LINES[len(TRAILER) + 2 :], "SignatureDoesNotMatch"),
    ],
)
def test_a_trailer_that_is_not_signed_as_it_stands_is_refused(lines: bytes, code: str) -> None:
    with pytest.raises(SignatureRefused) as refused:
        decode(body_of(TRAILED, trailers=[NAME]), signed_chunks(TRAILED_CHUNK_SIGNATURES) + lines)
    assert refused.value.code == code


def test_a_chunk_without_a_signature_is_refused_where_chunks_are_signed() -> None:
    for raw in (b"400\r\n" + b"a" * 1024, b"400;chunk-signature=\r\n", b"400;chunk-signature=" + b"A" * 64):
        with pytest.raises(SignatureRefused, match="the head of a chunk is malformed"):
            decode(body_of(CHUNKED), raw + b"\r\n")


@given(st.binary(max_size=80), TINY_CUTS)
def test_any_bytes_are_a_body_or_refused(raw: bytes, cuts: list[int]) -> None:
    for prefix in (b"", b"5\r\nabcde\r\n", b"5\r\nabcde\r\n0\r\n"):
        try:
            data, _ = decode(unsigned(5, ()), prefix + raw, cuts)
        except SignatureRefused:
            continue
        assert data == b"abcde"
