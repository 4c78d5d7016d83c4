"""Comparing: one message to each peer tells in which partitions this device and that one differ.

Owns what is asked of whom, in as few messages as hold it, and which peers did not answer the last time. Never takes anything and
never decides what is healed first.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from ring.device import DeviceId
from storage_node.keys import RING_OF, ROWS_OF
from storage_node.peers import HealingRings
from storage_node.sharing import Shares
from storage_node.store import Store
from storage_node.taking import Source
from swiftlike.limits import PEERS_AT_ONCE
from swiftlike.node_calls import PartitionDigests
from swiftlike.node_client import NodeFailed

DIGESTS_MAX: Final = 30_000
"""Digests in one message: they fit its body. Two devices that share more partitions take another message."""

log: Final = logging.getLogger(__name__)

Place = tuple[bytes, int]
"""A table of registers and a partition."""


class Comparing:
    """Compares for one device."""

    def __init__(
        self,
        store: Store,
        rings: HealingRings,
        shares: Mapping[bytes, Shares],
        source: Callable[[Shares, DeviceId], Source | None],
    ) -> None:
        """Take the device, its rings, what it shares by table (which changes with the rings), and the way to a peer."""
        self._store: Final = store
        self._rings: Final = rings
        self._shares: Final = shares
        self._source: Final = source
        self.silent: Final[set[DeviceId]] = set()
        """Devices that did not answer the last time; each is asked again, and compared with as soon as it does."""
        self.messages = 0

    async def compare_with(self, peers: Iterable[DeviceId]) -> dict[DeviceId, list[Place] | None]:
        """Compare with many, some at a time, and return in which partitions each differs; None where one did not answer."""
        gate = asyncio.Semaphore(PEERS_AT_ONCE)
        found: dict[DeviceId, list[Place] | None] = {}

        async def compare(peer: DeviceId) -> None:
            async with gate:
                found[peer] = await self._compare(peer)

        async with asyncio.TaskGroup() as comparing:
            for peer in sorted(peers):
                comparing.create_task(compare(peer))
        return found

    async def _compare(self, peer: DeviceId) -> list[Place] | None:
        """Return the partitions in which this device and a peer differ: one message, whatever they hold."""
        asked: list[PartitionDigests] = []
        source: Source | None = None
        for table, shares in self._shares.items():
            numbers = shares.peers.get(peer, ())
            if not numbers:
                continue
            source = source or self._source(shares, peer)
            for kind in (table, ROWS_OF.get(table)):
                if kind is not None:
                    digests = await self._store.scan(self._store.partition_digests, kind, numbers)
                    asked.append(PartitionDigests(kind, shares.ring.epoch, digests))
        if source is None:
            return []
        differing: dict[Place, None] = {}
        try:
            for message in _messages(asked):
                self.messages += 1
                for answer in await source.client.compare(message):
                    ring = RING_OF.get(answer.table, answer.table)
                    if answer.epoch > self._shares[ring].ring.epoch:
                        self._rings.look_for_newer(ring)
                    differing.update(dict.fromkeys((ring, number) for number in answer.digests))
        except NodeFailed as failure:
            if peer not in self.silent:
                log.info("%s cannot be compared with: %s", source.device, failure)
            self.silent.add(peer)
            return None
        self.silent.discard(peer)
        return list(differing)


def _messages(asked: list[PartitionDigests]) -> list[list[PartitionDigests]]:
    """Put digests into as few messages as hold them."""
    messages: list[list[PartitionDigests]] = [[]]
    room = DIGESTS_MAX
    for table in asked:
        numbers = list(table.digests)
        while numbers:
            if not room:
                messages.append([])
                room = DIGESTS_MAX
            some, numbers = numbers[:room], numbers[room:]
            messages[-1].append(table._replace(digests={number: table.digests[number] for number in some}))
            room -= len(some)
    return messages
