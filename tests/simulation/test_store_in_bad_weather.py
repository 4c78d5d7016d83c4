"""Whatever goes wrong while clients write: in the end listings show exactly what can be read, and nothing is owed.

Clients of several proxies write to a few names of a container that comes and goes. Calls and answers are lost, devices
restart, and clients die in the middle of what they do, their proxies' rows and payments with them.
"""

import asyncio
from contextlib import suppress

import pytest

from proxy.store.errors import NoSuchContainer, NoSuchObject, StoreError
from proxy.store.store import Store
from storage_node.updater import GRACE_S, GRACE_SPREAD_S, Updater
from tests.simulation.store_cluster import (
    CONTAINER,
    StoreCluster,
    counted,
    create,
    delete,
    get,
    names,
    play,
    put,
    soon,
)

NAMES = [b"a", b"b", b"c/1", b"c/2"]
FAULTS_END_S = 20.0


async def live(world: StoreCluster, store: Store) -> None:
    """Do things one after another; now and then die in the middle of one."""
    random, loop = world.cluster.random, asyncio.get_running_loop()
    while loop.time() < FAULTS_END_S:
        await asyncio.sleep(random.expovariate(5))
        life_s = random.expovariate(1 / 0.05) if random.random() < 0.1 else None
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(life_s):
                await do_something(world, store)


async def do_something(world: StoreCluster, store: Store) -> None:
    random = world.cluster.random
    name, dice = random.choice(NAMES), random.random()
    if dice < 0.5:
        await put(store, name, b"x" * random.randrange(10))
    elif dice < 0.8:
        await delete(store, name)
    elif dice < 0.9:
        await create(store)
    else:
        await store.containers.delete(CONTAINER, deadline=soon())


async def restart_devices(world: StoreCluster) -> None:
    random = world.cluster.random
    while True:
        await asyncio.sleep(random.expovariate(0.5))
        name = random.choice(world.cluster.devices).name
        await world.cluster.network.crash(name, silent=random.random() < 0.5)
        try:
            await asyncio.sleep(random.expovariate(1))
        finally:
            world.cluster.network.restart(name)


async def pay_everything(world: StoreCluster, store: Store) -> None:
    """Let updaters walk until nothing is owed."""
    updaters = [
        Updater(device.store, store.payer, world.cluster.read_us(), world.cluster.random)
        for device in world.cluster.devices
    ]
    for _ in range(20):
        await asyncio.sleep(GRACE_S + GRACE_SPREAD_S + 1)
        for updater in updaters:
            await updater.walk()
        await asyncio.sleep(1)
        if world.debts() == 0:
            return
    pytest.fail(f"{world.debts()} debts are left: {[updater.ended for updater in updaters]}")


@pytest.mark.parametrize("seed", range(12))
def test_in_the_end_the_listing_shows_what_can_be_read(seed: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        world.way.loss_chance = world.cluster.random.choice([0.0, 0.03, 0.1])
        skews_s = [0.0, 0.5, -0.5]
        stores = [await world.proxy(f"client-{at}", skew_s) for at, skew_s in enumerate(skews_s)]
        restarting = asyncio.ensure_future(restart_devices(world))
        async with asyncio.TaskGroup() as clients:
            for each in stores:
                clients.create_task(live(world, each))
        restarting.cancel()
        await asyncio.gather(restarting, return_exceptions=True)
        world.way.loss_chance = 0.0
        await asyncio.sleep(5)
        await pay_everything(world, store)
        for each in stores:
            there, size = await read_all(each)
            try:
                assert await names(each) == there
            except NoSuchContainer:
                assert there == []
                assert await counted(each) == (0, 0, 0)
            else:
                await put(each, b"z", b"last")
                await delete(each, b"z")
                await asyncio.sleep(1)
                assert await counted(each) == (1, len(there), size)
                usage = await each.containers.usage(CONTAINER, deadline=soon())
                assert (usage.objects, usage.bytes) == (len(there), size)
        # Whatever is there can be removed, and then the container.
        with suppress(NoSuchContainer):
            for name in NAMES:
                await delete(store, name)
            await store.containers.delete(CONTAINER, deadline=soon())
        assert await counted(store) == (0, 0, 0)

    play(scenario, seed=seed)


async def read_all(store: Store) -> tuple[list[bytes], int]:
    """What can be read, and how much."""
    there, size = list[bytes](), 0
    for name in NAMES:
        with suppress(NoSuchObject, NoSuchContainer):
            size += len(await get(store, name))
            there.append(name)
    return there, size
