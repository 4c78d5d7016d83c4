"""Returning: what a device holds and does not own goes back to the owners, and is let go of when they have it.

Owns the proof that it may go: a majority of the owners that vote hold each entry of it, or something newer, with its body; and
that it owes nothing any more, since a debt goes with its entry (this device's updater pays it first). What all owners would
refuse may go as well, and would stay for ever otherwise: what they have all promised never to take, and what lies below their
floor and all of them have forgotten. The owners are told to come and take the
rest. A page at a time, each entry only if it still is what was looked at.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from ring.device import DeviceId
from storage_node.differing import covers, rules_out
from storage_node.forgetting import Forgetting
from storage_node.keys import ROWS_OF, Key
from storage_node.sharing import Shares
from storage_node.store import RowHeld, Store
from storage_node.taking import Source, Taker, rows_there, standings_of
from swiftlike.limits import PAGE_ITEMS_MAX
from swiftlike.node_calls import HeldVersion, Query, Standing
from swiftlike.node_client import NodeFailed

log: Final = logging.getLogger(__name__)


class Returning:
    """Gives back for one device."""

    def __init__(self, store: Store, taker: Taker) -> None:
        self._store: Final = store
        self._taker: Final = taker
        self._forgetting: Final = Forgetting(store, taker)
        self.released = 0
        """Entries and rows that were let go of."""

    async def give_back(
        self, shares: Shares, table: bytes, partition: int, sources: Mapping[DeviceId, Source]
    ) -> bool:
        """Let go of what enough owners hold; have all owners come for the rest. Say whether nothing is left here."""
        needed = len(shares.voters(partition)) // 2 + 1
        standings = await standings_of(table, partition, sources)
        voters = [sources[owner] for owner in standings if owner in shares.voters(partition)]
        left = True
        if len(voters) >= needed:
            if standings.keys() == set(shares.others(partition)):
                await self._forget(table, partition, standings, list(sources.values()))
            owners = len(shares.others(partition))
            left = await self._release_registers(table, partition, voters, needed, owners)
            if table in ROWS_OF:
                left |= await self._release_rows(table, partition, voters, needed)
        if left and shares.ids:
            me = min(shares.ids)
            await asyncio.gather(*(_tell(source, table, partition, me) for source in sources.values()))
        return not left

    async def _forget(
        self, table: bytes, partition: int, standings: Mapping[DeviceId, Standing], owners: list[Source]
    ) -> None:
        """Forget what all owners, each of which votes, have forgotten."""
        floor_us = min(standing.floor_us for standing in standings.values())
        try:
            await self._forgetting.forget(table, partition, floor_us, owners)
        except NodeFailed as failure:
            log.info("partition %d of table %r is returned later: %s", partition, table, failure)

    async def _release_registers(
        self, table: bytes, partition: int, voters: list[Source], needed: int, owners: int
    ) -> bool:
        """Let go of what can be spared; say whether something is left."""
        power = self._store.layout.part_powers[table]
        left = False
        after: bytes | None = b""
        while after is not None:
            page, after = await self._store.scan(
                self._store.versions, table, power, partition, after, PAGE_ITEMS_MAX
            )
            there = await self._versions_of(table, [held.path for held in page], voters)
            free = [
                held
                for held, *found in zip(page, *there, strict=True)
                if _is_dispensable(held, found, needed, owners)
            ]
            if owing := [
                (Key(table, held.path), held.version) for held in free if held.owes and held.version
            ]:
                await self._store.pay(owing)
            if free:
                gone = await self._store.release(table, [(held.path, held.version) for held in free])
                self.released += gone
            left |= len(free) < len(page)
        return left

    async def _versions_of(
        self, table: bytes, paths: list[bytes], voters: list[Source]
    ) -> list[list[HeldVersion]]:
        async def ask(source: Source) -> list[HeldVersion] | None:
            try:
                return await source.client.versions_of(table, paths)
            except NodeFailed:
                return None

        if not paths:
            return []
        answers = await asyncio.gather(*map(ask, voters))
        return [answer for answer in answers if answer is not None]

    async def _release_rows(self, table: bytes, partition: int, voters: list[Source], needed: int) -> bool:
        left = False
        for listing in await self._taker.listings_here(table, partition):
            marker: bytes | None = b""
            while marker is not None:
                query = Query(marker=marker, tombstones=True, limit=PAGE_ITEMS_MAX)
                page = await self._store.scan(self._store.list_rows, listing, query)
                marker = page.more
                mine = {row.name: row.entry.ballot for row in page.rows if row.entry is not None}
                if not mine:
                    continue
                covered = dict.fromkeys(mine, 0)
                start, stop = min(mine), max(mine) + b"\0"
                for source in voters:
                    try:
                        there = await rows_there(source.client, listing, start, stop)
                    except NodeFailed:
                        continue
                    for name in covered:
                        covered[name] += name in there and there[name].ballot >= mine[name]
                free = [RowHeld(listing, name, mine[name]) for name in mine if covered[name] >= needed]
                if len(free) < len(mine) and await _is_gone(listing, voters, needed):
                    free = [RowHeld(listing, name, mine[name]) for name in mine]
                self.released += await self._store.release(table, (), free) if free else 0
                left |= len(free) < len(mine)
        return left


def _is_dispensable(held: HeldVersion, found: Sequence[HeldVersion], needed: int, owners: int) -> bool:
    """Say whether enough owners hold this and it owes nothing, or it can never be chosen: then nor is anything owed for it."""
    if sum(rules_out(there, held) for there in found) >= owners:
        return True
    return not held.owes and sum(covers(there, held) for there in found) >= needed


async def _tell(source: Source, table: bytes, partition: int, me: int) -> None:
    try:
        await source.client.hint(table, partition, me, one_way=True)
    except NodeFailed as failure:
        log.debug("%s hears of partition %d at the next pass: %s", source.device, partition, failure)
