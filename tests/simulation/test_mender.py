"""A body that one owner lacks, brought back from the others, in virtual time."""

import asyncio
import os

import pytest

from proxy.store.store import Store
from storage_node.keys import Key
from storage_node.mender import SOON_S, WALK_S, Mender
from storage_node.operations import Disown
from swiftlike.entries import Entry
from tests.simulation.store_cluster import StoreCluster, create, get, named, play, put, soon


def mender(world: StoreCluster, quorums: Store, number: int) -> Mender:
    placed = world.cluster.ring.devices[number]
    assert placed is not None
    assert placed.uuid is not None
    return Mender(world.cluster.devices[number].store, quorums.mending, placed.uuid)


async def lose(world: StoreCluster, number: int, name: bytes) -> Key:
    """Let a device find out that it lacks a body."""
    key = Key(b"o\0", named(name).path)
    store = world.cluster.devices[number].store
    held = store.read(key)
    assert held is not None
    assert await store._submit(Disown(key, held.location))
    return key


@pytest.mark.parametrize("size", [1, 5000, 1_500_000])
def test_what_is_missing_is_brought_from_another_owner_at_once_when_told(size: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        body = os.urandom(size)
        await create(store)
        await put(store, b"a", body, pieces=4)
        await asyncio.sleep(1)
        job = mender(world, await world.proxy("device"), 1)
        running = asyncio.ensure_future(job.run())
        key = await lose(world, 1, b"a")
        device = world.cluster.devices[1].store
        assert device.missing(None, 9) == [key]
        job.tell(key)
        await asyncio.sleep(1)
        assert device.missing(None, 9) == []
        assert (job.mended, job.failed) == (1, 0)
        for name in ("device-0", "device-2"):
            await world.cluster.network.crash(name)
        held = await device.open_object(key)
        assert held is not None
        assert bytes(await held[1].read(0, size)) == body
        running.cancel()
        await asyncio.wait((running,))

    play(scenario)


def test_what_nobody_told_of_is_found_on_the_list_and_waits_for_whoever_has_it() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        for name in (b"a", b"b", b"c"):
            await put(store, name, b"body of " + name)
        await asyncio.sleep(1)
        job = mender(world, await world.proxy("device"), 0)
        for name in (b"a", b"b", b"c"):
            await lose(world, 0, name)
        for number in (1, 2):
            await lose(world, number, b"b")
        running = asyncio.ensure_future(job.run())
        await asyncio.sleep(WALK_S + 5)
        assert world.cluster.devices[0].store.missing(None, 9) == [Key(b"o\0", named(b"b").path)]
        assert (job.mended, job.left) == (2, 1), "nobody has it"
        await put(store, b"b", b"new")
        await asyncio.sleep(WALK_S + 5)
        assert job.left == 0
        assert world.cluster.devices[0].store.missing(None, 9) == []
        assert await get(store, b"b") == b"new"
        running.cancel()
        await asyncio.wait((running,))

    play(scenario)


def test_a_body_that_could_not_be_brought_when_told_is_asked_for_again_within_seconds() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"the body")
        await asyncio.sleep(1)
        job = mender(world, await world.proxy("device"), 1)
        running = asyncio.ensure_future(job.run())
        for name in ("device-0", "device-2"):
            await world.cluster.network.crash(name)
        job.tell(await lose(world, 1, b"a"))
        await asyncio.sleep(1.5 * SOON_S)
        assert job.failed
        for name in ("device-0", "device-2"):
            world.cluster.network.restart(name)
        await asyncio.sleep(4 * SOON_S)
        assert world.cluster.devices[1].store.missing(None, 9) == []
        running.cancel()
        await asyncio.wait((running,))

    play(scenario)


def test_a_device_that_is_no_owner_asks_for_nothing() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        info, _ = await store.objects.read(named(b"a"), deadline=soon())
        entry: Entry = info.entry
        stranger = world.cluster.ring.devices[3]
        assert stranger is not None
        assert stranger.uuid is not None
        assert not await store.mending.mend(b"o\0", named(b"a").path, entry, stranger.uuid, 5)

    play(scenario, others=1)
