"""Listed: which row an entry has in the listing of what it belongs to.

Owns the step from a register's entry to its row, one for whoever pays the debt: the proxy that wrote, or a device's
updater long afterwards. So both make the very same row, and paying twice changes nothing. Pure.

An object's row is led by its container's incarnation, like the object's own ballot. A container's row stands in the
listing of its account, which has no incarnations; its ballot is led by the container's own instead, twice:

    as created      incarnation + incarnation    nothing counted yet
    counted again   incarnation + a timestamp    what it holds by then
    deleted         t + t, where t is the timestamp of the tombstone's ballot

A container that is deleted and made anew has t above the old incarnation and below the new one, so no late count of the
old one is ever shown again.
"""

from enum import Enum
from typing import Final, NamedTuple

from swiftlike.entries import NO_METADATA, Entry, pack_metadata, unpack_metadata
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, RowOffer
from swiftlike.timestamps import Ballot, Timestamp, WriteId

ROW_ATTRIBUTES: Final = ("etag", "type")
"""What a row repeats of its object's metadata."""
TOTAL_SIZE: Final = "sys:manifest-size"
"""In the metadata of an object whose body is only a list of its parts: the bytes of all of them, which a row shows."""


class Payment(Enum):
    """What became of a debt."""

    PAID = "its row stands, and the debt is cleared at all owners that answered"
    DROPPED = "the container is gone, and the object with it"
    LATER = "too few owners answered"


class Parts(NamedTuple):
    """The names in a path; empty where the path has fewer."""

    account: bytes
    container: bytes = b""
    name: bytes = b""


class Listed(NamedTuple):
    """A row and the table that places its listing."""

    table: bytes
    row: RowOffer


def split_path(path: bytes) -> Parts:
    """Take a path apart. A part may begin with NUL (hidden names do); only an object's holds any besides."""
    account_stop = path.find(b"\0", 1)
    if account_stop < 0:
        return Parts(path)
    container_stop = path.find(b"\0", account_stop + 2)
    if container_stop < 0:
        return Parts(path[:account_stop], path[account_stop + 1 :])
    return Parts(path[:account_stop], path[account_stop + 1 : container_stop], path[container_stop + 1 :])


def row_of(table: bytes, path: bytes, entry: Entry) -> Listed:
    """Return the row of a container's or an object's entry; an account has none.

    Raises EntryDamaged when the metadata is none.
    """
    parts = split_path(path)
    if table == CONTAINERS:
        return Listed(ACCOUNTS, RowOffer(parts.account, parts.container, _row_of_container(entry)))
    assert table != ACCOUNTS, "an account is listed nowhere"
    parent = parts.account + b"\0" + parts.container
    return Listed(CONTAINERS, RowOffer(parent, parts.name, _row_of_object(entry)))


def counted(container: Entry, stamp: Timestamp, objects: int, size: int) -> Entry:
    """Return the row of a container that was counted at a timestamp issued before the count began."""
    incarnation = container.incarnation
    return Entry(
        Ballot(incarnation + stamp),
        WriteId(bytes(stamp)),
        incarnation.micros,
        size=size,
        policy=container.policy,
        objects=objects,
    )


def _row_of_container(entry: Entry) -> Entry:
    if not entry.tombstone:
        return counted(entry, entry.incarnation, objects=0, size=0)
    gone = entry.ballot.timestamp
    return Entry(Ballot(gone + gone), WriteId(bytes(gone)), entry.modified, tombstone=True, objects=0)


def _row_of_object(entry: Entry) -> Entry:
    metadata, size = NO_METADATA, 0
    if not entry.tombstone:
        found = unpack_metadata(entry.metadata)
        size = int(found.get(TOTAL_SIZE, entry.size))
        metadata = pack_metadata({name: found[name] for name in ROW_ATTRIBUTES if name in found})
    return Entry(
        entry.ballot,
        entry.write_id,
        entry.modified,
        tombstone=entry.tombstone,
        size=size,
        metadata=metadata,
        policy=entry.policy,
        delete_at=entry.delete_at,
    )
