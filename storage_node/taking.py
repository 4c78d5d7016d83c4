"""Taking: what another device holds of a partition and this one lacks is fetched and kept.

Owns the way down from digests to keys and names, and that what is taken is offered to this device's own acceptors like
any late accept. Never pushes anything: who has something that another lacks tells it to come and take. Never decides which
partition is next, and never who votes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from ring.device import Device, DeviceId
from storage_node.acceptor import may_take_without_body
from storage_node.body_streams import undisturbed
from storage_node.differing import (
    ROWS_BETWEEN,
    Different,
    compare,
    cut_bits,
    just_before,
)
from storage_node.errors import DeviceFailed, RingChanged, StorageError
from storage_node.keys import ACCOUNTS, ROWS_OF, Key, Listing
from storage_node.pace import Pace, YieldingPace
from storage_node.placing import Rings
from storage_node.store import Offered, RowOffer, Staged, Store
from swiftlike.digests import EMPTY, Digest
from swiftlike.entries import Entry, merge
from swiftlike.limits import (
    COPIES_AT_ONCE,
    HEALED_BYTES_PER_S,
    HEALED_PER_S,
    PAGE_ITEMS_MAX,
    RANGES_TOGETHER,
    VERSIONS_AT_ONCE,
)
from swiftlike.node_calls import HeldCopy, HeldVersion, Query, RowRefused, Standing, VersionsPage
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.timestamps import NO_INCARNATION, NO_WRITE, ZERO_BALLOT, Offer, Timestamp, WriteId

SETTLE_S: Final = 10.0
ROWS_AT_ONCE: Final = 64
ROWS_PAGE: Final = 250
COPIES_PAGE: Final = 128
"""Rows, and copies, in one answer: some 2 ms of the loop at either end, for which a get may have to wait."""
COPIES_SLICE: Final = 32
"""Copies that are offered in one turn of the loop, and share a commit: some 2 ms. The pace is kept between them."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Settling(Protocol):
    """The quorum client, as far as healing needs it."""

    async def settle(self, table: bytes, path: bytes, incarnation: Timestamp, timeout_s: float) -> bool:
        """Carry the newest entry of a key through, above whatever promise stands there; say whether that was done."""


@dataclass(slots=True)
class Source:
    """A device that is taken from, under one epoch."""

    device: Device
    client: NodeClient
    streams: NodeClient
    """The same, with the patience that a large body needs."""
    epoch: int


@dataclass(slots=True)
class Taken:
    """What came of taking a partition from one device."""

    taken: int = 0
    left: int = 0
    """What that device holds and this one could not take."""
    is_more_here: bool = False
    """That device lacks something."""
    is_for_them: bool = False
    """That device holds fewer than this one, and is to begin: something was not compared."""

    def add(self, other: "Taken") -> None:
        """Count in what came of another part."""
        self.taken += other.taken
        self.left += other.left
        self.is_more_here = self.is_more_here or other.is_more_here
        self.is_for_them = self.is_for_them or other.is_for_them


class Rates(NamedTuple):
    """How fast a device takes, at most."""

    items_per_s: float = HEALED_PER_S
    """Entries and rows."""
    bytes_per_s: float = HEALED_BYTES_PER_S
    """Bytes of bodies."""
    partition_items: float = 0.0
    """Entries that a partition which is caught up with counts as, beside those that are taken of it."""


async def standings_of(
    table: bytes, partition: int, owners: Mapping[DeviceId, Source]
) -> dict[DeviceId, Standing]:
    """Return how those owners of a partition stand that answer and vote."""
    answers = await heard_from(table, partition, owners)
    return {
        owner: standing
        for owner, standing in answers.items()
        if isinstance(standing, Standing) and standing.votes
    }


async def heard_from(
    table: bytes, partition: int, owners: Mapping[DeviceId, Source]
) -> dict[DeviceId, Standing | NodeFailed]:
    """Return how those owners of a partition stand, or why one does not say."""

    async def ask(source: Source) -> Standing | NodeFailed:
        try:
            return await source.client.standing(table, partition)
        except NodeFailed as failure:
            return failure

    answers = await asyncio.gather(*map(ask, owners.values()))
    return dict(zip(owners, answers, strict=True))


class Taker:
    """Takes for one device."""

    def __init__(
        self,
        store: Store,
        rings: Rings,
        settling: Settling | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rates: Rates = Rates(),  # noqa: B008  # a value
        is_paused: Callable[[], bool] = lambda: False,
        read_lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Take the device, its rings, who settles, the rates, and how long calls wait here."""
        self.counts: Final[Counter[str]] = Counter()
        """Entries, rows and bytes taken, what was refused, settled, owed."""
        self._store: Final = store
        self._rings: Final = rings
        self._settling: Final = settling
        self._is_paused: Final = is_paused
        self.pace: Final = YieldingPace(rates.items_per_s, read_lag_s, sleep)
        """Of entries and rows."""
        self._bytes: Final = Pace(rates.bytes_per_s, sleep)
        self._partition_items: Final = rates.partition_items
        self._copies: Final = asyncio.Semaphore(COPIES_AT_ONCE)

    async def wait_turn(self) -> None:
        """Wait until a partition may be caught up with."""
        if self._partition_items:
            await self.pace.spend(self._partition_items)

    # --- registers ----------------------------------------------------------------------------------------------

    async def take_registers(
        self,
        table: bytes,
        partition: int,
        source: Source,
        *,
        catching_up: bool = False,
        if_behind: bool = False,
    ) -> Taken:
        """Take the entries of a partition that are newer there. Raises NodeFailed when the source cannot be asked.

        `if_behind`: nothing is compared where fewer are held there than here: who lacks something is to begin.
        """
        power = self._store.layout.part_powers[table]
        mine = (await self._store.scan(self._store.partition_digests, table, [partition]))[partition]
        theirs = await source.client.partition_digest(table, partition)
        if mine == theirs:
            return Taken()
        if if_behind and mine.entries > theirs.entries:
            return Taken(is_for_them=True)
        bits = cut_bits(power, mine.entries, theirs.entries)
        first, stop = partition << (bits - power), (partition + 1) << (bits - power)
        numbers = [first]
        if stop - first > 1:
            here = await self._store.scan(self._store.digests, table, bits, first, stop)
            there = await source.client.digests(table, bits, first, stop)
            numbers = [
                number
                for number, one, other in zip(range(first, stop), here, there, strict=True)
                if one != other
            ]
        whole = Taken()
        of_each = max(mine.entries, theirs.entries) // (stop - first)
        together = max(1, min(RANGES_TOGETHER, VERSIONS_AT_ONCE // max(1, of_each)))
        for at in range(0, len(numbers), together):
            some = numbers[at : at + together]
            whole.add(await self._take_ranges(table, bits, some, source, catching_up=catching_up))
        return whole

    async def take_from_stranger(self, table: bytes, partition: int, source: Source) -> Taken:
        """Take what a device holds that is no owner: mostly little, beside which digests tell nothing.

        And a body that is missing here, though the entries are the same.
        """
        power = self._store.layout.part_powers[table]
        whole = Taken()
        after: bytes | None = b""
        while after is not None:
            there, after, _ = await source.client.versions(table, power, partition, after)
            paths = [held.path for held in there]
            here = await self._store.scan(self._store.versions_of, table, paths)
            whole.add(await self._take(table, compare(here, there), source, catching_up=False))
        return whole

    async def _take_ranges(
        self, table: bytes, bits: int, numbers: Sequence[int], source: Source, *, catching_up: bool
    ) -> Taken:
        there = await all_versions(partial(source.client.versions_in, table, bits), numbers)
        read = partial(self._store.versions_in, table, bits, limit=PAGE_ITEMS_MAX)
        here = await all_versions(partial(self._store.scan, read), numbers)
        found = compare(here, there)
        taken = await self._take(table, found, source, catching_up=catching_up)
        taken.is_more_here = found.is_more_here
        return taken

    async def _take(self, table: bytes, found: Different, source: Source, *, catching_up: bool) -> Taken:
        """Take these keys; one copy at a time answers for what the next call may ask."""
        whole = Taken()
        paths = [held.path for held in found.taken]
        while paths:
            if self._is_paused():
                whole.left += len(paths)
                break
            wanted = paths[:COPIES_PAGE]
            had = [await self._body_here(table, path) if path in found.known else NO_WRITE for path in wanted]
            page = await source.client.copies(table, list(zip(wanted, had, strict=True)))
            self.pace.note(page.lag_s)
            for at in range(0, len(page.copies), COPIES_SLICE):
                some = page.copies[at : at + COPIES_SLICE]
                await self.pace.spend(len(some))
                await self._bytes.spend(sum(len(copy.body or b"") for copy in some))
                kept = await await_all(
                    self._keep(
                        table, copy, source, is_known=copy.path in found.known, catching_up=catching_up
                    )
                    for copy in some
                )
                whole.taken += sum(kept)
                whole.left += len(kept) - sum(kept)
            paths = paths[page.served :]
        return whole

    async def _body_here(self, table: bytes, path: bytes) -> WriteId:
        """Return the body that is held at a key."""
        held = await self._store.look_up(Key(table, path))
        entry = None if held is None else held.register.entry
        is_here = held is not None and entry is not None and held.location.held
        return entry.body_id if entry is not None and is_here else NO_WRITE

    async def _keep(
        self, table: bytes, copy: HeldCopy, source: Source, *, is_known: bool, catching_up: bool
    ) -> bool:
        """Offer a copy to this device's acceptor, its body first; say whether it, or something newer, stands here now."""
        key, is_complete = Key(table, copy.path), copy.body is not None or not copy.entry.has_body
        async with self._copies:
            try:
                if is_complete and not is_known:
                    # What came meanwhile, the acceptor sees.
                    return await self._accept(key, copy, source, copy.body, catching_up=catching_up)
                return await self._offer(key, copy, source, catching_up=catching_up)
            except (DeviceFailed, RingChanged):
                raise
            except (StorageError, NodeFailed) as error:
                self.counts["refused"] += 1
                log.warning("%r could not be taken from %s: %s", copy.path, source.device, error)
                return False

    async def _offer(self, key: Key, copy: HeldCopy, source: Source, *, catching_up: bool) -> bool:
        entry = copy.entry
        held = await self._store.look_up(key)
        own = None if held is None else held.register.entry
        whole = held is not None and held.location.held
        if own is not None and own.ballot > entry.ballot:
            lacks_body = not whole and copy.whole and own.body_id == entry.body_id
            return not lacks_body or await self._fill(key, copy, source)
        if own is not None and own.ballot == entry.ballot and (whole or not copy.whole):
            return True
        has_body = own is not None and whole and own.body_id == entry.body_id
        is_missing = entry.has_body and copy.body is None and not has_body
        if is_missing and copy.whole:
            return await self._offer_streamed(key, copy, source, catching_up=catching_up)
        if is_missing and not may_take_without_body(own, whole=whole, catching_up=catching_up):
            self.counts["without_body"] += 1
            return False
        return await self._accept(key, copy, source, copy.body, catching_up=catching_up)

    async def _fill(self, key: Key, copy: HeldCopy, source: Source) -> bool:
        """Take the body alone: what stands here is the same write, carried through without it."""
        body_id = copy.entry.body_id
        if copy.body is not None:
            return await self._store.fill(key, body_id, memoryview(copy.body))
        async with self._streamed(key, body_id, source) as staged:
            return await undisturbed(self._store.fill(key, body_id, staged))

    async def _offer_streamed(self, key: Key, copy: HeldCopy, source: Source, *, catching_up: bool) -> bool:
        async with self._streamed(key, copy.entry.body_id, source) as staged:
            return await self._accept(key, copy, source, staged, catching_up=catching_up)

    @asynccontextmanager
    async def _streamed(self, key: Key, body_id: WriteId, source: Source) -> AsyncIterator[Staged]:
        """Stage a body that is too large for a call; it is gone behind the context, unless it was taken over."""
        staged = self._store.stage(body_id)
        try:
            async with source.streams.get_stream(key.table, key.path, body_id=body_id) as (_, chunks):
                async for chunk in chunks:
                    await self._bytes.spend(len(chunk))
                    await undisturbed(staged.write(chunk))
            yield staged
        finally:
            await undisturbed(staged.abort())

    async def _accept(
        self,
        key: Key,
        copy: HeldCopy,
        source: Source,
        body: "bytes | bytearray | memoryview | Staged | None",
        *,
        catching_up: bool,
    ) -> bool:
        if isinstance(body, bytearray):
            body = memoryview(body)
        offered = Offered(
            key,
            copy.entry,
            Offer.COPY,
            body,
            owing=copy.owes,
            from_voter=catching_up,
            is_current=lambda: self._rings.epoch(key.table) == source.epoch,
        )
        accepting = self._store.offer(offered)
        # Only a staged body may still be written to when the call is cancelled.
        is_staged = body is not None and not isinstance(body, bytes | memoryview)
        acceptance = await (undisturbed(accepting) if is_staged else accepting)
        if acceptance.accepted:
            self.counts["taken"] += 1
            self.counts["bytes"] += copy.entry.size if body is not None else 0
            return True
        held = await self._store.look_up(key)
        if held is not None and held.register.ballot >= copy.entry.ballot:
            return True
        promised = ZERO_BALLOT if held is None else held.register.promised
        is_absent = held is None or held.register.entry is None
        if promised > copy.entry.ballot or is_absent:
            # A promise is in the way, or the floor: this owner has forgotten it, and the other has not, for a promise
            # that it alone has given.
            incarnation = max(copy.entry.ballot.incarnation, promised.incarnation)
            if await self.settle(key, incarnation):
                held = await self._store.look_up(key)
                return held is not None and held.register.ballot >= copy.entry.ballot
        self.counts["refused"] += 1
        return False

    async def settle(self, key: Key, incarnation: Timestamp) -> bool:
        """Have the voters carry a key's newest entry through, above the promise in the way; say whether that was done."""
        if self._settling is None:
            return False
        lead = NO_INCARNATION if key.table in ROWS_OF else incarnation
        done = await self._settling.settle(key.table, key.path, lead, SETTLE_S)
        self.counts["settled" if done else "unsettled"] += 1
        return done

    async def take_marked(
        self, table: bytes, partition: int, source: Source, *, settles: bool = True
    ) -> Taken:
        """Take what no digest tells: have keys under a promise settled and take them, and owe what is owed there.

        Where nobody is left to settle with, the promises themselves are taken: this device then refuses what that one refuses.
        """
        power = self._store.layout.part_powers[table]
        whole = Taken()
        after: bytes | None = b""
        while after is not None:
            marked, after, _ = await source.client.versions(table, power, partition, after, marked=True)
            promised = [held for held in marked if held.promised > held.ballot]
            for held in promised:
                key = Key(table, held.path)
                incarnation = max(held.ballot.incarnation, held.promised.incarnation)
                if settles:
                    whole.left += not await self.settle(key, incarnation)
                else:
                    await self._promise_alike(key, source)
            if promised and settles:
                paths = [held.path for held in promised]
                there = await source.client.versions_of(table, paths)
                here = await self._store.scan(self._store.versions_of, table, paths)
                whole.add(await self._take(table, compare(here, there), source, catching_up=True))
            owed = [
                (Key(table, held.path), held.version)
                for held in marked
                if held.owes and held.version is not None
            ]
            if owed:
                self.counts["owed"] += await self._store.owe(owed)
        return whole

    async def _promise_alike(self, key: Key, source: Source) -> None:
        """Promise what another owner has promised; what stands here above it already says as much.

        Raises NodeFailed, BallotRefused, RingChanged.
        """
        register, _, _ = await source.client.read(key.table, key.path)
        if register is None or register.promised <= register.ballot:
            return  # something was accepted since
        await self._store.prepare(
            key,
            register.promised,
            closing=register.closing,
            is_current=lambda: self._rings.epoch(key.table) == source.epoch,
        )

    # --- rows ---------------------------------------------------------------------------------------------------

    async def take_rows(
        self, table: bytes, partition: int, source: Source, *, if_behind: bool = False
    ) -> Taken:
        """Take the rows under a partition's containers or accounts that are newer there; `if_behind` as with registers."""
        mine = await self.listings_here(table, partition)
        theirs = await _listings_there(source.client, table, partition)
        whole = Taken(is_more_here=bool(mine.keys() - theirs.keys()))
        for listing in sorted(theirs):
            one, other = mine.get(listing, EMPTY), theirs[listing]
            if if_behind and one.entries > other.entries:
                whole.is_for_them = True
            elif one != other:
                whole.add(await self.take_listing(listing, source))
        return whole

    async def listings_here(self, table: bytes, partition: int) -> dict[Listing, Digest]:
        """Return the listings that are held of a partition."""
        found: dict[Listing, Digest] = {}
        after: Listing | None = None
        while page := await self._store.scan(self._store.listings, table, partition, after, PAGE_ITEMS_MAX):
            found.update(page)
            after = page[-1].listing
        return found

    async def take_listing(self, listing: Listing, source: Source) -> Taken:
        """Take the rows of one listing: by the ranges of the source, then by names in between, then by rows."""
        parent, whole = listing.parent, Taken()
        ranges: list[tuple[bytes, Digest]] = []
        after: bytes | None = None
        while True:
            page, after = await source.client.ranges(parent.table, parent.path, listing.incarnation, after)
            ranges += [(first, tally.digest) for first, tally in page]
            if after is None:
                break
        bounds = [first for first, _ in ranges]
        if not bounds or bounds[0] != b"":
            bounds.insert(0, b"")
            ranges.insert(0, (b"", EMPTY))
        here = await self._store.scan(self._store.span_digests, listing, bounds)
        for (start, theirs), mine, stop in zip(ranges, here, [*bounds[1:], b""], strict=True):
            if mine != theirs:
                for low, high in await self._differing_spans(listing, source, start, stop, mine, theirs):
                    whole.add(await self._take_span(listing, source, low, high))
        return whole

    async def _differing_spans(
        self, listing: Listing, source: Source, start: bytes, stop: bytes, mine: Digest, theirs: Digest
    ) -> list[tuple[bytes, bytes]]:
        """Cut a range by names that are held here, where that is worth it, and return where it differs."""
        if min(mine.entries, theirs.entries) <= 2 * ROWS_BETWEEN:
            return [(start, stop)]
        names = [name async for name, _ in self._rows_here(listing, start, stop)]
        bounds = [start, *names[ROWS_BETWEEN::ROWS_BETWEEN]]
        asked = [*bounds, stop] if stop else bounds
        parent = listing.parent
        there = await source.client.span_digests(parent.table, parent.path, asked, listing.incarnation)
        here = await self._store.scan(self._store.span_digests, listing, asked)
        spans = list(pairwise([*bounds, stop]))
        return [span for span, one, other in zip(spans, here, there, strict=False) if one != other]

    async def _take_span(self, listing: Listing, source: Source, start: bytes, stop: bytes) -> Taken:
        mine = {name: entry async for name, entry in self._rows_here(listing, start, stop)}
        there = await rows_there(source.client, listing, start, stop)
        whole = Taken()
        newer: list[tuple[bytes, Entry]] = []
        for name, entry in there.items():
            own = mine.pop(name, None)
            if own is None or merge(own, entry) != own:
                newer.append((name, entry))
            elif own != entry:
                whole.is_more_here = True
        whole.is_more_here = whole.is_more_here or bool(mine)
        for at in range(0, len(newer), ROWS_AT_ONCE):
            whole.add(await self._keep_rows(listing, newer[at : at + ROWS_AT_ONCE]))
        return whole

    async def _rows_here(
        self, listing: Listing, start: bytes, stop: bytes
    ) -> AsyncIterator[tuple[bytes, Entry]]:
        marker: bytes | None = just_before(start)
        while marker is not None:
            query = Query(marker=marker, end_marker=stop, tombstones=True, limit=PAGE_ITEMS_MAX)
            page = await self._store.scan(self._store.list_rows, listing, query)
            for row in page.rows:
                assert row.entry is not None, "nothing is rolled up"
                yield row.name, row.entry
            marker = page.more

    async def _keep_rows(self, listing: Listing, rows: list[tuple[bytes, Entry]]) -> Taken:
        if self._is_paused():
            return Taken(left=len(rows))
        await self.pace.spend(len(rows))
        try:
            answers = await self._store.upsert_rows(
                [RowOffer(listing.parent, name, entry) for name, entry in rows]
            )
        except DeviceFailed:
            raise
        except StorageError as error:
            log.warning("rows of %r could not be taken: %s", listing.parent.path, error)
            return Taken(left=len(rows))
        refused = [answer for answer in answers if isinstance(answer, RowRefused)]
        self.counts["rows"] += len(rows) - len(refused)
        self.counts["rows_refused"] += len(refused)
        if any(answer.closing for answer in refused):
            await self.settle(listing.parent, NO_INCARNATION)
            return Taken(taken=len(rows) - len(refused), left=len(refused))
        # What an incarnation that is gone refuses is gone with it, and no reason to wait.
        return Taken(taken=len(rows) - len(refused))


async def rows_there(client: NodeClient, listing: Listing, start: bytes, stop: bytes) -> dict[bytes, Entry]:
    """Return another device's rows in `[start, stop)`, tombstones too; an empty `stop` means to the end."""
    found: dict[bytes, Entry] = {}
    marker: bytes | None = just_before(start)
    parent = listing.parent
    while marker is not None:
        query = Query(marker=marker, end_marker=stop, tombstones=True, limit=ROWS_PAGE)
        page, _ = await client.list_rows(parent.table, parent.path, query, listing.incarnation)
        for row in page.rows:
            entry = row.entry
            if entry is not None:
                found[row.name] = entry
        marker = page.more
    return found


async def all_versions(
    ask: Callable[[Sequence[int], bytes], Awaitable[VersionsPage]], numbers: Sequence[int]
) -> list[HeldVersion]:
    """Return what stands in ranges of path hashes, page by page of what `ask` returns."""
    found: list[HeldVersion] = []
    after = b""
    while numbers:
        page = await ask(numbers, after)
        found += page.found
        numbers, after = numbers[page.served :], page.after
    return found


async def _listings_there(client: NodeClient, table: bytes, partition: int) -> dict[Listing, Digest]:
    found: dict[Listing, Digest] = {}
    after: tuple[bytes, Timestamp] | None = None
    more = True
    while more:
        page, more, _ = await client.listings(table, partition, after)
        for path, incarnation, digest in page:
            found[Listing(Key(table, path), incarnation if table != ACCOUNTS else NO_INCARNATION)] = digest
            after = path, incarnation
    return found


async def await_all(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await all; the first that fails ends the others, and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
