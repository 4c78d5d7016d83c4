"""Forgetting: what lies below a partition's floor and its owners hold no more goes from a device that does not vote on it.

Below a floor the owners have agreed on what there is, and then on forgetting: what they lack there was never chosen, or was
replaced by something that is forgotten too, and they would refuse it. Owns the look at what they hold, a page at a time.
"""

import logging
from typing import Final

from storage_node.keys import ROWS_OF
from storage_node.store import Store
from storage_node.taking import Source, Taker
from swiftlike.limits import COMPARED_PAGE
from swiftlike.node_calls import HeldVersion, Query
from swiftlike.timestamps import ZERO_BALLOT, Ballot

log: Final = logging.getLogger(__name__)


class Forgetting:
    """Forgets for one device."""

    def __init__(self, store: Store, taker: Taker) -> None:
        self._store: Final = store
        self._taker: Final = taker

    async def forget(self, table: bytes, partition: int, floor_us: int, voters: list[Source]) -> None:
        """Remove what lies below the floor and none of these voters holds. Raises NodeFailed when one cannot tell."""
        if not floor_us:
            return
        power = self._store.layout.part_powers[table]
        after: bytes | None = b""
        while after is not None:
            page, after = await self._store.scan(
                self._store.versions, table, power, partition, after, COMPARED_PAGE
            )
            old = [held.path for held in page if _entry_or_promise(held).micros < floor_us]
            for source in voters:
                there = await source.client.versions_of(table, old) if old else []
                old = [held.path for held in there if held.version is None]
            if old:
                gone = await self._store.forget(table, partition, floor_us, old)
                log.info(
                    "forgot %d entries of partition %d of table %r, as all voters have",
                    gone,
                    partition,
                    table,
                )
        if table in ROWS_OF:
            await self._forget_rows(table, partition, floor_us, voters)

    async def _forget_rows(self, table: bytes, partition: int, floor_us: int, voters: list[Source]) -> None:
        for listing in await self._taker.listings_here(table, partition):
            parent = listing.parent
            marker: bytes | None = b""
            while marker is not None:
                query = Query(marker=marker, tombstones=True, limit=COMPARED_PAGE)
                page = await self._store.scan(self._store.list_rows, listing, query)
                old = {
                    row.name
                    for row in page.rows
                    if row.entry is not None and row.entry.ballot.micros < floor_us
                }
                for source in voters:
                    if not old:
                        break
                    names = sorted(old)
                    there = await source.client.row_ballots(
                        parent.table, parent.path, names, listing.incarnation
                    )
                    old = {name for name, ballot in zip(names, there, strict=True) if ballot == ZERO_BALLOT}
                if old:
                    rows = [(listing, name) for name in sorted(old)]
                    await self._store.forget(table, partition, floor_us, (), rows)
                marker = page.more


def _entry_or_promise(held: HeldVersion) -> Ballot:
    """Return what is to be forgotten at a key: an entry, whatever is promised above it; else the promise."""
    return held.promised if held.version is None else held.ballot
