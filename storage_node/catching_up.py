"""Catching up: how an owner that does not vote comes to remember what it must, and then votes.

Owns the order: the voters' standings; everything that enough of them hold, what stands under a promise settled first, debts
with it; once more their standings; what all have forgotten is forgotten here; then the vote. One way for all who have no
votes: a newcomer, a disk that was wiped, replaced or rebuilt, and one whose sync failed. What was taken stays taken, so an
attempt that fails is gone on with by the next.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from ring.device import DeviceId
from storage_node.forgetting import Forgetting
from storage_node.keys import ROWS_OF
from storage_node.placing import Rings
from storage_node.sharing import Shares, is_enough
from storage_node.store import Store
from storage_node.taking import Source, Taken, Taker, standings_of
from swiftlike.node_calls import Standing
from swiftlike.node_client import NodeFailed

log: Final = logging.getLogger(__name__)


class CatchingUp:
    """Catches up for one device."""

    def __init__(self, store: Store, rings: Rings, taker: Taker) -> None:
        self._store: Final = store
        self._rings: Final = rings
        self._taker: Final = taker
        self._forgetting: Final = Forgetting(store, taker)

    async def catch_up(
        self, shares: Shares, table: bytes, partition: int, sources: Mapping[DeviceId, Source]
    ) -> bool:
        """Take a partition from all sources that vote, and vote when they were enough; say whether this owner votes now.

        Raises RingChanged, DeviceFailed.
        """
        needs = shares.needs(partition)
        standings = await standings_of(table, partition, sources)
        if not is_enough(needs, standings.keys()):
            return False
        voters = {owner: sources[owner] for owner in standings}
        ends = await asyncio.gather(
            *(
                self._take_all(table, partition, source, backwards=at % 2 == 1)
                for at, source in enumerate(voters.values())
            )
        )
        heard = {owner: source for (owner, source), end in zip(voters.items(), ends, strict=True) if end}
        again = await standings_of(table, partition, heard)
        if not is_enough(needs, again.keys()):
            return False
        floor_us = max(standing.floor_us for standing in again.values())
        refusing_us = max(standing.refusing_us for standing in again.values())
        mine = self._store.standing(table, partition)
        try:
            await self._forgetting.forget(table, partition, floor_us, list(heard.values()))
            if self._rings.epoch(table) != shares.ring.epoch:
                return False
            wanted = Standing(True, max(mine.floor_us, floor_us), max(mine.refusing_us, refusing_us))
            await self._store.set_standing(table, partition, wanted, seen=mine)
        except NodeFailed as failure:
            log.info("partition %d of table %r is not caught up with yet: %s", partition, table, failure)
            return False
        return True

    async def _take_all(self, table: bytes, partition: int, source: Source, *, backwards: bool) -> bool:
        """Take all that one voter holds; say whether nothing was left."""
        taken = Taken()
        try:
            taken.add(
                await self._taker.take_registers(
                    table, partition, source, catching_up=True, backwards=backwards
                )
            )
            taken.add(await self._taker.take_marked(table, partition, source))
            if table in ROWS_OF:
                taken.add(await self._taker.take_rows(table, partition, source, backwards=backwards))
        except NodeFailed as failure:
            log.info("partition %d of table %r was not all taken: %s", partition, table, failure)
            return False
        return taken.left == 0
