"""The listing merge: whatever the owners hold, and wherever their pages end, it is the page of the newest of all rows."""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.store.merging import (
    Collector,
    Span,
    Sums,
    before_name,
    compare,
    is_hidden,
    merge_pages,
    span_of,
    sums_of_rows,
    within,
)
from storage_node.tallies import Sums as Counting
from swiftlike.digests import EMPTY
from swiftlike.entries import Entry
from swiftlike.node_calls import Page, Query, Row, Tally
from swiftlike.spans import bounds, common_prefix
from swiftlike.timestamps import Ballot, WriteId

NOW_US = 1_000
Rows = Mapping[bytes, Entry]

names = st.lists(st.sampled_from(["a", "/", "é"]), min_size=1, max_size=3).map(
    lambda parts: "".join(parts).encode()
)


def row(at: int, tombstone: bool = False, delete_at: int = 0, size: int = 1, policy: int = 0) -> Entry:
    """A row that was written at a time."""
    ballot = Ballot.of(at, 1)
    return Entry(
        ballot,
        WriteId(bytes(ballot.timestamp)),
        at,
        tombstone=tombstone,
        size=0 if tombstone else size,
        delete_at=delete_at,
        policy=policy,
    )


rows = st.builds(
    row,
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([0, 0, 0, 500, 2_000]),
)
owners = st.lists(st.dictionaries(names, rows, max_size=12), min_size=1, max_size=4)
queries = st.builds(
    Query,
    prefix=st.just(b"") | st.just(b"") | names,
    marker=st.just(b"") | names,
    end_marker=st.just(b"") | names,
    delimiter=st.sampled_from([b"", b"/", b"/", b"//", b"a"]),
    reverse=st.booleans(),
    limit=st.integers(1, 6),
    now_us=st.just(NOW_US),
    names_only=st.booleans(),
)


def one_ballot_one_write(held: Sequence[Rows]) -> list[Rows]:
    """Two rows of one name under one ballot are the same row; the first one drawn stands for all."""
    seen: dict[tuple[bytes, Ballot], Entry] = {}
    return [
        {name: seen.setdefault((name, entry.ballot), entry) for name, entry in one.items()} for one in held
    ]


def union(held: Sequence[Rows]) -> dict[bytes, Entry]:
    """The newest row of each name."""
    newest: dict[bytes, Entry] = {}
    for one in held:
        for name, entry in one.items():
            if name not in newest or newest[name].ballot < entry.ballot:
                newest[name] = entry
    return newest


def page_of(held: Rows, query: Query) -> Page:
    """What an owner answers that is asked for tombstones too: a page that may be cut short."""
    assert query.tombstones
    assert not query.names_only, "an owner refuses to tell tombstones by names alone"
    low, high = bounds(query)
    inside = sorted((name for name in held if low <= name < high), reverse=query.reverse)
    taken = inside[: query.limit]
    more = taken[-1] if len(inside) > len(taken) else None
    return Page(tuple(Row.of(name, held[name]) for name in taken), more, EMPTY)


def listed(held: Rows, query: Query) -> tuple[list[tuple[bytes, bool]], bool]:
    """The page that a client should see, by the book: names, whether each is a prefix, and whether there is more."""
    low, high = bounds(query)
    found: list[tuple[bytes, bool]] = []
    for name in sorted((name for name in held if low <= name < high), reverse=query.reverse):
        if is_hidden(held[name], query.now_us):
            continue
        rolled = common_prefix(name, query)
        if rolled is None:
            found.append((name, False))
        elif rolled != query.marker and (rolled, True) not in found:
            found.append((rolled, True))
    return found[: query.limit], len(found) > query.limit


@settings(max_examples=300)
@given(owners, queries, st.data())
def test_a_merged_page_is_the_page_of_the_newest_rows(
    held: list[dict[bytes, Entry]], query: Query, data: st.DataObject
) -> None:
    split = one_ballot_one_write(held)
    collector = Collector(query)
    following: Query | None = collector.first
    steps = 0
    while following is not None:
        pages = [
            page_of(one, following._replace(limit=data.draw(st.integers(1, 4), "rows of an answer")))
            for one in split
        ]
        following = collector.add(merge_pages(pages, reverse=query.reverse))
        steps += 1
        assert steps < 100, "it must come to an end"
    expected, has_more = listed(union(split), query)
    assert [(found.name, found.entry is None) for found in collector.rows] == expected
    assert all(found.entry in (None, union(split).get(found.name)) for found in collector.rows)
    assert collector.more == (expected[-1][0] if has_more else None)


@pytest.mark.parametrize(("reverse", "marker"), [(False, b"a/\xff"), (True, b"a/")])
def test_what_is_rolled_up_already_is_not_asked_for_again(reverse: bool, marker: bytes) -> None:
    held = {b"a/%d" % number: row(1) for number in range(9)}
    query = Query(delimiter=b"/", reverse=reverse, limit=3)
    collector = Collector(query)
    asked = collector.first
    assert collector.add(merge_pages([page_of(held, asked)], reverse=reverse)) == asked._replace(
        marker=marker
    )


@given(owners, queries)
def test_pages_that_follow_one_another_are_the_whole_listing(
    held: list[dict[bytes, Entry]], query: Query
) -> None:
    everything = union(one_ballot_one_write(held))
    whole = listed(everything, query._replace(limit=1_000))[0]
    found: list[tuple[bytes, bool]] = []
    marker: bytes | None = query.marker
    while marker is not None:
        page, has_more = listed(everything, query._replace(marker=marker))
        found += page
        marker = page[-1][0] if has_more else None
    assert found == whole


@pytest.mark.parametrize(
    ("query", "more", "span"),
    [
        (Query(marker=b"a"), b"b", Span(b"a\0", b"b\0")),
        (Query(delimiter=b"/"), b"b/", Span(b"", b"b0")),
        (Query(prefix=b"b/"), b"b/c", Span(b"b/", b"b/c\0")),
        (Query(prefix=b"b/"), None, Span(b"b/", b"b0")),
        (Query(delimiter=b"/", reverse=True, marker=b"c"), b"b/", Span(b"b/", b"c")),
        (Query(end_marker=b"c", delimiter=b"/"), b"b/", Span(b"", b"b0")),
    ],
)
def test_the_span_of_a_page_ends_behind_all_that_its_last_prefix_stands_for(
    query: Query, more: bytes | None, span: Span
) -> None:
    assert span_of(query, more) == span


@settings(max_examples=300)
@given(st.dictionaries(names, rows, max_size=12), queries, st.data())
def test_the_span_of_a_page_holds_all_that_the_page_speaks_of_and_nothing_else(
    held: dict[bytes, Entry], query: Query, data: st.DataObject
) -> None:
    page, has_more = listed(held, query)
    more = page[-1][0] if has_more else None
    start, stop = span_of(query, more)
    inside = {name: entry for name, entry in held.items() if start <= name < stop}
    assert listed(inside, query) == (page, False)
    # The same page is asked for again, within that span, over whatever stands there by then.
    later = {**held, **data.draw(st.dictionaries(names, rows, max_size=4))}
    again = within(query, Span(start, stop))
    low, high = bounds(again)
    assert [name for name in later if low <= name < high] == [name for name in later if start <= name < stop]


@given(names, names)
def test_no_name_lies_between_a_name_and_what_comes_before_it(name: bytes, other: bytes) -> None:
    assert before_name(name) < name
    assert not before_name(name) < other < name


# --- sums -------------------------------------------------------------------------------------------------------


def ranges_of(held: Rows, firsts: Sequence[bytes]) -> list[tuple[bytes, Tally]]:
    """The ranges of an owner that has split at these names."""
    starts = sorted({b"", *firsts}) if held else []
    ranges: list[tuple[bytes, Tally]] = []
    for at, start in enumerate(starts):
        stop = starts[at + 1] if at + 1 < len(starts) else b"\xff" * 9
        counting = Counting()
        for name, entry in held.items():
            if start <= name < stop:
                counting.add(name, entry)
        ranges.append((start, counting.tally))
    return ranges


@given(owners, st.data())
def test_what_ranges_agree_on_and_the_merge_of_the_rest_add_up_to_the_newest_rows(
    held: list[dict[bytes, Entry]], data: st.DataObject
) -> None:
    split = one_ballot_one_write(held)
    ranges = [ranges_of(one, data.draw(st.lists(names, max_size=4), "split at")) for one in split]
    compared = compare(ranges)
    sums = compared.sums
    newest = union(split)
    for start, stop in compared.differing:
        sums = sums.joined(
            sums_of_rows(
                Row.of(name, entry)
                for name, entry in newest.items()
                if start <= name and (not stop or name < stop)
            )
        )
    assert sums == sums_of_rows(map(Row.of, newest.keys(), newest.values()))


@given(st.dictionaries(names, rows, max_size=12), st.lists(names, max_size=4))
def test_owners_with_the_same_rows_and_the_same_ranges_have_nothing_to_merge(
    held: dict[bytes, Entry], firsts: list[bytes]
) -> None:
    compared = compare([ranges_of(held, firsts)] * 3)
    assert compared.differing == ()
    assert compared.sums == sums_of_rows(map(Row.of, held.keys(), held.values()))


@pytest.mark.parametrize(
    ("one", "other"), [(Sums(), Sums(1, 2, 3, {0: (1, 2, 3)})), (Sums(1, 2, 3, {0: (1, 2, 3)}), Sums())]
)
def test_nothing_adds_nothing(one: Sums, other: Sums) -> None:
    assert one.joined(other) == Sums(1, 2, 3, {0: (1, 2, 3)})
