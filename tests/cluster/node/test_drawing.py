"""What a sample of listings' names is drawn from: all of them, each as likely as any other, over both transports and both stores."""

from array import array
from random import Random

import pytest

from ring.device import Device, DeviceId
from ring.ring import Ring
from storage_node.store import RowOffer
from swiftlike.node_calls import CONTAINERS
from swiftlike.node_client import NodeClient
from tests.cluster.node.conftest import Node
from tests.engine.samples import CONTAINER, LAYOUT, container, row
from tests.engine.test_store_contract import offer
from tests.unit.ring.rings import fields, ring_of
from tools.drawing import choose, draw

ROWS = 6_000
"""More than a range holds, and every seventh is a tombstone."""
RING = ring_of(
    fields(
        [Device(DeviceId(0), 1, 1, "10.0.0.1", 6200, "d0", 1.0)],
        [array("I", [0] * (1 << LAYOUT.part_powers[CONTAINERS]))],
        name="container",
    )
)


class OneNode:
    """A cluster of one device that owns everything."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def client(self, device: Device) -> NodeClient | None:
        return self._node.client

    def owners(self, ring: Ring, partition: int) -> list[Device]:
        return list(ring.primaries(partition))  # type: ignore[arg-type]


async def drawn(node: Node, wanted: int, seed: int) -> tuple[list[int], int]:
    """Draw from the container; return the numbers that the names are, ascending, and how many there were to draw from."""
    sample = await draw(OneNode(node), CONTAINERS, RING, wanted, Random(seed))
    assert (sample.partitions, sample.unread) == (RING.partition_count, 0)
    return sorted(int(named.path.rpartition(b"\0")[2]) for named in sample.named), sample.listed


async def test_every_name_of_a_large_listing_can_be_drawn_and_none_is_favoured(node: Node) -> None:
    await offer(node.store, CONTAINER, container())
    for start in range(0, ROWS, 1_000):
        await node.store.upsert_rows(
            [
                RowOffer(CONTAINER, b"%05d" % number, row(number, tombstone=number % 7 == 0))
                for number in range(start, start + 1_000)
            ]
        )
    live = [number for number in range(ROWS) if number % 7]
    assert await drawn(node, 100_000, 1) == (live, len(live)), "all there are, where more are wanted"
    for wanted in (60, 3_000):
        first, second = [(await drawn(node, wanted, seed))[0] for seed in (1, 2)]
        assert len(first) == len(second) == len(set(first)) == wanted
        assert first != second
        assert (await drawn(node, wanted, 1))[0] == first, "the same seed draws the same"
        for part in range(4):  # each quarter has its share, give or take what chance allows
            here = sum(part * ROWS // 4 <= number < (part + 1) * ROWS // 4 for number in first)
            assert abs(here - wanted / 4) < 5 * (wanted * 3 / 16) ** 0.5


@pytest.mark.parametrize(
    ("wanted", "drawn_already"),
    [(0, 0), (10, 0), (10, 60), (10, 95), (5, 95), (100, 0), (100, 40)],
)
def test_what_was_not_drawn_yet_is_chosen_from_without_repetition(wanted: int, drawn_already: int) -> None:
    gone = set(range(drawn_already))
    chosen = choose(100, wanted, gone, Random(3))
    assert len(chosen) == len(set(chosen)) == min(wanted, 100 - drawn_already)
    assert not gone & set(chosen)
    assert set(chosen) <= set(range(100))
