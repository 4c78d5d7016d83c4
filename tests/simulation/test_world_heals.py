"""Whole clusters under seeded troubles whose devices heal: a disk is replaced and the owners change in the middle of it.

Clients, troubles and judgements are those of `world`; besides, once the troubles have ended, all owners must reach equal digests
within a bounded time, bodies included, and all must vote.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random
from typing import Final
from uuid import UUID

import pytest

from storage_node.expirer import Expirer
from storage_node.mender import Mender
from storage_node.replicator import PASS_S, Replicator
from storage_node.service import DeviceService, Surroundings
from storage_node.turns import turns_of
from storage_node.updater import Updater
from swiftlike.digests import Digest
from swiftlike.rpc.simulated import SimulatedHost, SimulatedNetwork, Weather
from swiftlike.rpc.transport import TcpAddress
from swiftlike.rpc.virtual_time import run_in_virtual_time
from tests.simulation import plans
from tests.simulation.plans import DEVICES, OTHERS, Plan
from tests.simulation.quorum_cluster import SECRET, Cluster, next_ring, ring_fields
from tests.simulation.store_cluster import TABLES
from tests.simulation.syncing_store import SyncingStore
from tests.simulation.world import World, WorldDevice, quorum_client

SEEDS: Final = int(os.environ.get("HEALING_SEEDS", "60"))
BLOCK: Final = 15
AGREE_WITHIN_S: Final = 20 * PASS_S
"""After the last trouble: a settle that was cut short is tried again, debts are paid before copies go back."""


class HealingWorldDevice(WorldDevice):
    """A device of the world that heals as well."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        super().__init__(cluster, number)
        self.number = number
        self.uuid = UUID(int=number + 1)
        self.replicator: Replicator | None = None

    async def boot(self, host: SimulatedHost) -> None:
        """What its process does."""
        cluster, store = self._cluster, self.store
        surroundings = replace(Surroundings(), healing=lambda: self.replicator)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.write())
            async with (
                DeviceService(store, store.layout, self.shelf, surroundings) as service,
                host.server(service.service, SECRET) as server,
                host.client(SECRET) as transport,
                quorum_client(cluster, host, 0.0, lambda: 0.0) as client,
            ):
                await server.listen(TcpAddress(host.name, 6200))
                random = Random(cluster.random.random())
                self.replicator = Replicator(store, self.uuid, self.shelf, transport, client.settling, random)
                updater = Updater(store, client.payer, cluster.read_us(), random)
                mender = Mender(store, client.mending, self.uuid)
                async with asyncio.TaskGroup() as jobs:
                    turn = turns_of(self.shelf.ring, self.uuid)
                    expirer = Expirer(store, client.expiring, turn, cluster.read_us())
                    jobs.create_task(expirer.run())
                    jobs.create_task(updater.run())
                    jobs.create_task(mender.run())
                    jobs.create_task(self.replicator.run())

    def wipe(self) -> None:
        """Be another disk, formatted anew."""
        self.store = SyncingStore(
            self.name, self._cluster.layout, self._cluster.read_us(), self._cluster.random
        )
        self.uuid = UUID(int=self.uuid.int + 1000)

    def votes(self) -> bool:
        """Whether it votes on all tables."""
        return all(self.store.standing(table, 0).votes for table in TABLES)

    def state(self) -> tuple[Digest, ...]:
        """What it holds."""
        return tuple(self.store.partition_digest(kind, 0) for kind in (*TABLES, b"r\0", b"r\1"))


class HealingWorld(World):
    """A world in which a disk is replaced and owners change, while clients and troubles go on."""

    @property
    def devices(self) -> list[HealingWorldDevice]:
        """All devices."""
        return [device for device in self.cluster.devices if isinstance(device, HealingWorldDevice)]

    async def change(self, random: Random) -> tuple[int, ...]:
        """Replace a disk, or move the partition, settle or undo; return who owns it in the end."""
        owners = tuple(range(DEVICES))
        await asyncio.sleep(random.uniform(0, 5))
        if random.random() < 0.5:
            device = self.devices[random.choice(owners)]
            if device.name not in self._down:
                self._down.add(device.name)
                await self.cluster.network.crash(device.name)
                device.wipe()
                await self._adopt(owners, ())
                self.cluster.network.restart(device.name)
                self._down.discard(device.name)
                await self._wait(lambda: device.votes())
        if random.random() < 0.7:
            before = owners
            owners = tuple(sorted(random.sample(range(DEVICES + OTHERS), DEVICES)))
            await self._adopt(owners, before)
            if random.random() < 0.3:
                await asyncio.sleep(random.uniform(0, 3))
                owners = before
            else:
                await self._wait(lambda: all(self.devices[number].votes() for number in owners))
            await self._adopt(owners, ())
        return owners

    async def _adopt(self, owners: tuple[int, ...], before: tuple[int, ...]) -> None:
        uuids = {device.number: device.uuid for device in self.devices}
        moving = {0: before} if before and set(before) != set(owners) else {}
        described = ring_fields(owners, len(self.devices), moving=moving, uuids=uuids)
        await self.cluster.adopt(next_ring(self.cluster.ring, described), 0.5)
        for device in self.devices:
            if device.replicator is not None:
                device.replicator.look_at_rings()

    async def _wait(self, holds: object) -> None:
        assert callable(holds)
        for _ in range(int(AGREE_WITHIN_S)):
            if holds():
                return
            await asyncio.sleep(1)
        self.wrong.append("devices did not catch up in time")

    async def converge(self, owners: tuple[int, ...]) -> None:
        """Judge what the owners hold, once everything has ended."""
        mine = [self.devices[number] for number in owners]

        def agree() -> bool:
            return (
                len({device.state() for device in mine}) == 1
                and all(device.votes() for device in mine)
                and not any(device.store.missing(None, 1) for device in mine)
            )

        for _ in range(int(AGREE_WITHIN_S)):
            if agree():
                return
            await asyncio.sleep(1)
        for device in mine:
            self.wrong.append(f"{device.name}: votes {device.votes()}, {device.state()}")


def run(plan: Plan) -> HealingWorld:
    """Run a plan with devices that heal."""

    async def main() -> HealingWorld:
        async with SimulatedNetwork(plan.seed, Weather()) as network, AsyncExitStack() as stack:
            cluster = Cluster(network, stack, DEVICES, OTHERS, TABLES, device=HealingWorldDevice)
            await cluster.start()
            world = HealingWorld(cluster, stack, plan)
            changing = asyncio.ensure_future(world.change(Random(plan.seed)))
            await world.live()
            world.loss_chance = 0.0
            cluster.network.mend()
            owners = cluster.owners = await changing
            await world.end()
            await world.converge(owners)
            return world

    return run_in_virtual_time(main())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_devices_that_diverge_by_any_trouble_are_the_same_again_and_nothing_was_lost(first: int) -> None:
    for seed in range(first, first + BLOCK):
        world = run(plans.draw(seed))
        assert not world.wrong, f"seed {seed}: {world.wrong}"
