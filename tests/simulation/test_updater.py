"""What a device does about rows that the proxy which wrote did not live to bring, in virtual time."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.store.errors import NoSuchObject
from proxy.store.store import Store
from storage_node.updater import GRACE_S, GRACE_SPREAD_S, Updater
from swiftlike.entries import Entry
from swiftlike.listed import Payment
from swiftlike.node_calls import PackedRow, RowRefused, RowTaken
from swiftlike.node_client import Asked, NodeClient
from swiftlike.rpc.called import answered_at_once
from swiftlike.rpc.transport import Outcome, Reply
from swiftlike.timestamps import ZERO_BALLOT
from tests.simulation.store_cluster import (
    CONTAINER,
    StoreCluster,
    counted,
    create,
    delete,
    get,
    named,
    names,
    play,
    put,
    soon,
)

AFTER_GRACE_S = GRACE_S + GRACE_SPREAD_S + 1


def updaters(world: StoreCluster, payer: Store) -> list[Updater]:
    """One for each device, with the quorum client of a process of its own."""
    return [
        Updater(device.store, payer.payer, world.cluster.read_us(), world.cluster.random)
        for device in world.cluster.devices
    ]


async def write_without_a_row(
    world: StoreCluster, store: Store, name: bytes, body: bytes | None, by: str = "proxy"
) -> None:
    """Write an object, or delete it, and die before its row."""
    container = await store.containers.read(CONTAINER, deadline=soon(), max_age_s=60)
    registers = world.registers[by]
    write_id = registers.new_write_id()
    entry = Entry(ZERO_BALLOT, write_id, 0, tombstone=True)
    if body is not None:
        entry = Entry(ZERO_BALLOT, write_id, 0, body_id=write_id, size=len(body))
    key = named(name).key(container.policy, container.incarnation)
    await registers.write(key, entry, body, deadline=soon())


def test_what_a_proxy_wrote_and_did_not_list_is_listed_by_a_device() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        payer = await world.proxy("payer")
        await create(store)
        await put(store, b"gone")
        await write_without_a_row(world, store, b"a", b"one")
        await write_without_a_row(world, store, b"gone", None)
        assert await names(store) == [b"gone"]
        first, second, third = updaters(world, payer)
        await first.walk()
        assert await names(store) == [b"gone"], "the writer has its time"
        await asyncio.sleep(AFTER_GRACE_S)
        await first.walk()
        assert await names(store) == [b"a"]
        assert await get(store, b"a") == b"one"
        await asyncio.sleep(1)
        assert await counted(store) == (1, 1, 3)
        assert world.debts() == 0
        await second.walk()
        await third.walk()
        assert [each.ended[Payment.PAID] for each in (first, second, third)] == [2, 0, 0]

    play(scenario)


def test_a_row_that_a_proxy_whose_clock_is_ahead_did_not_bring_comes_as_soon_as_others() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        payer = await world.proxy("payer")
        await world.proxy("ahead", skew_s=50.0)
        await create(store)
        await write_without_a_row(world, store, b"a", b"one", by="ahead")
        (updater, *_) = updaters(world, payer)
        await updater.walk()
        await asyncio.sleep(GRACE_S - 1)
        await updater.walk()
        assert await names(store) == [], "the writer has its time"
        await asyncio.sleep(GRACE_SPREAD_S + 2)
        await updater.walk()
        assert await names(store) == [b"a"]
        await asyncio.sleep(1)
        assert world.debts() == 0

    play(scenario)


def test_a_container_that_its_creator_did_not_list_is_listed_by_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        payer = await world.proxy("payer")
        with monkeypatch.context() as patch:
            patch.setattr(NodeClient, "ask_upsert_rows", _lost)
            creating = asyncio.ensure_future(create(store))
            await asyncio.sleep(1)
            creating.cancel()
        assert await counted(store) == (0, 0, 0)
        await asyncio.sleep(AFTER_GRACE_S)
        await updaters(world, payer)[0].walk()
        assert await counted(store) == (1, 0, 0)
        await asyncio.sleep(1)
        assert world.debts() == 0

    play(scenario)


def _lost(self: NodeClient, table: bytes, rows: Sequence[PackedRow]) -> Asked[list[RowTaken | RowRefused]]:
    unknown = answered_at_once(asyncio.get_running_loop(), Reply(Outcome.UNKNOWN))
    return Asked(unknown, self._read_upserted)


def test_an_object_whose_container_is_gone_is_deleted_and_owes_nothing_more() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        payer = await world.proxy("payer")
        await create(store)
        await asyncio.sleep(1)
        await write_without_a_row(world, store, b"a", b"one")
        await store.containers.delete(CONTAINER, deadline=soon())
        await create(store)
        await asyncio.sleep(AFTER_GRACE_S)
        (first, second, third) = updaters(world, payer)
        for each in (first, second, third):
            await each.walk()
        await asyncio.sleep(1)
        assert first.ended[Payment.DROPPED] == 1
        assert world.debts() == 0
        for device in world.cluster.devices:
            (entry,) = [held.register.entry for _, held in device.store.registers(b"o\0", 0, 0, b"", 10)]
            assert entry is not None
            assert entry.tombstone
        assert await names(store) == []
        with pytest.raises(NoSuchObject):
            await get(store, b"a")

    play(scenario)


def test_an_entry_that_only_one_device_took_is_carried_through_and_listed() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        payer = await world.proxy("payer")
        await create(store)
        await asyncio.sleep(1)
        assert world.debts() == 0
        network = world.cluster.network
        for device in world.cluster.devices[1:]:
            await network.crash(device.name)
        writing = asyncio.ensure_future(write_alone(world, store))
        await asyncio.sleep(4)
        writing.cancel()
        for device in world.cluster.devices[1:]:
            network.restart(device.name)
        assert world.debts() == 1
        await asyncio.sleep(AFTER_GRACE_S)
        updater = updaters(world, payer)[0]
        while not updater.ended[Payment.PAID]:  # a majority without the device knows of nothing yet
            await updater.walk()
        await asyncio.sleep(1)
        assert await names(payer) == [b"a"]
        assert await get(payer, b"a") == b"one"
        assert world.debts() == 0

    async def write_alone(world: StoreCluster, store: Store) -> None:
        await write_without_a_row(world, store, b"a", b"one")

    play(scenario)


def test_a_debt_that_cannot_be_paid_holds_up_no_other() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        payer = await world.proxy("payer")
        await create(store)
        for number in range(250):
            await write_without_a_row(world, store, b"%03d" % number, b"x")

        class Choosy:
            """Pays for every second object only."""

            async def pay(self, table: bytes, path: bytes, version: Any, timeout_s: float) -> Payment:
                if int(path[-3:]) % 2:
                    return Payment.LATER
                return await payer.payer.pay(table, path, version, timeout_s)

        await asyncio.sleep(AFTER_GRACE_S)
        device = world.cluster.devices[0]
        updater = Updater(device.store, Choosy(), world.cluster.read_us(), world.cluster.random)
        await updater.walk()
        assert (updater.ended[Payment.PAID], updater.left) == (125, 125)
        assert len(await names(payer)) == 125
        await updaters(world, payer)[0].walk()
        assert len(await names(payer)) == 250

    play(scenario)


def test_a_delete_whose_proxy_died_in_the_middle_does_not_lock_the_container() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        other = await world.proxy("other")
        await create(store)
        await put(store, b"a")
        key, clock = CONTAINER.key, world.registers["proxy"].clock
        nodes = world.registers["proxy"].nodes
        placement = nodes.place(key)
        for device in placement.devices.values():
            ballot = type(ZERO_BALLOT)(bytes(16) + clock.issue())
            client = nodes.client(placement, device, soon())
            await client.prepare(key.table, key.path, ballot, closing=True)
        await put(other, b"b")
        assert await names(store) == [b"a", b"b"]
        assert await delete(store, b"a")

    play(scenario)
