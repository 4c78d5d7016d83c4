"""Entries: one key's versioned state, how it is written down, and how two copies merge.

Owns the byte layout, the same in an index, in a volume record and on the wire. Never knows where a body lies: that
is each device's own business.

    entry, version 1, big-endian:  offset  size  field
                                        0     1  version = 1
                                        1     1  flags: bit 0 tombstone, bit 1 has a base, bit 2 has an incarnation
                                        2     2  policy
                                        4     4  metadata_bytes
                                        8    32  ballot
                                       40    16  write id
                                       56    16  body id; zero when there is no body
                                       72     8  modified, microseconds
                                       80     8  size, bytes of the body (of all bodies, in a container's row)
                                       88     8  objects that the entry stands for
                                       96     8  delete_at, microseconds; zero for never
                                      104    48  base: write id and ballot, if flagged
                                             16  incarnation, if flagged
                                                 metadata, a msgpack map that only proxies read
                                              8  xxh3_64 of all before
"""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple, cast

import msgpack
from xxhash import xxh3_64_digest

from swiftlike.limits import METADATA_BYTES_MAX
from swiftlike.timestamps import NO_INCARNATION, NO_WRITE, Ballot, Timestamp, WriteId

_FIXED: Final = Struct(">BBHI32s16s16sQQQQ")
assert _FIXED.size == 104, "the table and the code must agree"
_VERSION: Final = 1
_TOMBSTONE, _BASE, _INCARNATION = 1, 2, 4
_CHECKSUM_BYTES: Final = 8
_DELETE_AT: Final = _FIXED.size - 8
_NEVER: Final = bytes(8)

ENTRY_BYTES_MAX: Final = _FIXED.size + 48 + 16 + METADATA_BYTES_MAX + _CHECKSUM_BYTES

NO_METADATA: Final = b"\x80"
"""The empty map."""


class EntryDamaged(ValueError):
    """Bytes that are not an entry of a known version, or no longer the one that was written."""


class Version(NamedTuple):
    """A ballot and the write it was given to: what a write replaced, or what it was judged on."""

    write_id: WriteId
    ballot: Ballot


class Entry(NamedTuple):
    """One key's state under one ballot.

    A NamedTuple where our other values are dataclasses: it is made for every write and every read, and a frozen
    dataclass of this many fields costs four times as much.
    """

    ballot: Ballot
    write_id: WriteId
    modified: int
    """Microseconds; shown to clients, and kept when the entry is carried through under a new ballot."""
    tombstone: bool = False
    body_id: WriteId = NO_WRITE
    """The write that stored the body; a POST keeps it. NO_WRITE where nothing has a body: containers, rows, tombstones."""
    size: int = 0
    metadata: bytes = NO_METADATA
    policy: int = 0
    objects: int = 1
    """Objects that a row stands for: one, or a container's count in a row of its account."""
    delete_at: int = 0
    """Microseconds after which the object counts as absent; zero for never."""
    base: Version | None = None
    """For a conditional write: the entry it was judged on."""
    incarnation: Timestamp = NO_INCARNATION
    """For a container: the timestamp of its creation, kept by every later write of it, its tombstone included."""

    @property
    def version(self) -> Version:
        """What another entry names to say that it replaced this one, or was judged on it."""
        return Version(self.write_id, self.ballot)

    @property
    def has_body(self) -> bool:
        """Whether a device must hold bytes for this entry before its accept counts."""
        return self.body_id != NO_WRITE


def merge(one: Entry, other: Entry) -> Entry:
    """Return the newer of two copies of a key.

    Commutative, associative and idempotent. One ballot is given to one write only; should a fault ever break that, all
    devices still settle on the same copy.
    """
    return max(one, other, key=lambda entry: (entry.ballot, entry.write_id, encode(entry)))


def encode(entry: Entry) -> bytes:
    """Write an entry down. Raises ValueError when the metadata is larger than METADATA_BYTES_MAX."""
    metadata = entry.metadata
    if len(metadata) > METADATA_BYTES_MAX:
        raise ValueError(f"metadata is {len(metadata)} bytes long; the limit is {METADATA_BYTES_MAX}")
    flags, extra = int(entry.tombstone), b""
    if entry.base is not None:
        flags |= _BASE
        extra = entry.base.write_id + entry.base.ballot
    if entry.incarnation != NO_INCARNATION:
        flags |= _INCARNATION
        extra += entry.incarnation
    fixed = _FIXED.pack(
        _VERSION,
        flags,
        entry.policy,
        len(metadata),
        entry.ballot,
        entry.write_id,
        entry.body_id,
        entry.modified,
        entry.size,
        entry.objects,
        entry.delete_at,
    )
    raw = fixed + extra + metadata
    return raw + xxh3_64_digest(raw)


def decode(raw: bytes) -> Entry:
    """Read an entry. Raises EntryDamaged when it is truncated, changed, too long or of an unknown version."""
    if not _FIXED.size + _CHECKSUM_BYTES <= len(raw) <= ENTRY_BYTES_MAX:
        raise EntryDamaged(f"{len(raw)} bytes cannot be an entry")
    if xxh3_64_digest(raw[:-_CHECKSUM_BYTES]) != raw[-_CHECKSUM_BYTES:]:
        raise EntryDamaged("entry checksum mismatch")
    return decode_trusted(raw)


def decode_trusted(raw: bytes) -> Entry:
    """Read an entry out of bytes that a checksum around them already covers."""
    (
        format_version,
        flags,
        policy,
        metadata_bytes,
        ballot,
        write_id,
        body_id,
        modified,
        size,
        objects,
        delete_at,
    ) = _FIXED.unpack_from(raw)
    if format_version != _VERSION:
        raise _unknown_version(format_version)
    at, base, incarnation = _FIXED.size, None, NO_INCARNATION
    if flags & _BASE:
        base = Version(WriteId(raw[at : at + 16]), Ballot(raw[at + 16 : at + 48]))
        at += 48
    if flags & _INCARNATION:
        incarnation = Timestamp(raw[at : at + 16])
        at += 16
    metadata = raw[at : at + metadata_bytes]
    if at + metadata_bytes + _CHECKSUM_BYTES != len(raw) or flags > _TOMBSTONE | _BASE | _INCARNATION:
        raise EntryDamaged("entry lengths do not add up")
    return Entry(
        Ballot(ballot),
        WriteId(write_id),
        modified,
        bool(flags & _TOMBSTONE),
        WriteId(body_id),
        size,
        metadata,
        policy,
        objects,
        delete_at,
        base,
        incarnation,
    )


def is_hidden(raw: bytes, now_us: int) -> bool:
    """Say of an encoded entry, which a checksum around it covers, whether it shows nothing: a tombstone, or due."""
    if raw[1] & _TOMBSTONE:
        return True
    due = raw[_DELETE_AT : _FIXED.size]
    return due != _NEVER and int.from_bytes(due, "big") <= now_us


def which_shown(raws: Sequence[bytes], now_us: int) -> list[bool] | None:
    """Say of each of many encoded entries whether it is shown; None: all are, which is told without a step for each."""
    if not any(flags & _TOMBSTONE for flags in set(map(_flags_of, raws))) and {_NEVER}.issuperset(
        map(_due_of, raws)
    ):
        return None
    return [not is_hidden(raw, now_us) for raw in raws]


_flags_of: Final = itemgetter(1)
_due_of: Final = itemgetter(slice(_DELETE_AT, _FIXED.size))


class Counted(NamedTuple):
    """What a row adds to the sums of its listing."""

    tombstone: bool
    policy: int
    size: int
    objects: int


def counted_of(raw: bytes) -> Counted:
    """Return what an encoded entry, which a checksum around it covers, adds to sums."""
    _, flags, policy, _, _, _, _, _, size, objects, _ = _FIXED.unpack_from(raw)
    return Counted(bool(flags & _TOMBSTONE), policy, size, objects)


def described_of(raw: bytes) -> tuple[int, int, dict[str, str | bytes | int]]:
    """Return what a listing shows of an encoded entry, which a checksum around it covers: when it was modified, its size and its
    metadata.

    A page has a thousand of them, and the whole entry costs three times as much. Raises EntryDamaged when it is none of a known
    version.
    """
    bytes_before = len(raw) - _CHECKSUM_BYTES
    if bytes_before < _FIXED.size:
        raise EntryDamaged(f"{len(raw)} bytes cannot be an entry")
    format_version, flags, metadata_bytes, modified, size = _DESCRIBED.unpack_from(raw)
    start = _FIXED.size + _EXTRA_BYTES.get(flags & (_BASE | _INCARNATION), 0)
    if format_version != _VERSION or start + metadata_bytes != bytes_before:
        decode_trusted(raw)  # which says what is wrong with it
    return modified, size, unpack_metadata(raw[start:bytes_before])


_EXTRA_BYTES: Final = {_BASE: 48, _INCARNATION: 16, _BASE | _INCARNATION: 64}
_DESCRIBED: Final = Struct(">BB2xI64xQQ")
assert _DESCRIBED.size == 88, "the table and the code must agree"
_BODY: Final = Struct(">B55x16s8xQ")
assert _BODY.size == 88, "the table and the code must agree"


def body_in(raw: bytes) -> tuple[WriteId, int]:
    """Return which body an encoded entry, which a checksum around it covers, has, and its size.

    Raises EntryDamaged for an unknown version; nothing else of the entry is looked at.
    """
    format_version, body_id, size = _BODY.unpack_from(raw)
    if format_version != _VERSION:
        raise _unknown_version(format_version)
    return WriteId(body_id), size


def _unknown_version(found: int) -> EntryDamaged:
    return EntryDamaged(f"entry version {found} is not known to this release; upgrade it")


def pack_metadata(metadata: Mapping[str, str | bytes | int]) -> bytes:
    """Encode a metadata map in one canonical order, so that equal maps are equal bytes."""
    return cast(bytes, msgpack.packb(dict(sorted(metadata.items()))))


def unpack_metadata(raw: bytes) -> dict[str, str | bytes | int]:
    """Decode a metadata map. Raises EntryDamaged when it is not one."""
    if len(raw) > METADATA_BYTES_MAX:
        raise EntryDamaged(f"metadata is {len(raw)} bytes long; the limit is {METADATA_BYTES_MAX}")
    try:
        found = msgpack.unpackb(raw)
    except (ValueError, msgpack.UnpackException) as error:
        raise EntryDamaged(f"metadata is not a msgpack map: {error}") from None
    if not isinstance(found, dict):
        raise EntryDamaged(f"metadata is a {type(found).__name__}, not a map")
    return found
