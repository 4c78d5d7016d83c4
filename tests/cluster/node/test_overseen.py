"""The calls by which an operator's tools look at a device and pause it, over both transports and both stores."""

import pytest

from swiftlike.limits import BLOCK_BYTES, PAUSE_S_MAX
from swiftlike.node_calls import Code, Degraded, Trusted
from swiftlike.node_client import NodeFailed
from tests.cluster.node.conftest import Node
from tests.engine.samples import NOW_US, OBJECTS, delete, object_key, put


async def test_a_body_is_read_back_where_it_is(node: Node) -> None:
    body = bytes(3 * BLOCK_BYTES)
    for name, entry, content in (
        ("whole", put(1, body), body),
        ("lacking", put(2, b"lacking"), None),
        ("gone", delete(3), None),
    ):
        await node.client.offer(OBJECTS, object_key(name).path, entry, content)
    read = {
        name: await node.client.verify(OBJECTS, object_key(name).path)
        for name in ("whole", "lacking", "gone", "never")
    }
    assert read == {"whole": True, "lacking": False, "gone": False, "never": False}


async def test_a_body_that_is_bad_is_told_and_is_missing_from_then_on(node: Node) -> None:
    if node.root is None:
        pytest.skip("nothing rots in memory")
    body = bytes(range(256)) * 1024
    await node.client.offer(OBJECTS, object_key("o").path, put(1, body), body)
    (volume,) = (node.root / "volumes").glob("*.vol")
    with volume.open("r+b") as opened:
        content = volume.read_bytes()
        opened.seek(content.index(body[:4096]) + BLOCK_BYTES + 5)
        opened.write(b"rot")
    with pytest.raises(NodeFailed) as damaged:
        await node.client.verify(OBJECTS, object_key("o").path)
    assert damaged.value.reply.code == Code.BODY_DAMAGED
    assert not await node.client.verify(OBJECTS, object_key("o").path)


async def test_degraded_partitions_are_told_as_the_replicator_sees_them(node: Node) -> None:
    assert await node.client.degraded() == [Degraded(OBJECTS, 3, 3, 1, NOW_US)]


async def test_an_operators_word_goes_to_the_replicator_and_names_a_partition_that_there_is(
    node: Node,
) -> None:
    assert await node.client.trust(OBJECTS, 3) == Trusted(voters=1, silent=0)
    with pytest.raises(NodeFailed) as refused:
        await node.client.trust(OBJECTS, 16)
    assert refused.value.reply.code == Code.BAD_CALL


async def test_a_pause_is_kept_by_the_device_and_has_an_end(node: Node) -> None:
    await node.client.pause(NOW_US + 1_000_000)
    assert node.store.position("pause") is not None
    with pytest.raises(NodeFailed, match="choose an earlier end"):
        await node.client.pause(NOW_US + (PAUSE_S_MAX + 1) * 1_000_000)
    await node.client.pause(0)


async def test_a_time_before_all_times_is_refused(node: Node) -> None:
    with pytest.raises(NodeFailed) as refused:
        await node.client.pause(-1)
    assert refused.value.reply.code == Code.BAD_CALL
