"""A cluster whose devices heal: each process has the real service, replicator and quorum client, over a store in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from storage_node.keys import Key
from storage_node.memory import MemoryStore
from storage_node.pause import Pause
from storage_node.replicator import Replicator
from storage_node.service import DeviceService, Surroundings
from storage_node.store import Offered, RowOffer
from storage_node.updater import Updater
from swiftlike.digests import Digest
from swiftlike.entries import Entry, pack_metadata
from swiftlike.node_calls import CONTAINERS
from swiftlike.rpc.simulated import SimulatedHost, SimulatedNetwork, Weather
from swiftlike.rpc.transport import TcpAddress
from swiftlike.rpc.virtual_time import run_in_virtual_time
from swiftlike.timestamps import NO_WRITE, Ballot, Offer, Timestamp, WriteId
from tests.simulation.quorum_cluster import (
    SECRET,
    STARTED_US,
    Cluster,
    SimulatedDevice,
    next_ring,
    ring_fields,
)
from tests.simulation.store_cluster import TABLES, StoreCluster
from tests.simulation.world_processes import quorum_client

KINDS = (*TABLES, b"r\0", b"r\1")
"""All that is compared."""


class HealingDevice(SimulatedDevice):
    """A device that heals while its process lives; `replicator` is that of its last process."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(cluster, number)
        self.number = number
        self.uuid = UUID(int=number + 1)
        self.replicator: Replicator | None = None
        self.pause: Pause | None = None
        self._cluster = cluster
        self.heals_by_itself = True
        self.pays = False

    async def boot(self, host: SimulatedHost) -> None:
        """What its process does."""
        cluster = self._cluster
        pause = self.pause = Pause(self.store, cluster.read_us(), lambda: None)
        await pause.load()
        surroundings = replace(
            Surroundings(),
            healing=lambda: self.replicator,
            overseeing=lambda: self.replicator,
            pausing=lambda: pause,
        )
        async with (
            DeviceService(self.store, self.store.layout, self.shelf, surroundings) as service,
            host.server(service.service, SECRET) as server,
            host.client(SECRET) as transport,
            quorum_client(cluster, host) as quorums,
        ):
            self.counts = service.counts
            random = Random(cluster.random.random())
            self.replicator = Replicator(
                self.store,
                self.uuid,
                self.shelf,
                transport,
                quorums.settling,
                random,
                read_us=cluster.read_us(),
                is_paused=pause.is_on,
            )
            await server.listen(TcpAddress(host.name, 6200))
            async with asyncio.TaskGroup() as jobs:
                if self.heals_by_itself:
                    jobs.create_task(self.replicator.run())
                if self.pays:
                    updater = Updater(self.store, quorums.payer, cluster.read_us(), random)
                    jobs.create_task(updater.run())
                await asyncio.Event().wait()

    def wipe(self) -> None:
        """Be an empty disk, formatted anew: a ring must name it before it is anybody."""
        self.store = MemoryStore(self.name, self._cluster.layout, self._cluster.read_us())
        self.uuid = UUID(int=self.uuid.int + 1000)

    def digests(self) -> dict[bytes, Digest]:
        """Of all that it holds."""
        return {kind: self.store.partition_digest(kind, 0) for kind in KINDS}

    def votes(self) -> bool:
        """Whether it votes on all tables."""
        return all(self.store.standing(table, 0).votes for table in TABLES)


class HealingCluster(StoreCluster):
    """Devices that heal, and the stores of some proxies."""

    @property
    def devices(self) -> list[HealingDevice]:
        """All devices."""
        return [device for device in self.cluster.devices if isinstance(device, HealingDevice)]

    async def walk(self, *numbers: int) -> None:
        """Let these devices make a pass, one after the other."""
        for number in numbers:
            replicator = self.devices[number].replicator
            assert replicator is not None
            await replicator.walk()

    async def replace_disks(self, *numbers: int) -> None:
        """Put empty disks into the places of some of the three owners', and start their processes."""
        network = self.cluster.network
        for number in numbers:
            await network.crash(self.devices[number].name)
            self.devices[number].wipe()
        await self.adopt((0, 1, 2))
        for number in numbers:
            network.restart(self.devices[number].name)
        await asyncio.sleep(0.1)

    async def wait(self, holds: Callable[[], bool], within_s: float) -> None:
        """Wait until something holds."""
        for _ in range(int(within_s * 10)):
            if holds():
                return
            await asyncio.sleep(0.1)
        state = [(device.name, device.votes(), device.digests()) for device in self.devices]
        raise AssertionError(f"not within {within_s} s: {state}")

    def agree(self, *numbers: int) -> bool:
        """Whether these devices hold the same, bodies included."""
        devices = [self.devices[number] for number in numbers]
        same = len({tuple(device.digests().items()) for device in devices}) == 1
        return same and not any(device.store.missing(None, 1) for device in devices)

    async def adopt(self, owners: Sequence[int], before: Sequence[int] = (), within_s: float = 0.2) -> None:
        """Publish the next epoch: these own the partition, moving from those before, if any."""
        described = ring_fields(
            owners,
            len(self.devices),
            moving={0: before} if before else {},
            uuids={device.number: device.uuid for device in self.devices},
        )
        await self.cluster.adopt(next_ring(self.cluster.ring, described), within_s)
        for device in self.devices:
            if device.replicator is not None:
                device.replicator.look_at_rings()


Scenario = Callable[[HealingCluster], Awaitable[Any]]


def play_healing(
    scenario: Scenario, *, owners: int = 3, others: int = 0, seed: int = 7, by_itself: bool = False
) -> Any:
    """Run a scenario; `by_itself`: the devices make their passes when they are due."""

    async def main() -> Any:
        async with SimulatedNetwork(seed, Weather()) as network, AsyncExitStack() as stack:
            cluster = Cluster(network, stack, owners, others, tables=TABLES, device=HealingDevice)
            world = HealingCluster(cluster, stack)
            for device in world.devices:
                device.heals_by_itself = device.pays = by_itself
            await cluster.start()
            await asyncio.sleep(0.01)
            return await scenario(world)

    try:
        return run_in_virtual_time(main())
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


# --- what is held -------------------------------------------------------------------------------------------------

CREATED = Timestamp.of(STARTED_US - 1_000_000, 9)
CONTAINER = Key(CONTAINERS, b"acc\0con")


def key(name: bytes | str, table: bytes = b"o\0") -> Key:
    """An object's key."""
    return Key(table, b"acc\0con\0" + (name.encode() if isinstance(name, str) else name))


def ballot(at: int, incarnation: Timestamp = CREATED) -> Ballot:
    """A ballot of the tests' container."""
    return Ballot.of(STARTED_US + at, 1, incarnation)


def put(at: int, body: bytes = b"body", **fields: Any) -> Entry:
    """An object's entry."""
    write_id = WriteId(Timestamp.of(STARTED_US + at, 1))
    metadata = pack_metadata({"content-type": "x/y"})
    entry = Entry(ballot(at), write_id, STARTED_US + at, body_id=write_id, size=len(body), metadata=metadata)
    return entry._replace(**fields)


def delete(at: int) -> Entry:
    """A tombstone."""
    return put(at)._replace(tombstone=True, body_id=NO_WRITE, size=0)


def container() -> Entry:
    """The entry of the tests' container."""
    made = Ballot.of(CREATED.micros, CREATED.writer)
    return Entry(made, WriteId(bytes(CREATED)), CREATED.micros, incarnation=CREATED)


def row(at: int, **fields: Any) -> Entry:
    """An object's row."""
    return Entry(ballot(at), WriteId(Timestamp.of(STARTED_US + at, 1)), STARTED_US + at, size=4)._replace(
        **fields
    )


async def hold(
    device: HealingDevice, name: str, entry: Entry, body: bytes | None = b"body", *, owing: bool = False
) -> None:
    """Put an entry into a device's store, as if others had not heard of it."""
    content = body if entry.has_body else None
    await device.store.offer(Offered(key(name), entry, Offer.COPY, content, owing))


async def hold_rows(device: HealingDevice, rows: dict[bytes, Entry]) -> None:
    """Put rows into a device's store."""
    if not rows:
        return
    if device.store.read(CONTAINER) is None:
        await device.store.offer(Offered(CONTAINER, container(), Offer.COPY))
    names = list(rows.items())
    for at in range(0, len(names), 500):
        await device.store.upsert_rows(
            [RowOffer(CONTAINER, name, entry) for name, entry in names[at : at + 500]]
        )


def held(device: HealingDevice, name: str) -> tuple[Entry | None, bool]:
    """What a device holds at an object's key, and whether its body is there."""
    found = device.store.read(key(name))
    return (None, True) if found is None else (found.register.entry, found.location.held)


@asynccontextmanager
async def down(world: HealingCluster, number: int) -> AsyncIterator[None]:
    """Let a device be down for a while."""
    device = world.devices[number]
    await world.cluster.network.crash(device.name)
    try:
        yield
    finally:
        world.cluster.network.restart(device.name)
        await asyncio.sleep(0.01)


async def fill(world: HealingCluster, *numbers: int, objects: int = 200, rows: int | None = None) -> None:
    """Let these devices hold the same objects, and as many rows where nothing else is said."""
    for number in numbers:
        device = world.devices[number]
        for at in range(objects):
            await hold(device, f"o{at}", put(at))
        listed = {b"%04d" % at: row(at) for at in range(objects if rows is None else rows)}
        await hold_rows(device, listed)
