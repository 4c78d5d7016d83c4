"""Rows of a page as what they list."""

import pytest

from proxy.store.listed_rows import ListedRows
from proxy.store.values import ListedObject, ListedPrefix
from proxy.swift_api.listings import Format, write_objects
from swiftlike.entries import Entry, EntryDamaged, is_hidden, pack_metadata
from swiftlike.node_calls import Row
from swiftlike.timestamps import Ballot, WriteId

BALLOT = Ballot(bytes(31) + b"\1")
WRITE = WriteId(b"w" * 16)


def row(name: bytes, metadata: dict[str, str | bytes | int], size: int = 0) -> Row:
    return Row.of(name, Entry(BALLOT, WRITE, 7, size=size, metadata=pack_metadata(metadata)))


def test_a_row_lists_what_its_entry_says_and_a_prefix_its_name() -> None:
    listed = ListedRows([row(b"a", {"etag": "e", "type": "t"}, size=5), Row(b"b/", None), row(b"c", {})])
    assert listed.names == [b"a", b"b/", b"c"]
    assert list(listed) == [
        ListedObject(b"a", 5, "e", "t", 7),
        ListedPrefix(b"b/"),
        ListedObject(b"c", 0, "", "application/octet-stream", 7),
    ]
    assert list(listed[1:]) == list(listed)[1:]
    assert len(listed) == 3


def test_a_plain_page_is_written_alike_from_rows_and_from_what_they_list() -> None:
    listed = ListedRows([row(b"a", {}), Row(b"b/", None)])
    assert (
        write_objects(Format.PLAIN, b"c", listed)
        == write_objects(Format.PLAIN, b"c", list(listed))
        == b"a\nb/\n"
    )


def test_an_etag_that_is_no_text_is_damage() -> None:
    with pytest.raises(EntryDamaged, match="texts"):
        list(ListedRows([row(b"a", {"etag": 5})]))


@pytest.mark.parametrize(
    ("delete_at", "tombstone", "now_us", "hidden"),
    [
        (0, False, 0, False),
        (0, False, 2**62, False),
        (0, True, 0, True),
        (5, False, 4, False),
        (5, False, 5, True),
        (5, False, 0, False),
        (2**40, False, 2**40 - 1, False),
    ],
)
def test_a_row_is_hidden_when_it_is_a_tombstone_or_due(
    delete_at: int, tombstone: bool, now_us: int, hidden: bool
) -> None:
    raw = Row.of(b"a", Entry(BALLOT, WRITE, 7, tombstone=tombstone, delete_at=delete_at)).raw
    assert raw is not None
    assert is_hidden(raw, now_us) is hidden
