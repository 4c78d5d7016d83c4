"""The reclaimer: moves the floors of the partitions that are this device's to see to, and gives back what lies below its own.

Owns the walk, who coordinates, and the calls to the other owners; what is decided from what they say is `reclaiming`'s table. The
first of a partition's owners whose votes count coordinates; while it is away nothing is reclaimed, as while any of them is. Each
device then forgets by itself what lies below the floors that it has in force, and nobody needs to tell it.

How far it has come is in the standings of the owners, which are in their indexes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NoReturn, assert_never
from uuid import UUID

from ring.device import Device, DeviceId
from ring.ring import Ring
from storage_node.errors import StorageError
from storage_node.jobs import Figure, repeat
from storage_node.keys import ROWS_OF
from storage_node.pace import Pace
from storage_node.peers import HealingRings, tcp_address
from storage_node.reclaiming import Enforce, OwnerSeen, Refuse, Step, Wait, decide, with_floor, with_refusal
from storage_node.sharing import owners_of
from storage_node.store import Store
from swiftlike.limits import FLOORS_PER_S, RECLAIMED_PER_S
from swiftlike.node_calls import PartitionDigests, Standing
from swiftlike.node_client import NodeClient, NodeFailed
from swiftlike.rpc.transport import Address, Transport

WALK_S: Final = 3600.0
"""Between two walks. An hour: nothing is urgent about what was deleted a week ago."""
FIRST_S: Final = 120.0
"""From the start to the first walk, so that all hosts of a cluster that starts are there."""
TIMEOUT_S: Final = 10.0
"""For one call."""
STEPS_MAX: Final = 6
"""Looks at one partition in one walk: a floor that some lack is brought to an end, then the next one is agreed on and settled."""
SLICE: Final = 500
"""Tombstones and promises that go in one commit."""
LEAST_SHARE: Final = 1 / 28
"""By how much of the reclaim age a floor moves at least. Of a week: six hours."""

log: Final = logging.getLogger(__name__)


class Reclaimer:
    """The floors of one device."""

    def __init__(
        self,
        store: Store,
        uuid: UUID,
        rings: HealingRings,
        transport: Transport,
        read_us: Callable[[], int],
        reclaim_age_us: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        address_of: Callable[[Device], Address] = tcp_address,
    ) -> None:
        """Take the device and what the rings know it as, the way to the others, the time, and how long is remembered."""
        self._store: Final = store
        self._uuid: Final = uuid
        self._rings: Final = rings
        self._transport: Final = transport
        self._read_us: Final = read_us
        self._age_us: Final = reclaim_age_us
        self._sleep: Final = sleep
        self._address_of: Final = address_of
        self._floors: Final = Pace(FLOORS_PER_S, sleep)
        self._gone: Final = Pace(RECLAIMED_PER_S, sleep)
        self._cleared: dict[tuple[bytes, int], int] = {}
        """The floors below which nothing is left here, of this process; a restart looks once more."""
        self.registers = 0
        self.rows = 0
        """What was forgotten since the start."""
        self.moved = 0
        """Floors that this device put in force on all owners."""
        self.ended: Counter[Wait] = Counter()
        """Partitions by why the last walk did no more for them."""
        self.walks = 0
        self.walked_us = 0
        """When the last walk ended; 0: none has."""

    async def run(self) -> NoReturn:
        """Walk, until cancelled."""
        await self._sleep(FIRST_S)
        await self.walk()
        await repeat(self.walk, WALK_S, self._sleep)

    async def walk(self) -> None:
        """Go over all partitions of all tables: move the floors that are this device's to move, forget what lies below its own."""
        ended = Counter[Wait]()
        for table in self._store.layout.part_powers:
            ring = self._rings.ring(table)
            for number in range(ring.partition_count):
                everyone = _owners(ring, number)
                if self._uuid not in {device.uuid for device in everyone.values()}:
                    continue
                if next(iter(everyone.values())).uuid == self._uuid:
                    await self._floors.spend()
                    ended[await self.move_floor(ring, table, number)] += 1
                await self._clear(table, number)
        self.ended = ended
        self.walks += 1
        self.walked_us = self._read_us()
        if ended[Wait.DIFFERING] or ended[Wait.SILENT] or ended[Wait.CATCHING_UP]:
            log.info("floors: %s", {wait.name.lower(): count for wait, count in ended.items()})

    # --- floors -------------------------------------------------------------------------------------------------

    async def move_floor(self, ring: Ring, table: bytes, partition: int) -> Wait:
        """Take a partition as far as its owners let it; return why no further."""
        nodes = {
            owner: NodeClient(
                self._transport,
                self._address_of(device),
                lambda table: ring.epoch,
                timeout_s=TIMEOUT_S,
            )
            for owner, device in _owners(ring, partition).items()
            if device.uuid != self._uuid
        }
        for _ in range(STEPS_MAX):
            standings = await self._standings(nodes, table, partition)
            step = await self._judge(ring, nodes, standings, table, partition)
            match step:
                case Wait():
                    return step
                case Refuse(below_us):
                    wanted = {owner: with_refusal(each, below_us) for owner, each in _known(standings)}
                case Enforce(floor_us):
                    wanted = {owner: with_floor(each, floor_us) for owner, each in _known(standings)}
                case _:
                    assert_never(step)
            if not await self._set_all(nodes, table, partition, standings, wanted):
                return Wait.SILENT
            self.moved += isinstance(step, Enforce)
        return Wait.DIFFERING

    async def _standings(
        self, nodes: Mapping[DeviceId, NodeClient], table: bytes, partition: int
    ) -> dict[DeviceId | None, Standing | None]:
        """Ask all other owners how they stand; under None, this one."""

        async def ask(node: NodeClient) -> Standing | None:
            try:
                return await node.standing(table, partition)
            except NodeFailed:
                return None

        found = await asyncio.gather(*map(ask, nodes.values()))
        return {None: self._store.standing(table, partition), **dict(zip(nodes, found, strict=True))}

    async def _judge(
        self,
        ring: Ring,
        nodes: Mapping[DeviceId, NodeClient],
        standings: Mapping[DeviceId | None, Standing | None],
        table: bytes,
        partition: int,
    ) -> Step:
        """Compare digests, now that all have said how they stand, and decide."""
        if self._rings.ring(table).epoch != ring.epoch:
            return Wait.SILENT  # of today's owners, nobody was asked
        compared = (table, ROWS_OF[table]) if table in ROWS_OF else (table,)
        ours = [
            PartitionDigests(
                each, ring.epoch, await self._store.scan(self._store.partition_digests, each, [partition])
            )
            for each in compared
        ]

        async def is_equal(node: NodeClient) -> bool | None:
            try:
                theirs = await node.compare(ours)
            except NodeFailed:
                return None
            if [each.epoch for each in theirs] != [ring.epoch] * len(ours):
                return None
            return not any(each.digests for each in theirs)

        answers = await asyncio.gather(*map(is_equal, nodes.values()))
        equal: dict[DeviceId | None, bool | None] = {None: True, **dict(zip(nodes, answers, strict=True))}
        seen = []
        for owner, standing in standings.items():
            same = equal[owner]
            seen.append(None if standing is None or same is None else OwnerSeen(standing, same))
        return decide(seen, self._read_us() - self._age_us, int(self._age_us * LEAST_SHARE))

    async def _set_all(
        self,
        nodes: Mapping[DeviceId, NodeClient],
        table: bytes,
        partition: int,
        standings: Mapping[DeviceId | None, Standing | None],
        wanted: Mapping[DeviceId | None, Standing],
    ) -> bool:
        """Have owners stand otherwise than they said they do; False where one does not, and is asked again another time."""

        async def put(owner: DeviceId | None) -> bool:
            seen, standing = standings[owner], wanted[owner]
            assert seen is not None, "who was silent is asked for nothing"
            if seen == standing:
                return True
            try:
                if owner is None:
                    await self._store.set_standing(table, partition, standing, seen=seen)
                else:
                    await nodes[owner].set_standing(table, partition, standing, seen=seen)
            except (NodeFailed, StorageError) as error:
                log.info("partition %d of table %r is left for later: %s", partition, table, error)
                return False
            return True

        return all(await asyncio.gather(*map(put, wanted)))

    # --- what lies below ----------------------------------------------------------------------------------------

    async def _clear(self, table: bytes, partition: int) -> None:
        """Forget what lies below the floor that this device has in force, in slices."""
        floor_us = self._store.standing(table, partition).floor_us
        if floor_us <= self._cleared.get((table, partition), 0):
            return
        more = True
        while more:
            gone = await self._store.reclaim(table, partition, SLICE)
            self.registers += gone.registers
            self.rows += gone.rows
            more = gone.more
            await self._gone.spend(1 + gone.registers + gone.rows)
        self._cleared[table, partition] = floor_us

    def figures(self) -> Sequence[Figure]:
        """Return how it is getting on."""
        ended = self.ended
        return (
            Figure("registers", "Tombstones and promises forgotten", self.registers, is_total=True),
            Figure("rows", "Rows of what was deleted forgotten", self.rows, is_total=True),
            Figure("floors_moved", "Floors put in force on all owners", self.moved, is_total=True),
            Figure("walks", "Walks over all partitions", self.walks, is_total=True),
            Figure("last_walk_us", "When the last walk ended, in microseconds since 1970", self.walked_us),
            *(
                Figure(
                    f"partitions_{wait.name.lower()}",
                    f"Partitions that the last walk left since {wait.value}",
                    ended[wait],
                )
                for wait in Wait
            ),
        )


def _owners(ring: Ring, partition: int) -> dict[DeviceId, Device]:
    """Return all owners of a partition, those whose votes count first, and those that it is moving to."""
    voting, joining = owners_of(ring, partition)
    return {owner: device for owner in (*voting, *joining) if (device := ring.devices[owner]) is not None}


def _known(
    standings: Mapping[DeviceId | None, Standing | None],
) -> list[tuple[DeviceId | None, Standing]]:
    return [(owner, standing) for owner, standing in standings.items() if standing is not None]
