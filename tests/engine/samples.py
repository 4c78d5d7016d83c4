"""Entries, keys and layouts that the engine's tests speak of."""

from itertools import count
from typing import Any

from storage_node.keys import CONTAINERS, Key, Layout, Listing, objects
from swiftlike.entries import NO_METADATA, Entry, Version
from swiftlike.limits import SMALL_BODY_BYTES_MAX
from swiftlike.timestamps import NO_INCARNATION, NO_WRITE, Ballot, Timestamp, WriteId

NOW_US = 1_700_000_000_000_000
LAYOUT = Layout(seed=7, part_powers={objects(0): 4, objects(1): 18, CONTAINERS: 4, b"a\0": 4})
OBJECTS = objects(0)
LARGE = SMALL_BODY_BYTES_MAX + 300_000
CREATED = Timestamp.of(NOW_US - 5_000_000, 9)
CONTAINER = Key(CONTAINERS, b"acc\0con")
ROWS = Listing(CONTAINER, CREATED)

_ids = count(1)


def ballot(at: int, writer: int = 1, incarnation: bytes = NO_INCARNATION) -> Ballot:
    """Return the ballot `at` microseconds after the tests' present."""
    return Ballot.of(NOW_US + at, writer, incarnation)


def new_id() -> WriteId:
    """Return an id that no other write of this run has."""
    return WriteId(Timestamp.of(NOW_US, next(_ids)))


def object_key(name: bytes | str, table: bytes = OBJECTS) -> Key:
    """Return the key of an object in the tests' container."""
    return Key(table, b"acc\0con\0" + (name.encode() if isinstance(name, str) else name))


def put(at: int, body: bytes = b"", **fields: object) -> Entry:
    """Return the entry of a PUT."""
    write_id = new_id()
    values: dict[str, object] = {
        "ballot": ballot(at),
        "write_id": write_id,
        "modified": NOW_US + at,
        "body_id": write_id,
        "size": len(body),
        "metadata": NO_METADATA,
    }
    return Entry(**{**values, **fields})  # type: ignore[arg-type]


def delete(at: int, **fields: object) -> Entry:
    """Return the entry of a DELETE."""
    return put(at, **{"tombstone": True, "body_id": NO_WRITE, **fields})  # type: ignore[arg-type]


def post(at: int, old: Entry, **fields: Any) -> Entry:
    """Return the entry of a POST: judged on `old`, whose body it keeps."""
    base = Version(old.write_id, old.ballot)
    return old._replace(ballot=ballot(at), write_id=new_id(), modified=NOW_US + at, base=base)._replace(
        **fields
    )


def container(at: int = -5_000_000, **fields: object) -> Entry:
    """Return the entry of a container's creation."""
    values: dict[str, object] = {"body_id": NO_WRITE, "incarnation": CREATED, **fields}
    return put(at, **values)  # type: ignore[arg-type]


def row(at: int, size: int = 0, incarnation: Timestamp = CREATED, **fields: object) -> Entry:
    """Return the entry of an object's row."""
    lead = ballot(at, incarnation=incarnation)
    return put(at, **{"ballot": lead, "body_id": NO_WRITE, "size": size, **fields})  # type: ignore[arg-type]
