"""Rows: the listing of a container, or of an account's containers.

Owns how a row, its due time, the tally of its listing and the tally of its range change together, how ranges split, how a
page is scanned, and how the rows of a gone incarnation are swept. Never decides whether a container takes a row.

A range is named by the name that it begins at, whose row need not be there any more; it ends where the next begins. The
first range of a listing begins at the empty name. It comes with the first row and stays when the last is forgotten; any
other range goes with its last row.
"""

from collections.abc import Iterator, Sequence
from itertools import compress, islice
from typing import Final, NamedTuple

from storage_node import keys
from storage_node.errors import IndexDamaged
from storage_node.keys import Due, Key, Layout, Listing
from storage_node.keyvalues import Reading
from storage_node.tables import Change
from storage_node.tallies import Sums
from swiftlike.digests import EMPTY, Digest, digest_of, fingerprint
from swiftlike.entries import Entry, EntryDamaged, decode, encode, is_hidden, merge, which_shown
from swiftlike.limits import LISTING_ROWS_MAX, LISTING_SCANNED_MAX, RANGE_ROWS_MAX
from swiftlike.node_calls import NamedRows, Page, Query, Row, Tally, as_row
from swiftlike.spans import bounds, common_prefix
from swiftlike.timestamps import NO_INCARNATION

EVERY_INCARNATION: Final = b"\xff" * (len(NO_INCARNATION) + 1)
"""Above every incarnation of a container."""


def upsert_row(change: Change, listing: Listing, hashed: int, name: bytes, entry: Entry) -> bool:
    """Merge an entry into a listing; say whether it changed anything. `hashed` is the parent's path hash."""
    prefix = keys.rows_prefix(listing, hashed)
    key = prefix + name
    raw = change.view.get(key)
    old = None if raw is None else _decode_row(key, raw)
    if old is not None and merge(old, entry) == old:
        return False
    _change_row(change, prefix, name, old, entry)
    _move_digest(change, prefix, hashed, name, old, entry)
    change.view.put(key, encode(entry))
    return True


def remove_row(change: Change, listing: Listing, hashed: int, name: bytes) -> None:
    """Forget a row, which must be there: reclaim does, with tombstones below the floor."""
    prefix = keys.rows_prefix(listing, hashed)
    key = prefix + name
    raw = change.view.get(key)
    assert raw is not None
    old = _decode_row(key, raw)
    _change_row(change, prefix, name, old, None)
    if not is_condemned(change.view, listing, hashed):
        _move_digest(change, prefix, hashed, name, old, None)
    change.view.delete(key)


def _move_digest(
    change: Change, prefix: bytes, hashed: int, name: bytes, old: Entry | None, new: Entry | None
) -> None:
    xor = (0 if old is None else fingerprint(name, old)) ^ (0 if new is None else fingerprint(name, new))
    change.move_rows_digest(prefix[:2], hashed, xor, (new is not None) - (old is not None))


def _change_row(change: Change, prefix: bytes, name: bytes, old: Entry | None, new: Entry | None) -> None:
    """Let the tallies and the due time of a row follow its change."""
    listing_tally = change.tally(keys.tally_key(prefix))
    range_key = _range_of(change.view, prefix, name)
    range_tally = change.tally(range_key)
    for tally in (listing_tally, range_tally):
        if old is not None:
            tally.remove(name, old)
        if new is not None:
            tally.add(name, new)
    if old is not None and old.tombstone:
        change.view.delete(keys.due_key(Due.RECLAIM, old.ballot.micros, prefix + name))
    if new is not None and new.tombstone:
        change.view.put(keys.due_key(Due.RECLAIM, new.ballot.micros, prefix + name), b"")
    if new is not None and old is None:
        if range_tally.rows_and_tombstones == 1:
            # The next row must find this range, before the batch writes its tally.
            change.view.put(range_key, range_tally.encode())
        elif range_tally.rows_and_tombstones > RANGE_ROWS_MAX:
            _split_range(change, prefix, range_key, (name, new))
    elif range_tally.rows_and_tombstones == 0 and range_key != keys.range_key(prefix, b""):
        del change.tallies[range_key]
        change.view.delete(range_key)


def _range_of(view: Reading, prefix: bytes, name: bytes) -> bytes:
    """Return the key of the range that covers a name."""
    first = keys.range_key(prefix, b"")
    found = view.floor(keys.range_key(prefix, name), first)
    return first if found is None else found[0]


def _split_range(change: Change, prefix: bytes, range_key: bytes, coming: tuple[bytes, Entry]) -> None:
    """Cut a full range in its middle; `coming` is the row whose arrival filled it, not yet in the table."""
    first = range_key[len(prefix) :]
    rows = list(_scan_rows(change.view, prefix, prefix + first, keys.after(prefix), RANGE_ROWS_MAX))
    rows = sorted([*rows, Row.of(*coming)])
    middle = len(rows) // 2
    left, right = Sums(), Sums()
    for row in rows[:middle]:
        left.add(row.name, _entry(row))
    for row in rows[middle:]:
        right.add(row.name, _entry(row))
    right_key = keys.range_key(prefix, rows[middle].name)
    change.tallies[range_key], change.tallies[right_key] = left, right
    change.view.put(right_key, right.encode())


def read_tally(view: Reading, listing: Listing, hashed: int) -> Tally:
    """Return what all rows of a listing add up to."""
    return Sums.decode(view.get(keys.tally_key(keys.rows_prefix(listing, hashed)))).tally


def read_row(view: Reading, listing: Listing, hashed: int, name: bytes) -> Entry | None:
    """Return one row, a tombstone too."""
    key = keys.rows_prefix(listing, hashed) + name
    raw = view.get(key)
    return None if raw is None else _decode_row(key, raw)


class ListingHeld(NamedTuple):
    """A listing as a replicator sees it."""

    listing: Listing
    digest: Digest


def scan_listings(
    view: Reading, layout: Layout, ring: bytes, partition: int, after: Listing | None = None
) -> Iterator[ListingHeld]:
    """Yield the listings under the registers of a partition, from behind `after`; what waits to be swept is none."""
    buckets = keys.buckets_of(layout.part_powers[ring], partition, partition + 1)
    lead = b"s" + keys.ROWS_OF[ring][1:]
    start = keys.bucket_key(lead, buckets.start)
    if after is not None:
        hashed = layout.hashed(after.parent.path)
        start = max(start, keys.tally_key(keys.rows_prefix(after, hashed)) + b"\0")
    for key, digest in scan_listing_digests(view, start, keys.bucket_key(lead, buckets.stop)):
        listing, _ = keys.split_row_key(b"r" + key[1:])
        if layout.partition(ring, layout.hashed(listing.parent.path)) == partition:
            yield ListingHeld(listing, digest)


def scan_listing_digests(view: Reading, start: bytes, stop: bytes) -> Iterator[tuple[bytes, Digest]]:
    """Yield the keys of tallies in `[start, stop)` and the digests of their rows; what waits to be swept is passed over."""
    for key, raw in view.scan(start, stop):
        digest = Sums.decode(raw).digest
        if digest != EMPTY and view.get(keys.sweep_key(key)) is None:
            yield key, digest


def read_ranges(
    view: Reading, listing: Listing, hashed: int, after: bytes | None, limit: int
) -> list[tuple[bytes, Tally]]:
    """Return up to `limit` ranges of a listing by the names that they begin at, each with its tally.

    Only those behind the range that begins at `after`; None: from the first.
    """
    first = keys.range_key(keys.rows_prefix(listing, hashed), b"")
    start = first if after is None else first + after + b"\0"
    found = islice(view.scan(start, keys.after(first)), limit)
    return [(key[len(first) :], Sums.decode(raw).tally) for key, raw in found]


def read_span_digest(view: Reading, listing: Listing, hashed: int, start: bytes, stop: bytes) -> Digest:
    """Return the digest of the rows in `[start, stop)`, an empty `stop` meaning to the end.

    Whole ranges inside are added from their tallies; at most the two at the edges are scanned.
    """
    prefix = keys.rows_prefix(listing, hashed)
    first_range = _range_of(view, prefix, start)
    ranges_end = keys.range_key(prefix, stop) if stop else keys.after(keys.range_key(prefix, b""))
    ranges = list(view.scan(first_range, ranges_end))
    whole = Digest()
    for at, (key, raw) in enumerate(ranges):
        low = key[len(prefix) :]
        high = ranges[at + 1][0][len(prefix) :] if at + 1 < len(ranges) else _next_range(view, prefix, key)
        if low >= start and (not stop or (high is not None and high <= stop)):
            whole = whole.joined(Sums.decode(raw).digest)
            continue
        from_name = max(low, start)
        until = [prefix + name for name in (high, stop) if name]
        rows = _scan_rows(view, prefix, prefix + from_name, min([*until, keys.after(prefix)]))
        whole = whole.joined(digest_of((row.name, _entry(row)) for row in rows))
    return whole


def _next_range(view: Reading, prefix: bytes, range_key: bytes) -> bytes | None:
    end = keys.after(keys.range_key(prefix, b""))
    for key, _ in view.scan(range_key + b"\0", end):
        return key[len(prefix) :]
    return None


def read_page(view: Reading, listing: Listing, hashed: int, query: Query) -> Page:
    """Return one page of a listing. Its cost grows with the page, not with the listing.

    Raises ValueError for tombstones under a delimiter.
    """
    if query.tombstones and query.delimiter:
        raise ValueError("tombstones cannot be rolled up: ask for them without a delimiter")
    prefix = keys.rows_prefix(listing, hashed)
    digest = read_tally(view, listing, hashed).digest
    limit = min(query.limit, LISTING_ROWS_MAX)
    low, high = bounds(query)
    if not query.delimiter:
        return Page(*_read_plain_page(view, prefix, prefix + low, prefix + high, limit, query), digest)
    rows: list[Row] = []
    scanned, reached, full = 0, b"", False
    while limit > 0 and low < high and not full:
        # One run of the scan; a common prefix ends it, and the next begins behind all that it covers.
        for row in _scan_rows(view, prefix, prefix + low, prefix + high, reverse=query.reverse):
            full = len(rows) >= limit or scanned >= LISTING_SCANNED_MAX
            if full:
                break
            scanned += 1
            reached = row.name
            if is_hidden(_raw(row), query.now_us):
                continue
            rolled = common_prefix(row.name, query)
            if rolled is None:
                rows.append(row)
                continue
            if rolled != query.marker:
                rows.append(Row(rolled, None))
            reached = rolled
            low, high = (low, rolled) if query.reverse else (keys.after(rolled), high)
            break
        else:
            break
    return Page(tuple(rows), reached if full else None, digest)


def _read_plain_page(
    view: Reading, prefix: bytes, start: bytes, stop: bytes, limit: int, query: Query
) -> tuple[Sequence[Row], bytes | None]:
    """Return the rows of a page on which nothing is rolled up, and the marker of the next one."""
    names: list[bytes] = []
    raws: list[bytes] = []
    more: bytes | None = None
    scanned, lead = 0, len(prefix)
    while limit > 0 and start < stop:
        # One more than wanted tells whether there is another page.
        wanted = min(limit + 1 - len(names), LISTING_SCANNED_MAX + 1 - scanned)
        found, values = view.take(start, stop, wanted, reverse=query.reverse)
        shown = None if query.tombstones else which_shown(values, query.now_us)
        some = [key[lead:] for key in found]
        names += some if shown is None else compress(some, shown)
        if not query.names_only:
            raws += values if shown is None else compress(values, shown)
        scanned += len(found)
        if len(names) > limit:
            del names[limit:], raws[limit:]
            more = names[-1]
            break
        if len(found) < wanted:
            break
        if scanned > LISTING_SCANNED_MAX:
            more = some[-1]
            break
        start, stop = (start, found[-1]) if query.reverse else (found[-1] + b"\0", stop)
    if query.names_only:
        return NamedRows(names), more
    return tuple(map(as_row, zip(names, raws, strict=True))), more


def condemn_rows(change: Change, container: Key, hashed: int, stop: bytes) -> None:
    """Put the rows of every incarnation below `stop` on the list of what is to be swept; no digest counts them any more."""
    lead = keys.tally_key(keys.rows_prefix(Listing(container), hashed))[: -len(NO_INCARNATION)]
    written = [key for key, _ in change.view.scan(lead, lead + stop)]
    pending = [key for key in change.tallies if lead <= key < lead + stop and key.startswith(lead)]
    for key in {*written, *pending}:
        if change.view.get(keys.sweep_key(key)) is None:
            change.view.put(keys.sweep_key(key), b"")
            gone = change.tally(key).digest
            change.move_rows_digest(b"r" + key[1:2], hashed, gone.xor, -gone.entries)


def is_condemned(view: Reading, listing: Listing, hashed: int) -> bool:
    """Say whether a listing waits to be swept: what is added to it now would be lost."""
    return view.get(keys.sweep_key(keys.rows_prefix(listing, hashed))) is not None


def sweep_rows(change: Change, rows_max: int) -> int:
    """Remove up to `rows_max` rows of one incarnation that is gone, and with the last of them what was kept about it.

    Returns how many, and at least one as long as anything was done; zero: nothing is left to do.
    """
    for key, _ in change.view.scan(b"w\0", b"w\2"):
        prefix = b"r" + key[1:]
        swept = 0
        for row in list(_scan_rows(change.view, prefix, prefix, keys.after(prefix), rows_max)):
            change.view.delete(prefix + row.name)
            entry = _entry(row)
            if entry.tombstone:
                change.view.delete(keys.due_key(Due.RECLAIM, entry.ballot.micros, prefix + row.name))
            swept += 1
        if swept < rows_max:
            first = keys.range_key(prefix, b"")
            for range_key, _ in list(change.view.scan(first, keys.after(first))):
                change.view.delete(range_key)
            change.view.delete(keys.tally_key(prefix))
            change.view.delete(key)
            for gone in [key for key in change.tallies if key[1:].startswith(prefix[1:])]:
                del change.tallies[gone]
        return max(swept, 1)
    return 0


def _scan_rows(
    view: Reading,
    prefix: bytes,
    start: bytes,
    stop: bytes,
    limit: int | None = None,
    *,
    reverse: bool = False,
) -> Iterator[Row]:
    for key, raw in view.scan(start, stop, reverse=reverse):
        if limit is not None:
            if limit == 0:
                return
            limit -= 1
        yield Row(key[len(prefix) :], raw)


def _raw(row: Row) -> bytes:
    assert row.raw is not None, "a scan yields no common prefixes"
    return row.raw


def _entry(row: Row) -> Entry:
    return _decode_row(row.name, _raw(row))


def _decode_row(key: bytes, raw: bytes) -> Entry:
    try:
        return decode(raw)
    except EntryDamaged as error:
        raise IndexDamaged(f"index key {key[:80]!r}: {error}") from None
