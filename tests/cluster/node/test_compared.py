"""The calls by which one device learns in what it differs from another, over both transports and both stores."""

import pytest

from storage_node.store import RowOffer as StoredRow
from swiftlike.digests import Digest
from swiftlike.limits import COPY_INLINE_BYTES_MAX
from swiftlike.node_calls import CONTAINERS, Code, PartitionDigests
from swiftlike.node_client import NodeFailed
from swiftlike.timestamps import NO_WRITE
from tests.cluster.node.conftest import EPOCH, Node
from tests.engine.samples import CONTAINER, CREATED, LAYOUT, OBJECTS, container, object_key, put, row

ROWS_HERE = LAYOUT.partition(CONTAINERS, LAYOUT.hashed(CONTAINER.path))


def partition(name: str) -> int:
    return LAYOUT.partition(OBJECTS, LAYOUT.hashed(object_key(name).path))


async def test_one_message_compares_the_partitions_of_all_tables(node: Node) -> None:
    await node.client.offer(OBJECTS, object_key("o").path, put(1, b"x"), b"x")
    await node.client.offer(CONTAINERS, CONTAINER.path, container())
    await node.store.upsert_rows([StoredRow(CONTAINER, b"name", row(1))])
    mine = [
        PartitionDigests(table, EPOCH, node.store.partition_digests(table, range(16)))
        for table in (OBJECTS, CONTAINERS, b"r\0", b"a\0")
    ]
    assert await node.client.compare(mine) == [each._replace(digests={}) for each in mine]
    lacking = [each._replace(digests=dict.fromkeys(range(16), Digest())) for each in mine]
    here = {OBJECTS: partition("o"), CONTAINERS: ROWS_HERE, b"r\0": ROWS_HERE}
    assert await node.client.compare(lacking) == [
        each._replace(
            digests={here[each.table]: each.digests[here[each.table]]} if each.table in here else {}
        )
        for each in mine
    ]


async def test_a_table_of_another_epoch_comes_back_with_that_and_uncompared(node: Node) -> None:
    asked = [PartitionDigests(OBJECTS, EPOCH + 1, {0: Digest(1, 1)}), PartitionDigests(b"r\0", EPOCH - 1, {})]
    assert await node.client.compare(asked) == [
        PartitionDigests(OBJECTS, EPOCH, {}),
        PartitionDigests(b"r\0", EPOCH, {}),
    ]
    assert node.rings.looked_for == [OBJECTS], "of the newer one it has heard now"


async def test_partitions_that_do_not_exist_are_refused(node: Node) -> None:
    with pytest.raises(NodeFailed, match="there are 16 partitions") as refused:
        await node.client.compare([PartitionDigests(OBJECTS, EPOCH, {16: Digest()})])
    assert refused.value.reply.code == Code.BAD_CALL


async def test_copies_bring_small_bodies_and_tell_of_large_and_of_missing_ones(node: Node) -> None:
    small, owing, lacking = put(1, b"small"), put(2, b"owing"), put(3, b"lacking")
    large_body = bytes(COPY_INLINE_BYTES_MAX + 1)
    large = put(4, large_body)
    for name, entry, body, owes in (
        ("small", small, b"small", False),
        ("owing", owing, b"owing", True),
        ("lacking", lacking, None, False),
        ("large", large, large_body, False),
    ):
        await node.client.offer(OBJECTS, object_key(name).path, entry, body, owing=owes)
    names = ("small", "absent", "owing", "lacking", "large")
    wanted = [(object_key(name).path, NO_WRITE) for name in names]
    copies, served, lag_s = await node.client.copies(OBJECTS, wanted)
    assert (served, lag_s) == (5, 0.25), "what its replicator says of the time that calls wait"
    assert [(copy.entry, copy.whole, copy.owes, copy.body) for copy in copies] == [
        (small, True, False, b"small"),
        (owing, True, True, b"owing"),
        (lacking, False, False, None),
        (large, True, False, None),
    ]
    (copy,), _, _ = await node.client.copies(OBJECTS, [(object_key("small").path, small.body_id)])
    assert (copy.whole, copy.body) == (True, None), "a body that the caller has is not sent"


async def test_copies_stop_where_the_answer_is_full(node: Node) -> None:
    body = bytes(COPY_INLINE_BYTES_MAX)
    paths = [object_key(f"o{at}").path for at in range(4)]
    for at, path in enumerate(paths):
        await node.client.offer(OBJECTS, path, put(at, body), body)
    copies, served, _ = await node.client.copies(OBJECTS, [(path, NO_WRITE) for path in paths])
    assert (len(copies), served) == (1, 1)
    copies, served, _ = await node.client.copies(OBJECTS, [(path, NO_WRITE) for path in paths[1:]])
    assert copies[0].path == paths[1]


async def test_listings_and_spans_are_told_with_their_digests(node: Node) -> None:
    await node.client.offer(CONTAINERS, CONTAINER.path, container())
    await node.store.upsert_rows([StoredRow(CONTAINER, b"%d" % at, row(at)) for at in range(9)])
    listings, more, votes = await node.client.listings(CONTAINERS, ROWS_HERE)
    assert [each[:2] for each in listings] == [(CONTAINER.path, CREATED)]
    assert (more, votes) == (False, True)
    spans = await node.client.span_digests(CONTAINERS, CONTAINER.path, [b"", b"4"], CREATED)
    assert [span.entries for span in spans] == [4, 5]
    assert spans[0].joined(spans[1]) == listings[0][2]
    assert await node.client.listings(CONTAINERS, ROWS_HERE, (CONTAINER.path, CREATED)) == ([], False, True)


async def test_hints_reach_the_replicator_and_it_says_how_far_it_is(node: Node) -> None:
    assert await node.client.hint(OBJECTS, 3)
    assert await node.client.hint(OBJECTS, 4, 7)
    assert node.healing.hints == [(OBJECTS, 3, None), (OBJECTS, 4, 7)]
    found = await node.client.caught_up(OBJECTS)
    assert (found.epoch, found.owned, found.votes, found.waiting) == (EPOCH, 3, 1, (4, 7))
