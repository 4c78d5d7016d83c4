"""Entries: how they are written down, and the laws of merge and digest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from swiftlike import digests
from swiftlike.digests import Digest, digest_of, fingerprint
from swiftlike.entries import (
    Entry,
    EntryDamaged,
    Version,
    body_in,
    decode,
    described_of,
    encode,
    merge,
    pack_metadata,
    unpack_metadata,
    which_shown,
)
from swiftlike.limits import METADATA_BYTES_MAX
from swiftlike.registers import (
    Register,
    Replaced,
    decode_register,
    encode_register,
    entry_in,
    never_accepted,
)
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Timestamp, WriteId

# Few values, so that equal ballots and equal write ids meet often.
few = st.integers(0, 2)
timestamps = st.builds(Timestamp.of, few, few)
ballots = st.builds(Ballot.of, few, few, timestamps)
write_ids = timestamps.map(WriteId)
wide = st.integers(0, 2**64 - 1)
versions = st.builds(Version, write_ids, ballots)
entries = st.builds(
    Entry,
    ballot=ballots,
    write_id=write_ids,
    modified=wide,
    tombstone=st.booleans(),
    body_id=write_ids,
    size=wide,
    metadata=st.binary(max_size=40),
    policy=st.integers(0, 65_535),
    objects=wide,
    delete_at=wide,
    base=st.none() | versions,
    incarnation=timestamps,
)
replaced = st.builds(Replaced, versions, st.none() | versions, st.booleans(), st.booleans())
registers = st.builds(
    Register,
    st.none() | entries,
    st.lists(replaced, max_size=8).map(tuple),
    st.none() | wide,
    ballots,
    st.just(value=False),
)


@given(registers, st.binary(max_size=20))
def test_what_is_told_of_what_is_encoded_is_what_it_decodes_to(register: Register, lead: bytes) -> None:
    raw = entry_in(lead + encode_register(register), len(lead))
    if register.entry is None:
        assert raw is None
    else:
        assert raw == encode(register.entry)
        assert body_in(raw) == (register.entry.body_id, register.entry.size)


@given(registers, st.data())
def test_an_entry_is_told_of_no_register_that_would_not_be_decoded(
    register: Register, data: st.DataObject
) -> None:
    raw = bytearray(encode_register(register))
    at = data.draw(st.integers(0, 15))
    raw[at] ^= data.draw(st.integers(1, 255))
    cut = bytes(raw[: data.draw(st.integers(16, len(raw)))])
    try:
        told = entry_in(cut)
    except EntryDamaged:
        with pytest.raises(EntryDamaged):
            decode_register(cut)
        return
    if told is not None and len(told) >= 112 and told[0] == 1:
        body_in(told)


@given(entries)
def test_an_entry_is_read_back_as_it_was_written(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(registers)
def test_a_register_is_read_back_as_it_was_written(register: Register) -> None:
    assert decode_register(encode_register(register)) == register


@given(entries, st.dictionaries(st.sampled_from(["etag", "type", "x"]), st.text(max_size=5) | wide))
def test_what_a_listing_shows_of_an_entry_is_what_the_entry_says(
    entry: Entry, metadata: dict[str, str | int]
) -> None:
    entry = entry._replace(metadata=pack_metadata(metadata))
    assert described_of(encode(entry)) == (entry.modified, entry.size, metadata)


@given(entries, st.data())
def test_nothing_is_shown_of_bytes_that_are_no_entry(entry: Entry, data: st.DataObject) -> None:
    raw = encode(entry._replace(metadata=pack_metadata({"etag": "e"})))
    newer = bytes([2]) + raw[1:]
    for wrong in (raw[: data.draw(st.integers(0, len(raw) - 1))], raw + b"\0", newer):
        with pytest.raises(EntryDamaged):
            described_of(wrong)


moments = st.sampled_from([0, 1, 4, 5, 6, 2**40, 2**63])


@given(st.lists(st.builds(Entry._replace, entries, delete_at=moments)), moments)
def test_which_of_many_are_shown_is_what_each_of_them_says(many: list[Entry], now_us: int) -> None:
    raws = [encode(entry) for entry in many]
    shown = [not entry.tombstone and not 0 < entry.delete_at <= now_us for entry in many]
    assert (which_shown(raws, now_us) or [True] * len(many)) == shown


@given(entries, st.data())
def test_an_entry_with_any_bit_flipped_is_refused(entry: Entry, data: st.DataObject) -> None:
    raw = bytearray(encode(entry))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EntryDamaged):
        decode(bytes(raw))


@given(entries, st.data())
def test_a_truncated_or_overlong_entry_is_refused(entry: Entry, data: st.DataObject) -> None:
    raw = encode(entry)
    for wrong in (raw[: data.draw(st.integers(0, len(raw) - 1))], raw + b"\0"):
        with pytest.raises(EntryDamaged):
            decode(wrong)


@given(st.binary(max_size=400))
def test_random_bytes_are_no_entry(raw: bytes) -> None:
    with pytest.raises(EntryDamaged):
        decode(raw)


def test_metadata_beyond_the_limit_is_refused_when_it_is_written() -> None:
    entry = Entry(ZERO_BALLOT, WriteId(bytes(16)), 0, metadata=bytes(METADATA_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="the limit is"):
        encode(entry)


def test_an_entry_of_a_newer_version_names_the_fix() -> None:
    raw = bytearray(encode(Entry(ZERO_BALLOT, WriteId(bytes(16)), 0)))
    raw[0] = 2
    with pytest.raises(EntryDamaged, match=r"version 2 .* upgrade"):
        decode(bytes(raw[:-8]) + xxh3_64_digest(bytes(raw[:-8])))


def test_the_recorded_sample_of_version_1_is_still_read() -> None:
    entry = Entry(
        Ballot.of(5, 6, Timestamp.of(3, 4)),
        WriteId(Timestamp.of(7, 8)),
        9,
        size=10,
        body_id=WriteId(Timestamp.of(7, 8)),
        metadata=pack_metadata({"content-type": "text/plain", "x": 1}),
        policy=2,
        delete_at=11,
        base=Version(WriteId(Timestamp.of(1, 2)), ZERO_BALLOT),
    )
    recorded = bytes.fromhex(
        "010200020000001c00000000000000030000000000000004000000000000000500000000000000060000000000000007"
        "0000000000000008000000000000000700000000000000080000000000000009000000000000000a0000000000000001"
        "000000000000000b00000000000000010000000000000002000000000000000000000000000000000000000000000000"
        "000000000000000082ac636f6e74656e742d74797065aa746578742f706c61696ea17801251ca5069d95311b"
    )
    assert decode(recorded) == entry
    assert encode(entry) == recorded


@given(entries, entries)
def test_merge_is_commutative(one: Entry, other: Entry) -> None:
    assert merge(one, other) == merge(other, one)


@given(entries, entries, entries)
def test_merge_is_associative(a: Entry, b: Entry, c: Entry) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(entries)
def test_merge_is_idempotent(entry: Entry) -> None:
    assert merge(entry, entry) == entry


@given(entries, entries)
def test_merge_keeps_the_newer_ballot(one: Entry, other: Entry) -> None:
    assert merge(one, other).ballot == max(one.ballot, other.ballot)


@given(st.dictionaries(st.binary(max_size=4), entries, max_size=8), st.randoms())
def test_a_digest_depends_on_the_set_of_entries_only(held: dict[bytes, Entry], random: object) -> None:
    items = list(held.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    digest = digests.EMPTY
    for key, entry in items:
        digest = digest.added(fingerprint(key, entry))
    assert digest == digest_of(held.items())
    assert Digest.decode(digest.encode()) == digest
    for key, entry in held.items():
        digest = digest.removed(fingerprint(key, entry))
    assert digest == digests.EMPTY


@given(st.binary(max_size=4), entries, st.binary(max_size=4), entries)
def test_two_keys_or_versions_never_share_a_fingerprint(one: bytes, a: Entry, other: bytes, b: Entry) -> None:
    same = (one, a.ballot, a.write_id) == (other, b.ballot, b.write_id)
    assert (fingerprint(one, a) == fingerprint(other, b)) == same


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.binary(max_size=5) | wide, max_size=5))
def test_metadata_is_one_canonical_map(metadata: dict[str, str | bytes | int]) -> None:
    raw = pack_metadata(metadata)
    assert unpack_metadata(raw) == metadata
    assert pack_metadata(dict(reversed(metadata.items()))) == raw


@pytest.mark.parametrize("raw", [b"", b"\x93\x01\x02\x03", b"\xdf\xff\xff\xff\xff", b"\x81\xa1"])
def test_what_is_no_map_is_no_metadata(raw: bytes) -> None:
    with pytest.raises(EntryDamaged):
        unpack_metadata(raw)


FIRST = Version(WriteId(Timestamp.of(10, 1)), Ballot.of(10, 1))
OTHER = Version(WriteId(Timestamp.of(5, 2)), Ballot.of(5, 2))
NEWER = Version(WriteId(Timestamp.of(20, 2)), Ballot.of(20, 2))


def accepted(version: Version, base: Version | None = None) -> Entry:
    """Return an entry of this version."""
    return Entry(version.ballot, version.write_id, 0, base=base)


@pytest.mark.parametrize(
    ("register", "never"),
    [
        pytest.param(Register(None), True, id="nothing was ever written"),
        pytest.param(Register(None, since_us=None), False, id="an owner without memory cannot tell"),
        pytest.param(Register(None, since_us=10), False, id="the floor stands at the first ballot"),
        pytest.param(Register(None, since_us=9), True, id="the floor stands below the first ballot"),
        pytest.param(Register(accepted(OTHER)), True, id="only something older is there"),
        pytest.param(Register(accepted(OTHER), since_us=None), True, id="something older bounds the memory"),
        pytest.param(Register(accepted(NEWER), since_us=None), False, id="memory begins too late"),
        pytest.param(Register(accepted(NEWER)), True, id="something newer, judged on nothing"),
        pytest.param(Register(accepted(NEWER, FIRST)), False, id="something was judged on it"),
        pytest.param(
            Register(accepted(NEWER, Version(OTHER.write_id, Ballot.of(11, 3)))),
            False,
            id="something was judged on something newer than it",
        ),
        pytest.param(Register(accepted(FIRST)), False, id="it is there"),
        pytest.param(Register(accepted(NEWER), (Replaced(FIRST),)), False, id="it was there"),
        pytest.param(
            Register(accepted(NEWER), (Replaced(Version(FIRST.write_id, Ballot.of(15, 9))),)),
            False,
            id="it was there under another ballot",
        ),
    ],
)
def test_never_accepted_is_said_only_when_it_is_certain(register: Register, never: bool) -> None:
    assert never_accepted(register, FIRST) is never
