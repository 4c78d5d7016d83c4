"""Partition digests: of all registers of a partition, and of all rows under them, kept beside what they sum up.

Owns where they stand and how they are counted: from the heads of buckets and the tallies of listings, once for a part power,
and anew where an audit finds that they drifted. Each commit moves them with its entries (`tables.Change`), so that two devices
compare all that they share by reading a few kilobytes, whatever they hold, also right after a start.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ring.hashing import HASH_BITS
from storage_node import keys
from storage_node.index import Index
from storage_node.keys import BUCKET_BITS, HEAD_KEY_BYTES, Layout
from storage_node.keyvalues import Reading
from storage_node.rows import scan_listing_digests
from storage_node.tables import decode_head, decode_held
from swiftlike.digests import EMPTY, Digest, fingerprint

_SOUGHT_MAX: Final = 4
"""Partitions that are looked up one by one; more are read in one go, with whatever stands between them."""


def kinds(layout: Layout) -> list[bytes]:
    """Return the tables that have digests of partitions: of registers, and of the rows under them."""
    return [
        kind for table in layout.part_powers for kind in (table, keys.ROWS_OF.get(table)) if kind is not None
    ]


def read_many(view: Reading, layout: Layout, kind: bytes, partitions: Sequence[int]) -> dict[int, Digest]:
    """Return the digests of these partitions, as they stand."""
    power = keys.power_of(layout, kind)
    if len(partitions) <= _SOUGHT_MAX:
        sought = {number: keys.digest_key(kind, power, number) for number in partitions}
        raws = {number: view.get(key) for number, key in sought.items()}
        return {
            number: EMPTY if raw is None else decode_head(sought[number], raw) for number, raw in raws.items()
        }
    first, last = min(partitions), max(partitions)
    start, stop = (keys.digest_key(kind, power, number) for number in (first, last + 1))
    found, found_raws = view.take(start, stop, last + 1 - first)
    stood = {
        keys.partition_in(key): decode_head(key, raw) for key, raw in zip(found, found_raws, strict=True)
    }
    return {number: stood.get(number, EMPTY) for number in partitions}


def count(view: Reading, layout: Layout, kind: bytes, first: int, stop: int) -> dict[int, Digest]:
    """Count the digests of the partitions `[first, stop)` of which anything is held, as heads and tallies stand."""
    power = keys.power_of(layout, kind)
    buckets = keys.buckets_of(power, first, stop)
    if power <= BUCKET_BITS:
        return count_by_bucket(view, kind, power, buckets)
    parts = (
        (layout.hashed(path) >> (HASH_BITS - power), digest) for path, digest in _by_path(view, kind, buckets)
    )
    return _add_up((number, digest) for number, digest in parts if first <= number < stop)


def count_by_bucket(view: Reading, kind: bytes, power: int, buckets: range) -> dict[int, Digest]:
    """Count the digests of the partitions in a run of buckets, where none shares its bucket with another."""
    shift = BUCKET_BITS - power
    return _add_up((bucket >> shift, digest) for bucket, digest in _by_bucket(view, kind, buckets))


def count_one(view: Reading, layout: Layout, kind: bytes, partition: int) -> Digest:
    """Count the digest of one."""
    return count(view, layout, kind, partition, partition + 1).get(partition, EMPTY)


def _add_up(parts: Iterable[tuple[int, Digest]]) -> dict[int, Digest]:
    found: dict[int, Digest] = {}
    for number, digest in parts:
        found[number] = found.get(number, EMPTY).joined(digest)
    return {number: digest for number, digest in found.items() if digest != EMPTY}


def _by_bucket(view: Reading, kind: bytes, buckets: range) -> Iterator[tuple[int, Digest]]:
    if kind in keys.RING_OF:
        for key, digest in scan_listing_digests(view, *_bounds(b"s" + kind[1:], buckets)):
            yield keys.bucket_in(key), digest
        return
    for key, raw in view.scan(*_bounds(kind, buckets)):
        if len(key) == HEAD_KEY_BYTES:
            yield keys.bucket_in(key), decode_head(key, raw)


def _by_path(view: Reading, kind: bytes, buckets: range) -> Iterator[tuple[bytes, Digest]]:
    if kind in keys.RING_OF:
        for key, digest in scan_listing_digests(view, *_bounds(b"s" + kind[1:], buckets)):
            yield keys.parent_path(kind + key[2:]), digest
        return
    for key, raw in view.scan(*_bounds(kind, buckets)):
        entry = decode_held(key, raw).register.entry if len(key) > HEAD_KEY_BYTES else None
        if entry is not None:
            path = key[HEAD_KEY_BYTES:]
            yield path, EMPTY.added(fingerprint(path, entry))


def _bounds(table: bytes, buckets: range) -> tuple[bytes, bytes]:
    return keys.bucket_key(table, buckets.start), keys.bucket_key(table, buckets.stop)


def count_where_missing(index: Index, layout: Layout) -> int:
    """Count all of a table where they do not stand under its ring's part power; return how many tables that were.

    So it is with the index of an older release, one that was rebuilt, and one whose part power was raised: the whole table is
    read. Each table's are written in one commit, with the mark that they are there.
    """
    return sum(_count_table(index, layout, kind) for kind in kinds(layout))


def _count_table(index: Index, layout: Layout, kind: bytes) -> bool:
    power = keys.power_of(layout, kind)
    mark = keys.digests_mark(kind, power)
    if index.get(mark) is not None:
        return False
    view = index.begin()
    try:
        for lead in (keys.DIGESTS + kind, keys.DIGESTS_COUNTED + kind):
            for key, _ in list(view.scan(lead, keys.after(lead))):
                view.delete(key)
        for number, digest in count(view, layout, kind, 0, 1 << power).items():
            view.put(keys.digest_key(kind, power, number), digest.encode())
        view.put(mark, b"")
    except BaseException:
        view.abort()
        raise
    view.commit()
    return True
