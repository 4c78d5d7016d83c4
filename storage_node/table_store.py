"""What of a store follows from its tables alone, whatever keeps them.

Owns the checks at the door and every method of `Store` that moves no body. The real device and the in-memory store
stand on it, and add how a transaction is made and where bodies lie.
"""

import logging
from abc import ABC, abstractmethod
from asyncio import Future
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import islice, pairwise
from typing import Any, Final, TypeVar

from storage_node import auditing, keys, maintenance, operations, partition_digests, rows, tables
from storage_node.auditing import AuditedBuckets, AuditedListings, AuditedPartitions, AuditedValues, RangeOf
from storage_node.blocks import seed_of
from storage_node.errors import BallotRefused, IndexDamaged, RingChanged, StorageError
from storage_node.keys import Due, DueDelete, Key, Layout, Listing
from storage_node.keyvalues import Reading
from storage_node.locations import LOCATION_BYTES, InVolume, Nowhere, decode_location
from storage_node.operations import Content, Operation
from storage_node.recounting import RecountBucket, RecountPartition, RecountRange, Remember
from storage_node.store import Glance, Offered, Outcome, Reclaimed, RowHeld, RowOffer
from storage_node.tables import Held, PartitionKey
from swiftlike.digests import Digest
from swiftlike.entries import Entry, EntryDamaged, Version, body_in
from swiftlike.limits import (
    BODY_BYTES_MAX,
    CLOCK_AHEAD_PASSING_US,
    ITEMS_MAX,
    RECLAIM_AGE_US,
    SMALL_BODY_BYTES_MAX,
    VERSIONS_SCANNED_MAX,
)
from swiftlike.node_calls import HeldVersion, Page, Promise, Query, RowRefused, Standing, Tally, VersionsPage
from swiftlike.registers import entry_in
from swiftlike.rpc.transport import Body as Octets
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Offer, refuse_ballot

T = TypeVar("T")

log: Final = logging.getLogger(__name__)

_NO_STANDING: Final = Standing()
_NOTHING: Final = Glance(None, whole=True, body=None)


class TableStore(ABC):
    """The tables of one device."""

    def __init__(
        self, name: str, layout: Layout, read_us: Callable[[], int], reclaim_age_us: int = RECLAIM_AGE_US
    ) -> None:
        """Take a name for messages, the layout of the cluster, and the host's clock."""
        self.name = name
        self.layout = layout
        self.reclaim_age_us = reclaim_age_us
        self._read_us = read_us
        self._standings: dict[PartitionKey, Standing] = {}

    @abstractmethod
    def _view(self) -> AbstractContextManager[Reading]:
        """Hold a consistent view, briefly."""

    @abstractmethod
    def _get(self, raw_key: bytes) -> bytes | None:
        """Return the value at a key: the shortest of views."""

    @abstractmethod
    def _warm_body(self, place: InVolume, size: int, seed: int) -> Octets | None:
        """Return a whole and sound body without waiting; None: not so."""

    @abstractmethod
    def _submit(self, operation: Operation) -> "Future[Any]":
        """Have an operation made durable and return the future of its answer."""

    def _accept(self, offered: Offered, body: Content, now_us: int) -> operations.Accept:
        """Make an offer an operation; its ballot was checked at `now_us`."""
        oldest_us = now_us - self.reclaim_age_us
        return operations.Accept(
            offered.key,
            offered.entry,
            body,
            offered.owing,
            offered.from_voter,
            oldest_us,
            offered.is_current,
            entry_raw=offered.entry_raw,
        )

    def _accepts(self, offered: Iterable[Offered]) -> list[Operation | Outcome]:
        """Return the operations of offers whose bodies are in memory; of one that is wrong, its outcome."""
        slots: list[Operation | Outcome] = []
        for one in offered:
            try:
                now_us = self._check_ballot(one.entry.ballot, one.offer)
                body = one.body
                assert body is None or isinstance(body, bytes | memoryview), (
                    "a staged body is offered by itself"
                )
                if body is not None:
                    check_size(one.entry, len(body))
                    assert len(body) <= SMALL_BODY_BYTES_MAX, "a larger body has a file of its own"
                slots.append(self._accept(one, body, now_us))
            except StorageError as error:
                slots.append(Outcome(None, error))
        return slots

    def _check_ballot(self, ballot: Ballot, offer: Offer) -> int:
        """Return the host's time. Raises BallotRefused for a ballot too far from it."""
        now_us = self._read_us()
        if refused := refuse_ballot(ballot, offer, now_us, self.reclaim_age_us):
            raise BallotRefused(f"device {self.name}: {refused}")
        return now_us

    def _applied(self, answer: T | None) -> T:
        """Return the answer of an operation that depends on its ring. Raises RingChanged when there is none."""
        if answer is None:
            raise RingChanged(
                f"device {self.name}: the ring changed meanwhile: fetch it and place this again"
            )
        return answer

    async def prepare(
        self,
        key: Key,
        ballot: Ballot,
        *,
        closing: bool = False,
        is_current: Callable[[], bool] = lambda: True,
    ) -> Promise:
        """Ask the acceptor of a key to refuse everything below a ballot; `is_current` as for an offer.

        Raises BallotRefused, RingChanged, DeviceFailed.
        """
        now_us = self._check_ballot(ballot, Offer.PASSING)
        operation = operations.Prepare(key, ballot, closing, now_us - self.reclaim_age_us, is_current)
        answer: Promise | None = await self._submit(operation)
        return self._applied(answer)

    def upsert_rows(self, offered: Sequence[RowOffer]) -> "Future[list[Ballot | RowRefused]]":
        """Merge rows into their listings, all in one transaction; each is taken, under a ballot of its container, or refused."""
        return self._submit(operations.UpsertRows(tuple(offered)))

    def pay(self, debts: Sequence[tuple[Key, Version]]) -> "Future[int]":
        """Clear debts, each only if that version still owes; return how many were."""
        return self._submit(operations.Pay(tuple(debts)))

    async def set_standing(self, table: bytes, partition: int, standing: Standing, *, seen: Standing) -> None:
        """Change the voting and the floors of a partition from what the caller has `seen`; a floor never sinks.

        Raises StorageError when it stands otherwise by now: what was decided on is gone, so read and decide again.
        """
        now_us = self._read_us()
        highest_us = max(now_us + CLOCK_AHEAD_PASSING_US, seen.floor_us, seen.refusing_us)
        if max(standing.floor_us, standing.refusing_us) > highest_us:
            # Floors never sink: one of a clock that is a week ahead would refuse every honest write for a week.
            raise StorageError(
                f"device {self.name}: a floor may not be ahead of its clock by minutes: set the clock of the host that asks"
            )
        await self._submit(maintenance.SetStanding(table, partition, seen, standing))

    async def grant_first_votes(self, table: bytes, partitions: Sequence[int]) -> int:
        """Vote on partitions that never had other owners, and that never had a standing here; return how many."""
        granted = 0
        for first in range(0, len(partitions), ITEMS_MAX):
            some = partitions[first : first + ITEMS_MAX]
            granted += await self._submit(maintenance.GrantFirstVotes(table, some))
        return granted

    async def take_epoch(self, table: bytes, epoch: int, staying: Container[int]) -> int:
        """Hold the votes against a newer epoch; return how many were taken."""
        answer: int = await self._submit(maintenance.TakeEpoch(table, epoch, staying))
        return answer

    async def owe(self, debts: Sequence[tuple[Key, Version]]) -> int:
        """Mark entries as owing their row, each only if that version still stands; return how many do."""
        answer: int = await self._submit(maintenance.Owe(tuple(debts)))
        return answer

    async def forget(
        self,
        table: bytes,
        partition: int,
        floor_us: int,
        paths: Sequence[bytes],
        rows: Sequence[tuple[Listing, bytes]] = (),
    ) -> int:
        """Remove registers and rows below a floor that no voter holds, at an owner that does not vote; return how many."""
        forget = maintenance.Forget(table, partition, floor_us, tuple(paths), tuple(rows))
        answer: int = await self._submit(forget)
        return answer

    async def release(
        self,
        table: bytes,
        versions: Sequence[tuple[bytes, Version | None]],
        rows: Sequence[RowHeld] = (),
        is_current: Callable[[], bool] = lambda: True,
    ) -> int:
        """Remove registers and rows that the device need not hold, each only if it still is this version; return how many."""
        answer: int = await self._submit(
            maintenance.Release(table, tuple(versions), tuple(rows), is_current=is_current)
        )
        return answer

    async def reclaim(self, table: bytes, partition: int, limit: int) -> Reclaimed:
        """Forget tombstones and lone promises below the partition's floor, up to `limit` of them."""
        answer: Reclaimed = await self._submit(maintenance.Reclaim(table, partition, limit))
        return answer

    async def drop(self, table: bytes, partition: int, limit: int) -> int:
        """Forget up to `limit` registers of a partition that this device no longer owns; return how many."""
        answer: int = await self._submit(maintenance.Drop(table, partition, limit))
        return answer

    async def sweep(self, rows_max: int) -> int:
        """Remove rows of an incarnation that is gone; return zero when nothing is left to do, else about how many."""
        answer: int = await self._submit(maintenance.Sweep(rows_max))
        return answer

    def read(self, key: Key) -> Held | None:
        """Return what stands at a key."""
        raw_key = keys.register_key(key, self.layout.hashed(key.path))
        raw = self._get(raw_key)
        return None if raw is None else tables.decode_held(raw_key, raw)

    def glance(self, key: Key, hashed: int, size_max: int) -> Glance | None:
        """Return what a read shows of a key, with a body of at most `size_max`; None: `find` it, that takes waiting.

        Most of what stands there is neither decoded nor encoded again: it leaves as it lies.
        """
        try:
            raw = self._get(keys.register_key(key, hashed))
            if raw is None:
                return _NOTHING
            place, entry_raw, body = decode_location(raw), entry_in(raw, LOCATION_BYTES), None
            if size_max and entry_raw is not None:
                body_id, size = body_in(entry_raw)
                if size <= size_max and not isinstance(place, Nowhere):
                    body = self._warm_body(place, size, seed_of(body_id)) if type(place) is InVolume else None
                    if body is None:
                        return None
        except (EntryDamaged, ValueError, StorageError):
            return None
        return Glance(entry_raw, place.held, body)

    def standing(self, table: bytes, partition: int) -> Standing:
        """Return the voting and the floor of a partition."""
        return self._standings.get((table, partition), _NO_STANDING)

    def list_rows(self, listing: Listing, query: Query) -> Page:
        """Return a page of a listing."""
        with self._view() as view:
            return rows.read_page(view, listing, self.layout.hashed(listing.parent.path), query)

    def row(self, listing: Listing, name: bytes) -> Entry | None:
        """Return one row of a listing, a tombstone too."""
        with self._view() as view:
            return rows.read_row(view, listing, self.layout.hashed(listing.parent.path), name)

    def tally(self, listing: Listing) -> Tally:
        """Return what the rows of a listing add up to, exactly as of the last commit."""
        with self._view() as view:
            return rows.read_tally(view, listing, self.layout.hashed(listing.parent.path))

    def ranges(
        self, listing: Listing, after: bytes | None = None, limit: int = ITEMS_MAX
    ) -> list[tuple[bytes, Tally]]:
        """Return ranges of a listing, behind the one named `after` (None: all): names that they begin at, and tallies."""
        with self._view() as view:
            return rows.read_ranges(view, listing, self.layout.hashed(listing.parent.path), after, limit)

    def span_digest(self, listing: Listing, start: bytes, stop: bytes) -> Digest:
        """Return the digest of the rows in `[start, stop)`; an empty `stop` means to the end."""
        with self._view() as view:
            return rows.read_span_digest(view, listing, self.layout.hashed(listing.parent.path), start, stop)

    def partition_digest(self, table: bytes, partition: int) -> Digest:
        """Return the digest of a partition's registers, or of all rows under them."""
        return self.partition_digests(table, (partition,))[partition]

    def partition_digests(self, table: bytes, partitions: Sequence[int]) -> dict[int, Digest]:
        """Return that of many, all as of one moment."""
        with self._view() as view:
            return partition_digests.read_many(view, self.layout, table, partitions) if partitions else {}

    def held_partitions(self, table: bytes, passed_over: Container[int]) -> list[int]:
        """Return the partitions of a table of registers of which anything is held, but for those `passed_over`."""
        with self._view() as view:
            return tables.read_held_partitions(view, self.layout, table, passed_over)

    def versions(
        self, table: bytes, bits: int, number: int, after: bytes, limit: int, *, marked: bool = False
    ) -> tuple[list[HeldVersion], bytes | None]:
        """Return what is to be compared of `registers`, and the path behind which to go on; None when these were the last.

        Looks at VERSIONS_SCANNED_MAX registers at most, so that few marked ones among many hold no view open for long.
        """
        found: list[HeldVersion] = []
        with self._view() as view:
            scanned = tables.read_versions(view, self.layout, table, bits, number, after)
            for count, held in enumerate(scanned, 1):
                if not marked or held.owes or held.promised > held.ballot:
                    found.append(held)
                if len(found) == limit or count == VERSIONS_SCANNED_MAX:
                    return found, held.path
        return found, None

    def versions_in(
        self, table: bytes, bits: int, numbers: Sequence[int], after: bytes, *, limit: int
    ) -> VersionsPage:
        """Return that of several ranges, so many registers at most; in the first of them from behind a path."""
        found: list[HeldVersion] = []
        for served, number in enumerate(numbers):
            if len(found) == limit:
                return VersionsPage(found, served, b"")
            page, more = self.versions(table, bits, number, after, limit - len(found))
            found += page
            if more is not None:
                return VersionsPage(found, served, more)
            after = b""
        return VersionsPage(found, len(numbers), b"")

    def versions_of(self, table: bytes, paths: Sequence[bytes]) -> list[HeldVersion]:
        """Return that of these keys, absent ones too."""
        with self._view() as view:
            return [tables.read_version(view, self.layout, Key(table, path)) for path in paths]

    def listings(
        self, table: bytes, partition: int, after: Listing | None, limit: int
    ) -> list[rows.ListingHeld]:
        """Return the listings under the registers of a partition, from behind `after`."""
        with self._view() as view:
            return list(islice(rows.scan_listings(view, self.layout, table, partition, after), limit))

    def row_ballots(self, listing: Listing, names: Sequence[bytes]) -> list[Ballot]:
        """Return the ballots of the rows of these names, tombstones too; ZERO_BALLOT: there is none."""
        hashed = self.layout.hashed(listing.parent.path)
        with self._view() as view:
            found = (rows.read_row(view, listing, hashed, name) for name in names)
            return [ZERO_BALLOT if row is None else row.ballot for row in found]

    def span_digests(self, listing: Listing, bounds: Sequence[bytes]) -> list[Digest]:
        """Return the digest of the rows from each bound to the next; behind the last, to the end."""
        hashed = self.layout.hashed(listing.parent.path)
        with self._view() as view:
            return [
                rows.read_span_digest(view, listing, hashed, start, stop)
                for start, stop in pairwise([*bounds, b""])
            ]

    def digests(self, table: bytes, bits: int, first: int, stop: int) -> list[Digest]:
        """Return a digest for each number in `[first, stop)`: of the registers whose path hash begins with its bits."""
        with self._view() as view:
            return tables.read_digests(view, self.layout, table, bits, first, stop)

    def registers(
        self, table: bytes, bits: int, number: int, after: bytes, limit: int
    ) -> list[tuple[Key, Held]]:
        """Return registers whose path hash begins with the bits of a number, in their order, from behind a path."""
        with self._view() as view:
            found = tables.scan_registers(view, self.layout, table, bits, number, after)
            return list(islice(found, limit))

    def due(
        self, kind: Due, before_us: int, limit: int, from_us: int = 0
    ) -> list[tuple[Key, Version | None]]:
        """Return objects that are to be deleted, or that owe a row (with the version that owes), earliest first."""
        if kind is Due.RECLAIM:
            raise ValueError("what is to be reclaimed is kept by bucket: call reclaim")
        with self._view() as view:
            return [
                (keys.key_of(key), version)
                for key, version in tables.read_due(view, kind, before_us, limit, from_us)
            ]

    def due_deletes(self, before_us: int, limit: int, after: DueDelete | None = None) -> list[DueDelete]:
        """Return objects that are to be deleted before a time, earliest first, from behind `after`."""
        with self._view() as view:
            return tables.read_due_deletes(view, self.layout, before_us, limit, after)

    def audit_values(self, after: bytes, limit: int) -> AuditedValues:
        """Check up to `limit` values of the index from behind a key."""
        with self._view() as view:
            return auditing.audit_values(view, after, limit)

    def audit_buckets(self, start: bytes, registers_min: int) -> AuditedBuckets:
        """Check buckets of registers from a key on, until they held so many."""
        with self._view() as view:
            return auditing.audit_buckets(view, start, registers_min)

    def audit_listings(self, start: bytes, rows_min: int) -> AuditedListings:
        """Check the tallies of listings from a key on, until so many rows were counted."""
        with self._view() as view:
            return auditing.audit_listings(view, start, rows_min)

    async def recount_bucket(self, head_key: bytes) -> bool:
        """Count the digest of a bucket anew; say whether it was wrong."""
        answer: bool = await self._submit(RecountBucket(head_key))
        return answer

    def audit_partitions(self, table: bytes, first: int, stop: int) -> AuditedPartitions:
        """Check the digests of the partitions `[first, stop)` against the heads of buckets, or the tallies of listings."""
        with self._view() as view:
            return auditing.audit_partitions(view, self.layout, table, first, stop)

    async def recount_partition(self, table: bytes, partition: int) -> None:
        """Count the digest of a partition anew."""
        await self._submit(RecountPartition(table, partition))

    async def recount_range(self, drifted: RangeOf) -> bool:
        """Count the tallies of a range and of its listing anew; say whether one was wrong."""
        answer: bool = await self._submit(RecountRange(drifted.listing, drifted.first))
        return answer

    async def remember(self, job: str, position: bytes) -> None:
        """Write down how far a job has come."""
        await self._submit(Remember(job, position))

    def position(self, job: str) -> bytes | None:
        """Return how far a job had come when that was last written down; None: it never was, or that cannot be read.

        A note of progress is no reason to lose a device: the job begins anew, and what it notes next takes its place.
        """
        try:
            with self._view() as view:
                return view.get(keys.job_key(job))
        except IndexDamaged as error:
            log.error("how far the job %s had come cannot be read, so it begins anew: %s", job, error)
            return None

    def wants_body(self, key: Key, held: Held) -> bool:
        """Whether the body of what stands at a key is missing."""
        return not held.location.held

    def missing(self, after: Key | None, limit: int) -> list[Key]:
        """Return keys whose body is missing here, in order, from behind `after`."""
        start = keys.MISSING
        if after is not None:
            start += keys.register_key(after, self.layout.hashed(after.path)) + b"\0"
        with self._view() as view:
            found = islice(view.scan(start, keys.after(keys.MISSING)), limit)
            return [keys.key_of(key[len(keys.MISSING) :]) for key, _ in found]


def check_size(entry: Entry, size: int) -> None:
    """Refuse a body that is not the one its entry declares, before anything is stored."""
    if size != entry.size:
        raise StorageError(f"the body has {size} bytes and its entry says {entry.size}: send it again, whole")
    if size > BODY_BYTES_MAX:
        raise StorageError(f"the body has {size} bytes, the limit is {BODY_BYTES_MAX}: upload it in segments")
