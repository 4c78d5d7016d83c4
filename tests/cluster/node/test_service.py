"""The service of a device, over both transports and both stores: what is asked is done, and what is wrong is told by name."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from storage_node.disk import Disk
from storage_node.errors import (
    BallotRefused,
    BodyDamaged,
    BodyGone,
    DeviceFailed,
    DeviceRefused,
    IndexDamaged,
    InsufficientStorage,
    OutcomeUnknown,
    RingChanged,
    StorageError,
)
from storage_node.files import StagedFile
from storage_node.keys import Key, key_of
from storage_node.service import reply_to
from storage_node.tables import Held
from swiftlike.entries import Entry, EntryDamaged, pack_metadata
from swiftlike.limits import (
    BODY_BYTES_MAX,
    CLOCK_AHEAD_PASSING_US,
    METADATA_BYTES_MAX,
    RPC_BODY_BYTES_MAX,
    WRITE_RUN_BYTES,
)
from swiftlike.node_calls import (
    CONTAINERS,
    Code,
    DueKind,
    Query,
    RowOffer,
    RowRefused,
    RowTaken,
    Standing,
    unpack_list,
)
from swiftlike.node_client import NodeFailed
from swiftlike.rpc.transport import Body, Outcome
from swiftlike.timestamps import Offer
from tests.cluster.node.conftest import EPOCH, Node
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
    object_key,
    put,
    row,
)


def path(name: str) -> bytes:
    return object_key(name).path


async def refusal(work: Any) -> tuple[str, str]:
    """Return the code and the sentence of a call that was judged and not done."""
    with pytest.raises(NodeFailed) as failed:
        await work
    assert failed.value.reply.outcome is Outcome.ERROR, failed.value
    return failed.value.reply.code, failed.value.reply.reason


# --- registers ----------------------------------------------------------------------------------------------------


async def test_an_object_that_was_offered_is_got_with_its_body(node: Node) -> None:
    entry = put(1, b"hello", metadata=pack_metadata({"content-type": "text/plain"}))
    answer = await node.client.offer(OBJECTS, path("o"), entry, b"hello")
    assert (answer.counts, answer.votes, answer.replaced, answer.above) == (True, True, None, None)
    found = await node.client.get(OBJECTS, path("o"))
    assert (found.entry, found.whole, found.votes, found.body) == (entry, True, True, b"hello")


async def test_a_get_for_the_entry_alone_brings_no_body(node: Node) -> None:
    entry = put(1, b"hello")
    await node.client.offer(OBJECTS, path("o"), entry, b"hello")
    assert await node.client.get(OBJECTS, path("o"), 4) == (entry, True, True, None)
    assert (await node.client.get(OBJECTS, path("o"), 5)).body == b"hello"


async def test_a_get_looks_its_key_up_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    await node.client.offer(OBJECTS, path("there"), put(1, b"x"), b"x")
    await node.client.offer(OBJECTS, path("larger"), put(1, bytes(100)), bytes(100))
    looked_up: list[Key] = []
    store: Any = node.store
    get = store._get

    def count(raw_key: bytes) -> bytes | None:
        looked_up.append(key_of(raw_key))
        found: bytes | None = get(raw_key)
        return found

    monkeypatch.setattr(store, "_get", count)
    for name in ("there", "larger", "absent"):
        await node.client.get(OBJECTS, path(name), 10)
    assert [key.path for key in looked_up] == [path("there"), path("larger"), path("absent")]


async def test_what_was_never_written_is_absent_and_the_owner_says_that_it_votes(node: Node) -> None:
    assert await node.client.get(OBJECTS, path("o")) == (None, True, True, None)
    assert await node.client.read(OBJECTS, path("o")) == (None, True, True)


async def test_an_empty_body_is_a_body(node: Node) -> None:
    entry = put(1, b"")
    assert (await node.client.offer(OBJECTS, path("o"), entry, b"")).counts
    assert (await node.client.get(OBJECTS, path("o"))).body == b""


async def test_an_entry_with_the_largest_metadata_travels_both_ways(node: Node) -> None:
    entry = put(1, b"x", metadata=pack_metadata({"k": b"v" * (METADATA_BYTES_MAX - 100)}))
    assert (await node.client.offer(OBJECTS, path("o"), entry, b"x")).counts
    register, _, _ = await node.client.read(OBJECTS, path("o"))
    assert register is not None
    assert register.entry == entry
    assert (await node.client.prepare(OBJECTS, path("o"), ballot(9))).register == register


async def test_an_older_offer_is_refused_with_the_ballot_that_must_be_passed(node: Node) -> None:
    newer = put(5, b"new")
    await node.client.offer(OBJECTS, path("o"), newer, b"new")
    answer = await node.client.offer(OBJECTS, path("o"), put(4, b"old"), b"old")
    assert (answer.accepted, answer.counts, answer.above) == (False, False, newer.ballot)


async def test_a_delete_tells_what_it_replaced(node: Node) -> None:
    entry = put(1, b"x")
    await node.client.offer(OBJECTS, path("o"), entry, b"x")
    answer = await node.client.offer(OBJECTS, path("o"), delete(2))
    assert answer.replaced is not None
    assert (answer.replaced.version, answer.replaced.live, answer.replaced.whole) == (
        entry.version,
        True,
        True,
    )


async def test_a_promise_refuses_what_is_below_it(node: Node) -> None:
    promise = await node.client.prepare(OBJECTS, path("o"), ballot(10))
    assert promise.register is not None
    assert promise.votes
    answer = await node.client.offer(OBJECTS, path("o"), put(9, b"x"), b"x")
    assert (answer.accepted, answer.above) == (False, ballot(10))
    assert (await node.client.prepare(OBJECTS, path("o"), ballot(3))).above == ballot(10)


async def test_an_entry_without_its_body_does_not_count_until_it_is_filled(node: Node) -> None:
    entry = put(1, b"hello")
    assert not (await node.client.offer(OBJECTS, path("o"), entry)).counts
    assert await node.client.missing() == [(OBJECTS, path("o"))]
    assert await node.client.get(OBJECTS, path("o")) == (entry, False, True, None)
    assert await node.client.fill(OBJECTS, path("o"), entry.body_id, b"hello")
    assert (await node.client.get(OBJECTS, path("o"))).body == b"hello"
    assert await node.client.missing() == []


# --- streams ------------------------------------------------------------------------------------------------------


async def stream_in(node: Node, name: str, entry: Entry, body: bytes, **options: Any) -> bool:
    async with node.client.put_stream(OBJECTS, path(name), entry.body_id, **options) as stream:
        await stream.send(body)
        return (await stream.commit(entry)).counts


@pytest.mark.parametrize(
    "size",
    [0, 1, 70_000, LARGE, 9 * WRITE_RUN_BYTES + 12_345],
    ids=["empty", "a byte", "small", "large", "many runs"],
)
async def test_a_streamed_body_comes_back_whole_and_in_ranges(node: Node, size: int) -> None:
    body = os.urandom(size)
    entry = put(1, body)
    assert await stream_in(node, "o", entry, body, size=size)
    for start, stop in ((0, None), (0, size), (size // 3, size // 2), (size, size)):
        async with node.client.get_stream(OBJECTS, path("o"), start, stop) as (found, chunks):
            assert found == entry
            assert b"".join([bytes(chunk) async for chunk in chunks]) == body[start:stop]


@pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
async def test_a_refused_commit_leaves_the_body_there_for_another(node: Node, size: int) -> None:
    body = os.urandom(size)
    await node.client.prepare(OBJECTS, path("o"), ballot(5))
    entry = put(1, body)
    async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
        await stream.send(body)
        # With a longer entry first, so that a shorter one must not be followed by what is left of it.
        refused = await stream.commit(entry._replace(metadata=pack_metadata({"long": "x" * 1000})))
        assert (refused.accepted, refused.above) == (False, ballot(5))
        with pytest.raises(NodeFailed) as older:
            await stream.commit(entry._replace(ballot=ballot(6)), epoch=EPOCH - 1)
        assert older.value.reply.code == Code.RING_OLDER
        with pytest.raises(NodeFailed) as ahead:
            await stream.commit(entry._replace(ballot=ballot(2 * CLOCK_AHEAD_PASSING_US)))
        assert ahead.value.reply.code == Code.BALLOT_REFUSED
        await stream.send(b"")
        assert stream.is_open
        accepted = await stream.commit(entry._replace(ballot=ballot(6)))
        assert accepted.counts
    async with node.client.get_stream(OBJECTS, path("o")) as (found, chunks):
        assert found.ballot == ballot(6)
        assert b"".join([bytes(chunk) async for chunk in chunks]) == body
    if node.root is not None and size == LARGE:
        (file,) = (node.root / "files").glob("??/*")
        assert list((node.root / "staging").iterdir()) == []
        assert size < file.stat().st_size < size + 1000


@pytest.mark.parametrize("size", [5, LARGE], ids=["small", "large"])
async def test_an_entry_that_names_another_body_than_the_one_that_was_sent_is_refused(
    node: Node, size: int
) -> None:
    body = bytes(size)
    async with node.client.put_stream(OBJECTS, path("o"), put(1).body_id) as stream:
        await stream.send(body)
        with pytest.raises(NodeFailed, match="another body than the one that was sent"):
            await stream.commit(put(1, body))
    assert node.store.read(object_key("o")) is None
    if node.root is not None:
        assert list((node.root / "staging").iterdir()) == []
        assert list((node.root / "files").glob("??/*")) == []


async def test_a_body_that_is_given_up_after_a_refused_commit_leaves_nothing(node: Node) -> None:
    await node.client.prepare(OBJECTS, path("o"), ballot(5))
    entry = put(1, bytes(LARGE))
    async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
        await stream.send(bytes(LARGE))
        assert not (await stream.commit(entry)).accepted
    if node.root is not None:
        async with asyncio.timeout(10):
            while list((node.root / "files").glob("??/*")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_body_cannot_go_on_after_a_commit(node: Node) -> None:
    await node.client.prepare(OBJECTS, path("o"), ballot(5))
    entry = put(1, b"five!")
    async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
        await stream.send(b"five!")
        assert not (await stream.commit(entry)).accepted
        await stream.send(b"more")
        with pytest.raises(NodeFailed) as refused:
            await stream.commit(entry._replace(ballot=ballot(6)))
    assert refused.value.reply.code == Code.BAD_CALL


async def test_a_body_arrives_in_order_in_whatever_pieces_it_is_sent(node: Node) -> None:
    body = os.urandom(4 * WRITE_RUN_BYTES + 77)
    entry = put(1, body)
    async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
        at, step = 0, 1
        while at < len(body):
            await stream.send(body[at : at + step])
            at, step = at + step, step * 3 % 300_007
        assert (await stream.commit(entry)).counts
    async with node.client.get_stream(OBJECTS, path("o")) as (_, chunks):
        assert b"".join([bytes(chunk) async for chunk in chunks]) == body


async def test_a_run_that_could_not_be_written_fails_its_stream_and_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    if node.root is None:
        pytest.skip("the memory has no disk that fails")
    write, runs = StagedFile.write, []

    def failing(staged: StagedFile, chunks: Iterable[Body]) -> None:
        runs.append(staged)
        if len(runs) == 2:
            raise StorageError("the disk took no more: look at it")
        write(staged, chunks)

    monkeypatch.setattr(StagedFile, "write", failing)
    entry = put(1, bytes(8 * WRITE_RUN_BYTES))
    with pytest.raises(NodeFailed, match="the disk took no more"):
        await stream_in(node, "o", entry, bytes(8 * WRITE_RUN_BYTES))
    assert len(runs) == 2, "what came meanwhile is not written behind a gap"
    await settled(node)
    assert await node.client.get(OBJECTS, path("o")) == (None, True, True, None)


async def test_a_stream_that_is_left_before_its_commit_leaves_nothing(node: Node) -> None:
    entry = put(1, bytes(LARGE))
    async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
        await stream.send(bytes(LARGE))
    assert await node.client.get(OBJECTS, path("o")) == (None, True, True, None)
    if node.root is not None:
        await settled(node)
        assert list((node.root / "staging").iterdir()) == []
        assert list((node.root / "files").glob("??/*")) == []


async def settled(node: Node) -> None:
    """Wait until the device has seen the end of all streams."""
    async with asyncio.timeout(10):
        while any((node.root / "staging").iterdir()):  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stream_that_ends_without_an_entry_stores_nothing(node: Node) -> None:
    header = {"table": OBJECTS, "epoch": EPOCH, "path": path("o"), "body_id": bytes(put(1).body_id)}
    deadline = node.transport.now() + 10
    async with node.transport.open_stream(node.address, "offer_stream", header, deadline=deadline) as stream:
        await stream.send(b"half of it")
        reply = await stream.finish()
    assert (reply.outcome, reply.code) == (Outcome.ERROR, Code.NO_COMMIT)


async def test_a_body_of_another_size_than_its_entry_says_is_refused(node: Node) -> None:
    entry = put(1, b"four")
    code, reason = await refusal(stream_in(node, "o", entry, b"five!"))
    assert code == Code.STORAGE_ERROR
    assert "5 bytes and its entry says 4" in reason


async def test_a_body_that_outgrows_its_declared_size_is_cut_off(node: Node) -> None:
    entry = put(1, bytes(3_000_000))
    with pytest.raises(NodeFailed) as ended:
        await stream_in(node, "o", entry, bytes(3_000_000), size=1_000_000)
    assert ended.value.reply.code == Code.BAD_CALL
    assert "passes 1000000 bytes" in ended.value.reply.reason


async def test_a_body_above_the_limit_is_refused_before_any_of_it_is_sent(node: Node) -> None:
    with pytest.raises(NodeFailed) as refused:
        await stream_in(node, "o", put(1, b"x"), b"x", size=BODY_BYTES_MAX + 1)
    assert refused.value.reply.code == Code.BAD_CALL
    assert f"from 0 to {BODY_BYTES_MAX}" in refused.value.reply.reason


async def test_a_full_device_refuses_a_large_body_before_it_is_sent(node: Node) -> None:
    node.room[0] = False
    with pytest.raises(NodeFailed) as refused:
        await stream_in(node, "o", put(1, b"x"), b"x", size=1)
    assert refused.value.reply.code == Code.INSUFFICIENT_STORAGE


@pytest.mark.parametrize(
    ("error", "code"),
    [(errno.ENOSPC, Code.INSUFFICIENT_STORAGE), (errno.EIO, Code.STORAGE_ERROR)],
    ids=["full", "failing"],
)
async def test_a_disk_that_refuses_a_streamed_body_has_a_code_and_is_no_bug(
    node: Node, monkeypatch: pytest.MonkeyPatch, error: int, code: Code
) -> None:
    if node.root is None:
        pytest.skip("a store in memory has no disk")

    def refuse(disk: Disk, fd: int, offset: int, buffers: object) -> None:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", refuse)
        with pytest.raises(NodeFailed) as refused:
            await stream_in(node, "o", put(1, bytes(LARGE)), bytes(LARGE))
    assert (refused.value.reply.outcome, refused.value.reply.code) == (Outcome.ERROR, code)
    assert node.handler_bugs() == 0
    await until_nothing_is_left(node)
    assert await stream_in(node, "o", put(2, bytes(LARGE)), bytes(LARGE))


async def test_a_missing_large_body_is_filled_by_a_stream(node: Node) -> None:
    body = os.urandom(LARGE)
    entry = put(1, body)
    await node.client.offer(OBJECTS, path("o"), entry)

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:100_000]
        yield body[100_000:]

    assert await node.client.fill_stream(OBJECTS, path("o"), entry.body_id, pieces(), LARGE)
    async with node.client.get_stream(OBJECTS, path("o")) as (_, chunks):
        assert b"".join([bytes(chunk) async for chunk in chunks]) == body


async def test_a_read_that_goes_on_elsewhere_meets_no_other_body(node: Node) -> None:
    body = os.urandom(LARGE)
    first, second = put(1, body), put(2, body)
    await stream_in(node, "o", first, body)
    await stream_in(node, "o", second, body)
    with pytest.raises(NodeFailed) as refused:
        async with node.client.get_stream(OBJECTS, path("o"), 10, body_id=first.body_id):
            pytest.fail("the stream should not have begun")
    assert refused.value.reply.code == Code.OTHER_BODY


async def test_a_delete_does_not_hurt_a_read_under_way(node: Node) -> None:
    body = os.urandom(8 * 1024**2)
    await stream_in(node, "o", put(1, body), body)
    async with node.client.get_stream(OBJECTS, path("o")) as (_, chunks):
        got = bytes(await anext(chunks))
        assert (await node.client.offer(OBJECTS, path("o"), delete(2))).counts
        got += b"".join([bytes(chunk) async for chunk in chunks])
    assert got == body
    with pytest.raises(NodeFailed) as gone:
        async with node.client.get_stream(OBJECTS, path("o")):
            pytest.fail("nothing is there to stream")
    assert gone.value.reply.code == Code.NOT_HERE


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 6), (6, 6), (3, 2)], ids=["beyond", "starts beyond", "backwards"]
)
async def test_a_range_outside_of_the_body_is_refused(node: Node, start: int, stop: int) -> None:
    await node.client.offer(OBJECTS, path("o"), put(1, b"hello"), b"hello")
    with pytest.raises(NodeFailed) as refused:
        async with node.client.get_stream(OBJECTS, path("o"), start, stop):
            pytest.fail("the stream should not have begun")
    assert refused.value.reply.code == Code.BAD_CALL


# --- rows ---------------------------------------------------------------------------------------------------------


async def fill_listing(node: Node, names: list[bytes]) -> None:
    await node.client.offer(CONTAINERS, CONTAINER.path, container())
    for at in range(0, len(names), 500):
        rows = [RowOffer(CONTAINER.path, name, row(at, 10)) for name in names[at : at + 500]]
        assert all(isinstance(answer, RowTaken) for answer in await node.client.upsert_rows(CONTAINERS, rows))


async def test_rows_are_listed_counted_and_digested(node: Node) -> None:
    names = [b"a/%03d" % number for number in range(20)] + [b"b"]
    await fill_listing(node, names)
    page, page_votes = await node.client.list_rows(CONTAINERS, CONTAINER.path, Query(limit=3), CREATED)
    assert [found.name for found in page.rows] == names[:3]
    assert page.more == names[2]
    rolled, _ = await node.client.list_rows(CONTAINERS, CONTAINER.path, Query(delimiter=b"/"), CREATED)
    assert [(found.name, found.entry is None) for found in rolled.rows] == [(b"a/", True), (b"b", False)]
    tally, votes = await node.client.tally(CONTAINERS, CONTAINER.path, CREATED)
    assert votes
    assert page_votes
    assert (tally.rows, tally.objects, tally.bytes, tally.policies) == (21, 21, 210, ((0, 21, 21, 210),))
    assert tally.digest == page.digest
    spanned = await node.client.span_digest(CONTAINERS, CONTAINER.path, b"", b"", CREATED)
    assert spanned == (tally.digest, True)
    assert await node.client.ranges(CONTAINERS, CONTAINER.path, CREATED) == ([(b"", tally)], None)


async def test_an_owner_that_does_not_vote_says_so_with_every_answer_about_rows(node: Node) -> None:
    await fill_listing(node, [b"a"])
    partition = LAYOUT.partition(CONTAINERS, LAYOUT.hashed(CONTAINER.path))
    await stand(node.store, CONTAINERS, partition, Standing(votes=False))
    offer = RowOffer(CONTAINER.path, b"b", row(1))
    assert await node.client.upsert_rows(CONTAINERS, [offer]) == [
        RowTaken(votes=False, container=container().ballot)
    ]
    assert not (await node.client.list_rows(CONTAINERS, CONTAINER.path, Query(), CREATED))[1]
    assert not (await node.client.tally(CONTAINERS, CONTAINER.path, CREATED))[1]
    assert not (await node.client.span_digest(CONTAINERS, CONTAINER.path, b"", b"", CREATED))[1]


@pytest.mark.parametrize("names_only", [False, True])
async def test_a_page_larger_than_a_frame_comes_in_parts_that_add_up(node: Node, names_only: bool) -> None:
    names = [b"%04d" % number + b"n" * 1000 for number in range(1500)]
    await fill_listing(node, names)
    found: list[bytes] = []
    pages = 0
    more: bytes | None = b""
    while more is not None:
        query = Query(marker=more, limit=10_000, names_only=names_only)
        page, _ = await node.client.list_rows(CONTAINERS, CONTAINER.path, query, CREATED)
        found += [each.name for each in page.rows]
        pages, more = pages + 1, page.more
    assert found == names
    assert pages > 1


async def test_names_alone_come_without_entries_and_hide_what_is_deleted(node: Node) -> None:
    await fill_listing(node, [b"a", b"b", b"c"])
    gone = row(9)._replace(tombstone=True)
    await node.client.upsert_rows(CONTAINERS, [RowOffer(CONTAINER.path, b"b", gone)])
    whole, _ = await node.client.list_rows(CONTAINERS, CONTAINER.path, Query(limit=1), CREATED)
    for query, names, more in (
        (Query(names_only=True), [b"a", b"c"], None),
        (Query(names_only=True, limit=1), [b"a"], b"a"),
        (Query(names_only=True, reverse=True, limit=1), [b"c"], b"c"),
    ):
        page, votes = await node.client.list_rows(CONTAINERS, CONTAINER.path, query, CREATED)
        assert ([found.name for found in page.rows], page.more) == (names, more)
        assert (page.digest, votes) == (whole.digest, True)
        assert all(found.raw == b"" for found in page.rows)
        with pytest.raises(EntryDamaged):
            assert page.rows[0].entry


async def test_ranges_come_in_pages_that_add_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.rows.RANGE_ROWS_MAX", 4)
    await fill_listing(node, [b"%03d" % number for number in range(50)])
    header = {
        "table": CONTAINERS,
        "epoch": EPOCH,
        "path": CONTAINER.path,
        "incarnation": bytes(CREATED),
        "limit": 3,
    }
    firsts: list[bytes] = []
    more: bytes | None = None
    while not firsts or more is not None:
        asked = header if more is None else header | {"after": more}
        deadline = node.transport.now() + 10
        reply = await node.transport.call(node.address, "ranges", asked, deadline=deadline)
        page = [first for first, _ in unpack_list(reply.body)]
        assert 1 <= len(page) <= 3
        firsts, more = firsts + page, reply.header["more"]
    assert firsts == [first for first, _ in node.store.ranges(ROWS)]
    assert len(firsts) > 10


async def test_a_row_of_a_gone_incarnation_is_refused_and_the_others_are_taken(node: Node) -> None:
    await fill_listing(node, [b"a"])
    old = RowOffer(CONTAINER.path, b"b", row(1, incarnation=type(CREATED).of(1, 1)))
    good = RowOffer(CONTAINER.path, b"c", row(1))
    refused, taken = await node.client.upsert_rows(CONTAINERS, [old, good])
    assert refused == RowRefused(closing=False, incarnation=CREATED)
    assert taken == RowTaken(votes=True, container=container().ballot)


async def test_debts_are_owed_until_they_are_paid(node: Node) -> None:
    entry = put(1, b"x")
    await node.client.offer(OBJECTS, path("o"), entry, b"x", owing=True)
    assert await node.client.due(DueKind.DEBT, NOW_US + 100) == [(OBJECTS, path("o"), entry.version)]
    assert await node.client.pay(OBJECTS, [(path("o"), entry.version)]) == 1
    assert await node.client.pay(OBJECTS, [(path("o"), entry.version)]) == 0
    assert await node.client.due(DueKind.DEBT, NOW_US + 100) == []


# --- partitions ---------------------------------------------------------------------------------------------------


async def test_registers_and_digests_of_a_partition_agree_with_the_store(node: Node) -> None:
    entries = {path(f"o{number}"): put(number, b"x") for number in range(40)}
    for each, entry in entries.items():
        await node.client.offer(OBJECTS, each, entry, b"x")
    count = 1 << LAYOUT.part_powers[OBJECTS]
    whole = [await node.client.partition_digest(OBJECTS, partition) for partition in range(count)]
    assert sum(digest.entries for digest in whole) == 40
    assert await node.client.digests(OBJECTS, LAYOUT.part_powers[OBJECTS], 0, count) == whole
    assert await node.client.digests(OBJECTS, 20, 0, 4096) == node.store.digests(OBJECTS, 20, 0, 4096)
    seen: dict[bytes, Entry] = {}
    for partition in range(count):
        after: bytes | None = b""
        while after is not None:
            held, after = await node.client.registers(
                OBJECTS, LAYOUT.part_powers[OBJECTS], partition, after, limit=2
            )
            seen |= {found.path: found.register.entry for found in held if found.register.entry is not None}
    assert seen == entries


async def test_a_standing_is_set_and_told(node: Node) -> None:
    seen, wanted = await node.client.standing(OBJECTS, 3), Standing(votes=True, floor_us=7, refusing_us=9)
    await node.client.set_standing(OBJECTS, 3, wanted, seen=seen)
    assert await node.client.standing(OBJECTS, 3) == Standing(True, 7, 9)
    for refused, based_on, sentence in (
        (wanted._replace(floor_us=6), wanted, "cannot sink"),
        (wanted._replace(votes=False), seen, "read it again"),
    ):
        code, reason = await refusal(node.client.set_standing(OBJECTS, 3, refused, seen=based_on))
        assert code == Code.STORAGE_ERROR
        assert sentence in reason
    assert await node.client.standing(OBJECTS, 3) == wanted


# --- what is refused ----------------------------------------------------------------------------------------------


async def test_an_older_ring_is_refused_and_a_newer_one_looked_for(node: Node) -> None:
    header = {"table": OBJECTS, "path": path("o")}
    deadline = node.transport.now() + 10
    for epoch, code in ((EPOCH - 1, Code.RING_OLDER), (EPOCH + 1, Code.RING_NEWER)):
        reply = await node.transport.call(node.address, "get", {**header, "epoch": epoch}, deadline=deadline)
        assert (reply.outcome, reply.code, reply.header) == (Outcome.ERROR, code, {"epoch": EPOCH})
    assert node.rings.looked_for == [OBJECTS]


async def test_a_body_whose_commit_is_placed_by_another_epoch_than_the_devices_leaves_nothing(
    node: Node,
) -> None:
    entry = put(1, bytes(LARGE))
    for epoch, code in ((EPOCH, Code.RING_OLDER), (EPOCH + 2, Code.RING_NEWER)):
        node.rings.current = EPOCH
        async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
            await stream.send(bytes(LARGE))
            node.rings.current = EPOCH + 1
            assert (await refusal(stream.commit(entry, epoch=epoch)))[0] == code
        assert node.store.read(object_key("o")) is None
        await until_nothing_is_left(node)


async def test_a_body_that_was_sent_before_the_ring_changed_is_committed_under_the_newer_one(
    node: Node,
) -> None:
    entry = put(1, bytes(LARGE))
    async with node.client.put_stream(OBJECTS, path("o"), entry.body_id) as stream:
        await stream.send(bytes(LARGE))
        node.rings.current = EPOCH + 1
        assert (await stream.commit(entry, epoch=EPOCH + 1)).counts


def files_of(node: Node) -> list[Path]:
    """Return the large files of a device, staged ones too; a store in memory has none."""
    root = node.root
    return [] if root is None else [*(root / "staging").iterdir(), *(root / "files").glob("??/*")]


async def prepare_o(node: Node) -> None:
    await node.client.prepare(OBJECTS, path("o"), ballot(9))


async def offer_o(node: Node) -> None:
    await node.client.offer(OBJECTS, path("o"), put(1, b"x"), b"x")


async def offer_a_large_o(node: Node) -> None:
    await stream_in(node, "o", put(1, bytes(LARGE)), bytes(LARGE))


async def upsert_a_row(node: Node) -> None:
    await node.client.upsert_rows(CONTAINERS, [RowOffer(CONTAINER.path, b"o", row(1))])


@pytest.mark.parametrize("ask", [prepare_o, offer_o, offer_a_large_o])
async def test_what_waits_its_turn_while_the_ring_changes_is_refused_and_nothing_is_kept(
    node: Node, ask: Callable[[Node], Awaitable[None]]
) -> None:
    # The ring is looked at at the door (of a stream: at its opening and at its commit), then on the writer's thread.
    node.rings.looks_until_newer = 2 if ask is offer_a_large_o else 1
    assert (await refusal(ask(node)))[0] == Code.RING_OLDER
    assert node.store.read(object_key("o")) is None
    if node.root is not None:
        await until_nothing_is_left(node)


async def until_nothing_is_left(node: Node) -> None:
    """Wait until the remover has done its work."""
    async with asyncio.timeout(10):
        while files_of(node):  # noqa: ASYNC110 (a thread's doing)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("ask", [prepare_o, offer_o, offer_a_large_o, upsert_a_row])
async def test_what_is_done_while_the_ring_changes_does_not_count_and_is_not_called_without_effect(
    node: Node, ask: Callable[[Node], Awaitable[None]]
) -> None:
    node.rings.looks_until_newer = 1 if ask is upsert_a_row else 3 if ask is offer_a_large_o else 2
    assert (await refusal(ask(node)))[0] == Code.RING_CHANGED
    if ask is upsert_a_row:
        assert node.store.tally(ROWS).rows == 1
    else:
        assert node.store.read(object_key("o")) is not None


async def test_a_fill_that_is_done_while_the_ring_changes_does_not_count(node: Node) -> None:
    entry = put(1, b"hello")
    await node.client.offer(OBJECTS, path("o"), entry)
    node.rings.looks_until_newer = 1
    code, _ = await refusal(node.client.fill(OBJECTS, path("o"), entry.body_id, b"hello"))
    assert code == Code.RING_CHANGED


async def test_a_table_without_a_ring_is_refused_by_name(node: Node) -> None:
    code, reason = await refusal(node.client.get(b"o\x09", path("o")))
    assert code == Code.UNKNOWN_TABLE
    assert "o\\t" in reason


async def test_a_ballot_from_a_clock_ahead_is_refused_with_the_fix(node: Node) -> None:
    code, reason = await refusal(node.client.offer(OBJECTS, path("o"), put(61_000_000, b"x"), b"x"))
    assert code == Code.BALLOT_REFUSED
    assert "set the clock of the host that issued it" in reason
    assert (
        await node.client.offer(OBJECTS, path("o"), put(61_000_000, b"x"), b"x", offer=Offer.PASSING)
    ).counts


@pytest.mark.parametrize(
    ("method", "change", "sentence"),
    [
        ("get", {"path": "text"}, "field path must be 1 to"),
        ("get", {"path": b"account alone"}, "is no path of table"),
        ("get", {"path": b"a\0c\0\xff"}, "is no path of table"),
        ("get", {"path": b"\0\0\0"}, "is no path of table"),
        ("get", {"epoch": 0}, "field epoch must be a whole number from 1"),
        ("get", {"epoch": True}, "field epoch must be a whole number from 1"),
        ("get", {"table": b"o"}, "field table must be 2 to 2 bytes"),
        ("get", {"surprise": 1}, "field 'surprise' is not known to this release"),
        ("get", {"inline_bytes": RPC_BODY_BYTES_MAX + 1}, "field inline_bytes"),
        ("offer", {}, "an entry must be bytes"),
        ("offer", {"entry": bytes(200)}, "entry checksum mismatch"),
        ("prepare", {"ballot": bytes(31)}, "field ballot must be 32 to 32 bytes"),
        ("list_rows", {}, "nothing is listed under table"),
        (
            "list_rows",
            {"table": CONTAINERS, "path": b"a\0c", "names_only": True, "delimiter": b"/"},
            "names alone tell neither tombstones nor prefixes",
        ),
        ("offer", {"offer": "soon", "entry": b""}, "no entry: 0 bytes cannot be an entry"),
    ],
    ids=str,
)
async def test_a_wrong_field_is_refused_by_method_and_name(
    node: Node, method: str, change: dict[str, object], sentence: str
) -> None:
    header = {"table": OBJECTS, "epoch": EPOCH, "path": path("o"), **change}
    reply = await node.transport.call(node.address, method, header, deadline=node.transport.now() + 10)
    assert (reply.outcome, reply.code) == (Outcome.ERROR, Code.BAD_CALL)
    assert reply.reason.startswith(f"{method}: ")
    assert sentence in reply.reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BallotRefused("x"), Code.BALLOT_REFUSED),
        (RingChanged("x"), Code.RING_OLDER),
        (InsufficientStorage("x"), Code.INSUFFICIENT_STORAGE),
        (BodyDamaged("x"), Code.BODY_DAMAGED),
        (BodyGone("x"), Code.BODY_GONE),
        (IndexDamaged("x"), Code.INDEX_DAMAGED),
        (DeviceFailed("x"), Code.DEVICE_FAILED),
        (DeviceRefused("x"), Code.STORAGE_ERROR),
        (StorageError("x"), Code.STORAGE_ERROR),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_store_raises_has_a_code(error: StorageError, code: Code) -> None:
    reply = reply_to(error)
    assert (reply.outcome, reply.code, reply.reason) == (Outcome.ERROR, code, "x")


def test_an_unknown_outcome_stays_unknown() -> None:
    reply = reply_to(OutcomeUnknown("a sync failed"))
    assert (reply.outcome, reply.reason) == (Outcome.UNKNOWN, "a sync failed")


async def test_a_bug_met_by_a_call_that_waited_leaves_all_others_alone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stumble(key: Key) -> Held | None:
        await asyncio.sleep(0)
        raise RuntimeError("nobody thought of this")

    with monkeypatch.context() as patch:
        patch.setattr(node.store, "look_up", stumble)
        with pytest.raises(NodeFailed) as failed:
            await node.client.read(OBJECTS, path("o"))
    assert failed.value.reply.outcome is Outcome.UNKNOWN
    assert node.handler_bugs() == 1
    await node.client.offer(OBJECTS, path("o"), put(1))
    register, _, _ = await node.client.read(OBJECTS, path("o"))
    assert register is not None
