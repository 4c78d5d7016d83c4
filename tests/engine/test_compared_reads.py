"""What a replicator reads of a store, the same of both bodies of the interface."""

from itertools import pairwise

import pytest

from storage_node.keys import CONTAINERS, Due
from storage_node.store import Offered, RowOffer, Store
from swiftlike.digests import EMPTY, digest_of
from swiftlike.entries import Entry
from swiftlike.node_calls import HeldVersion, Standing
from swiftlike.timestamps import ZERO_BALLOT, Offer
from tests.engine.samples import (
    CONTAINER,
    CREATED,
    LAYOUT,
    NOW_US,
    OBJECTS,
    ROWS,
    ballot,
    container,
    delete,
    object_key,
    put,
    row,
)

HERE = LAYOUT.partition(CONTAINERS, LAYOUT.hashed(CONTAINER.path))


async def list_rows(store: Store, *names: bytes, at: int = 1) -> dict[bytes, Entry]:
    """Give the tests' container some rows."""
    entries = {name: row(at + number) for number, name in enumerate(names)}
    await store.upsert_rows([RowOffer(CONTAINER, name, entry) for name, entry in entries.items()])
    return entries


async def test_the_digest_of_a_partitions_rows_follows_every_change(store: Store) -> None:
    assert store.partition_digest(b"r\0", HERE) == EMPTY
    await store.offer(Offered(CONTAINER, container()))
    first = {name: row(at) for at, name in enumerate((b"a", b"b"), 1)}
    await store.upsert_rows([RowOffer(CONTAINER, name, entry) for name, entry in first.items()])
    assert store.partition_digest(b"r\0", HERE) == digest_of(first.items())
    second = {**first, b"b": delete(9, ballot=ballot(9, incarnation=CREATED))}
    await store.upsert_rows([RowOffer(CONTAINER, b"b", second[b"b"])])
    assert store.partition_digest(b"r\0", HERE) == digest_of(second.items())
    assert store.partition_digests(b"r\0", [HERE]) == {HERE: digest_of(second.items())}
    assert [(held.listing, held.digest) for held in store.listings(CONTAINERS, HERE, None, 9)] == [
        (ROWS, digest_of(second.items()))
    ]
    assert store.listings(CONTAINERS, HERE, ROWS, 9) == []


async def test_rows_of_a_container_that_is_gone_are_in_no_digest_before_they_are_swept(store: Store) -> None:
    await store.offer(Offered(CONTAINER, container()))
    await list_rows(store, b"a", b"b")
    assert store.partition_digest(b"r\0", HERE) != EMPTY
    await store.offer(Offered(CONTAINER, delete(5, incarnation=CREATED), Offer.PASSING))
    assert store.partition_digest(b"r\0", HERE) == EMPTY
    assert store.listings(CONTAINERS, HERE, None, 9) == []
    while await store.sweep(1):
        assert store.partition_digest(b"r\0", HERE) == EMPTY


async def test_the_ballots_of_some_rows_are_read_without_those_between_them(store: Store) -> None:
    await store.offer(Offered(CONTAINER, container()))
    entries = await list_rows(store, b"a", b"b", b"c")
    assert store.row_ballots(ROWS, [b"a", b"bb", b"c"]) == [
        entries[b"a"].ballot,
        ZERO_BALLOT,
        entries[b"c"].ballot,
    ]


async def test_rows_that_are_reclaimed_leave_the_digest(store: Store) -> None:
    await store.offer(Offered(CONTAINER, container()))
    gone = row(1, tombstone=True)
    kept = row(2)
    await store.upsert_rows([RowOffer(CONTAINER, b"a", gone), RowOffer(CONTAINER, b"b", kept)])
    await store.set_standing(
        CONTAINERS,
        HERE,
        Standing(votes=True, floor_us=NOW_US + 100),
        seen=store.standing(CONTAINERS, HERE),
    )
    assert (await store.reclaim(CONTAINERS, HERE, 100)).rows == 1
    assert store.partition_digest(b"r\0", HERE) == digest_of([(b"b", kept)])


async def test_span_digests_cut_a_listing_at_any_names(store: Store) -> None:
    await store.offer(Offered(CONTAINER, container()))
    rows = await list_rows(store, *(b"%03d" % number for number in range(20)))
    found = store.span_digests(ROWS, [b"", b"005", b"0055", b"011"])
    bounds = [b"", b"005", b"0055", b"011", b"\xff"]
    expected = [
        digest_of((name, entry) for name, entry in rows.items() if low <= name < high)
        for low, high in pairwise(bounds)
    ]
    assert found == expected


async def test_held_partitions_are_those_with_registers_or_rows(store: Store) -> None:
    assert store.held_partitions(OBJECTS, ()) == []
    numbers = set()
    for at in range(12):
        key = object_key(f"o{at}")
        await store.offer(Offered(key, put(1)))
        numbers.add(LAYOUT.partition(OBJECTS, LAYOUT.hashed(key.path)))
    assert store.held_partitions(OBJECTS, ()) == sorted(numbers)
    some = set(list(numbers)[:2])
    assert store.held_partitions(OBJECTS, some) == sorted(numbers - some)
    assert store.held_partitions(OBJECTS, range(16)) == []
    for number in numbers - some:
        while await store.drop(OBJECTS, number, 100):
            pass
    assert store.held_partitions(OBJECTS, ()) == sorted(some), "what was dropped leaves nothing behind"


async def test_rows_without_their_container_are_held_and_dropped(store: Store) -> None:
    await list_rows(store, b"a", b"b")
    assert store.held_partitions(CONTAINERS, ()) == [HERE]
    while await store.drop(CONTAINERS, HERE, 100):
        pass
    assert store.partition_digest(b"r\0", HERE) == EMPTY
    while await store.sweep(100):
        pass
    assert store.held_partitions(CONTAINERS, ()) == []


async def test_versions_tell_promises_missing_bodies_and_debts(store: Store) -> None:
    whole, lacking, owing = put(1, b"x"), put(1, b"x"), put(1)
    await store.offer(Offered(object_key("whole"), whole, body=b"x"))
    await store.offer(Offered(object_key("lacking"), lacking))
    await store.offer(Offered(object_key("owing"), owing, owing=True))
    await store.prepare(object_key("whole"), ballot(7))
    await store.prepare(object_key("alone"), ballot(8))
    paths = [object_key(name).path for name in ("whole", "lacking", "owing", "alone", "absent")]
    found = store.versions_of(OBJECTS, paths)
    assert [(held.version, held.promised, held.whole, held.owes) for held in found] == [
        (whole.version, ballot(7), True, False),
        (lacking.version, ZERO_BALLOT, False, False),
        (owing.version, ZERO_BALLOT, True, True),
        (None, ballot(8), True, False),
        (None, ZERO_BALLOT, True, False),
    ]
    everything, more = store.versions(OBJECTS, 0, 0, b"", 100)
    assert (sorted(everything), more) == (sorted(found[:4]), None)
    marked, more = store.versions(OBJECTS, 0, 0, b"", 100, marked=True)
    assert (sorted(marked), more) == (sorted([found[0], found[2], found[3]]), None)
    page, more = store.versions(OBJECTS, 0, 0, b"", 3)
    assert (page, more) == (everything[:3], everything[2].path)
    assert store.versions(OBJECTS, 0, 0, page[-1].path, 100) == (everything[3:], None)


async def test_versions_in_several_ranges_are_those_of_each_of_them_page_by_page(store: Store) -> None:
    for at in range(40):
        await store.offer(Offered(object_key(f"o{at}"), put(at + 1)))
    numbers = [0, 2, 3, 5, 7]
    each = [store.versions(OBJECTS, 3, number, b"", 100)[0] for number in numbers]
    everything = [held for found in each for held in found]
    assert len({len(found) for found in each}) > 1, "pages end in the middle of ranges"
    for limit in (1, 3, 7, 100):
        found: list[HeldVersion] = []
        left, after = numbers, b""
        while left:
            page = store.versions_in(OBJECTS, 3, left, after, limit=limit)
            assert len(page.found) <= limit
            found += page.found
            left, after = left[page.served :], page.after
        assert found == everything
    assert store.versions_in(OBJECTS, 3, [], b"", limit=9) == ([], 0, b"")


async def test_a_debt_is_handed_over_for_the_very_version_that_stands(store: Store) -> None:
    key, entry = object_key("o"), put(1)
    await store.offer(Offered(key, entry))
    assert await store.owe([(key, put(1).version), (object_key("absent"), entry.version)]) == 0
    assert await store.owe([(key, entry.version)]) == 1
    assert store.versions_of(OBJECTS, [key.path])[0].owes
    assert await store.pay([(key, entry.version)]) == 1


async def test_a_newer_epoch_takes_the_votes_of_partitions_that_others_owned_once(store: Store) -> None:
    assert await store.take_epoch(OBJECTS, 3, {1, 2}) == 14
    votes = [number for number in range(16) if store.standing(OBJECTS, number).votes]
    assert votes == [1, 2]
    assert store.standing(CONTAINERS, 5).votes, "another table's epochs are its own"
    await store.set_standing(OBJECTS, 5, Standing(votes=True, floor_us=9), seen=store.standing(OBJECTS, 5))
    assert await store.take_epoch(OBJECTS, 3, {1, 2}) == 0, "done for that epoch"
    assert store.standing(OBJECTS, 5) == Standing(votes=True, floor_us=9)
    assert await store.take_epoch(OBJECTS, 4, {1}) == 2
    assert store.standing(OBJECTS, 5) == Standing(votes=False, floor_us=9), "a floor stays"


async def test_what_all_forgot_is_forgotten_by_who_catches_up_and_by_nobody_who_votes(store: Store) -> None:
    old, young = object_key("old"), object_key("young")
    partition = LAYOUT.partition(OBJECTS, LAYOUT.hashed(old.path))
    bound = next(
        key
        for key in (object_key(f"bound {number}") for number in range(1_000))
        if LAYOUT.partition(OBJECTS, LAYOUT.hashed(key.path)) == partition
    )
    await store.offer(Offered(old, put(1)))
    await store.offer(Offered(young, put(50)))
    digest = store.partition_digest(OBJECTS, partition)
    await store.offer(Offered(bound, put(2), owing=True))
    promised = put(60).ballot
    await store.prepare(bound, promised)
    floor_us = NOW_US + 10
    paths = [old.path, young.path, object_key("absent").path]
    assert await store.forget(OBJECTS, partition, floor_us, paths) == 0, "a voter forgets by the floor alone"
    seen = store.standing(OBJECTS, partition)
    await store.set_standing(OBJECTS, partition, seen._replace(votes=False), seen=seen)
    assert await store.forget(OBJECTS, partition, floor_us, [bound.path]) == 1
    found = store.read(bound)
    assert found is not None
    assert (found.register.entry, found.register.promised) == (None, promised), "a promise binds"
    assert store.partition_digest(OBJECTS, partition) == digest
    assert not store.due(Due.DEBT, 2**62, 10)
    assert await store.forget(OBJECTS, partition, floor_us, [bound.path]) == 0
    assert await store.forget(OBJECTS, partition, floor_us, paths) == 1
    assert store.read(old) is None
    assert store.read(young) is not None


async def test_rows_below_the_floor_are_forgotten_likewise(store: Store) -> None:
    await store.offer(Offered(CONTAINER, container()))
    rows = await list_rows(store, b"a", b"b", at=1)
    seen = store.standing(CONTAINERS, HERE)
    await store.set_standing(CONTAINERS, HERE, seen._replace(votes=False), seen=seen)
    assert await store.forget(CONTAINERS, HERE, NOW_US + 2, (), [(ROWS, b"a"), (ROWS, b"b")]) == 1
    assert store.partition_digest(b"r\0", HERE) == digest_of([(b"b", rows[b"b"])])


@pytest.mark.parametrize("votes", [True, False])
async def test_the_memory_of_a_key_that_is_taken_from_a_voter_starts_at_it(store: Store, votes: bool) -> None:
    key = object_key("o")
    partition = LAYOUT.partition(OBJECTS, LAYOUT.hashed(key.path))
    await store.offer(Offered(key, put(1)))
    seen = store.standing(OBJECTS, partition)
    await store.set_standing(OBJECTS, partition, seen._replace(votes=votes), seen=seen)
    await store.offer(Offered(key, put(2), Offer.COPY, from_voter=True))
    held = store.read(key)
    assert held is not None
    assert (len(held.register.replaced), held.register.since_us) == ((1, 0) if votes else (0, None))
