"""What a device offers to the rest of its process: the store, its requests and its answers.

Owns the interface and the values that cross it. Two bodies stand behind it, the real device and the in-memory one of
the simulator; one contract suite holds for both.

Methods that are not `async` read the index at once, and may wait for the disk: on an event loop, call `look_up` for one
key and `scan` for anything longer. Methods that change something wait for the batch that makes it durable: when such a
call is cancelled, the change may still happen.
"""

from asyncio import Future
from collections.abc import AsyncIterator, Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from storage_node.auditing import AuditedBuckets, AuditedListings, AuditedPartitions, AuditedValues, RangeOf
from storage_node.keys import ACCOUNTS, Due, DueDelete, Key, Layout, Listing
from storage_node.rows import ListingHeld
from storage_node.tables import Held
from swiftlike.digests import Digest
from swiftlike.entries import Entry, Version
from swiftlike.limits import BODY_BYTES_MAX, ITEMS_MAX
from swiftlike.node_calls import (
    Acceptance,
    HeldVersion,
    Page,
    Promise,
    Query,
    RowRefused,
    Standing,
    Tally,
    VersionsPage,
)
from swiftlike.rpc.transport import Body as Octets
from swiftlike.timestamps import Ballot, Offer, WriteId

P = ParamSpec("P")
T = TypeVar("T")


class Staged(Protocol):
    """A body on its way in, taken over by the offer that is accepted with it. Call `abort` in the end, in any case.

    After an offer that was refused, another may be made with it; after one that failed, none.
    """

    @property
    def size(self) -> int:
        """Bytes written so far."""

    async def write(self, *chunks: Octets) -> None:
        """Append to the body chunks that do not change any more; waits while the disk is slower than the sender."""

    async def abort(self) -> None:
        """Give the body up. Does nothing after an offer took it over."""


class Body(Protocol):
    """A body held open for reading: no delete and no compaction can hurt it. Call `release` when done."""

    @property
    def size(self) -> int:
        """Bytes of the body."""

    async def read(self, start: int, stop: int) -> memoryview:
        """Return the verified bytes `[start, stop)`, which must lie within the body.

        Raises BodyDamaged when a checksum does not match; the copy is then in quarantine. Raises BodyGone when it is
        another version's place by now: begin the read again.
        """

    def stream(self, start: int, stop: int) -> AsyncIterator[memoryview]:
        """Yield the verified bytes `[start, stop)` in chunks."""

    def release(self) -> None:
        """Let go of the body."""


@dataclass(slots=True)
class Offered:
    """An entry offered to the acceptor of its key."""

    key: Key
    entry: Entry
    offer: Offer = Offer.FIRST
    body: bytes | memoryview | Staged | None = None
    """None: by reference to a body that is here already, or to be filled in later."""
    owing: bool = False
    """The entry's row is still owed to its container."""
    from_voter: bool = False
    """A copy that an owner which votes hands to one that does not."""
    is_current: Callable[[], bool] = lambda: True
    """Whether the ring that placed it is still in use; asked on the writer's thread, when its turn comes."""
    entry_raw: bytes | None = None
    """The entry as it is encoded, for a caller that has it."""


@dataclass(frozen=True, slots=True)
class RowOffer:
    """A row for the listing of a container or an account; its ballot names the incarnation."""

    parent: Key
    name: bytes
    entry: Entry

    @property
    def listing(self) -> Listing:
        """The listing that the row belongs to: an account has but one, whatever incarnations its rows are of."""
        if self.parent.table == ACCOUNTS:
            return Listing(self.parent)
        return Listing(self.parent, self.entry.ballot.incarnation)


class RowHeld(NamedTuple):
    """One row and its ballot."""

    listing: Listing
    name: bytes
    ballot: Ballot


class Glance(NamedTuple):
    """What a read shows of a key, as far as that can be told without waiting."""

    raw: bytes | None
    """The entry as it is encoded; None: there is none."""
    whole: bool
    """Its body is here, or it needs none."""
    body: Octets | None
    """None: not wanted, or not here."""


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What a slice of reclaim did."""

    registers: int
    rows: int
    more: bool
    """There may be more to reclaim: call again."""


class Outcome(NamedTuple):
    """What became of one of several things that were asked for together: an answer, or an error that it alone met."""

    answer: Any
    error: Exception | None = None


class Store(Protocol):
    """One device."""

    @property
    def layout(self) -> Layout:
        """How this cluster hashes paths."""

    async def offer(self, offered: Offered) -> Acceptance:
        """Offer an entry to the acceptor of its key.

        Raises BallotRefused for a ballot too far from this device's clock, RingChanged, InsufficientStorage, StorageError
        for a body of another size than the entry says, DeviceFailed.
        """

    def offer_all(self, offered: Sequence[Offered]) -> "Future[Sequence[Outcome]]":
        """Offer entries whose bodies are in memory, without a task: each is accepted, refused, or fails by itself.

        An answer is an Acceptance, or None when the ring changed and nothing was kept. They are one group to the writer, which
        takes them into one batch, so they are answered together: none of them could have been answered sooner. The future
        raises OutcomeUnknown and DeviceFailed, which are about all of them. Cancelled, it may all happen, unless it was
        still waiting for room.
        """

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

    async def fill(self, key: Key, body_id: WriteId, body: bytes | memoryview | Staged) -> bool:
        """Bring a missing body; say whether the entry that lacked it is whole now."""

    def upsert_rows(self, rows: Sequence[RowOffer]) -> "Future[list[Ballot | RowRefused]]":
        """Merge rows into their listings, all in one transaction; each is taken, under a ballot of its container, or refused."""

    def pay(self, debts: Sequence[tuple[Key, Version]]) -> "Future[int]":
        """Clear debts, each only if that version still owes; return how many were."""

    async def set_standing(self, table: bytes, partition: int, standing: Standing, *, seen: Standing) -> None:
        """Change the voting and the floors of a partition from what the caller has `seen`; a floor never sinks.

        Raises StorageError when it stands otherwise by now: what was decided on is gone, so read and decide again.
        """

    async def grant_first_votes(self, table: bytes, partitions: Sequence[int]) -> int:
        """Vote on partitions that never had other owners than the present ones, and of which this device is one.

        Only on those that never had a standing, and only while the index is the one that was formatted and no sync ever
        failed on it; returns how many. The caller has it from a ring that names this device's uuid.
        """

    async def take_epoch(self, table: bytes, epoch: int, staying: Container[int]) -> int:
        """Hold the votes against a newer epoch: only on partitions in `staying` are they kept; return how many were taken.

        Does nothing for an epoch that it was done for.
        """

    async def owe(self, debts: Sequence[tuple[Key, Version]]) -> int:
        """Mark entries as owing their row, each only if that version still stands; return how many do."""

    async def forget(
        self,
        table: bytes,
        partition: int,
        floor_us: int,
        paths: Sequence[bytes],
        rows: Sequence[tuple[Listing, bytes]] = (),
    ) -> int:
        """Remove registers and rows below a floor that no voter holds, at an owner that does not vote; return how many."""

    async def release(
        self,
        table: bytes,
        versions: Sequence[tuple[bytes, Version | None]],
        rows: Sequence[RowHeld] = (),
        is_current: Callable[[], bool] = lambda: True,
    ) -> int:
        """Remove registers and rows that the device need not hold, each only if it still is this version; return how many.

        Nothing where it votes, or once the ring that says so is not current any more: `is_current`, asked on the writer's thread.
        """

    async def reclaim(self, table: bytes, partition: int, limit: int) -> Reclaimed:
        """Forget tombstones and lone promises below the partition's floor, up to `limit` of them."""

    async def drop(self, table: bytes, partition: int, limit: int) -> int:
        """Forget up to `limit` registers of a partition that this device no longer owns; return how many."""

    async def sweep(self, rows_max: int) -> int:
        """Remove rows of an incarnation that is gone; return zero when nothing is left to do, else about how many."""

    def glance(self, key: Key, hashed: int, size_max: int) -> Glance | None:
        """Return what a read shows of a key, with its body where that is here and no larger than `size_max` (0: never).

        None: for that something has to be waited for, or something is wrong; `find` does, and says what. `hashed` is the
        path's.
        """

    async def look_up(self, key: Key) -> Held | None:
        """Return what stands at a key: at once while the index is warm, else from a reader's thread."""

    async def look(self, read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call one of the plain reads below that touches a key or two, in the way of `look_up`."""

    async def scan(self, read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call one of the plain reads below where it may wait for the disk: `await store.scan(store.tally, listing)`."""

    def read(self, key: Key) -> Held | None:
        """Return what stands at a key."""

    def standing(self, table: bytes, partition: int) -> Standing:
        """Return the voting and the floor of a partition."""

    async def open_object(self, key: Key, size_max: int = BODY_BYTES_MAX) -> tuple[Entry, Body] | None:
        """Return the entry of a key and its body, held open; None unless both are here and it is no larger than that."""

    async def find(self, key: Key, size_max: int) -> tuple[Held | None, Body | None]:
        """Return what stands at a key and, where that is here and no larger than `size_max`, its body, held open."""

    async def ensure_described(self, key: Key, held: Held, body: Body) -> bool:
        """See that a rebuild of the index would find a body that `find` returned with what stands at its key.

        A body that is sound and would not be found is stored anew, by itself: no other replica is needed. Say whether that
        was unnecessary. Raises BodyDamaged when only the reserve is left for it, BodyGone, StorageError, DeviceFailed.
        """

    def stage(self, body_id: WriteId) -> Staged:
        """Begin a body that is larger than memory should hold."""

    def list_rows(self, listing: Listing, query: Query) -> Page:
        """Return a page of a listing."""

    def tally(self, listing: Listing) -> Tally:
        """Return what the rows of a listing add up to, exactly as of the last commit."""

    def ranges(
        self, listing: Listing, after: bytes | None = None, limit: int = ITEMS_MAX
    ) -> list[tuple[bytes, Tally]]:
        """Return ranges of a listing, behind the one named `after` (None: all): names that they begin at, and tallies."""

    def row(self, listing: Listing, name: bytes) -> Entry | None:
        """Return one row of a listing, a tombstone too."""

    def span_digests(self, listing: Listing, bounds: Sequence[bytes]) -> list[Digest]:
        """Return the digest of the rows from each bound to the next; behind the last, to the end."""

    def row_ballots(self, listing: Listing, names: Sequence[bytes]) -> list[Ballot]:
        """Return the ballots of the rows of these names, tombstones too; ZERO_BALLOT: there is none."""

    def span_digest(self, listing: Listing, start: bytes, stop: bytes) -> Digest:
        """Return the digest of the rows in `[start, stop)`; an empty `stop` means to the end."""

    def partition_digest(self, table: bytes, partition: int) -> Digest:
        """Return the digest of a partition's registers, or of all rows under them (`keys.ROWS_OF`)."""

    def partition_digests(self, table: bytes, partitions: Sequence[int]) -> dict[int, Digest]:
        """Return that of many, all as of one moment: a few kilobytes are read, whatever they hold."""

    def held_partitions(self, table: bytes, passed_over: Container[int]) -> list[int]:
        """Return the partitions of a table of registers of which anything is held, rows too, but for those `passed_over`."""

    def versions(
        self, table: bytes, bits: int, number: int, after: bytes, limit: int, *, marked: bool = False
    ) -> tuple[list[HeldVersion], bytes | None]:
        """Return what is to be compared of `registers`, and the path behind which to go on; None when these were the last.

        `marked`: only those under a promise above their entry, or that owe a row.
        """

    def versions_in(
        self, table: bytes, bits: int, numbers: Sequence[int], after: bytes, *, limit: int
    ) -> VersionsPage:
        """Return that of several ranges, so many registers at most; in the first of them from behind a path."""

    def versions_of(self, table: bytes, paths: Sequence[bytes]) -> list[HeldVersion]:
        """Return that of these keys, absent ones too."""

    def listings(self, table: bytes, partition: int, after: Listing | None, limit: int) -> list[ListingHeld]:
        """Return the listings under the registers of a partition, from behind `after`."""

    def digests(self, table: bytes, bits: int, first: int, stop: int) -> list[Digest]:
        """Return a digest for each number in `[first, stop)`: of the registers whose path hash begins with its `bits` bits.

        With the part power for `bits` they are those of partitions.
        """

    def registers(
        self, table: bytes, bits: int, number: int, after: bytes, limit: int
    ) -> list[tuple[Key, Held]]:
        """Return registers whose path hash begins with the `bits` bits of a number, in their order.

        Those behind the path `after`, if it is not empty: the last one of the answer before.
        """

    def due(
        self, kind: Due, before_us: int, limit: int, from_us: int = 0
    ) -> list[tuple[Key, Version | None]]:
        """Return objects that are to be deleted, or that owe a row (with the version that owes), earliest first.

        Only of those due in `[from_us, before_us)`.
        """

    def due_deletes(self, before_us: int, limit: int, after: DueDelete | None = None) -> list[DueDelete]:
        """Return objects that are to be deleted before a time, earliest first, from behind `after`.

        How a job goes over them in slices: many may be due at the very same time.
        """

    def audit_values(self, after: bytes, limit: int) -> AuditedValues:
        """Check up to `limit` values of the index from behind a key; nothing is read or mended beyond."""

    def audit_buckets(self, start: bytes, registers_min: int) -> AuditedBuckets:
        """Check buckets of registers from a key on, until they held so many."""

    def audit_listings(self, start: bytes, rows_min: int) -> AuditedListings:
        """Check the tallies of listings from a key on, until so many rows were counted."""

    async def recount_bucket(self, head_key: bytes) -> bool:
        """Count the digest of a bucket anew; say whether it was wrong."""

    def audit_partitions(self, table: bytes, first: int, stop: int) -> AuditedPartitions:
        """Check the digests of the partitions `[first, stop)` against the heads of buckets, or the tallies of listings."""

    async def recount_partition(self, table: bytes, partition: int) -> None:
        """Count the digest of a partition anew, of registers or of rows."""

    async def recount_range(self, drifted: RangeOf) -> bool:
        """Count the tallies of a range and of its listing anew; say whether one was wrong."""

    async def remember(self, job: str, position: bytes) -> None:
        """Write down how far a job has come."""

    def position(self, job: str) -> bytes | None:
        """Return how far a job had come when that was last written down; None: it never was, or that cannot be read."""

    def wants_body(self, key: Key, held: Held) -> bool:
        """Whether the body of what stands at a key is missing, or the disk does not read it: another owner's is to come."""

    def missing(self, after: Key | None, limit: int) -> list[Key]:
        """Return keys whose body is missing here, in order, from behind `after`."""
