"""Merging: one page out of the rows of several owners, and what their rows add up to.

Pure: rows in, rows out; never asks anybody. Every row that was acknowledged is at one of any majority of owners at
least, and so is every tombstone, so the newest of what a majority holds is what stands.

A page is merged only up to the smallest last name of any page that was cut short: behind it, an owner has not said all.
Tombstones take part in the merge and are left out afterwards, and only what is left is rolled up into prefixes.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from swiftlike.entries import Entry, counted_of, merge
from swiftlike.node_calls import Page, Query, Row, Tally
from swiftlike.spans import behind, bounds, common_prefix


class Span(NamedTuple):
    """Names `[start, stop)`; an empty `stop` means to the end."""

    start: bytes
    stop: bytes


def span_of(query: Query, more: bytes | None) -> Span:
    """Return the names that a page with this query and this marker of the next one speaks of."""
    low, high = bounds(query)
    if more is None:
        return Span(low, high)
    if query.reverse:
        return Span(max(low, more), high)
    return Span(low, min(high, behind(more) if common_prefix(more, query) == more else more + b"\0"))


def within(query: Query, span: Span) -> Query:
    """Return the same query, for names of a span only."""
    if query.reverse:
        return query if span.start <= bounds(query)[0] else query._replace(end_marker=before_name(span.start))
    return query._replace(end_marker=span.stop)


def before_name(name: bytes) -> bytes:
    """Return a byte string below a name, with no other name between them."""
    return name[:-1] if name[-1] == 0 else name[:-1] + bytes([name[-1] - 1]) + b"\xff"


def is_hidden(entry: Entry, now_us: int) -> bool:
    """Say whether a row is not shown: a tombstone, or due for deletion."""
    return entry.tombstone or 0 < entry.delete_at <= now_us


# --- pages ------------------------------------------------------------------------------------------------------


class Merged(NamedTuple):
    """Rows of several owners, tombstones too, in the order asked for."""

    rows: tuple[Row, ...]
    more: bytes | None
    """The last name up to which all owners have said everything; None: they have said all there is."""


def merge_pages(pages: Iterable[Page], *, reverse: bool = False) -> Merged:
    """Merge pages of one query with tombstones and without a delimiter."""
    pages = list(pages)
    ends = [page.more for page in pages if page.more is not None]
    end = (max(ends) if reverse else min(ends)) if ends else None
    newest: dict[bytes, Row] = {}
    for page in pages:
        for row in page.rows:
            name = row.name
            if end is not None and (name < end if reverse else name > end):
                break
            held = newest.setdefault(name, row)
            # Nearly all rows are the same everywhere, to the byte, and need no look inside.
            if held is not row and held.raw != row.raw:
                newest[name] = Row.of(name, merge(entry_of(held), entry_of(row)))
    return Merged(tuple(sorted(newest.values(), reverse=reverse)), end)


def held_by_few(merged: Merged, pages: Sequence[Page], needed: int) -> list[Row]:
    """Return the merged rows that fewer than so many of the pages hold as they are."""
    held = Counter((row.name, row.raw) for page in pages for row in page.rows)
    return [row for row in merged.rows if held[row.name, row.raw] < needed]


def entry_of(row: Row) -> Entry:
    """Return the entry of a row that is none of a prefix."""
    entry = row.entry
    assert entry is not None, "a page to be merged has no prefixes"
    return entry


class Collector:
    """A page that grows out of merged rows until it is full."""

    def __init__(self, query: Query) -> None:
        """Take what the page should hold."""
        self._query: Final = query
        self.first: Final = query._replace(delimiter=b"", tombstones=True, names_only=False)
        """What is to be asked first: whole rows, tombstones too, and nothing rolled up."""
        self.rows: Final[list[Row]] = []
        self.more: bytes | None = None
        """The marker of the next page, once it is known that there is one."""

    def add(self, merged: Merged) -> Query | None:
        """Take merged rows; return what is to be asked next, or None when the page is whole."""
        query = self._query
        for row in merged.rows:
            name = row.name
            if is_hidden(entry_of(row), query.now_us):
                continue
            rolled = common_prefix(name, query)
            if rolled is not None and (
                rolled == query.marker or (self.rows and self.rows[-1].name == rolled)
            ):
                continue
            if len(self.rows) == query.limit:
                self.more = self.rows[-1].name
                return None
            self.rows.append(row if rolled is None else Row(rolled, None))
        if merged.more is None:
            return None
        return self.first._replace(marker=self._marker_behind(merged.more))

    def _marker_behind(self, reached: bytes) -> bytes:
        """Return where to go on, behind all that is rolled up already."""
        rolled = common_prefix(reached, self._query)
        if rolled is None or not (self.rows and self.rows[-1] == Row(rolled, None)):
            return reached
        return rolled if self._query.reverse else rolled + b"\xff"


# --- sums -------------------------------------------------------------------------------------------------------


class Sums(NamedTuple):
    """What rows add up to."""

    rows: int = 0
    objects: int = 0
    bytes: int = 0
    policies: Mapping[int, tuple[int, int, int]] = {}
    """Rows, objects and bytes of each."""

    def joined(self, other: "Sums") -> "Sums":
        """Return the sums of two disjoint sets of rows."""
        policies = dict(self.policies)
        for policy, counts in other.policies.items():
            before = policies.get(policy, (0, 0, 0))
            policies[policy] = (before[0] + counts[0], before[1] + counts[1], before[2] + counts[2])
        return Sums(self.rows + other.rows, self.objects + other.objects, self.bytes + other.bytes, policies)


def sums_of_tally(tally: Tally) -> Sums:
    """Return what an owner counted."""
    policies = {policy: (rows, objects, size) for policy, rows, objects, size in tally.policies}
    return Sums(tally.rows, tally.objects, tally.bytes, policies)


def sums_of_rows(rows: Iterable[Row]) -> Sums:
    """Count rows that were merged; due ones count until they are deleted, as they do for an owner."""
    policies: dict[int, tuple[int, int, int]] = {}
    count = objects = size = 0
    for row in rows:
        assert row.raw is not None, "a page to be merged has no prefixes"
        tombstone, policy, row_bytes, row_objects = counted_of(row.raw)
        if tombstone:
            continue
        count, objects, size = count + 1, objects + row_objects, size + row_bytes
        before = policies.get(policy, (0, 0, 0))
        policies[policy] = (before[0] + 1, before[1] + row_objects, before[2] + row_bytes)
    return Sums(count, objects, size, policies)


Ranges = Sequence[tuple[bytes, Tally]]
"""The ranges of a listing at one owner, by their first names."""


class Compared(NamedTuple):
    """What comparing the ranges of several owners says."""

    sums: Sums
    """Of all spans in which they agree."""
    differing: tuple[Span, ...]
    """Spans whose rows must be merged."""


def compare(owners: Sequence[Ranges]) -> Compared:
    """Compare ranges between the first names that all owners have in common: devices split differently."""
    split = [list(ranges) for ranges in owners]
    common = set.intersection(*({first for first, _ in ranges} for ranges in split)) | {b""}
    starts = sorted(common)
    sums, differing = Sums(), list[Span]()
    for at, start in enumerate(starts):
        stop = starts[at + 1] if at + 1 < len(starts) else b""
        parts = [_part(ranges, start, stop) for ranges in split]
        if len({(part.digest) for part in parts}) == 1:
            for tally in parts[0].tallies:
                sums = sums.joined(sums_of_tally(tally))
        else:
            differing.append(Span(start, stop))
    return Compared(sums, tuple(differing))


class _Part(NamedTuple):
    digest: tuple[int, int]
    tallies: tuple[Tally, ...]


def _part(ranges: Ranges, start: bytes, stop: bytes) -> _Part:
    inside = tuple(tally for first, tally in ranges if first >= start and (not stop or first < stop))
    xor = entries = 0
    for tally in inside:
        xor ^= tally.digest.xor
        entries += tally.digest.entries
    return _Part((xor, entries), inside)
