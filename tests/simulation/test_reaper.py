"""Deleted accounts, and what they held, removed by the devices that hold them, in virtual time."""

import asyncio

import pytest

from proxy.store.errors import AccountDeleted, NoSuchAccount, NoSuchContainer, NoSuchObject
from proxy.store.manifests import Part
from proxy.store.names import ContainerName, ObjectName
from proxy.store.store import Store
from storage_node.keys import ACCOUNTS
from storage_node.reaper import GRACE_S, OBJECTS_SLICE, TURN_S, Reaper
from storage_node.turns import turns_of
from swiftlike.limits import REAPED_PER_S
from swiftlike.reaping import ReapedEnd
from tests.simulation.store_cluster import (
    CONTAINER,
    Sent,
    StoreCluster,
    create,
    get,
    named,
    names,
    play,
    put,
    soon,
)

ACCOUNT = CONTAINER.account
BUCKETS = [ContainerName(ACCOUNT, b"bucket-%d" % number) for number in range(3)]
OTHER = ContainerName(b"other", b"bucket-of-another")


def reapers(world: StoreCluster, quorums: Store) -> list[Reaper]:
    """One for each device, with the quorum client of a process of its own."""
    each = []
    for number, device in enumerate(world.cluster.devices):
        placed = world.cluster.ring.devices[number]
        assert placed is not None
        assert placed.uuid is not None
        turn = turns_of(device.shelf.ring, placed.uuid)
        each.append(Reaper(device.store, quorums.reaping, turn, world.cluster.read_us()))
    return each


async def fill(store: Store, objects: int = 20) -> None:
    """Containers of two accounts."""
    for name in (CONTAINER, *BUCKETS, OTHER):
        await create(store, name)
        for number in range(objects):
            await store.objects.put(ObjectName(*name, b"%04d" % number), Sent(b"body"), deadline=soon())


async def left_of(world: StoreCluster, store: Store) -> tuple[int, int]:
    """Live objects and containers of the account on the first device."""
    device = world.cluster.devices[0].store
    lead = ACCOUNT + b"\0"
    return tuple(  # type: ignore[return-value]
        sum(
            held.register.entry is not None
            and not held.register.entry.tombstone
            and key.path.startswith(lead)
            for key, held in device.registers(table, 0, 0, b"", 9_999)
        )
        for table in (b"o\0", b"c\0")
    )


def test_what_a_deleted_account_held_goes_with_its_names_and_nobody_elses() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = reapers(world, await world.proxy("device"))
        await fill(store)
        await store.accounts.delete(ACCOUNT, deadline=soon())
        await asyncio.sleep(1)
        for one in each:
            await one.walk()
        assert await left_of(world, store) == (80, 4), "what was under way has its time"
        assert [one.waiting for one in each] == [1, 1, 1]
        await asyncio.sleep(GRACE_S)
        for one in each:
            await one.walk()
            assert one.walked_us == world.cluster.read_us()(), "when it was through, not when it began"
        await asyncio.sleep(1)
        assert await left_of(world, store) == (0, 0)
        assert sum(one.objects for one in each) == 80
        assert sum(one.containers for one in each) == 4
        assert [one.accounts for one in each].count(1) == 1, "the first in turn, alone"
        for name in BUCKETS:
            assert await store.buckets.owner(name.container, deadline=soon(), max_age_s=0) is None
        for one in each:
            await one.walk()
        assert [one.waiting for one in each] == [0, 0, 0]

        assert len(await names(store, container=OTHER)) == 20
        assert await store.buckets.owner(OTHER.container, deadline=soon(), max_age_s=0) == OTHER.account
        with pytest.raises(NoSuchAccount):
            await store.accounts.delete(ACCOUNT, deadline=soon())
        assert await create(store), "the name of the account may be used again"
        await put(store, b"a", b"new")
        for one in each:
            await one.walk()
        assert await get(store, b"a") == b"new"

    play(scenario)


def test_the_next_in_turn_goes_on_where_the_first_is_away() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = reapers(world, await world.proxy("device"))
        await fill(store)
        await store.accounts.delete(ACCOUNT, deadline=soon())
        key_hash = world.cluster.layout.hashed(ACCOUNT)
        first = next(
            number
            for number, device in enumerate(world.cluster.devices)
            if turns_of(device.shelf.ring, world.cluster.ring.devices[number].uuid)(ACCOUNTS, key_hash) == 0  # type: ignore[union-attr,arg-type]
        )
        await world.cluster.network.crash(f"device-{first}")
        await asyncio.sleep(GRACE_S + TURN_S)
        for number, one in enumerate(each):
            if number != first:
                await one.walk()
        assert sum(one.accounts for one in each) == 1
        assert sum(one.objects for one in each) == 80
        world.cluster.network.restart(f"device-{first}")
        await asyncio.sleep(1)
        await each[first].walk()
        await asyncio.sleep(1)
        await each[first].walk()
        assert each[first].waiting == 0, "it has heard by now"
        assert sum(one.accounts for one in each) == 1

    play(scenario)


def test_a_reaper_that_dies_in_the_middle_is_gone_on_with() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        quorums = await world.proxy("device")
        await fill(store, objects=2 * OBJECTS_SLICE)
        await store.accounts.delete(ACCOUNT, deadline=soon())
        await asyncio.sleep(GRACE_S)
        cut = [asyncio.ensure_future(one.walk()) for one in reapers(world, quorums)]
        began = asyncio.get_running_loop().time()
        for _ in range(1_000):
            await asyncio.sleep(0.1)
            if (await left_of(world, store))[0] <= 5 * OBJECTS_SLICE:
                break
        took_s = asyncio.get_running_loop().time() - began
        for walk in cut:
            walk.cancel()
        await asyncio.wait(cut)
        assert took_s >= 2 * OBJECTS_SLICE / REAPED_PER_S, "no faster than it may"
        assert (await left_of(world, store))[0] > 0
        await asyncio.sleep(1)
        each = reapers(world, await world.proxy("started anew"))
        for one in each:
            await one.walk()
        await asyncio.sleep(1)
        assert await left_of(world, store) == (0, 0)
        assert sum(one.accounts for one in each) == 1
        assert 0 < sum(one.objects for one in each) < 8 * OBJECTS_SLICE

    play(scenario)


def test_two_who_are_at_it_meet_in_the_middle() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        quorums, other = await world.proxy("device"), await world.proxy("other device")
        await fill(store, objects=5)
        await store.accounts.delete(ACCOUNT, deadline=soon())
        assert (await quorums.reaping.reap(ACCOUNT, 5)).containers == 0
        first = await store.containers.read(CONTAINER, deadline=soon())
        assert first.name == CONTAINER
        assert await names(store, container=CONTAINER) == [], "by name, it is the first"
        assert len(await names(store, container=BUCKETS[2])) == 5
        await other.reaping.reap(ACCOUNT, 5, backwards=True)
        assert await names(store, container=BUCKETS[2]) == []
        assert len(await names(store, container=BUCKETS[1])) == 5
        for _ in range(20):
            ended = [
                (await quorums.reaping.reap(ACCOUNT, 5)).end,
                (await other.reaping.reap(ACCOUNT, 5, backwards=True)).end,
            ]
        assert ended == [ReapedEnd.KEPT, ReapedEnd.KEPT]
        await asyncio.sleep(1)
        assert await left_of(world, store) == (0, 0)

    play(scenario)


def test_objects_of_parts_and_due_objects_go_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        bucket = await store.containers.read(CONTAINER, deadline=soon(), max_age_s=0)
        name = await store.multipart.create(bucket, b"big", {}, "", deadline=soon())
        upload = await store.multipart.read_open(bucket, b"big", name.id, deadline=soon())
        part = await store.multipart.put_part(upload, 1, Sent(b"part"), deadline=soon())
        await store.multipart.complete(
            upload, [Part(part.name, part.size, part.etag)], "as asked", {"etag": part.etag}, deadline=soon()
        )
        now_us = world.cluster.read_us()()
        await put(store, b"due", delete_at_us=now_us + 1_000_000)
        await asyncio.sleep(2)
        await store.accounts.delete(ACCOUNT, deadline=soon())
        while (await store.reaping.reap(ACCOUNT, 100)).end is ReapedEnd.MORE:
            pass
        with pytest.raises(NoSuchContainer):
            await store.objects.read(named(b"big"), deadline=soon())
        for _ in range(2):  # the upload's mark, and then the bucket's
            await asyncio.sleep(90_000)
            await store.freeing.free_all()
        with pytest.raises((NoSuchContainer, NoSuchObject)):
            await store.objects.read(part.name, deadline=soon())

    play(scenario)


def test_an_account_that_is_not_deleted_loses_nothing() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await fill(store, objects=3)
        assert (await store.reaping.reap(ACCOUNT, 100)).end is ReapedEnd.KEPT
        assert len(await names(store, container=CONTAINER)) == 3
        assert not await store.accounts.forget(ACCOUNT, deadline=soon())
        assert (await store.accounts.read(ACCOUNT, deadline=soon())).entry is not None

    play(scenario)


def test_with_a_majority_away_the_account_waits() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = reapers(world, await world.proxy("device"))
        await fill(store, objects=3)
        await store.accounts.delete(ACCOUNT, deadline=soon())
        await asyncio.sleep(GRACE_S + 3 * TURN_S)
        for number in (1, 2):
            await world.cluster.network.crash(f"device-{number}")
        await each[0].walk()
        assert (each[0].left, each[0].accounts) == (1, 0)
        for number in (1, 2):
            world.cluster.network.restart(f"device-{number}")
        with pytest.raises(AccountDeleted):
            await store.accounts.read(ACCOUNT, deadline=soon())
        await each[0].walk()
        assert (each[0].left, each[0].accounts) == (0, 1)

    play(scenario)
