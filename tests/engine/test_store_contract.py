"""The store's contract, held against the real device and the in-memory store alike."""

import asyncio

import pytest

from storage_node.errors import BallotRefused, StorageError
from storage_node.keys import BUCKET_BITS, CONTAINERS, Due, DueDelete, Key, Listing, objects
from storage_node.store import Glance, Offered, RowHeld, RowOffer, Store
from swiftlike.digests import EMPTY, Digest, digest_of
from swiftlike.entries import Entry, encode
from swiftlike.limits import CLOCK_AHEAD_PASSING_US
from swiftlike.node_calls import Acceptance, Query, RowRefused, Standing
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Offer, Timestamp
from tests.engine.conftest import stand
from tests.engine.samples import (
    CONTAINER,
    CREATED,
    LARGE,
    LAYOUT,
    NOW_US,
    OBJECTS,
    ROWS,
    ballot,
    container,
    delete,
    new_id,
    object_key,
    post,
    put,
    row,
)

KEY = object_key("one")
DAY_US = 86_400_000_000


async def body_of(store: Store, key: Key = KEY) -> bytes | None:
    """Read a whole body."""
    found = await store.open_object(key)
    if found is None:
        return None
    body = found[1]
    try:
        return bytes(await body.read(0, body.size))
    finally:
        body.release()


def partition_of(key: Key) -> int:
    """Return the partition of a key."""
    return LAYOUT.partition(key.table, LAYOUT.hashed(key.path))


async def offer(
    store: Store, key: Key, entry: Entry, body: bytes | None = None, **options: object
) -> Acceptance:
    """Offer an entry as a first attempt."""
    return await store.offer(Offered(key, entry, body=body, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 1, 4096, 131_072, 131_073, 1 << 20, LARGE])
async def test_a_body_is_read_back_as_it_was_put(store: Store, size: int) -> None:
    body = bytes(index * 31 % 251 for index in range(min(size, 4096))) * (size // 4096 + 1)
    body = body[:size]
    answer = await offer(store, KEY, put(1, body), body)
    assert answer.counts
    assert answer.votes
    assert await body_of(store) == body


@pytest.mark.parametrize("size", [300_000, LARGE])
async def test_a_span_of_a_body_is_read_without_the_rest(store: Store, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    await offer(store, KEY, put(1, body), body)
    found = await store.open_object(KEY)
    assert found is not None
    _, opened = found
    for start, stop in [
        (0, 1),
        (131_071, 131_073),
        (131_072, 262_144),
        (size - 1, size),
        (7, size - 7),
        (5, 5),
    ]:
        assert bytes(await opened.read(start, stop)) == body[start:stop]
    assert b"".join([bytes(chunk) async for chunk in opened.stream(10, size - 3)]) == body[10 : size - 3]
    opened.release()


async def test_a_body_that_is_not_as_long_as_its_entry_says_is_refused_and_nothing_is_stored(
    store: Store,
) -> None:
    with pytest.raises(StorageError, match="its entry says 5"):
        await offer(store, KEY, put(1, b"12345"), b"1234")
    assert store.read(KEY) is None


@pytest.mark.parametrize("size", [3_000, LARGE])
async def test_a_staged_body_appears_only_when_its_offer_is_accepted(store: Store, size: int) -> None:
    entry = put(1, bytes(size))
    staged = store.stage(entry.body_id)
    for at in range(0, size, 100_000):
        await staged.write(bytes(min(100_000, size - at)))
    assert store.read(KEY) is None
    answer = await store.offer(Offered(KEY, entry, body=staged))
    await staged.abort()
    assert answer.counts
    assert await body_of(store) == bytes(size)


async def test_a_newer_entry_replaces_an_older_one_and_the_answer_tells_what_it_replaced(
    store: Store,
) -> None:
    first, second, third = put(1, b"a"), delete(2), put(3, b"b")
    assert (await offer(store, KEY, first, b"a")).replaced is None
    gone = await offer(store, KEY, second)
    assert gone.replaced is not None
    assert (gone.replaced.version, gone.replaced.live) == (first.version, True)
    assert await body_of(store) is None
    back = await offer(store, KEY, third, b"b")
    assert back.replaced is not None
    assert back.replaced.live is False


async def test_an_offer_that_is_asked_again_is_answered_as_before(store: Store) -> None:
    first, second = put(1, b"a"), delete(2)
    await offer(store, KEY, first, b"a")
    before = await offer(store, KEY, second)
    assert await offer(store, KEY, second) == before
    again = await offer(store, KEY, first)
    assert again.accepted
    assert again.whole, "its body was here when it was replaced"


async def test_an_older_offer_is_refused_and_told_what_to_pass(store: Store) -> None:
    newer = put(5, b"new")
    await offer(store, KEY, newer, b"new")
    refused = await offer(store, KEY, put(4, b"old"), b"old")
    assert (refused.accepted, refused.above) == (False, newer.ballot)
    assert await body_of(store) == b"new"


async def test_a_promise_refuses_what_is_below_it_and_reports_what_was_held(store: Store) -> None:
    first = put(1, b"a")
    await offer(store, KEY, first, b"a")
    promise = await store.prepare(KEY, ballot(10))
    assert promise.register is not None
    assert promise.register.entry == first
    assert promise.whole
    assert (await offer(store, KEY, put(9, b"b"), b"b")).above == ballot(10)
    assert (await store.prepare(KEY, ballot(10))).above == ballot(10)
    assert (await offer(store, KEY, put(10, b"c"), b"c")).counts
    held = store.read(KEY)
    assert held is not None
    assert held.register.promised == ZERO_BALLOT, "a promise that was fulfilled is outstanding no more"


async def test_an_entry_without_its_body_never_counts_until_it_is_filled(store: Store) -> None:
    entry = put(1, b"body")
    answer = await offer(store, KEY, entry)
    assert (answer.accepted, answer.whole, answer.counts) == (True, False, False)
    assert store.missing(None, 10) == [KEY]
    assert await body_of(store) is None
    assert not await store.fill(KEY, new_id(), b"body"), "another write's body"
    assert await store.fill(KEY, entry.body_id, b"body")
    assert store.missing(None, 10) == []
    assert (await offer(store, KEY, entry)).counts
    assert await body_of(store) == b"body"


async def test_the_same_offer_with_the_body_makes_an_entry_whole(store: Store) -> None:
    entry = put(1, bytes(LARGE))
    assert not (await offer(store, KEY, entry)).whole
    assert (await offer(store, KEY, entry, bytes(LARGE))).whole
    assert await body_of(store) == bytes(LARGE)


async def test_a_body_that_is_here_is_not_let_go_of_for_one_that_does_not_come_along(store: Store) -> None:
    await offer(store, KEY, put(1, b"here"), b"here")
    later = put(2, b"later")
    answer = await offer(store, KEY, later)
    assert (answer.accepted, answer.wants_body, answer.above) == (False, True, None)
    assert await body_of(store) == b"here"
    assert (await offer(store, KEY, later, b"later")).counts
    assert await body_of(store) == b"later"
    gone = Entry(ballot(3), new_id(), 0, tombstone=True)
    assert (await offer(store, KEY, gone)).counts, "what needs no body takes the place of one"
    assert (await offer(store, KEY, put(4, b"missing"))).accepted, "where none is, order is kept without it"


async def test_a_post_keeps_the_body_that_is_here(store: Store) -> None:
    first = put(1, b"body")
    await offer(store, KEY, first, b"body")
    changed = post(2, first, metadata=b"\x81\xa1x\x01")
    assert (await offer(store, KEY, changed)).counts
    found = await store.open_object(KEY)
    assert found is not None
    assert found[0].metadata == b"\x81\xa1x\x01"
    assert bytes(await found[1].read(0, 4)) == b"body"
    found[1].release()


async def test_an_entry_carried_through_under_a_new_ballot_keeps_its_body(store: Store) -> None:
    first = put(1, b"body")
    await offer(store, KEY, first, b"body")
    await store.prepare(KEY, ballot(7))
    carried = first._replace(ballot=ballot(7))
    assert (await offer(store, KEY, carried, offer=Offer.PASSING)).counts
    assert await body_of(store) == b"body"


@pytest.mark.parametrize(
    ("at", "offered_as", "fix"),
    [
        (61_000_000, Offer.FIRST, "ahead"),
        (301_000_000, Offer.PASSING, "ahead"),
        (301_000_000, Offer.COPY, "ahead"),
        (-4 * DAY_US, Offer.FIRST, "older than half the reclaim age"),
    ],
)
async def test_a_ballot_from_a_bad_clock_is_refused(
    store: Store, at: int, offered_as: Offer, fix: str
) -> None:
    with pytest.raises(BallotRefused, match=f"{fix}.*: set the clock of the host"):
        await offer(store, KEY, delete(at), offer=offered_as)
    with pytest.raises(BallotRefused, match="ahead"):
        await store.prepare(KEY, ballot(301_000_000))


async def test_an_owner_that_does_not_vote_says_so_and_claims_no_memory(store: Store) -> None:
    await stand(store, OBJECTS, partition_of(KEY), Standing(votes=False))
    promise = await store.prepare(KEY, ballot(1))
    assert not promise.votes
    assert promise.register is not None
    assert promise.register.since_us is None


async def test_below_the_floor_an_absent_key_is_not_written_but_a_held_one_is(store: Store) -> None:
    held = object_key("held")
    await offer(store, held, put(-9_000, b"x"), b"x")
    for key in (KEY, held):
        await stand(store, OBJECTS, partition_of(key), Standing(votes=True, floor_us=NOW_US - 100))
    refused = await offer(store, KEY, put(-101, b"late"), b"late")
    assert refused.above == Ballot.of(NOW_US - 100, 0)
    assert (await store.prepare(KEY, ballot(-101))).above == Ballot.of(NOW_US - 100, 0)
    assert (await offer(store, held, put(-101, b"y"), b"y")).counts
    promise = await store.prepare(KEY, ballot(5))
    assert promise.register is not None
    assert promise.register.since_us == NOW_US - 100, "what lay below may have been forgotten"


async def test_an_owner_that_catches_up_takes_old_entries_from_voters_only(store: Store) -> None:
    await stand(store, OBJECTS, partition_of(KEY), Standing(votes=False))
    old = put(-8 * DAY_US, b"x")
    copy = {"offer": Offer.COPY}
    assert not (await offer(store, KEY, old, b"x", **copy)).accepted
    assert (await offer(store, KEY, old, b"x", from_voter=True, **copy)).counts
    held = store.read(KEY)
    assert held is not None
    assert held.register.since_us is None, "its memory starts at what it took"


async def test_first_votes_are_granted_once_and_never_where_a_vote_was_taken_away(store: Store) -> None:
    table = objects(1)  # the fixture votes on the others already
    assert await store.grant_first_votes(table, (1, 2)) == 2
    assert store.standing(table, 1) == store.standing(table, 2) == Standing(votes=True)
    assert not store.standing(table, 3).votes
    await stand(store, table, 1, Standing(votes=False, floor_us=5))
    assert await store.grant_first_votes(table, (1, 2, 3)) == 1
    assert store.standing(table, 1) == Standing(votes=False, floor_us=5)
    assert store.standing(table, 3).votes


@pytest.mark.parametrize(
    ("floor", "high"),
    [
        ("floor_us", Standing(votes=True, floor_us=100)),
        ("refusing_us", Standing(votes=True, refusing_us=100)),
    ],
)
@pytest.mark.parametrize("to_us", [99, 0])
async def test_a_floor_never_sinks(store: Store, floor: str, high: Standing, to_us: int) -> None:
    lower = high._replace(floor_us=min(high.floor_us, to_us), refusing_us=min(high.refusing_us, to_us))
    await stand(store, OBJECTS, 3, high)
    with pytest.raises(StorageError, match=f"{floor} of partition 3 cannot sink from 100 to {to_us}"):
        await stand(store, OBJECTS, 3, lower)
    assert store.standing(OBJECTS, 3) == high


async def test_a_standing_that_was_changed_meanwhile_is_not_overwritten(store: Store) -> None:
    seen = store.standing(OBJECTS, 3)
    assert seen.votes
    await store.set_standing(OBJECTS, 3, seen._replace(votes=False), seen=seen)
    with pytest.raises(StorageError, match="read it again, and decide anew"):
        await store.set_standing(OBJECTS, 3, seen._replace(refusing_us=5), seen=seen)
    assert store.standing(OBJECTS, 3) == Standing(votes=False)


async def test_of_changes_that_were_decided_on_one_standing_only_one_is_made(store: Store) -> None:
    seen = store.standing(OBJECTS, 3)
    answers = await asyncio.gather(
        *(store.set_standing(OBJECTS, 3, seen._replace(floor_us=at), seen=seen) for at in range(1, 9)),
        return_exceptions=True,
    )
    assert sum(answer is None for answer in answers) == 1
    assert store.standing(OBJECTS, 3).floor_us == answers.index(None) + 1


async def test_a_tombstone_that_came_below_the_floor_outlives_it(store: Store) -> None:
    old, late = put(-500), delete(-400)
    await offer(store, KEY, old)
    partition = partition_of(KEY)
    await stand(store, OBJECTS, partition, Standing(votes=True, floor_us=0, refusing_us=NOW_US - 300))
    assert (await offer(store, KEY, late, offer=Offer.COPY)).accepted, "it is newer than what is held"
    assert (await offer(store, KEY, late, offer=Offer.COPY)).accepted, "and known from then on"
    await stand(
        store, OBJECTS, partition, Standing(votes=True, floor_us=NOW_US - 300, refusing_us=NOW_US - 300)
    )
    assert (await store.reclaim(OBJECTS, partition, 9)).registers == 0, "not all may hold it"
    await stand(
        store, OBJECTS, partition, Standing(votes=True, floor_us=NOW_US - 299, refusing_us=NOW_US - 299)
    )
    assert (await store.reclaim(OBJECTS, partition, 9)).registers == 1


async def test_no_floor_is_taken_from_a_clock_that_is_ahead(store: Store) -> None:
    seen = store.standing(OBJECTS, 3)
    ahead_us = NOW_US + CLOCK_AHEAD_PASSING_US + 1
    for ahead in (seen._replace(floor_us=ahead_us), seen._replace(refusing_us=ahead_us)):
        with pytest.raises(StorageError, match="set the clock of the host that asks"):
            await store.set_standing(OBJECTS, 3, ahead, seen=seen)
    assert store.standing(OBJECTS, 3) == seen


async def test_reclaim_forgets_tombstones_and_lone_promises_below_the_floor_and_nothing_else(
    store: Store,
) -> None:
    names = {"dead": delete(-9_000), "fresh": delete(-10), "live": put(-9_000, b"")}
    for name, entry in names.items():
        await offer(store, object_key(name), entry)
    await store.prepare(object_key("promised"), ballot(-8_000))
    await store.prepare(object_key("live"), ballot(-8_000))
    for partition in range(16):
        await stand(store, OBJECTS, partition, Standing(votes=True, floor_us=NOW_US - 100))
    done = [await store.reclaim(OBJECTS, partition, 10) for partition in range(16)]
    assert sum(each.registers for each in done) == 2
    present = [name for name in ("dead", "fresh", "live", "promised") if store.read(object_key(name))]
    assert present == ["fresh", "live"]


async def test_a_tombstone_is_not_forgotten_before_its_row_is_paid(store: Store) -> None:
    gone = delete(-9_000)
    await offer(store, KEY, gone, owing=True)
    await stand(store, OBJECTS, partition_of(KEY), Standing(votes=True, floor_us=NOW_US - 100))
    assert (await store.reclaim(OBJECTS, partition_of(KEY), 10)).registers == 0
    assert store.due(Due.DEBT, NOW_US, 5) == [(KEY, gone.version)]
    assert await store.pay([(KEY, gone.version)]) == 1
    assert (await store.reclaim(OBJECTS, partition_of(KEY), 10)).registers == 1
    assert store.read(KEY) is None


async def test_the_floor_stands_for_a_key_that_holds_but_a_promise(store: Store) -> None:
    await store.prepare(KEY, ballot(-500))
    await stand(store, OBJECTS, partition_of(KEY), Standing(votes=True, floor_us=NOW_US - 100))
    assert (await offer(store, KEY, put(-400, b"late"), b"late")).above == Ballot.of(NOW_US - 100, 0)
    assert (await store.prepare(KEY, ballot(-300))).above == Ballot.of(NOW_US - 100, 0)
    assert (await offer(store, KEY, put(-50, b"x"), b"x")).counts


async def test_a_debt_is_due_until_it_is_paid_and_only_for_the_entry_that_owes(store: Store) -> None:
    first, second = put(1, b""), put(2, b"")
    await offer(store, KEY, first, owing=True)
    assert store.due(Due.DEBT, NOW_US + 10, 5) == [(KEY, first.version)]
    await offer(store, KEY, second, owing=True)
    assert store.due(Due.DEBT, NOW_US + 10, 5) == [(KEY, second.version)]
    assert await store.pay([(KEY, first.version)]) == 0
    assert await store.pay([(KEY, second.version)]) == 1
    assert store.due(Due.DEBT, NOW_US + 10, 5) == []


async def test_what_is_to_be_deleted_falls_due_in_the_order_of_time(store: Store) -> None:
    for name, due in [("b", 30), ("a", 50), ("c", 10)]:
        await offer(store, object_key(name), put(1, b"", delete_at=NOW_US + due))
    await offer(store, object_key("b"), put(2, b""))
    assert [key.path[-1:] for key, _ in store.due(Due.DELETE, NOW_US + 100, 5)] == [b"c", b"a"]
    assert [key.path[-1:] for key, _ in store.due(Due.DELETE, NOW_US + 50, 5)] == [b"c"]


async def test_what_is_due_at_one_time_is_gone_over_in_slices_that_miss_nothing(store: Store) -> None:
    for number in range(25):
        await offer(store, object_key(str(number)), put(1, b"", delete_at=NOW_US + number % 2))
    seen: list[DueDelete] = []
    while some := store.due_deletes(NOW_US + 10, 4, seen[-1] if seen else None):
        seen += some
    assert [due.at_us for due in seen] == [NOW_US] * 13 + [NOW_US + 1] * 12
    assert {due.key for due in seen} == {object_key(str(number)) for number in range(25)}
    assert len(store.due_deletes(NOW_US + 1, 99)) == 13


async def test_an_object_described_anew_falls_due_at_its_new_time_or_never(store: Store) -> None:
    first = put(1, b"", delete_at=NOW_US + 10)
    await offer(store, KEY, first)
    again = put(2, b"", delete_at=NOW_US + 20)._replace(body_id=first.body_id)
    await offer(store, KEY, again)
    assert store.due_deletes(NOW_US + 100, 9) == [DueDelete(NOW_US + 20, KEY)]
    await offer(store, KEY, put(3, b"")._replace(body_id=first.body_id))
    assert store.due_deletes(NOW_US + 100, 9) == []


@pytest.mark.parametrize("table", [b"o\0", b"o\1"], ids=["part power 4", "part power 18"])
async def test_a_digest_is_that_of_the_entries_it_covers(store: Store, table: bytes) -> None:
    held: dict[bytes, Entry] = {}
    for number in range(60):
        key = object_key(f"n{number % 40}", table)
        held[key.path] = put(number, b"")
        await offer(store, key, held[key.path])
    partitions: dict[int, list[tuple[bytes, Entry]]] = {}
    for path, entry in held.items():
        partitions.setdefault(LAYOUT.partition(table, LAYOUT.hashed(path)), []).append((path, entry))
    for partition, entries in partitions.items():
        assert store.partition_digest(table, partition) == digest_of(entries)
        for path, _ in entries:
            listed = store.registers(table, BUCKET_BITS, LAYOUT.hashed(path) >> (128 - BUCKET_BITS), b"", 100)
            assert path in [key.path for key, _ in listed]
    empty = next(number for number in range(16) if number not in partitions or table == b"o\1")
    assert store.partition_digest(table, empty) == digest_of(partitions.get(empty, []))


async def test_a_dropped_partition_leaves_nothing_behind(store: Store) -> None:
    for number in range(30):
        await offer(store, object_key(f"n{number}"), put(1, b"x", delete_at=NOW_US + 9), b"x", owing=True)
    for partition in range(16):
        while await store.drop(OBJECTS, partition, 4):
            pass
        assert store.partition_digest(OBJECTS, partition) == EMPTY
    assert store.due(Due.DEBT, NOW_US + 10, 5) == store.due(Due.DELETE, NOW_US + 10, 5) == []


async def rows(store: Store, *offered: tuple[bytes, Entry]) -> list[RowRefused | None]:
    """Upsert rows of the tests' container; return what was refused, and None for what was taken."""
    answers = await store.upsert_rows([RowOffer(CONTAINER, name, entry) for name, entry in offered])
    return [answer if isinstance(answer, RowRefused) else None for answer in answers]


async def test_a_container_counts_its_rows_exactly(store: Store) -> None:
    await offer(store, CONTAINER, container())
    a, b = row(1, 10), row(1, 5, policy=1)
    await rows(store, (b"a", a), (b"b", b), (b"c", row(1, 7)))
    await rows(store, (b"c", row(2, tombstone=True)), (b"a", row(0, 99)))
    tally = store.tally(ROWS)
    assert (tally.rows, tally.objects, tally.bytes) == (2, 2, 15)
    assert tally.policies == ((0, 1, 1, 10), (1, 1, 1, 5))
    assert tally.digest.entries == 3


async def test_the_same_rows_in_any_order_give_the_same_digest(store: Store) -> None:
    offered = [(bytes([97 + n % 7]), row(n, n)) for n in range(20)]
    await rows(store, *offered)
    one = store.tally(ROWS)
    other = Listing(Key(CONTAINERS, b"acc\0other"), CREATED)
    await store.upsert_rows([RowOffer(other.parent, name, entry) for name, entry in reversed(offered)])
    assert store.tally(other) == one


async def test_an_account_sums_up_the_rows_of_its_containers(store: Store) -> None:
    account = Key(b"a\0", b"acc")
    entries = [put(1, size=100, objects=7, body_id=bytes(16)), put(1, size=11, objects=3, body_id=bytes(16))]
    names = [b"con1", b"con2"]
    await store.upsert_rows(
        [RowOffer(account, name, entry) for name, entry in zip(names, entries, strict=True)]
    )
    tally = store.tally(Listing(account))
    assert (tally.rows, tally.objects, tally.bytes) == (2, 10, 111)
    assert [listed.name for listed in store.list_rows(Listing(account), Query()).rows] == names


async def test_an_account_lists_containers_of_all_incarnations_together(store: Store) -> None:
    account = Key(b"a\0", b"acc")
    live = put(5, size=100, objects=7, body_id=bytes(16))
    for name, lead in ((b"con1", 1), (b"con2", 2)):
        ballot_of = Ballot.of(NOW_US + 5, 1, Timestamp.of(NOW_US + lead, 1))
        await store.upsert_rows([RowOffer(account, name, live._replace(ballot=ballot_of))])
    assert [listed.name for listed in store.list_rows(Listing(account), Query()).rows] == [b"con1", b"con2"]
    late = live._replace(ballot=Ballot.of(NOW_US + 9, 1, Timestamp.of(NOW_US, 1)), objects=9)
    await store.upsert_rows([RowOffer(account, b"con1", late)])
    assert store.tally(Listing(account)).objects == 14, "a newer incarnation always wins"


async def test_a_closing_promise_refuses_rows_until_a_later_prepare_lifts_it(store: Store) -> None:
    await offer(store, CONTAINER, container())
    await store.prepare(CONTAINER, ballot(1), closing=True)
    assert await rows(store, (b"a", row(2))) == [RowRefused(closing=True, incarnation=CREATED)]
    await store.prepare(CONTAINER, ballot(3))
    assert await rows(store, (b"a", row(2))) == [RowRefused(closing=True, incarnation=CREATED)]
    await offer(store, CONTAINER, container(3))
    assert await rows(store, (b"a", row(2))) == [None]


async def test_a_row_is_taken_under_the_ballot_of_the_containers_entry(store: Store) -> None:
    offered = [RowOffer(CONTAINER, b"a", row(2))]
    assert await store.upsert_rows(offered) == [ZERO_BALLOT]
    await offer(store, CONTAINER, container())
    await store.prepare(CONTAINER, ballot(7))
    assert await store.upsert_rows(offered) == [container().ballot]


async def test_a_deleted_container_refuses_rows_and_a_new_one_starts_empty(store: Store) -> None:
    await offer(store, CONTAINER, container())
    await rows(store, (b"a", row(1)), (b"b", row(1, tombstone=True)))
    await offer(store, CONTAINER, container(5, tombstone=True))
    assert await rows(store, (b"late", row(6))) == [RowRefused(closing=False, incarnation=CREATED)]
    again = Timestamp.of(NOW_US + 10, 9)
    await offer(store, CONTAINER, container(10, incarnation=again))
    assert await rows(store, (b"late", row(6))) == [RowRefused(closing=False, incarnation=again)]
    assert await rows(store, (b"new", row(11, incarnation=again))) == [None]
    assert [listed.name for listed in store.list_rows(Listing(CONTAINER, again), Query()).rows] == [b"new"]
    while await store.sweep(1):
        pass
    assert store.list_rows(ROWS, Query(tombstones=True)).rows == ()
    assert store.tally(ROWS).digest == EMPTY
    assert store.tally(Listing(CONTAINER, again)).rows == 1


async def test_what_others_own_is_let_go_of_and_what_this_device_votes_on_never(store: Store) -> None:
    key, partition, entry = object_key("o"), partition_of(object_key("o")), put(1, b"x")
    await offer(store, key, entry, b"x")
    await offer(store, CONTAINER, container())
    await rows(store, (b"a", row(1)))
    mine, listed = [(key.path, entry.version)], [RowHeld(ROWS, b"a", row(1).ballot)]

    async def release() -> int:
        return await store.release(OBJECTS, mine) + await store.release(CONTAINERS, (), listed)

    assert await release() == 0, "it votes"
    assert store.read(key) is not None
    await stand(store, OBJECTS, partition, Standing())
    await stand(store, CONTAINERS, partition_of(CONTAINER), Standing())
    assert await store.release(OBJECTS, mine, is_current=lambda: False) == 0, "the ring changed meanwhile"
    assert await release() == 2
    assert store.read(key) is None


async def test_rows_are_not_added_to_a_listing_that_is_being_swept(store: Store) -> None:
    await offer(store, CONTAINER, container())
    await rows(store, (b"a", row(1)), (b"b", row(1)))
    assert await store.drop(CONTAINERS, partition_of(CONTAINER), 10) == 1
    with pytest.raises(StorageError, match="sweep, and try again"):
        await rows(store, (b"c", row(2)))
    while await store.sweep(1):
        pass
    await rows(store, (b"c", row(2)))
    assert [listed.name for listed in store.list_rows(ROWS, Query()).rows] == [b"c"]
    assert store.tally(ROWS).rows == 1


async def test_a_row_that_its_owners_forgot_is_not_brought_back_by_a_late_copy(store: Store) -> None:
    await offer(store, CONTAINER, container())
    await rows(store, (b"a", row(-9_000, tombstone=True)), (b"held", row(-9_000)))
    floor = Standing(votes=True, floor_us=NOW_US - 100)
    await stand(store, CONTAINERS, partition_of(CONTAINER), floor)
    assert (await store.reclaim(CONTAINERS, partition_of(CONTAINER), 10)).rows == 1
    refused, taken = await rows(store, (b"a", row(-9_500)), (b"held", row(-8_000)))
    assert refused is not None
    assert taken is None
    assert [listed.name for listed in store.list_rows(ROWS, Query(tombstones=True)).rows] == [b"held"]
    assert store.tally(ROWS).digest.entries == 1


NAMES = [b"a", b"a/", b"a/1", b"a/2", b"a0", b"b", b"b//x", b"b//y", b"c\xc3\xa9", b"c\xc3\xaa/z"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (Query(), NAMES),
        (Query(reverse=True), NAMES[::-1]),
        (Query(prefix=b"a/"), [b"a/", b"a/1", b"a/2"]),
        (Query(prefix=b"a/", reverse=True), [b"a/2", b"a/1", b"a/"]),
        (Query(marker=b"a/1"), NAMES[3:]),
        (Query(marker=b"a/1", end_marker=b"b"), [b"a/2", b"a0"]),
        (Query(marker=b"b", end_marker=b"a/1", reverse=True), [b"a0", b"a/2"]),
        (Query(limit=2), NAMES[:2]),
        (Query(limit=0), []),
        (Query(delimiter=b"/"), [b"a", b"a/", b"a0", b"b", b"b/", b"c\xc3\xa9", b"c\xc3\xaa/"]),
        (Query(delimiter=b"/", reverse=True), [b"c\xc3\xaa/", b"c\xc3\xa9", b"b/", b"b", b"a0", b"a/", b"a"]),
        (Query(delimiter=b"/", marker=b"a/"), [b"a0", b"b", b"b/", b"c\xc3\xa9", b"c\xc3\xaa/"]),
        (
            Query(delimiter=b"//"),
            [b"a", b"a/", b"a/1", b"a/2", b"a0", b"b", b"b//", b"c\xc3\xa9", b"c\xc3\xaa/z"],
        ),
        (Query(delimiter=b"/", prefix=b"b/"), [b"b//"]),
        (Query(delimiter=b"\xc3"), [b"a", b"a/", b"a/1", b"a/2", b"a0", b"b", b"b//x", b"b//y", b"c\xc3"]),
        (Query(prefix=b"zzz"), []),
        (Query(marker=b"zzz"), []),
        (Query(marker=b"b", end_marker=b"a"), []),
    ],
)
async def test_a_page_holds_what_was_asked_for(store: Store, query: Query, names: list[bytes]) -> None:
    await rows(store, *((name, row(1)) for name in NAMES))
    page = store.list_rows(ROWS, query)
    assert [listed.name for listed in page.rows] == names
    assert page.digest == store.tally(ROWS).digest


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("delimiter", [b"", b"/"])
async def test_pages_follow_each_other_without_gap_or_repetition(
    store: Store, reverse: bool, delimiter: bytes
) -> None:
    await rows(store, *((name, row(1)) for name in NAMES), (b"a/3", row(1, tombstone=True)))
    whole = store.list_rows(ROWS, Query(reverse=reverse, delimiter=delimiter)).rows
    paged: list[bytes] = []
    marker: bytes | None = b""
    while marker is not None:
        page = store.list_rows(ROWS, Query(marker=marker, reverse=reverse, delimiter=delimiter, limit=2))
        paged += [listed.name for listed in page.rows]
        marker = page.more
    assert paged == [listed.name for listed in whole]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("names_only", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_pass_over_what_is_hidden(
    store: Store, reverse: bool, names_only: bool, limit: int
) -> None:
    hidden = (row(2, tombstone=True), row(1, delete_at=NOW_US + 5))
    kinds = (*hidden, row(1), row(1, delete_at=NOW_US + 6))
    here = {b"%03d" % n: kinds[(n * n // 7) % 4] for n in range(60)}
    await rows(store, *here.items())
    shown = sorted((name for name, entry in here.items() if entry not in hidden), reverse=reverse)
    paged: list[bytes] = []
    marker: bytes | None = b""
    while marker is not None:
        query = Query(marker=marker, reverse=reverse, limit=limit, names_only=names_only, now_us=NOW_US + 5)
        page = store.list_rows(ROWS, query)
        assert len(page.rows) <= limit
        paged += [listed.name for listed in page.rows]
        if not names_only:
            assert all(listed.entry == here[listed.name] for listed in page.rows)
        marker = page.more
    assert paged == shown


async def test_tombstones_and_due_rows_are_listed_only_on_request(store: Store) -> None:
    gone, due = row(2, tombstone=True), row(1, delete_at=NOW_US + 5)
    await rows(store, (b"dir/gone", gone), (b"due", due), (b"here", row(1)))
    assert [r.name for r in store.list_rows(ROWS, Query(delimiter=b"/", now_us=NOW_US + 5)).rows] == [b"here"]
    listed = store.list_rows(ROWS, Query(tombstones=True, now_us=NOW_US + 5)).rows
    assert [r.entry for r in listed][:2] == [gone, due]
    with pytest.raises(ValueError, match="without a delimiter"):
        store.list_rows(ROWS, Query(tombstones=True, delimiter=b"/"))


async def test_ranges_split_as_they_fill_and_any_span_has_its_digest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage_node.rows.RANGE_ROWS_MAX", 16)
    offered = [(f"{number * 7919 % 500:03d}".encode(), row(number, number)) for number in range(200)]
    for at in range(0, 200, 50):
        await rows(store, *offered[at : at + 50])
    ranges = store.ranges(ROWS)
    held = dict(sorted(offered))
    assert 200 / 16 <= len(ranges) <= 200 / 8
    assert ranges[0][0] == b""
    for limit in (1, 7, len(ranges)):
        after, paged = None, []
        while some := store.ranges(ROWS, after, limit):
            assert len(some) <= limit
            paged += some
            after = some[-1][0]
        assert paged == ranges
    for at, (first, tally) in enumerate(ranges):
        stop = ranges[at + 1][0] if at + 1 < len(ranges) else b"\xff"
        inside = [(name, entry) for name, entry in held.items() if first <= name < stop]
        assert tally.digest == digest_of(inside)
        assert tally.bytes == sum(entry.size for _, entry in inside)
        assert 0 < tally.rows <= 16
    for start, stop in [
        (b"", b""),
        (b"100", b"300"),
        (b"", b"250"),
        (b"333", b""),
        (b"200", b"201"),
        (b"9", b"1"),
    ]:
        expected = digest_of((n, e) for n, e in held.items() if n >= start and (not stop or n < stop))
        assert store.span_digest(ROWS, start, stop) == expected
    whole = Digest()
    for _, tally in ranges:
        whole = whole.joined(tally.digest)
    assert whole == store.tally(ROWS).digest


async def test_an_emptied_range_is_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.rows.RANGE_ROWS_MAX", 4)
    await offer(store, CONTAINER, container())
    await rows(store, *((f"{n:02d}".encode(), row(-9_000, tombstone=True)) for n in range(20)))
    assert len(store.ranges(ROWS)) > 3
    await stand(store, CONTAINERS, partition_of(CONTAINER), Standing(votes=True, floor_us=NOW_US - 100))
    while (await store.reclaim(CONTAINERS, partition_of(CONTAINER), 3)).more:
        pass
    assert [first for first, _ in store.ranges(ROWS)] == [b""]
    await rows(store, (b"05", row(1, 3)))
    assert store.tally(ROWS).digest == store.span_digest(ROWS, b"", b"") == store.ranges(ROWS)[0][1].digest


async def test_what_is_awaited_is_what_is_read_at_once(store: Store) -> None:
    await offer(store, KEY, put(1, b"body"), b"body", owing=True)
    await store.offer(Offered(CONTAINER, container()))
    await store.upsert_rows([RowOffer(CONTAINER, b"one", row(1, 4))])
    assert await store.look_up(KEY) == store.read(KEY) is not None
    assert await store.look_up(object_key("absent")) is None
    assert await store.scan(store.list_rows, ROWS, Query()) == store.list_rows(ROWS, Query())
    assert await store.scan(store.tally, ROWS) == store.tally(ROWS)
    assert await store.scan(store.ranges, ROWS) == store.ranges(ROWS)
    digest = store.span_digest(ROWS, b"", b"")
    assert await store.scan(store.span_digest, ROWS, b"", stop=b"") == digest != EMPTY
    assert await store.scan(store.due, Due.DEBT, NOW_US + DAY_US, limit=9) == store.due(
        Due.DEBT, NOW_US + DAY_US, 9
    )


async def test_a_glance_shows_what_a_read_finds(store: Store) -> None:
    names = ("small", "bodiless", "empty", "promised", "deleted", "absent")
    small, bodiless, empty, promised, deleted, absent = map(object_key, names)
    await offer(store, small, put(1, b"body"), b"body")
    await offer(store, bodiless, put(2, b"elsewhere"))
    await offer(store, empty, put(3, b""), b"")
    await store.prepare(small, ballot(8))
    await store.prepare(promised, ballot(9))
    await offer(store, deleted, put(4, b"old"), b"old")
    await offer(store, deleted, delete(5))
    shown = {}
    for key in (small, bodiless, empty, promised, deleted, absent):
        held, body = await store.find(key, 4)
        entry = None if held is None else held.register.entry
        content = None if body is None else bytes(await body.read(0, body.size))
        if body is not None:
            body.release()
        whole = held is None or held.location.held
        seen = store.glance(key, LAYOUT.hashed(key.path), 4)
        assert seen is not None, key
        assert seen.raw == (None if entry is None else encode(entry)), key
        assert (seen.whole, None if seen.body is None else bytes(seen.body)) == (whole, content), key
        shown[key] = content
    assert shown[small] == b"body"
    assert store.glance(small, LAYOUT.hashed(small.path), 3) == Glance(
        encode(put_of(store, small)), whole=True, body=None
    )


def put_of(store: Store, key: Key) -> Entry:
    """Return the entry that stands at a key."""
    held = store.read(key)
    assert held is not None
    assert held.register.entry is not None
    return held.register.entry


async def test_what_a_scan_raises_comes_to_its_caller(store: Store) -> None:
    with pytest.raises(ValueError, match="call reclaim"):
        await store.scan(store.due, Due.RECLAIM, NOW_US, 1)
