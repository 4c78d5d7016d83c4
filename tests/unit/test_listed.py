"""Which row an entry has: the same from whoever makes it, and ordered as the lives of its container are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlike.entries import Entry, merge, pack_metadata
from swiftlike.listed import counted, row_of, split_path
from swiftlike.names import path_of
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, objects
from swiftlike.timestamps import Ballot, Timestamp, WriteId

FIRST, SECOND = Timestamp.of(100, 1), Timestamp.of(300, 2)


def container(at: int, incarnation: Timestamp, tombstone: bool = False) -> Entry:
    """A container's entry under some ballot of its life."""
    stamp = Timestamp.of(at, 7)
    return Entry(
        Ballot(bytes(16) + stamp),
        WriteId(bytes(stamp)),
        at,
        tombstone=tombstone,
        policy=3,
        objects=0,
        incarnation=incarnation,
    )


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (b"acc", (b"acc", b"", b"")),
        (b"\0hidden", (b"\0hidden", b"", b"")),
        (b"acc\0con", (b"acc", b"con", b"")),
        (b"acc\0\0con", (b"acc", b"\0con", b"")),
        (b"acc\0con\0obj", (b"acc", b"con", b"obj")),
        (b"acc\0con\0\0upload\0part", (b"acc", b"con", b"\0upload\0part")),
        (b"\0acc\0\0con\0obj", (b"\0acc", b"\0con", b"obj")),
    ],
)
def test_a_path_is_taken_apart_where_it_was_joined(path: bytes, parts: tuple[bytes, ...]) -> None:
    assert split_path(path) == parts


visible = st.text("aé/", min_size=1, max_size=4).map(str.encode)
names = visible | visible.map(lambda name: b"\0" + name)


@given(names, names, names | st.just(b"\0a\0b"))
def test_split_undoes_join(account: bytes, container: bytes, name: bytes) -> None:
    assert split_path(path_of(account, container, name)) == (account, container, name)
    assert split_path(path_of(account, container)) == (account, container, b"")
    assert split_path(path_of(account)) == (account, b"", b"")


def test_an_objects_row_repeats_what_a_listing_shows_and_nothing_else() -> None:
    metadata = pack_metadata({"etag": "e", "type": "t", "meta:x": "y", "sys:z": "z"})
    ballot = Ballot.of(200, 1, FIRST)
    entry = Entry(ballot, WriteId(b"w" * 16), 5, False, WriteId(b"b" * 16), 9, metadata, 2, delete_at=77)
    listed = row_of(objects(2), b"acc\0con\0obj", entry)
    assert (listed.table, listed.row.parent, listed.row.name) == (CONTAINERS, b"acc\0con", b"obj")
    row = listed.row.entry
    assert row.metadata == pack_metadata({"etag": "e", "type": "t"})
    assert (row.ballot, row.write_id, row.modified) == (entry.ballot, entry.write_id, 5)
    assert (row.size, row.objects, row.policy, row.delete_at) == (9, 1, 2, 77)
    assert not row.has_body
    assert row_of(objects(2), b"acc\0con\0obj", entry._replace(tombstone=True)).row.entry.tombstone


def test_a_containers_row_is_the_same_whichever_of_its_writes_it_is_made_of() -> None:
    created, described = container(100, FIRST), container(250, FIRST)
    rows = [row_of(CONTAINERS, b"acc\0con", entry) for entry in (created, described)]
    assert rows[0] == rows[1]
    assert (rows[0].table, rows[0].row.parent, rows[0].row.name) == (ACCOUNTS, b"acc", b"con")


def test_the_rows_of_a_containers_lives_are_ordered_as_they_were() -> None:
    def made(entry: Entry) -> Entry:
        return row_of(CONTAINERS, b"acc\0con", entry).row.entry

    first, second = container(100, FIRST), container(300, SECOND)
    late = Timestamp.of(9_999, 1)
    lives = [
        made(first),
        counted(first, Timestamp.of(150, 1), 5, 50),
        counted(first, late, 6, 60),
        made(container(200, FIRST, tombstone=True)),
        made(second),
        counted(second, Timestamp.of(301, 1), 1, 1),
    ]
    assert [row.ballot for row in lives] == sorted({row.ballot for row in lives})
    assert merge(lives[3], lives[2]).tombstone, "a late count brings nothing back"
    assert (lives[2].objects, lives[2].size, lives[2].policy, lives[2].modified) == (6, 60, 3, 100)
