"""Listings: a page of rows, and what all rows add up to, as a majority of the owners has them.

Owns what is asked, and what follows from the answers. One owner gives the page and the digest of its listing, enough others give
theirs: equal digests prove the page at once. Rows are under way all the time in a busy listing, so otherwise the digests of the
page's own names are compared, and only where those differ too are the rows of several owners merged (`merging`). So a
page costs what it holds, and not what the container holds. A merged row that too few owners hold is brought to a majority
before it is shown, as a read does with what it finds: what one page shows, the next one cannot miss.

While its partition moves a page is proved, or settled, only where a majority of the new owners holds the same: what it shows is
shown after the move, too.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple, Protocol

from proxy.cluster.nodes import Nodes
from proxy.cluster.placement import Key, Placement
from proxy.cluster.quorum import quorum
from proxy.cluster.rounds import Patience, Stragglers
from proxy.store.errors import Unavailable
from proxy.store.listing_owners import ListingOwners, Said, has_joint_quorum, has_quorum, is_held, votes
from proxy.store.merging import (
    Collector,
    Merged,
    Ranges,
    Span,
    Sums,
    before_name,
    compare,
    entry_of,
    held_by_few,
    merge_pages,
    span_of,
    sums_of_rows,
    sums_of_tally,
    within,
)
from proxy.store.rows import Upserted
from proxy.store.values import ContainerInfo, PolicyUsage, Usage
from ring.device import DeviceId
from swiftlike.digests import Digest
from swiftlike.entries import Entry
from swiftlike.limits import ITEMS_MAX
from swiftlike.listed import Listed
from swiftlike.names import ROW_BYTES_MAX
from swiftlike.node_calls import ACCOUNTS, Page, Query, Row, RowOffer, Tally
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.timestamps import NO_INCARNATION, Timestamp

HIDDEN_STOP: Final = b"\0\xff"
"""Above every hidden name, which begins with NUL, and below every other."""

PROOFS_MAX: Final = 2
"""Times that a page is held against the digests of its names, before it is merged, which costs several times as much."""

BRING_TRIES_MAX: Final = 4
"""Times that rows of a page are brought to a container that is being deleted, or whose owners hold different entries of it."""
BRING_PAUSE_S: Final = 0.01
"""For a delete that is under way to come to its end, before it is lifted."""


class Upsert(Protocol):
    """The way of a row to a majority of its listing's owners."""

    async def __call__(self, listed: Listed, *, deadline: float) -> Upserted:
        """Bring a row there; say what became of it."""


class Settle(Protocol):
    """The way of a register to one entry that is chosen, above whatever promise stands in its way."""

    async def __call__(self, key: Key, *, deadline: float) -> object:
        """Settle it, if enough owners answer."""


class Listing(NamedTuple):
    """The rows of one incarnation of a container, or of an account."""

    key: Key
    """Its register; a container's owes its row to the account, which a carry-through takes over."""
    incarnation: Timestamp = NO_INCARNATION


class Rows(NamedTuple):
    """A page of rows that is proved, or merged."""

    rows: Sequence[Row]
    more: bytes | None
    tally: Tally | None = None
    """What the whole listing adds up to, where the proof of the page told it."""


class Listings:
    """The listings of the cluster."""

    def __init__(
        self,
        nodes: Nodes,
        stragglers: Stragglers,
        patience: Patience,
        random: Random,
        now_us: Callable[[], int],
        upsert: Upsert,
        settle: Settle,
    ) -> None:
        """Take how devices are called, who owns the calls, what jitter is drawn from, the present, who brings rows to listings, and who
        settles a container that refuses them.
        """
        self._nodes: Final = nodes
        self._owners: Final = ListingOwners(nodes, stragglers, patience, random)
        self._now_us: Final = now_us
        self._upsert: Final = upsert
        self._settle: Final = settle
        self.proved = self.proved_by_span = self.merged = 0
        """Pages by how they were found."""

    # --- pages --------------------------------------------------------------------------------------------------

    async def page_of_container(self, info: ContainerInfo, query: Query, *, deadline: float) -> Rows:
        """Return a page of a container's rows. Raises Unavailable."""
        return await self._page(listing_of(info), query, deadline)

    async def page_of_account(self, account: bytes, query: Query, *, deadline: float) -> Rows:
        """Return a page of an account's rows. Raises Unavailable."""
        return await self._page(Listing(Key(ACCOUNTS, account)), query, deadline)

    async def row(self, listing: Listing, name: bytes, *, deadline: float) -> Entry | None:
        """Return one row, a tombstone too, as the newest that a majority holds. Raises Unavailable."""
        query = Query(prefix=name, limit=1, tombstones=True)
        pages = await self._pages(self._nodes.place(listing.key), listing, query, deadline)
        return next((row.entry for row in merge_pages(pages).rows if row.name == name), None)

    async def has_rows(
        self, info: ContainerInfo, placement: Placement, promised: Collection[DeviceId], *, deadline: float
    ) -> bool:
        """Say whether a container has a row that is neither deleted nor due, among owners that take no rows now.

        Only answers of owners that promised to take none count: what they have is all there will be. Raises Unavailable.
        """
        listing = listing_of(info)
        query = Query(tombstones=True, now_us=self._now_us(), limit=ITEMS_MAX)
        while True:
            pages = await self._pages(placement, listing, query, deadline, among=promised)
            collector = Collector(query._replace(limit=1, tombstones=False))
            following = collector.add(merge_pages(pages))
            if collector.rows:
                return True
            if following is None:
                return False
            query = query._replace(marker=following.marker)

    async def _page(self, listing: Listing, query: Query, deadline: float) -> Rows:
        """Find a page piece by piece: an answer holds only so many rows, and may end early."""
        if len(query.prefix) >= ROW_BYTES_MAX:
            return Rows((), None)
        query = _as_long_as_names(query)._replace(now_us=self._now_us(), tombstones=False)
        if not query.prefix.startswith(b"\0"):
            query = _without_hidden(query)
        found: list[Row] = []
        asked, tally = query, None
        while query.limit > 0:
            # One row more than wanted tells whether there is another page.
            asked = asked._replace(limit=min(query.limit + 1 - len(found), ITEMS_MAX))
            piece = await self._piece(listing, asked, deadline)
            tally = tally or piece.tally
            if not found:  # which nearly always is all, and is handed on as it came
                if len(piece.rows) > query.limit:
                    return Rows(piece.rows[: query.limit], piece.rows[query.limit - 1].name, tally)
                if piece.more is None:
                    return Rows(piece.rows, None, tally)
            found += piece.rows
            if len(found) > query.limit:
                return Rows(tuple(found[: query.limit]), found[query.limit - 1].name, tally)
            if piece.more is None:
                return Rows(tuple(found), None, tally)
            asked = asked._replace(marker=piece.more)
        return Rows((), None)

    async def _piece(self, listing: Listing, query: Query, deadline: float) -> Rows:
        placement = self._nodes.place(listing.key)
        said = await self._ask_for_page(placement, listing, query, deadline)
        pages = {
            owner: one.value
            for owner, one in said.items()
            if isinstance(one.value, Page) and owner in placement.owners.voting
        }
        for page in pages.values():
            if is_held(placement, said, _digest_of, page.digest):
                self.proved += 1
                equal = (one.value for one in said.values() if isinstance(one.value, Tally))
                return Rows(
                    page.rows, page.more, next((one for one in equal if one.digest == page.digest), None)
                )
        for owner, page in pages.items():
            proved = await self._prove_span(placement, listing, query, owner, page, deadline)
            if proved is not None:
                self.proved_by_span += 1
                return proved
            break  # where one page differs, another will too: its names are under way
        self.merged += 1
        return await self._merge(placement, listing, query, deadline)

    async def _ask_for_page(
        self, placement: Placement, listing: Listing, query: Query, deadline: float
    ) -> Mapping[DeviceId, Said[Page | Tally]]:
        """Ask one owner for the page and enough others for the digest of theirs; the rest only if that is not enough."""
        key = listing.key

        async def page(client: NodeClient) -> tuple[Page | Tally, bool]:
            return await client.list_rows(key.table, key.path, query, listing.incarnation)

        async def tally(client: NodeClient) -> tuple[Page | Tally, bool]:
            return await client.tally(key.table, key.path, listing.incarnation)

        def is_proved(said: Mapping[DeviceId, Said[Page | Tally]]) -> bool:
            return any(
                is_held(placement, said, _digest_of, one.value.digest)
                for one in said.values()
                if isinstance(one.value, Page)
            )

        return await self._owners.ask(placement, deadline, page, tally, is_proved, jointly=True)

    async def _prove_span(
        self,
        placement: Placement,
        listing: Listing,
        query: Query,
        owner: DeviceId,
        page: Page,
        deadline: float,
    ) -> Rows | None:
        """Prove a page by the digests of its own names, and read it again behind that: it may have been older than they, or younger.

        Versions of a row only grow, so what was read between two equal digests is what they were taken of. Two equal pages do not
        say so: a name may have gone and come back meanwhile, or the other way round.
        """
        key, span = listing.key, span_of(query, page.more)
        if span.start >= span.stop:
            return Rows(page.rows, page.more)

        async def digest(client: NodeClient) -> tuple[Digest, bool]:
            return await client.span_digest(key.table, key.path, *span, listing.incarnation)

        def is_enough(said: Mapping[DeviceId, Said[Digest]]) -> bool:
            return has_joint_quorum(placement, said) and owner in said

        client = self._nodes.client(placement, placement.devices[owner], deadline)
        whole = page.digest
        for _ in range(PROOFS_MAX):
            said = await self._owners.ask(
                placement, deadline, digest, digest, is_enough, first=owner, jointly=True
            )
            ours = said.get(owner)
            if ours is None or ours.value is None or not is_held(placement, said, _itself, ours.value):
                return None
            try:
                again, _ = await client.list_rows(
                    key.table, key.path, within(query, span), listing.incarnation
                )
                is_same = again.digest == whole or (await digest(client))[0] == ours.value
            except NodeFailed as failure:
                self._nodes.heed(placement, failure)
                return None
            if is_same:
                return Rows(again.rows, page.more if again.more is None else again.more)
            # What has come, or changed, since the digests were taken may be at this owner alone.
            whole = again.digest
        return None

    async def _merge(self, placement: Placement, listing: Listing, query: Query, deadline: float) -> Rows:
        collector = Collector(query)
        following: Query | None = collector.first
        while following is not None:
            merged = await self._settled(placement, listing, following, deadline)
            following = collector.add(merged)
        return Rows(tuple(collector.rows), collector.more)

    async def _settled(self, placement: Placement, listing: Listing, query: Query, deadline: float) -> Merged:
        """Return merged rows, each of which a majority holds by now. Raises Unavailable."""
        key, owners = listing.key, placement.owners

        async def page(client: NodeClient) -> tuple[Page, bool]:
            return await client.list_rows(key.table, key.path, query, listing.incarnation)

        def merge(said: Mapping[DeviceId, Said[Page]]) -> tuple[Merged, set[Row]]:
            merged = merge_pages(votes(placement, said), reverse=query.reverse)
            few = set(held_by_few(merged, votes(placement, said), quorum(len(owners.voting))))
            if owners.joining:
                there = [said[owner].value for owner in owners.joining if owner in said]
                held = [one for one in there if one is not None]
                few.update(held_by_few(merged, held, quorum(len(owners.joining))))
            return merged, few

        def suffices(said: Mapping[DeviceId, Said[Page]]) -> bool:
            return has_quorum(placement, said) and not merge(said)[1]

        said = await self._owners.ask(placement, deadline, page, page, suffices, jointly=True)
        if not has_quorum(placement, said):
            raise Unavailable("too few owners of a listing answered")
        merged, few = merge(said)
        await self._bring(key, sorted(few), deadline)
        return merged

    async def _bring(self, key: Key, rows: Sequence[Row], deadline: float) -> None:
        """Bring rows to a majority of a listing's owners. Raises Unavailable.

        What is refused for good belongs to a container that is gone: the next page is another one's. One that is being deleted may yet
        stay, with what this page shows: as for a write's row, the delete has its time, and is lifted then.
        """
        for attempt in range(BRING_TRIES_MAX):
            if attempt == 1:
                await asyncio.sleep(BRING_PAUSE_S)
            if attempt:  # and offered at once behind that, before the next delete comes
                await self._settle(key, deadline=deadline)
            offers = (Listed(key.table, RowOffer(key.path, row.name, entry_of(row))) for row in rows)
            ends = await asyncio.gather(*(self._upsert(offer, deadline=deadline) for offer in offers))
            if Upserted.UNAVAILABLE in ends:
                raise Unavailable("too few owners of a listing took what it would show")
            rows = [row for row, end in zip(rows, ends, strict=True) if end is Upserted.CLOSING]
            if not rows:
                return
        raise Unavailable(
            "the owners of a listing did not take what it would show while its container was being deleted"
        )

    async def _pages(
        self,
        placement: Placement,
        listing: Listing,
        query: Query,
        deadline: float,
        among: Collection[DeviceId] | None = None,
    ) -> list[Page]:
        """Return the same page, tombstones too, from owners that are a majority. Raises Unavailable."""
        key = listing.key

        async def page(client: NodeClient) -> tuple[Page, bool]:
            return await client.list_rows(key.table, key.path, query, listing.incarnation)

        return await self._owners.ask_majority(placement, page, deadline, among)

    # --- sums ---------------------------------------------------------------------------------------------------

    async def usage_of_container(self, info: ContainerInfo, *, deadline: float) -> Usage:
        """Return what a container's rows add up to. Raises Unavailable."""
        return usage_of(await self._sums(listing_of(info), deadline))

    async def usage_of_account(self, account: bytes, *, deadline: float) -> Usage:
        """Return what an account's rows add up to. Raises Unavailable."""
        sums = await self._sums(Listing(Key(ACCOUNTS, account)), deadline)
        policies = {policy: PolicyUsage(*counts) for policy, counts in sums.policies.items()}
        return Usage(sums.rows, sums.objects, sums.bytes, policies)

    async def _sums(self, listing: Listing, deadline: float) -> Sums:
        """Two equal digests say it; otherwise only what differs is looked at row by row."""
        placement, key = self._nodes.place(listing.key), listing.key

        async def tally(client: NodeClient) -> tuple[Tally, bool]:
            return await client.tally(key.table, key.path, listing.incarnation)

        tallies = await self._owners.ask_majority(placement, tally, deadline)
        for tallied in tallies:
            if sum(other.digest == tallied.digest for other in tallies) >= quorum(
                len(placement.owners.voting)
            ):
                return sums_of_tally(tallied)

        async def ranges(client: NodeClient) -> tuple[Ranges, bool]:
            return await _all_ranges(client, listing)

        compared = compare(await self._owners.ask_majority(placement, ranges, deadline))
        sums = compared.sums
        for span in compared.differing:
            sums = sums.joined(await self._sums_of_span(placement, listing, span, deadline))
        return sums

    async def _sums_of_span(
        self, placement: Placement, listing: Listing, span: Span, deadline: float
    ) -> Sums:
        start = b"" if not span.start else before_name(span.start)
        query = Query(marker=start, end_marker=span.stop, tombstones=True, limit=ITEMS_MAX)
        sums = Sums()
        while True:
            merged: Merged = merge_pages(await self._pages(placement, listing, query, deadline))
            sums = sums.joined(sums_of_rows(merged.rows))
            if merged.more is None:
                return sums
            query = query._replace(marker=merged.more)


def listing_of(info: ContainerInfo) -> Listing:
    """Return the listing of a container."""
    return Listing(info.name.key, info.incarnation)


def usage_of(sums: Sums) -> Usage:
    """Return what a container holds whose rows add up to these sums."""
    policies = {policy: PolicyUsage(0, count, size) for policy, (_, count, size) in sums.policies.items()}
    return Usage(0, sums.objects, sums.bytes, policies)


def _as_long_as_names(query: Query) -> Query:
    """Cut what clients may send longer than any name, without a change to which names are meant."""
    longest = ROW_BYTES_MAX - 1
    above, below = (query.end_marker, query.marker) if query.reverse else (query.marker, query.end_marker)
    if len(above) > longest:
        above = above[:longest]
    if len(below) > longest:
        below = below[:longest] + b"\0"
    marker, end_marker = (below, above) if query.reverse else (above, below)
    delimiter = query.delimiter if len(query.delimiter) <= longest else b""
    return query._replace(marker=marker, end_marker=end_marker, delimiter=delimiter)


def _without_hidden(query: Query) -> Query:
    if query.reverse:
        return query._replace(end_marker=max(query.end_marker, HIDDEN_STOP))
    return query._replace(marker=max(query.marker, HIDDEN_STOP))


def _digest_of(value: Page | Tally) -> Digest:
    return value.digest


def _itself(value: Digest) -> Digest:
    return value


async def _all_ranges(client: NodeClient, listing: Listing) -> tuple[Ranges, bool]:
    key, ranges, after = listing.key, list[tuple[bytes, Tally]](), None
    _, votes = await client.tally(key.table, key.path, listing.incarnation)
    while True:
        some, after = await client.ranges(key.table, key.path, listing.incarnation, after)
        ranges += some
        if after is None:
            return ranges, votes
