"""Manifests and the names of what belongs to uploads: laws over all lists of parts, and tables."""

import hashlib
from base64 import b64encode

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import manifests
from proxy.store.manifests import Manifest, ManifestRefused, Origin, Part
from proxy.store.names import ContainerName, ObjectName
from proxy.store.upload_names import (
    UploadName,
    attempted_us,
    began_us,
    is_upload_id,
    split_part,
    split_record,
    upload_id,
    upload_of_part,
)
from swiftlike.limits import PARTS_MAX, RPC_BODY_BYTES_MAX
from swiftlike.timestamps import Timestamp

INCARNATION = Timestamp.of(1_700_000_000_000_000, 7)

plain = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).map(str.encode)
hidden = st.booleans().flatmap(lambda is_hidden: plain.map(lambda name: b"\0" + name if is_hidden else name))
names = st.builds(
    ObjectName, hidden, plain, st.one_of(hidden, st.builds(lambda a, b: a + b"\0" + b, plain, plain))
)
parts = st.builds(
    Part,
    names,
    st.integers(0, 5 * 1024**3),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.binary(max_size=32).map(lambda raw: b64encode(raw).decode()),
)
sizes = st.lists(st.integers(0, 7), max_size=12)


@given(st.lists(parts, max_size=20))
def test_a_manifest_is_read_as_it_was_written(some: list[Part]) -> None:
    assert manifests.unpack(manifests.pack(Manifest(some))).parts == tuple(some)


def sized(number: int, size: int) -> Part:
    return Part(ObjectName(b"a", b"c", b"%d" % number), size, "0" * 32)


@given(sizes, st.integers(0, 90), st.integers(0, 90))
def test_ranges_over_parts_are_ranges_over_their_sum(found: list[int], start: int, stop: int) -> None:
    manifest = Manifest(sized(number, size) for number, size in enumerate(found))
    bodies = {part.name: bytes([65 + at]) * part.size for at, part in enumerate(manifest.parts)}
    whole = b"".join(bodies.values())
    assert manifest.size == len(whole)
    pieces = manifest.pieces(start, stop)
    assert all(0 <= piece.start < piece.stop <= piece.part.size for piece in pieces)
    read = b"".join(bodies[piece.part.name][piece.start : piece.stop] for piece in pieces)
    assert read == whole[start:stop]


@given(sizes.filter(bool))
def test_the_spans_of_all_parts_are_the_whole(found: list[int]) -> None:
    manifest = Manifest(sized(number, size) for number, size in enumerate(found))
    at = 0
    for number, size in enumerate(found, 1):
        assert manifest.span(number) == (at, at + size)
        at += size


def longest(count: int) -> Manifest:
    """Parts with all that a part can have, of an upload in the bucket with the longest names."""
    upload = UploadName(
        ContainerName(b"a" * 256, b"b" * 63), INCARNATION, 0, b"k", upload_id(2**63, b"r" * 16)
    )
    return Manifest(
        Part(
            upload.part(number, hashlib.sha256(b"%d" % number).hexdigest()[:24]),
            5 * 1024**3,
            hashlib.md5(b"%d" % number).hexdigest(),
            b64encode(hashlib.sha256(b"%d" % number).digest()).decode(),
        )
        for number in range(1, count + 1)
    )


def test_the_longest_manifest_there_can_be_fits_a_frame() -> None:
    raw = manifests.pack(longest(PARTS_MAX))
    assert len(raw) < RPC_BODY_BYTES_MAX
    assert manifests.unpack(raw).parts == longest(PARTS_MAX).parts


def test_what_no_manifest_can_hold_is_refused() -> None:
    with pytest.raises(ManifestRefused, match="10001 parts"):
        manifests.pack(longest(PARTS_MAX + 1))
    unlike = (hashlib.sha256(b"%d" % at).hexdigest().encode() * 12 for at in range(PARTS_MAX))
    with pytest.raises(ManifestRefused, match="the limit is"):
        manifests.pack(Manifest(Part(ObjectName(b"a", b"c", name), 1, "0" * 32) for name in unlike))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"text",
        msgpack.packb([]),
        msgpack.packb([2]),
        msgpack.packb({1: 2}),
        msgpack.packb([1, 5]),
        msgpack.packb([1, [0, b"a\0b\0c", 1, b""]]),
        msgpack.packb([1, [0, "a", 1, b"", b""]]),
        msgpack.packb([1, [b"", b"a", 1, b"", b""]]),
        msgpack.packb([1, [0, b"a\0b\0c", b"1", b"", b""]]),
        msgpack.packb([1, *[[]] * (PARTS_MAX + 1)]),
    ],
    ids=range(12),
)
def test_bytes_that_are_no_manifest_are_refused(raw: bytes) -> None:
    with pytest.raises(ManifestRefused):
        manifests.unpack(raw)


def test_an_object_tells_that_it_is_a_manifest_and_keeps_that_to_itself() -> None:
    said = manifests.attributes_for(longest(3), Origin("u", "f", INCARNATION))
    assert manifests.is_manifest(said)
    assert said.keys() == manifests.ATTRIBUTES
    assert manifests.without({**said, "type": "x"}) == {"type": "x"}
    assert manifests.only({**said, "type": "x"}) == said


# --- names ----------------------------------------------------------------------------------------------------------


@given(
    plain,
    plain.filter(lambda name: b"/" not in name),
    plain,
    st.integers(1, PARTS_MAX),
    st.integers(0, 2**64 - 1),
)
def test_what_belongs_to_an_upload_is_known_by_its_name(
    account: bytes, bucket: bytes, key: bytes, number: int, began: int
) -> None:
    upload = UploadName(ContainerName(account, bucket), INCARNATION, 3, key, upload_id(began, b"r" * 16))
    assert is_upload_id(upload.id)
    assert began_us(upload.id) == began
    part = upload.part(number, f"{began:016x}01234567")
    assert (split_part(part.name), attempted_us(part.name)) == (number, began)
    assert upload_of_part(part, 3, key) == upload
    assert split_record(upload.record.name) == (key, upload.id)
    assert upload_of_part(upload.record, 3, key) is None


@pytest.mark.parametrize(
    "name",
    [
        ObjectName(b"a", b"b/" + INCARNATION.hex().encode(), b"p" + b"0" * 48 + b"/00001/0"),
        ObjectName(b"\0a", b"b", b"p" + b"0" * 48 + b"/00001/0"),
        ObjectName(b"\0a", b"b/no", b"p" + b"0" * 48 + b"/00001/0"),
        ObjectName(b"\0a", b"b/" + INCARNATION.hex().encode(), b"p" + b"0" * 47 + b"/00001/0"),
        ObjectName(b"\0freeing", b"00", b"u" + b"0" * 48),
    ],
)
def test_other_objects_are_no_parts(name: ObjectName) -> None:
    assert upload_of_part(name, 0, b"key") is None


@given(st.lists(st.integers(1, PARTS_MAX), max_size=30), plain)
def test_parts_are_listed_in_the_order_of_their_numbers(numbers: list[int], key: bytes) -> None:
    upload = UploadName(ContainerName(b"a", b"b"), INCARNATION, 0, key, "0" * 48)
    found = sorted(upload.part(number, "0" * 24).name for number in numbers)
    assert [split_part(name) for name in found] == sorted(numbers)
    for name in found:
        for number in numbers:
            assert (name > upload.parts_after(number)) == (split_part(name) > number)
