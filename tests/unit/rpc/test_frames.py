"""The frame codec: what was sent is what is read, however it arrives; what is no frame is refused by name."""

import tracemalloc
from collections.abc import Iterable
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swiftlike.limits import RPC_BODY_BYTES_MAX, RPC_HEADER_BYTES_MAX
from swiftlike.rpc import frames
from swiftlike.rpc.errors import ForeignFrame, FrameDamaged, FrameError, FrameTooLarge, VersionMismatch
from swiftlike.rpc.frames import (
    FIXED,
    MAGIC,
    VERSION,
    Frame,
    FrameDecoder,
    Kind,
    checksum_of,
    encode,
)

GOLDEN_V1 = bytes.fromhex("736c01100000002a0000000c00000003158f3e49e14f421193a3707574cd03e881a16b01616263")
"""A CALL frame of version 1, recorded when the version was made; never edited."""

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
headers = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
bodies = st.binary(max_size=300) | st.integers(0, 70_000).map(
    lambda size: (b"0123456789abcdef" * 5000)[:size]
)
sent_frames = st.builds(
    Frame, st.sampled_from(Kind), st.integers(0, frames.CALL_ID_MAX), headers, bodies, st.just(0)
)


def wire(frame: Frame) -> bytes:
    return encode(frame.kind, frame.call_id, frame.header, frame.body) + bytes(frame.body)


def decode(data: bytes, pieces: Iterable[int] = (), *, trusted: bool = True) -> list[Frame]:
    """Feed `data` to a decoder in pieces of the given sizes (then whole buffers) and return its frames."""
    decoder = FrameDecoder()
    if trusted:
        decoder.trust()
    found: list[Frame] = []
    sizes = iter(pieces)
    while data:
        space = decoder.space()
        assert len(space) > 0
        taken = min(len(space), len(data), next(sizes, len(data)))
        space[:taken] = data[:taken]
        data = data[taken:]
        found.extend(Frame(f.kind, f.call_id, f.header, bytes(f.body)) for f in decoder.received(taken))
    return found


@settings(deadline=None)
@given(st.lists(sent_frames, max_size=5), st.lists(st.integers(1, 50_000), max_size=30))
def test_frames_survive_any_way_of_being_cut_into_pieces(sent: list[Frame], pieces: list[int]) -> None:
    assert decode(b"".join(map(wire, sent)), pieces) == sent


def test_frames_that_arrive_byte_by_byte_are_whole() -> None:
    sent = [Frame(Kind.CALL, n, ("put", 1000, {"key": "k" * n}), b"b" * n * 7) for n in range(20)]
    assert decode(b"".join(map(wire, sent)), [1] * 10_000) == sent


def test_the_largest_frame_travels_and_one_byte_more_is_refused_on_both_ends() -> None:
    largest = Frame(Kind.CALL, 1, None, bytes(RPC_BODY_BYTES_MAX))
    assert decode(wire(largest)) == [largest]
    with pytest.raises(FrameTooLarge, match="body of 1048577 bytes is above the limit of 1048576"):
        encode(Kind.CALL, 1, None, bytes(RPC_BODY_BYTES_MAX + 1))
    with pytest.raises(FrameTooLarge, match="header"):
        encode(Kind.CALL, 1, bytes(RPC_HEADER_BYTES_MAX), b"")
    with pytest.raises(FrameTooLarge, match="body"):
        decode(FIXED.pack(MAGIC, VERSION, Kind.CALL, 1, 0, RPC_BODY_BYTES_MAX + 1, 0))


def test_a_recorded_frame_of_version_1_is_still_read_and_still_written() -> None:
    frame = Frame(Kind.CALL, 42, ("put", 1000, {"k": 1}), b"abc")
    assert decode(GOLDEN_V1) == [frame]
    assert wire(frame) == GOLDEN_V1


@pytest.mark.parametrize(
    ("first_bytes", "error", "named"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", ForeignFrame, "begins with b'GE'", id="http"),
        pytest.param(b"\x16\x03\x01\x02", ForeignFrame, "something else than swiftlike", id="tls"),
        pytest.param(
            MAGIC + b"\x02\x01", VersionMismatch, "speaks version 2 .* this process version 1", id="version"
        ),
        pytest.param(MAGIC + b"\x01\xff", FrameDamaged, "no frame of kind 255", id="kind"),
    ],
)
def test_the_first_four_bytes_are_enough_to_refuse_by_name(
    first_bytes: bytes, error: type[FrameError], named: str
) -> None:
    with pytest.raises(error, match=named):
        decode(first_bytes)


@pytest.mark.parametrize(("header_bytes", "body_bytes"), [(2**32 - 1, 0), (0, 2**32 - 1), (2**31, 2**31)])
def test_a_huge_length_is_refused_before_memory_is_set_aside(header_bytes: int, body_bytes: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooLarge):
            decode(FIXED.pack(MAGIC, VERSION, Kind.CALL, 1, header_bytes, body_bytes, 0))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_stranger_may_send_neither_a_body_nor_a_large_header() -> None:
    with pytest.raises(FrameTooLarge, match="body of 1 bytes is above the limit of 0"):
        decode(wire(Frame(Kind.HELLO, 0, None, b"x")), trusted=False)
    with pytest.raises(FrameTooLarge, match="header"):
        decode(wire(Frame(Kind.HELLO, 0, bytes(300), b"")), trusted=False)


@given(sent_frames, st.data())
def test_a_flipped_bit_is_found_or_leaves_the_frame_waiting_for_more(
    frame: Frame, data: st.DataObject
) -> None:
    sound = wire(frame)
    flipped = bytearray(sound)
    bit = data.draw(st.integers(0, len(sound) * 8 - 1))
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        assert decode(bytes(flipped)) == []
    except FrameError:
        return
    lengths = range(8, 16)
    assert bit // 8 in lengths, "only a length can make a frame seem unfinished"


@given(st.binary(max_size=4000), st.booleans())
@example(MAGIC, True)
def test_random_bytes_are_refused_or_wait_for_more(data: bytes, trusted: bool) -> None:
    with suppress(FrameError):
        assert decode(data, trusted=trusted) == []


@given(st.binary(max_size=200))
def test_a_sound_checksum_over_a_header_that_is_not_msgpack_is_refused(header: bytes) -> None:
    """A forger can compute the checksum, so what msgpack makes of anything must be a value or a typed error."""
    fixed = FIXED.pack(MAGIC, VERSION, Kind.CALL, 7, len(header), 0, checksum_of(Kind.CALL, 7, header, b""))
    with suppress(FrameDamaged):
        assert len(decode(fixed + header)) == 1


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of four billion"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of four billion"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="four gigabytes of bytes"),
        pytest.param(b"\x91" * 60_000, id="sixty thousand levels deep"),
        pytest.param(b"\xa2\xff\xff", id="text that is not UTF-8"),
        pytest.param(b"\xd6\xff\xff\xff\xff", id="cut extension"),
        pytest.param(b"\x81\x90\x01", id="a map keyed by an array"),
        pytest.param(b"\x01\x01", id="two values"),
        pytest.param(b"", id="no value"),
    ],
)
def test_a_malicious_header_is_refused_in_bounded_memory(header: bytes) -> None:
    fixed = FIXED.pack(MAGIC, VERSION, Kind.CALL, 7, len(header), 0, checksum_of(Kind.CALL, 7, header, b""))
    tracemalloc.start()
    try:
        with pytest.raises(FrameDamaged):
            decode(fixed + header)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@given(sent_frames, st.data())
def test_a_truncated_frame_yields_nothing_and_is_known_to_be_midway(
    frame: Frame, data: st.DataObject
) -> None:
    whole = wire(frame)
    cut = data.draw(st.integers(1, len(whole) - 1))
    decoder = FrameDecoder()
    decoder.trust()
    left = whole[:cut]
    while left:
        space = decoder.space()
        taken = min(len(space), len(left))
        space[:taken] = left[:taken]
        left = left[taken:]
        assert list(decoder.received(taken)) == []
    assert decoder.midway


def test_the_buffer_of_a_busy_connection_stays_bounded() -> None:
    decoder = FrameDecoder()
    decoder.trust()
    small = wire(Frame(Kind.CALL, 1, ("put", 1, {}), b"x" * 4096)) * 1000
    while small:
        space = decoder.space()
        assert len(space) <= 512 * 1024
        taken = min(len(space), len(small))
        space[:taken] = small[:taken]
        small = small[taken:]
        for frame in decoder.received(taken):
            assert len(frame.body) == 4096


def test_the_buffer_of_a_connection_that_is_no_longer_busy_shrinks_again() -> None:
    decoder = FrameDecoder()
    decoder.trust()
    small = wire(Frame(Kind.CALL, 1, ("put", 1, {}), b"x" * 1000))
    while len(decoder.space()) < 200_000:
        space = decoder.space()
        data = (small * (len(space) // len(small) + 1))[: len(space)]
        space[:] = data
        frames_found = list(decoder.received(len(space)))
        assert frames_found
        rest = small[len(data) % len(small) :] if len(data) % len(small) else b""
        decoder.space()[: len(rest)] = rest
        list(decoder.received(len(rest)))
    for _ in range(300):
        decoder.space()[: len(small)] = small
        assert len(list(decoder.received(len(small)))) == 1
    assert len(decoder.space()) == 16 * 1024
