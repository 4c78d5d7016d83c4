"""Compared: the calls by which one device learns in what it differs from another, and takes what it lacks.

Owns what these calls answer. Never changes anything: a replicator is told, and takes.

    compare        one message with the digests of all partitions that two devices share, of registers and of rows; the
                   answer has those that differ
    versions       of a range of path hashes: key, version, promise, whether the body is there, whether the row is owed
    versions_in    the same of several ranges
    versions_of    the same of some keys
    copies         entries, with their bodies as far as these fit the answer; and how long calls wait here
    listings       the listings of a partition, each with the digest of its rows
    span_digests   of the rows of a listing between some names
    row_ballots    of the rows of some names
    hint           a partition in which the caller has seen something that this device, or another one, lacks
    caught_up      on how many partitions of a ring this device votes, and on which it does not yet
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from ring.hashing import PART_POWER_MAX
from storage_node.errors import BodyDamaged, BodyGone
from storage_node.keys import RING_OF, ROWS_OF, Key, Layout, Listing
from storage_node.placing import Rings
from storage_node.requests import Fields, is_path
from storage_node.store import Store
from swiftlike.digests import Digest
from swiftlike.limits import (
    COMPARED_PAGE,
    COPY_INLINE_BYTES_MAX,
    ITEMS_MAX,
    PAGE_ITEMS_MAX,
    PATH_BYTES_MAX,
    RANGES_TOGETHER,
    RPC_BODY_BYTES_MAX,
)
from swiftlike.names import ROW_BYTES_MAX
from swiftlike.node_calls import (
    CaughtUp,
    HeldCopy,
    HeldVersion,
    Method,
    PartitionDigests,
    pack_list,
    unpack_list,
)
from swiftlike.rpc.service import Call
from swiftlike.rpc.transport import Reply
from swiftlike.timestamps import ZERO_BALLOT, Timestamp

Handler = Callable[[Call, Fields], Awaitable[Reply]]

_COPY_BYTES: Final = 512
"""What a copy takes in an answer beside its path, its metadata and its body, at most."""
_COPIES_SLICE: Final = 16
"""Copies that are read in one turn of the loop: some 1.5 ms."""


class Healing(Protocol):
    """The replicator of this device, as far as others may speak to it."""

    def hint(self, table: bytes, partition: int, device: int | None, *, one_way: bool = False) -> bool:
        """Compare a partition soon: with this device of its ring as soon as that answers, or with all its owners; say whether it will.

        `one_way`: that device has compared already, and need not hear what it lacks.
        """

    def caught_up(self, table: bytes) -> CaughtUp:
        """Say how far the device is with a table's ring."""

    def lag_s(self) -> float:
        """Say how long calls wait here before anybody looks at them."""


class ComparedCalls:
    """The handlers of these calls."""

    def __init__(
        self,
        store: Store,
        layout: Layout,
        rings: Rings,
        healing: Callable[[], Healing | None],
        check: Callable[[Fields], bytes],
    ) -> None:
        """Take the store, the rings, the replicator once there is one, and what returns the checked table of a call."""
        self._store = store
        self._layout = layout
        self._rings = rings
        self._healing = healing
        self._table = check
        self._copying = asyncio.Lock()

    def handlers(self) -> list[tuple[Method, Handler, set[str]]]:
        """Return the methods with the fields that each knows."""
        placed = {"table", "epoch"}
        ranged = placed | {"bits", "number", "after", "limit"}
        listed = placed | {"path", "incarnation"}
        return [
            (Method.COMPARE, self._compare, set()),
            (Method.VERSIONS, self._versions, ranged | {"marked"}),
            (Method.VERSIONS_IN, self._versions_in, placed | {"bits", "after"}),
            (Method.VERSIONS_OF, self._versions_of, placed),
            (Method.COPIES, self._copies, placed),
            (Method.LISTINGS, self._listings, placed | {"partition", "after", "incarnation", "limit"}),
            (Method.SPAN_DIGESTS, self._span_digests, listed),
            (Method.ROW_BALLOTS, self._row_ballots, listed),
            (Method.HINT, self._hint, placed | {"partition", "device", "one_way"}),
            (Method.CAUGHT_UP, self._caught_up, placed),
        ]

    async def _compare(self, call: Call, fields: Fields) -> Reply:
        """Answer with what differs, of each table that is placed by the same ring here."""
        answers: list[tuple[Any, ...]] = []
        for asked in self._asked(call, fields):
            ring = RING_OF.get(asked.table, asked.table)
            ours = self._rings.epoch(ring)
            if ours != asked.epoch:
                if ours is not None and asked.epoch > ours:
                    self._rings.look_for_newer(ring)
                answers.append(PartitionDigests(asked.table, ours or 0, {}).pack())
                continue
            stop = 1 << self._layout.part_powers[ring]
            if any(number >= stop for number in asked.digests):
                fields.refuse(f"there are {stop} partitions in table {asked.table!r}")
            found = await self._store.scan(self._store.partition_digests, asked.table, list(asked.digests))
            differing = {
                number: digest for number, digest in found.items() if digest != asked.digests[number]
            }
            answers.append(PartitionDigests(asked.table, asked.epoch, differing).pack())
        return Reply(body=pack_list(answers))

    def _asked(self, call: Call, fields: Fields) -> list[PartitionDigests]:
        asked: list[PartitionDigests] = []
        for table, epoch, raw in fields.items((bytes, int, bytes)):
            if RING_OF.get(table, table) not in self._layout.part_powers and len(table) != 2:
                fields.refuse(f"{table[:8]!r} is no table")
            try:
                asked.append(PartitionDigests.of((table, epoch, raw)))
            except ValueError as error:
                fields.refuse(f"no digests: {error}")
        return asked

    async def _versions(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        bits = fields.number("bits", 0, PART_POWER_MAX)
        number = fields.number("number", 0, (1 << bits) - 1)
        after = fields.octets("after", 0, PATH_BYTES_MAX, b"")
        limit = fields.number("limit", 1, COMPARED_PAGE, COMPARED_PAGE)
        found, more = await self._store.scan(
            self._store.versions, table, bits, number, after, limit, marked=fields.flag("marked")
        )
        return Reply(
            header={"more": more, "votes": self._votes_in(table, bits, number)},
            body=pack_list(held.pack() for held in found),
        )

    def _votes_in(self, table: bytes, bits: int, number: int) -> bool:
        """Say whether this device votes on the partition that a range of path hashes lies in; not where it spans several."""
        power = self._layout.part_powers[table]
        return bits >= power and self._store.standing(table, number >> (bits - power)).votes

    def _paths(self, call: Call, fields: Fields, table: bytes) -> list[bytes]:
        try:
            paths = unpack_list(call.body)
        except ValueError as error:
            fields.refuse(f"the body is no list: {error}")
        if len(paths) > COMPARED_PAGE:
            fields.refuse(f"the body has {len(paths)} paths and may have {COMPARED_PAGE}")
        for at, path in enumerate(paths):
            if type(path) is not bytes or not is_path(table, path):
                fields.refuse(f"item {at} of the body is no path of table {table!r}")
        return list(paths)

    async def _versions_in(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        bits = fields.number("bits", 0, PART_POWER_MAX)
        after = fields.octets("after", 0, PATH_BYTES_MAX, b"")
        try:
            numbers = unpack_list(call.body)
        except ValueError as error:
            fields.refuse(f"the body is no list: {error}")
        if len(numbers) > RANGES_TOGETHER or not all(
            type(number) is int and 0 <= number < 1 << bits for number in numbers
        ):
            fields.refuse(f"the body must be {RANGES_TOGETHER} numbers of {bits} bits at most")
        page = await self._store.scan(
            self._store.versions_in, table, bits, numbers, after, limit=COMPARED_PAGE
        )
        header = {"served": page.served, "after": page.after}
        return Reply(header=header, body=pack_list(held.pack() for held in page.found))

    async def _versions_of(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        paths = self._paths(call, fields, table)
        found = await self._store.scan(self._store.versions_of, table, paths)
        return Reply(body=pack_list(held.pack() for held in found))

    async def _copies(self, call: Call, fields: Fields) -> Reply:
        """Answer with copies of the first keys, as many as fit; `served` tells how many of the keys that were."""
        table = self._table(fields)
        asked = fields.items((bytes, bytes))
        if len(asked) > COMPARED_PAGE or not all(
            is_path(table, path) and len(had) == 16 for path, had in asked
        ):
            fields.refuse(
                f"the body must be {COMPARED_PAGE} paths of table {table!r} at most, each with a body id"
            )
        versions = await self._store.scan(self._store.versions_of, table, [path for path, _ in asked])
        # One call at a time, and in slices: warm copies are read without a pause, and a get would wait for all of them.
        async with self._copying:
            return await self._read_copies(table, versions, [had for _, had in asked])

    async def _read_copies(self, table: bytes, versions: list[HeldVersion], bodies: list[bytes]) -> Reply:
        left = RPC_BODY_BYTES_MAX - 16 * 1024
        copies: list[tuple[Any, ...]] = []
        served = 0
        for held, had in zip(versions, bodies, strict=True):
            if served % _COPIES_SLICE == 0:
                await asyncio.sleep(0)
            copy = await self._copy(Key(table, held.path), had, owes=held.owes)
            if copy is not None:
                left -= _COPY_BYTES + len(copy.path) + len(copy.entry.metadata) + len(copy.body or b"")
                if left < 0 and copies:
                    break
                copies.append(copy.pack())
            served += 1
        healing = self._healing()
        lag_us = 0 if healing is None else int(healing.lag_s() * 1e6)
        return Reply(header={"served": served, "lag_us": lag_us}, body=pack_list(copies))

    async def _copy(self, key: Key, had: bytes, *, owes: bool) -> HeldCopy | None:
        """Read one entry, with its body unless the asker has it.

        A body that is damaged, or was just moved, is one that is not there.
        """
        held, body = await self._store.find(key, COPY_INLINE_BYTES_MAX)
        entry = None if held is None else held.register.entry
        if held is None or entry is None:
            return None
        content, whole = None, held.location.held
        if body is not None:
            try:
                content = None if entry.body_id == had else await body.read(0, body.size)
            except (BodyDamaged, BodyGone):
                whole = False
            finally:
                body.release()
        return HeldCopy(key.path, entry, whole, owes, content)

    async def _listings(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        if table not in ROWS_OF:
            fields.refuse(f"nothing is listed under table {table!r}")
        partition = fields.number("partition", 0, (1 << self._layout.part_powers[table]) - 1)
        limit = fields.number("limit", 1, PAGE_ITEMS_MAX, PAGE_ITEMS_MAX)
        after = None
        if fields.has("after"):
            incarnation = Timestamp(fields.octets("incarnation", 16, 16))
            after = Listing(Key(table, fields.path(table, "after")), incarnation)
        found = await self._store.scan(self._store.listings, table, partition, after, limit)
        votes = self._store.standing(table, partition).votes
        items = [(held.listing.parent.path, held.listing.incarnation, held.digest.encode()) for held in found]
        return Reply(header={"more": len(found) == limit, "votes": votes}, body=pack_list(items))

    async def _span_digests(self, call: Call, fields: Fields) -> Reply:
        listing, bounds = self._names_in(call, fields)
        digests: list[Digest] = await self._store.scan(self._store.span_digests, listing, bounds)
        return Reply(body=pack_list(digest.encode() for digest in digests))

    async def _row_ballots(self, call: Call, fields: Fields) -> Reply:
        listing, names = self._names_in(call, fields)
        ballots = await self._store.scan(self._store.row_ballots, listing, names)
        return Reply(body=pack_list(b"" if ballot == ZERO_BALLOT else ballot for ballot in ballots))

    def _names_in(self, call: Call, fields: Fields) -> tuple[Listing, list[bytes]]:
        """Return the listing that a call is about, and the ascending names in its body."""
        listing = fields.listing(self._table(fields))
        try:
            names = unpack_list(call.body)
        except ValueError as error:
            fields.refuse(f"the body is no list: {error}")
        if not all(type(name) is bytes and len(name) <= ROW_BYTES_MAX for name in names) or not names:
            fields.refuse("the body must be one or more names")
        if sorted(names) != list(names):
            fields.refuse("the names in the body must ascend")
        return listing, list(names)

    async def _hint(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        partition = fields.number("partition", 0, (1 << self._layout.part_powers[table]) - 1)
        device = fields.number("device", 0, 2**32 - 2) if fields.has("device") else None
        healing = self._healing()
        one_way = fields.flag("one_way")
        taken = healing is not None and healing.hint(table, partition, device, one_way=one_way)
        return Reply(header={"taken": taken})

    async def _caught_up(self, call: Call, fields: Fields) -> Reply:
        table = self._table(fields)
        healing = self._healing()
        if healing is None:
            fields.refuse("this device has no replicator: start it as a storage node")
        found = healing.caught_up(table)
        header = {name: getattr(found, name) for name in CaughtUp._fields if name != "waiting"}
        return Reply(header=header, body=pack_list(found.waiting[:ITEMS_MAX]))
