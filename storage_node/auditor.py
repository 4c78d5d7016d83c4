"""The auditor: reads back everything that a device holds, so that damage is found before it is needed.

Owns the order of a pass, its rate, its position and its counters. What a slice of the index shows is `auditing`'s, what becomes
of a bad body the device's own: the copy is set aside, the entry kept, and whoever mends is told at once; one that is sound, but
that a rebuild of the index would miss, is stored anew. A digest or a tally
that does not follow from its entries is said loudly and counted anew, since two devices that compare digests would believe it.

    a pass:  values      every value of the index against its checksum
             buckets     every bucket's digest against its entries, every body, block by block, and what stands beside it
             listings    every tally against its ranges and rows
             partitions  every partition's digests against those of its buckets, and the tallies of its listings
             (then a rest, until it is time for the next)

The position is written into the index once a minute, between two bodies, and where a part of the pass ends; a restart reads at most a
minute's worth again, or one body. A body that is in the page cache is read from there: what is verified is what readers are served.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn, Self

import msgpack

from storage_node import keys
from storage_node.auditing import RangeOf
from storage_node.blocks import chunks_of
from storage_node.errors import BodyDamaged, BodyGone
from storage_node.jobs import Figure, repeat
from storage_node.keys import HEAD_KEY_BYTES, Key
from storage_node.pace import Pace
from storage_node.partition_digests import kinds
from storage_node.store import Store
from storage_node.tables import Held
from swiftlike.limits import (
    AUDITED_BODIES_PER_S,
    AUDITED_BYTES_PER_S,
    AUDITED_VALUES_PER_S,
    BODY_BYTES_MAX,
)

JOB: Final = "auditor"
REST_S: Final = 30.0
"""Between two looks at whether it is time for the next pass, or as long as from pass to pass where that is less; also before the
first slice after a start."""
REMEMBER_S: Final = 60.0
"""Between two positions that are written down."""
VALUES_SLICE: Final = 2_000
REGISTERS_SLICE: Final = 200
ROWS_SLICE: Final = 2_000
PARTITIONS_SLICES: Final = 4_096
"""Slices into which a table of partitions is cut, at most."""
MICROS: Final = 1_000_000

log = logging.getLogger(__name__)


class Part(IntEnum):
    """The parts of a pass, in their order."""

    VALUES = 0
    BUCKETS = 1
    LISTINGS = 2
    PARTITIONS = 3


class Position(NamedTuple):
    """How far the auditor has come; as a msgpack array, after a version, it stands in the index."""

    part: Part = Part.VALUES
    at: bytes = b""
    """A key in the index; what it means is the part's."""
    began_us: int = 0
    """When the present pass began; 0: none is under way."""
    last_began_us: int = 0
    """When the last full pass began, and when it had seen everything; 0: there was none."""
    last_ended_us: int = 0

    def pack(self) -> bytes:
        """Write it down."""
        packed: bytes = msgpack.packb((_VERSION, int(self.part), *self[1:]))
        return packed

    @classmethod
    def of(cls, raw: bytes | None) -> Self:
        """Read it; what another release wrote means a pass from the beginning."""
        if raw is None:
            return cls()
        version, part, *rest = msgpack.unpackb(raw)
        return cls(Part(part), *rest) if version == _VERSION else cls()


_VERSION: Final = 1


class Rates(NamedTuple):
    """How fast, and how often."""

    bytes_per_s: float = AUDITED_BYTES_PER_S
    bodies_per_s: float = AUDITED_BODIES_PER_S
    every_s: float = 86_400.0
    """From the beginning of one pass to that of the next, at least."""


@dataclass(slots=True)
class Audited:
    """What was looked at since the start, and what was bad."""

    values: int = 0
    bodies: int = 0
    bytes: int = 0
    rows: int = 0
    passes: int = 0
    values_damaged: int = 0
    bodies_damaged: int = 0
    digests_drifted: int = 0
    tallies_drifted: int = 0


class Auditor:
    """Everything on one device."""

    def __init__(
        self,
        store: Store,
        read_us: Callable[[], int],
        rates: Rates = Rates(),  # noqa: B008  # a value
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the device, the time in microseconds since 1970, and the rates."""
        self._store: Final = store
        self._read_us: Final = read_us
        self._rates: Final = rates
        self._sleep: Final = sleep
        self._bytes: Final = Pace(rates.bytes_per_s, sleep)
        self._bodies: Final = Pace(rates.bodies_per_s, sleep)
        self._values: Final = Pace(AUDITED_VALUES_PER_S, sleep)
        self._written_at = 0.0
        self.position = Position()
        self.audited: Final = Audited()

    async def run(self) -> NoReturn:
        """Audit, until cancelled."""
        self.position = Position.of(await self._store.scan(self._store.position, JOB))
        await repeat(self.walk, min(REST_S, self._rates.every_s), self._sleep)

    async def walk(self) -> None:
        """Go on with the pass under way to its end, or begin one if it is time; otherwise do nothing."""
        now_us = self._read_us()
        if not self.position.began_us:
            if now_us < self.position.last_began_us + int(self._rates.every_s * MICROS):
                return
            self.position = Position(Part.VALUES, b"", now_us, *self.position[3:])
        while self.position.began_us:
            await self._step()
            await self._remember_in_time()
        log.info("a pass over this device ended: %s", self.audited)

    async def _step(self) -> None:
        """Look at one slice."""
        at = self.position.at
        match self.position.part:
            case Part.VALUES:
                following = await self._audit_values(at)
            case Part.BUCKETS:
                following = await self._audit_buckets(at)
            case Part.LISTINGS:
                following = await self._audit_listings(at)
            case Part.PARTITIONS:
                following = await self._audit_partitions(at)
        if following is not None:
            self.position = self.position._replace(at=following)
            return
        if self.position.part is not Part.PARTITIONS:
            self.position = self.position._replace(part=Part(self.position.part + 1), at=b"")
        else:
            self.position = Position(last_began_us=self.position.began_us, last_ended_us=self._read_us())
            self.audited.passes += 1
        await self._remember()

    async def _remember_in_time(self) -> None:
        if asyncio.get_running_loop().time() >= self._written_at + REMEMBER_S:
            await self._remember()

    async def _remember(self) -> None:
        self._written_at = asyncio.get_running_loop().time()
        await self._store.remember(JOB, self.position.pack())

    # --- the parts of a pass ------------------------------------------------------------------------------------

    async def _audit_values(self, after: bytes) -> bytes | None:
        found = await self._store.scan(self._store.audit_values, after, VALUES_SLICE)
        self.audited.values += found.seen
        self.audited.values_damaged += len(found.damaged)
        for key in found.damaged:
            log.error("index key %r: its value fails its checksum; run check, then rebuild-index", key[:80])
        await self._values.spend(found.seen)
        return found.after

    async def _audit_buckets(self, at: bytes) -> bytes | None:
        """Check a slice of whole buckets, then its bodies; `at` is the first bucket, or the register in it whose body was read last."""
        start = at[:HEAD_KEY_BYTES]
        found = await self._store.scan(self._store.audit_buckets, start, REGISTERS_SLICE)
        for head_key in found.drifted:
            if await self._store.recount_bucket(head_key):
                self.audited.digests_drifted += 1
                log.error(
                    "bucket %s: its digest was not that of its entries, so replicas may have been taken for equal that "
                    "were not; it is counted anew, and what differs will be repaired. Look at the disk and the memory",
                    head_key.hex(),
                )
        await self._values.spend(len(found.registers))
        for key, held in found.registers:
            raw_key = keys.register_key(key, self._store.layout.hashed(key.path))
            if raw_key <= at:
                continue
            await self._audit_body(key, held)
            # A slice of large bodies takes hours: a process that is started anew meanwhile must come past them.
            self.position = self.position._replace(at=raw_key)
            await self._remember_in_time()
        return found.start

    async def _audit_listings(self, start: bytes) -> bytes | None:
        found = await self._store.scan(self._store.audit_listings, start, ROWS_SLICE)
        self.audited.rows += found.rows
        for drifted in found.drifted:
            await self._recount(drifted)
        await self._values.spend(found.rows)
        return found.start

    async def _audit_partitions(self, at: bytes) -> bytes | None:
        """Check some partitions of one table; `at` is that table and, in four bytes, the first of them."""
        layout = self._store.layout
        tables = kinds(layout)
        kind, first = at[:2] or tables[0], int.from_bytes(at[2:], "big")
        if kind not in tables:
            return None  # of a policy that is gone; the next pass has the others
        count = 1 << keys.power_of(layout, kind)
        stop = min(count, first + max(1, count // PARTITIONS_SLICES))
        found = await self._store.scan(self._store.audit_partitions, kind, first, stop)
        for partition in found.drifted:
            await self._store.recount_partition(kind, partition)
            self.audited.digests_drifted += 1
            log.error(
                "partition %d of table %r: its digest was not that of its entries, so replicas may have been taken for "
                "equal that were not; it is counted anew, and what differs will be repaired. Look at the disk and the memory",
                partition,
                kind,
            )
        await self._values.spend(found.entries)
        if stop < count:
            return kind + stop.to_bytes(4, "big")
        behind = tables[tables.index(kind) + 1 :]
        return behind[0] + bytes(4) if behind else None

    async def _recount(self, drifted: RangeOf) -> None:
        if await self._store.recount_range(drifted):
            self.audited.tallies_drifted += 1
            log.error(
                "listing %r: its counts were not those of its rows; they are counted anew, and what differs will be "
                "repaired. Look at the disk and the memory",
                drifted.listing.parent.path,
            )

    async def _audit_body(self, key: Key, held: Held) -> None:
        """Read a body from end to end, and what stands beside it; what is bad, the device sets aside or stores anew by itself."""
        entry = held.register.entry
        if entry is None or not entry.has_body or not held.location.held:
            return
        await self._bodies.spend()
        body = None
        try:
            found, body = await self._store.find(key, BODY_BYTES_MAX)
            if found is None or body is None:
                return
            for chunk_start, chunk_stop in chunks_of(0, body.size):
                await self._bytes.spend(chunk_stop - chunk_start)
                await body.read(chunk_start, chunk_stop)
                self.audited.bytes += chunk_stop - chunk_start
            if await self._store.ensure_described(key, found, body):
                self.audited.bodies += 1
            else:
                self.audited.bodies_damaged += 1
        except BodyGone:
            return  # it was replaced or moved while it was read: the next pass has it
        except BodyDamaged as damage:
            self.audited.bodies_damaged += 1
            log.error("audit of %r: %s", key.path, damage)
        finally:
            if body is not None:
                body.release()

    # --- what it tells ------------------------------------------------------------------------------------------

    def figures(self) -> Sequence[Figure]:
        """Return how it is getting on."""
        audited, position = self.audited, self.position
        return (
            Figure("bodies", "Bodies read back", audited.bodies, is_total=True),
            Figure("bytes", "Bytes of bodies read back", audited.bytes, is_total=True),
            Figure("values", "Values of the index read back", audited.values, is_total=True),
            Figure("rows", "Rows counted", audited.rows, is_total=True),
            Figure("passes", "Passes over everything", audited.passes, is_total=True),
            Figure(
                "bodies_damaged", "Bodies that the audit found bad", audited.bodies_damaged, is_total=True
            ),
            Figure(
                "values_damaged", "Values that failed their checksum", audited.values_damaged, is_total=True
            ),
            Figure(
                "digests_drifted",
                "Digests that did not follow from entries",
                audited.digests_drifted,
                is_total=True,
            ),
            Figure(
                "tallies_drifted",
                "Tallies that did not follow from rows",
                audited.tallies_drifted,
                is_total=True,
            ),
            Figure("pass_began_us", "When the present pass began; 0: none is under way", position.began_us),
            Figure(
                "last_pass_us", "When the last full pass ended; 0: there was none", position.last_ended_us
            ),
            Figure(
                "last_pass_s", "How long it took", (position.last_ended_us - position.last_began_us) / MICROS
            ),
            Figure(
                "part",
                "Part of the pass: 0 values, 1 buckets and bodies, 2 listings, 3 partitions",
                position.part,
            ),
            Figure(
                "share", "How much of the objects of a policy is done, in the second part", _share(position)
            ),
        )


def _share(position: Position) -> float:
    """Say how much of its table the second part has seen: buckets are even, whatever paths are."""
    if position.part is not Part.BUCKETS or len(position.at) < HEAD_KEY_BYTES:
        return 0.0
    return keys.bucket_in(position.at) / (1 << keys.BUCKET_BITS)
