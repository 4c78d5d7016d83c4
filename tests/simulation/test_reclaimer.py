"""What was deleted long ago is forgotten by all owners together, and never comes back, in virtual time."""

import asyncio
from contextlib import suppress
from itertools import count

import pytest

from proxy.store.errors import NoSuchObject
from proxy.store.store import Store
from storage_node import keys, tables
from storage_node.errors import StorageError
from storage_node.keys import Due, Key
from storage_node.reclaimer import Reclaimer
from storage_node.reclaiming import Wait
from storage_node.store import Offered
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, Method, Query, Standing, objects
from swiftlike.node_client import NodeClient
from swiftlike.rpc.transport import EMPTY, Outcome, Reply
from swiftlike.timestamps import Offer, Timestamp
from tests.engine.conftest import stand
from tests.simulation.quorum_cluster import SECRET
from tests.simulation.store_cluster import (
    CONTAINER,
    StoreCluster,
    create,
    delete,
    get,
    named,
    names,
    play,
    put,
    soon,
)

TABLE = objects(0)
AGE_S = 1000.0
_numbers = count()


async def reclaimers(world: StoreCluster) -> list[Reclaimer]:
    """One for each device, which remembers for a thousand seconds."""
    each = []
    for number, device in enumerate(world.cluster.devices):
        host = world.cluster.network.host(f"jobs-{next(_numbers)}")
        transport = await world.stack.enter_async_context(host.client(SECRET))
        placed = world.cluster.ring.devices[number]
        assert placed is not None
        assert placed.uuid is not None
        read_us = world.cluster.read_us()
        each.append(Reclaimer(device.store, placed.uuid, device.shelf, transport, read_us, int(AGE_S * 1e6)))
    return each


def tombstones(world: StoreCluster, table: bytes = TABLE) -> list[int]:
    """How many each device remembers."""
    return [
        sum(
            held.register.entry is not None and held.register.entry.tombstone
            for _, held in device.store.registers(table, 0, 0, b"", 9_999)
        )
        for device in world.cluster.devices
    ]


def rows(world: StoreCluster) -> list[int]:
    """How many rows of containers each device holds, tombstones too."""
    return [device.store.partition_digest(b"r\0", 0).entries for device in world.cluster.devices]


def floors(world: StoreCluster, table: bytes = TABLE) -> list[int]:
    return [device.store.standing(table, 0).floor_us for device in world.cluster.devices]


async def written(store: Store, world: StoreCluster) -> None:
    """Ten objects, of which six are deleted, and all of it at rest on all owners."""
    await create(store)
    for number in range(10):
        await put(store, b"%d" % number)
    for number in range(6):
        assert await delete(store, b"%d" % number)
    await asyncio.sleep(2)
    assert tombstones(world) == [6, 6, 6]


async def walk_all(each: list[Reclaimer]) -> None:
    for one in each:
        await one.walk()
        assert one.walked_us == one._read_us(), "when it was through, not when it began"


async def pay(world: StoreCluster) -> None:
    """What arrived after its payment is paid by hand: a tombstone that owes is not forgotten."""
    for device in world.cluster.devices:
        due = device.store.due(Due.DEBT, 2**62, 1_000)
        await device.store.pay([(key, version) for key, version in due if version is not None])


def test_what_was_deleted_long_ago_is_forgotten_by_all_and_its_rows_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = await reclaimers(world)
        await written(store, world)
        await pay(world)
        await walk_all(each)
        assert tombstones(world) == [6, 6, 6], "too young"
        assert rows(world) == [10, 10, 10]
        await asyncio.sleep(AGE_S + 60)
        await walk_all(each)
        await walk_all(each)
        assert tombstones(world) == [0, 0, 0]
        assert rows(world) == [4, 4, 4]
        assert len(set(floors(world))) == 1
        assert floors(world)[0] > 0
        assert len(set(floors(world, CONTAINERS))) == 1
        assert sum(one.registers for one in each) == 18
        assert sum(one.rows for one in each) == 18
        assert await names(store) == [b"6", b"7", b"8", b"9"]
        assert await get(store, b"7") == b"body"
        await put(store, b"0", b"anew")
        assert await get(store, b"0") == b"anew"
        first = sum(one.moved for one in each)
        await walk_all(each)
        assert sum(one.moved for one in each) == first, "it would hardly move"
        assert sum(one.ended[Wait.SETTLED] for one in each) == len(world.cluster.layout.part_powers)

    play(scenario)


def test_while_an_owner_is_away_nothing_is_forgotten_and_its_old_copy_stays_hidden() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = await reclaimers(world)
        await create(store)
        await put(store, b"a")
        await asyncio.sleep(2)
        await world.cluster.network.crash("device-2")
        assert await delete(store, b"a")
        await asyncio.sleep(AGE_S + 60)
        await walk_all(each[:2])
        assert tombstones(world) == [1, 1, 0]
        assert floors(world) == [0, 0, 0]
        assert sum(one.ended[Wait.SILENT] for one in each) > 0
        world.cluster.network.restart("device-2")
        await asyncio.sleep(1)
        await walk_all(each)
        assert tombstones(world)[:2] == [1, 1], "it is back, and does not know yet"
        assert floors(world) == [0, 0, 0]
        with pytest.raises(NoSuchObject):
            await get(store, b"a")
        await store.payer._registers.settle(named(b"a").key(0, await incarnation(store)), deadline=soon())
        await asyncio.sleep(2)
        assert tombstones(world) == [1, 1, 1]
        await pay(world)
        await asyncio.sleep(AGE_S + 60)
        await walk_all(each)
        await walk_all(each)
        assert tombstones(world) == [0, 0, 0]
        with pytest.raises(NoSuchObject):
            await get(store, b"a")

    async def incarnation(store: Store) -> Timestamp:
        return (await store.containers.read(CONTAINER, deadline=soon())).incarnation

    play(scenario)


def test_an_owner_that_does_not_vote_yet_holds_all_up() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = await reclaimers(world)
        await written(store, world)
        await pay(world)
        await stand(world.cluster.devices[1].store, TABLE, 0, Standing(votes=False))
        await asyncio.sleep(AGE_S + 60)
        await walk_all(each)
        assert (tombstones(world), floors(world)) == ([6, 6, 6], [0, 0, 0])
        await stand(world.cluster.devices[1].store, TABLE, 0, Standing(votes=True))
        await walk_all(each)
        await walk_all(each)
        assert tombstones(world) == [0, 0, 0]

    play(scenario)


@pytest.mark.parametrize("calls", range(1, 9))
def test_a_coordinator_that_dies_at_any_call_is_gone_on_with_and_no_old_copy_is_let_in(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first `calls` standings are set, then nothing more is heard; old copies knock at all owners from then on."""

    async def scenario(world: StoreCluster, store: Store) -> None:
        each = await reclaimers(world)
        await create(store)
        await put(store, b"a")
        await asyncio.sleep(2)
        old = world.cluster.devices[0].store.read(Key(TABLE, named(b"a").path))
        assert old is not None
        old_entry = old.register.entry
        assert old_entry is not None
        assert await delete(store, b"a")
        await asyncio.sleep(2)
        await pay(world)
        await asyncio.sleep(AGE_S + 60)

        left = calls
        plain = NodeClient.set_standing

        async def dying(self: NodeClient, *arguments: object, **options: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                self._ok(Method.SET_STANDING, Reply(Outcome.UNKNOWN, EMPTY))
            await plain(self, *arguments, **options)  # type: ignore[arg-type]

        async def knock() -> None:
            for device in world.cluster.devices:
                copy = Offered(Key(TABLE, named(b"a").path), old_entry, Offer.COPY, b"body")
                with suppress(StorageError):
                    await device.store.offer(copy)

        with monkeypatch.context() as patch:
            patch.setattr(NodeClient, "set_standing", dying)
            await walk_all(each)
            await knock()
        for _ in range(3):
            await walk_all(await reclaimers(world))
            await knock()
            with pytest.raises(NoSuchObject):
                await get(store, b"a")
        assert tombstones(world) == [0, 0, 0]
        assert len(set(floors(world))) == 1
        live = [device.store.read(Key(TABLE, named(b"a").path)) for device in world.cluster.devices]
        assert live == [None, None, None]
        assert await names(store) == []

    play(scenario)


def test_a_clock_that_is_ahead_by_more_than_the_age_moves_no_floor() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await written(store, world)
        each = await reclaimers(world)
        for one in each:
            one._read_us = world.cluster.read_us(AGE_S * 3)  # type: ignore[misc]
        await walk_all(each)
        assert (tombstones(world), floors(world)) == ([6, 6, 6], [0, 0, 0])
        await put(store, b"new")
        assert await get(store, b"new") == b"body"

    play(scenario)


def test_tombstones_that_owe_their_row_are_kept_until_it_is_paid() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = await reclaimers(world)
        await written(store, world)
        await pay(world)
        device = world.cluster.devices[0].store
        key = Key(TABLE, named(b"0").path)
        held = device.read(key)
        assert held is not None
        entry = held.register.entry
        assert entry is not None
        change = device._table
        raw = keys.register_key(key, device.layout.hashed(key.path))
        change.put(keys.due_key(Due.DEBT, entry.ballot.micros, raw), tables.encode_version(entry.version))
        change.commit()
        await asyncio.sleep(AGE_S + 60)
        await walk_all(each)
        await walk_all(each)
        assert tombstones(world) == [1, 0, 0]
        await pay(world)
        await asyncio.sleep(AGE_S)
        await walk_all(await reclaimers(world))
        assert tombstones(world) == [0, 0, 0]

    play(scenario)


def test_the_listing_of_a_container_that_is_gone_is_forgotten_with_it() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = await reclaimers(world)
        await create(store)
        await asyncio.sleep(1)
        await store.containers.delete(CONTAINER, deadline=soon())
        await asyncio.sleep(2)
        await pay(world)
        assert tombstones(world, CONTAINERS) == [1, 1, 1]
        await asyncio.sleep(AGE_S + 60)
        await walk_all(each)
        await walk_all(each)
        assert tombstones(world, CONTAINERS) == [0, 0, 0]
        assert [device.store.partition_digest(b"r\1", 0).entries for device in world.cluster.devices] == [
            0
        ] * 3
        assert floors(world, ACCOUNTS)[0] > 0
        page = await store.accounts.list(CONTAINER.account, Query(), deadline=soon())
        assert page.items == ()
        assert await create(store)

    play(scenario)
