"""Returning: what a device holds and does not own goes back to the owners, and is let go of when they have it.

Owns the proof that it may go: a majority of the owners that vote hold each entry of it, or something newer, with its body; and
that it owes nothing any more, since a debt goes with its entry (this device's updater pays it first). What the owners would
refuse goes as well, and would stay for ever otherwise: rows, once a majority holds that their container is gone; what all owners
have promised never to take; and what lies below their floor and all of them have forgotten. They are told to come and take the
rest. A page at a time, each entry only if it still is what was looked at.
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from ring.device import DeviceId
from storage_node.acceptor import takes_rows
from storage_node.differing import covers, rules_out
from storage_node.forgetting import Forgetting
from storage_node.keys import CONTAINERS, ROWS_OF, Key, Listing
from storage_node.placing import Rings
from storage_node.sharing import Shares
from storage_node.store import RowHeld, Store
from storage_node.taking import Source, Taker, standings_of
from swiftlike.entries import Version
from swiftlike.limits import COMPARED_PAGE
from swiftlike.node_calls import HeldVersion, Query, Standing
from swiftlike.node_client import NodeFailed

T = TypeVar("T")

log: Final = logging.getLogger(__name__)


class Returning:
    """Gives back for one device."""

    def __init__(self, store: Store, rings: Rings, taker: Taker) -> None:
        self._store: Final = store
        self._rings: Final = rings
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
            left = await self._release_registers(shares, table, partition, voters)
            if table in ROWS_OF:
                left |= await self._release_rows(shares, table, partition, voters)
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
        self, shares: Shares, table: bytes, partition: int, voters: list[Source]
    ) -> bool:
        """Let go of what can be spared; say whether something is left."""
        power = self._store.layout.part_powers[table]
        needed, owners = len(shares.voters(partition)) // 2 + 1, len(shares.others(partition))
        left = False
        after: bytes | None = b""
        while after is not None:
            page, after = await self._store.scan(
                self._store.versions, table, power, partition, after, COMPARED_PAGE
            )
            paths = [held.path for held in page]
            there = await _answers(source.client.versions_of(table, paths) for source in voters if paths)
            free = [
                held
                for held, *found in zip(page, *there, strict=True)
                if _is_dispensable(held, found, needed, owners)
            ]
            owing = [(Key(table, held.path), held.version) for held in free if held.owes and held.version]
            if owing:
                await self._store.pay(owing)
            await self._release(shares, table, [(held.path, held.version) for held in free])
            left |= len(free) < len(page)
        return left

    async def _release_rows(self, shares: Shares, table: bytes, partition: int, voters: list[Source]) -> bool:
        needed = len(shares.voters(partition)) // 2 + 1
        left = False
        for listing in await self._taker.listings_here(table, partition):
            parent = listing.parent
            marker: bytes | None = b""
            while marker is not None:
                query = Query(marker=marker, tombstones=True, limit=COMPARED_PAGE)
                page = await self._store.scan(self._store.list_rows, listing, query)
                marker = page.more
                mine = {row.name: row.entry.ballot for row in page.rows if row.entry is not None}
                names = list(mine)
                there = await _answers(
                    source.client.row_ballots(parent.table, parent.path, names, listing.incarnation)
                    for source in voters
                    if names
                )
                free = [
                    RowHeld(listing, name, mine[name])
                    for name, *found in zip(names, *there, strict=True)
                    if sum(ballot >= mine[name] for ballot in found) >= needed
                ]
                if len(free) < len(mine) and await _is_gone(listing, voters, needed):
                    free = [RowHeld(listing, name, mine[name]) for name in mine]
                await self._release(shares, table, (), free)
                left |= len(free) < len(mine)
        return left

    async def _release(
        self,
        shares: Shares,
        table: bytes,
        versions: Sequence[tuple[bytes, Version | None]],
        rows: Sequence[RowHeld] = (),
    ) -> None:
        epoch = shares.ring.epoch
        if versions or rows:
            self.released += await self._store.release(
                table, versions, rows, is_current=lambda: self._rings.epoch(table) == epoch
            )


async def _is_gone(listing: Listing, voters: Collection[Source], needed: int) -> bool:
    """Say whether enough owners hold that a container was deleted, or made anew since: they have dropped its rows, and refuse them."""
    parent = listing.parent
    gone = 0
    for source in voters if parent.table == CONTAINERS else ():
        try:
            entry = (await source.client.get(parent.table, parent.path, 0)).entry
        except NodeFailed:
            continue
        gone += entry is not None and not takes_rows(entry, listing.incarnation)
    return gone >= needed


async def _answers(asked: Iterable[Awaitable[list[T]]]) -> list[list[T]]:
    """Return what those said who could be asked."""

    async def answer(question: Awaitable[list[T]]) -> list[T] | None:
        try:
            return await question
        except NodeFailed:
            return None

    return [said for said in await asyncio.gather(*map(answer, asked)) if said is not None]


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
