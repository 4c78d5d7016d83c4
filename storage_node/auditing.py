"""Auditing: what an index says of itself, held against what is in it, in slices.

Pure over a view. Owns what counts as damage of a value, of a bucket's digest and of a listing's tallies. A slice is seen at
one moment, so that nothing which is written meanwhile looks like damage. Never mends anything, never reads a body.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from storage_node import keys, partition_digests
from storage_node.errors import IndexDamaged
from storage_node.keys import HEAD_KEY_BYTES, Key, Layout, Listing
from storage_node.keyvalues import Reading
from storage_node.tables import REGISTER_TABLES, Held, decode_head, decode_held
from storage_node.tallies import Sums
from swiftlike.digests import EMPTY, Digest, fingerprint
from swiftlike.entries import EntryDamaged, decode

_ABOVE_ALL: Final = b"\x7f"
"""Above the names of all tables."""


class AuditedValues(NamedTuple):
    """A slice of all values of an index."""

    seen: int
    damaged: tuple[bytes, ...]
    """The keys of those that fail their checksum."""
    after: bytes | None
    """What the next slice is behind; None: this was the last."""


class AuditedBuckets(NamedTuple):
    """A slice of registers: some whole buckets of them."""

    registers: tuple[tuple[Key, Held], ...]
    drifted: tuple[bytes, ...]
    """The head keys of buckets whose digest is not that of their entries."""
    start: bytes | None
    """Where the next slice begins; None: this was the last."""


class RangeOf(NamedTuple):
    """A range of a listing; without a name, the whole listing."""

    listing: Listing
    first: bytes | None


class AuditedListings(NamedTuple):
    """A slice of the listings: some whole ranges of them."""

    rows: int
    drifted: tuple[RangeOf, ...]
    """What is tallied otherwise than its rows, or its ranges, add up to."""
    start: bytes | None
    """Where the next slice begins; None: this was the last."""


class AuditedPartitions(NamedTuple):
    """Some partitions of a table of registers, or of the rows under one."""

    entries: int
    """How much they hold."""
    drifted: tuple[int, ...]
    """Those whose digest is not what it is added up from."""


def audit_values(view: Reading, after: bytes, limit: int) -> AuditedValues:
    """Check up to `limit` values, of whatever table, from behind a key."""
    seen, damaged, key = 0, [], after
    for key, value in islice(view.scan_sound(after + b"\0", _ABOVE_ALL), limit):  # the last is told
        seen += 1
        if value is None:
            damaged.append(key)
    return AuditedValues(seen, tuple(damaged), key if seen == limit else None)


def audit_buckets(view: Reading, start: bytes, registers_min: int) -> AuditedBuckets:
    """Check buckets from a key on, until they held so many registers; a bucket with a damaged value is not judged."""
    registers: list[tuple[Key, Held]] = []
    drifted: list[bytes] = []
    head_key, stored, counted, is_sound = b"", EMPTY, EMPTY, True
    for key, raw in _registers_and_heads(view, start):
        if key[:HEAD_KEY_BYTES] != head_key:
            if is_sound and stored != counted:
                drifted.append(head_key)
            if len(registers) >= registers_min:
                return AuditedBuckets(tuple(registers), tuple(drifted), key[:HEAD_KEY_BYTES])
            head_key, stored, counted, is_sound = key[:HEAD_KEY_BYTES], EMPTY, EMPTY, True
        try:
            if raw is None:
                is_sound = False
            elif len(key) == HEAD_KEY_BYTES:
                stored = decode_head(key, raw)
            else:
                held = decode_held(key, raw)
                registers.append((keys.key_of(key), held))
                if held.register.entry is not None:
                    counted = counted.added(fingerprint(key[HEAD_KEY_BYTES:], held.register.entry))
        except IndexDamaged:
            is_sound = False
    if is_sound and stored != counted:
        drifted.append(head_key)
    return AuditedBuckets(tuple(registers), tuple(drifted), None)


def count_bucket(view: Reading, head_key: bytes) -> Digest:
    """Return the digest of a bucket's entries, as they stand. Raises IndexDamaged."""
    counted = EMPTY
    for key, raw in view.scan(head_key + b"\0", keys.after(head_key)):
        entry = decode_held(key, raw).register.entry
        if entry is not None:
            counted = counted.added(fingerprint(key[HEAD_KEY_BYTES:], entry))
    return counted


def audit_listings(view: Reading, start: bytes, rows_min: int) -> AuditedListings:
    """Check tallies from a key on, until so many rows were counted. What waits to be swept is not judged.

    Each range's first, against its rows; then the listing's, against those of its ranges.
    """
    rows, drifted = 0, []
    cursor: bytes | None = start or b"s"
    while cursor is not None and rows < rows_min:
        if cursor[:1] == b"s":
            tally_key = _next_listing(view, cursor)
            cursor = None if tally_key is None else b"g" + tally_key[1:]
        else:
            counted, bad, cursor = _judge_range(view, cursor)
            rows += counted
            drifted += bad
    return AuditedListings(rows, tuple(drifted), cursor)


def count_range(view: Reading, listing_prefix: bytes, first: bytes, stop: bytes | None) -> Sums:
    """Return what the rows of a range add up to, as they stand; `stop` is where the next range begins. Raises IndexDamaged."""
    sums = Sums()
    end = keys.after(listing_prefix) if stop is None else listing_prefix + stop
    for key, raw in view.scan(listing_prefix + first, end):
        try:
            sums.add(key[len(listing_prefix) :], decode(raw))
        except EntryDamaged as error:
            raise IndexDamaged(f"index key {key[:80]!r}: {error}") from None
    return sums


def next_range(view: Reading, listing_prefix: bytes, first: bytes) -> bytes | None:
    """Return the name at which the range behind one begins."""
    lead = keys.range_key(listing_prefix, b"")
    for key, _ in view.scan_sound(lead + first + b"\0", keys.after(lead)):
        return key[len(lead) :]
    return None


def audit_partitions(view: Reading, layout: Layout, kind: bytes, first: int, stop: int) -> AuditedPartitions:
    """Check the digests of partitions against what they are added up from; where that cannot be read, nothing is judged."""
    try:
        counted = partition_digests.count(view, layout, kind, first, stop)
        stored = partition_digests.read_many(view, layout, kind, range(first, stop))
    except IndexDamaged:
        return AuditedPartitions(0, ())  # told as a damaged value
    drifted = tuple(number for number, digest in stored.items() if digest != counted.get(number, EMPTY))
    return AuditedPartitions(sum(digest.entries for digest in counted.values()), drifted)


def _registers_and_heads(view: Reading, start: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    for letter in REGISTER_TABLES:
        if start < keys.after(letter):
            yield from view.scan_sound(max(start, letter), keys.after(letter))


def _next_listing(view: Reading, start: bytes) -> bytes | None:
    for key, _ in view.scan_sound(start, keys.after(b"s")):
        if view.get(b"w" + key[1:]) is None:
            return key
    return None


def _judge_listing(view: Reading, tally_key: bytes) -> list[RangeOf]:
    lead = b"g" + tally_key[1:]
    whole = Sums()
    try:
        for _, raw in view.scan(lead, keys.after(lead)):
            whole.include(Sums.decode(raw))
        if whole == Sums.decode(view.get(tally_key)):
            return []
    except IndexDamaged:
        return []  # told as a damaged value
    return [RangeOf(keys.split_row_key(b"r" + tally_key[1:])[0], None)]


def _judge_range(view: Reading, range_key: bytes) -> tuple[int, list[RangeOf], bytes]:
    """Return how many rows a range has, what has drifted of it and of its listing, and what is to be looked at next."""
    listing, first = keys.split_row_key(b"r" + range_key[1:])
    lead = range_key[: len(range_key) - len(first)]
    prefix, tally_key = b"r" + lead[1:], b"s" + lead[1:]
    stop = next_range(view, prefix, first)
    bad, rows = [], 0
    try:
        counted = count_range(view, prefix, first, stop)
        rows = counted.rows_and_tombstones
        if counted != Sums.decode(view.get(range_key)):
            bad.append(RangeOf(listing, first))
    except IndexDamaged:
        pass  # told as a damaged value
    if stop is not None:
        return rows + 1, bad, lead + stop
    return rows + 1, [*bad, *_judge_listing(view, tally_key)], tally_key + b"\0"
