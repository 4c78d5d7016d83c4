"""Objects whose time has come, deleted by the devices that hold them, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from proxy.store.errors import NoSuchObject
from proxy.store.manifests import Part
from proxy.store.store import Store
from proxy.store.values import Description, ObjectInfo
from storage_node.expirer import TURN_S, WALK_S, Expirer
from storage_node.keys import Due, Key, Layout
from storage_node.memory import MemoryStore
from storage_node.store import Offered
from storage_node.turns import turns_of
from storage_node.updater import GRACE_S, GRACE_SPREAD_S, Updater
from swiftlike.entries import Version
from swiftlike.expiry import Expiry
from swiftlike.limits import EXPIRED_PER_S
from swiftlike.node_calls import Query, RowRefused, RowTaken
from swiftlike.node_client import Asked, NodeClient
from swiftlike.rpc.called import answered_at_once
from swiftlike.rpc.transport import Outcome, Reply
from swiftlike.rpc.virtual_time import run_in_virtual_time
from swiftlike.timestamps import Offer
from tests.simulation.healing_cluster import put as a_put
from tests.simulation.quorum_cluster import STARTED_US
from tests.simulation.store_cluster import (
    CONTAINER,
    Sent,
    StoreCluster,
    counted,
    create,
    get,
    named,
    names,
    now_us,
    play,
    put,
    soon,
)

SECOND_US = 1_000_000


def expirers(world: StoreCluster, quorums: Store, per_s: float = EXPIRED_PER_S) -> list[Expirer]:
    """One for each device, with the quorum client of a process of its own."""
    read_us, each = world.cluster.read_us(), []
    for number, device in enumerate(world.cluster.devices):
        placed = world.cluster.ring.devices[number]
        assert placed is not None
        assert placed.uuid is not None
        turn = turns_of(device.shelf.ring, placed.uuid)
        each.append(Expirer(device.store, quorums.expiring, turn, read_us, per_s=per_s))
    return each


async def put_due(store: Store, name: bytes, in_s: float, body: bytes = b"body") -> None:
    await put(store, name, body, delete_at_us=now_us() + int(in_s * SECOND_US))


def due(world: StoreCluster) -> list[int]:
    """How many due times each device holds, of any time."""
    return [len(device.store.due(Due.DELETE, 2**62, 10_000)) for device in world.cluster.devices]


def total(each: list[Expirer], ended: Expiry) -> int:
    return sum(one.ended[ended] for one in each)


def describing(delete_at_us: int) -> Callable[[ObjectInfo], Description]:
    return lambda found: Description(found.attributes, delete_at_us)


async def walk_all(each: list[Expirer]) -> None:
    async with asyncio.TaskGroup() as walks:
        for one in each:
            walks.create_task(one.walk())


def test_each_due_object_is_deleted_by_one_device_and_goes_from_all_with_its_row() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        for number in range(60):
            await put_due(store, b"%02d" % number, 5)
        await put_due(store, b"later", 1000)
        await put(store, b"never")
        await walk_all(each)
        assert total(each, Expiry.DELETED) == 0, "nothing is due yet"
        assert due(world) == [61, 61, 61]
        await asyncio.sleep(6)
        await walk_all(each)
        assert total(each, Expiry.DELETED) == 60
        assert total(each, Expiry.KEPT) == total(each, Expiry.LATER) == 0
        assert min(one.ended[Expiry.DELETED] for one in each) > 5, "the work is shared"
        assert await names(store) == [b"later", b"never"]
        rows = await store.listings.page_of_container(
            await store.containers.read(CONTAINER, deadline=soon()), Query(limit=100), deadline=soon()
        )
        assert len(rows.rows) == 2
        await asyncio.sleep(2)
        assert due(world) == [1, 1, 1]
        assert world.debts() < 10, "what arrived after its payment waits for an updater"
        assert await counted(store) == (1, 2, 8)

    play(scenario)


def test_what_is_due_is_deleted_well_within_a_minute_also_when_the_first_in_turn_is_away() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        for number in range(30):
            await put_due(store, b"%02d" % number, 5)
        await asyncio.sleep(5)
        await world.cluster.network.crash("device-0")
        running = [asyncio.ensure_future(one.run()) for one in each[1:]]
        await asyncio.sleep(2 * WALK_S + TURN_S)
        assert due(world)[1:] == [0, 0]
        assert total(each, Expiry.DELETED) == 30
        assert all(one.progress.late_us < 60 * SECOND_US for one in each)
        for one in running:
            one.cancel()
        await asyncio.wait(running)

        world.cluster.network.restart("device-0")
        await asyncio.sleep(1)
        assert due(world)[0] > 20, "it has missed what was deleted meanwhile"
        await asyncio.sleep(3 * TURN_S)
        await each[0].walk()
        await asyncio.sleep(1)
        assert due(world)[0] == 0, "and learns of it when it asks"
        assert total(each, Expiry.DELETED) == 30
        await each[0].walk()
        assert total(each, Expiry.KEPT) == each[0].ended[Expiry.KEPT] <= 30
        assert await names(store) == []

    play(scenario)


@pytest.mark.parametrize("then_s", [0, 500])
def test_an_object_whose_time_was_changed_is_deleted_at_the_new_one_or_never(then_s: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        await put_due(store, b"a", 5)
        then_us = now_us() + then_s * SECOND_US if then_s else 0
        await store.objects.describe(named(b"a"), describing(then_us), deadline=soon())
        assert due(world) == [1 if then_s else 0] * 3
        await asyncio.sleep(60)
        await walk_all(each)
        assert await get(store, b"a") == b"body"
        await asyncio.sleep(500)
        await walk_all(each)
        assert await names(store) == ([] if then_s else [b"a"])
        assert total(each, Expiry.DELETED) == (1 if then_s else 0)

    play(scenario)


@pytest.mark.parametrize("again", ["put", "post", "delete"])
def test_what_was_written_anew_behind_the_back_of_a_device_stays(again: str) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        await put_due(store, b"a", 5)
        await world.cluster.network.crash("device-0")
        if again == "put":
            await put(store, b"a", b"new")
        elif again == "post":
            await store.objects.describe(named(b"a"), describing(0), deadline=soon())
        else:
            await store.objects.delete(named(b"a"), deadline=soon())
        world.cluster.network.restart("device-0")
        await asyncio.sleep(60 + 3 * TURN_S)
        assert due(world) == [1, 0, 0]
        await walk_all(each)
        await asyncio.sleep(1)
        await walk_all(each)
        assert total(each, Expiry.DELETED) == 0
        assert each[0].ended[Expiry.KEPT] == 1, "it is asked about once, and then known"
        assert due(world) == [0, 0, 0]
        if again == "delete":
            assert await names(store) == []
        else:
            assert await get(store, b"a") == (b"new" if again == "put" else b"body")

    play(scenario)


def test_a_write_between_the_look_and_the_delete_wins() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        quorums = await world.proxy("device")
        await create(store)
        await put_due(store, b"a", 5)
        old = await store.objects.read(named(b"a"), deadline=soon())
        await asyncio.sleep(6)
        await put_due(store, b"a", 500, b"new")
        key = named(b"a").key(0, old[0].entry.ballot.incarnation)
        version = Version(old[0].entry.write_id, old[0].entry.ballot)
        assert await quorums.expiring.expire(key.table, key.path, version, 5) is Expiry.KEPT
        assert await get(store, b"a") == b"new"

    play(scenario)


def test_due_objects_of_a_container_that_is_gone_or_was_made_anew_go_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        for name in (b"a", b"b"):
            await put_due(store, name, 5)
        await asyncio.sleep(6)
        await store.containers.delete(CONTAINER, deadline=soon())
        await create(store)
        await put(store, b"a", b"of the new one")
        await walk_all(each)
        assert await names(store) == [b"a"]
        assert await get(store, b"a") == b"of the new one"
        assert due(world) == [0, 0, 0]
        await asyncio.sleep(GRACE_S + GRACE_SPREAD_S + 2)
        updater = Updater(
            world.cluster.devices[0].store, store.payer, world.cluster.read_us(), world.cluster.random
        )
        await updater.walk()
        assert world.debts() == 0

    play(scenario)


def test_an_object_of_parts_gives_them_back_when_it_expires() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        bucket = await store.containers.read(CONTAINER, deadline=soon(), max_age_s=0)
        name = await store.multipart.create(bucket, b"big", {}, "", deadline=soon())
        upload = await store.multipart.read_open(bucket, b"big", name.id, deadline=soon())
        part = await store.multipart.put_part(upload, 1, Sent(b"part"), deadline=soon())
        await store.multipart.complete(
            upload, [Part(part.name, part.size, part.etag)], "as asked", {"etag": part.etag}, deadline=soon()
        )
        await store.objects.describe(named(b"big"), describing(now_us() + 5 * SECOND_US), deadline=soon())
        assert await get(store, b"big") == b"part"
        await asyncio.sleep(1_000)
        await store.freeing.free_all()
        assert await names(store) == []
        assert part.name.name in await names(store, container=name.hidden), (
            "due, and its parts are there still"
        )
        await walk_all(each)
        assert total(each, Expiry.DELETED) == 1
        with pytest.raises(NoSuchObject):
            await store.objects.read(named(b"big"), deadline=soon())
        await asyncio.sleep(90_000)
        await store.freeing.free_all()
        assert await names(store, container=name.hidden) == []

    play(scenario)


def test_an_expirer_that_dies_in_the_middle_is_gone_on_with_and_nothing_comes_back() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        quorums = await world.proxy("device")
        await create(store)
        for number in range(100):
            await put_due(store, b"%02d" % number, 5)
        await asyncio.sleep(6)
        cut = [asyncio.ensure_future(one.walk()) for one in expirers(world, quorums)]
        await asyncio.sleep(0.11)
        for walk in cut:
            walk.cancel()
        await asyncio.wait(cut)
        left = max(due(world))
        assert 0 < left < 100
        each = expirers(world, await world.proxy("started anew"))
        await walk_all(each)
        await asyncio.sleep(3 * TURN_S)
        await walk_all(each)
        assert due(world) == [0, 0, 0]
        assert await names(store) == []
        await asyncio.sleep(GRACE_S + GRACE_SPREAD_S)
        for device in world.cluster.devices:
            read_us = world.cluster.read_us()
            await Updater(device.store, store.payer, read_us, world.cluster.random).walk()
        assert world.debts() == 0
        assert await names(store) == []
        await asyncio.sleep(2)
        assert await counted(store) == (1, 0, 0)

    play(scenario)


def test_a_row_that_cannot_be_brought_is_owed_and_the_object_is_gone_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(self: NodeClient, table: bytes, rows: Any) -> Asked[list[RowTaken | RowRefused]]:
        unknown = answered_at_once(asyncio.get_running_loop(), Reply(Outcome.UNKNOWN))
        return Asked(unknown, self._read_upserted)

    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        await put_due(store, b"a", 5)
        await asyncio.sleep(6)
        with monkeypatch.context() as patch:
            patch.setattr(NodeClient, "ask_upsert_rows", lost)
            await walk_all(each)
        assert total(each, Expiry.DELETED) == 1
        assert world.debts() == 3
        assert await names(store) == [], "a row that is due is not shown either"
        await asyncio.sleep(GRACE_S + GRACE_SPREAD_S + 1)
        device = world.cluster.devices[0]
        await Updater(device.store, store.payer, world.cluster.read_us(), world.cluster.random).walk()
        assert world.debts() == 0

    play(scenario)


def test_an_object_that_cannot_be_deleted_holds_up_no_other_and_is_met_again() -> None:
    class Choosy:
        """Deletes every second object only, the first time."""

        def __init__(self, beneath: Store) -> None:
            self.beneath = beneath
            self.asked: Counter[bytes] = Counter()

        async def expire(self, table: bytes, path: bytes, version: Version, timeout_s: float) -> Expiry:
            self.asked[path] += 1
            if int(path[-3:]) % 2 and self.asked[path] == 1:
                return Expiry.LATER
            return await self.beneath.expiring.expire(table, path, version, timeout_s)

    async def scenario(world: StoreCluster, store: Store) -> None:
        quorums = Choosy(await world.proxy("device"))
        await create(store)
        due_us = now_us() + 5 * SECOND_US
        for number in range(600):  # more than a slice, all due at the same time
            await put(store, b"%03d" % number, delete_at_us=due_us)
        await asyncio.sleep(60)
        store_0 = world.cluster.devices[0].store
        expirer = Expirer(store_0, quorums, lambda table, hashed: 0, world.cluster.read_us())
        before = asyncio.get_running_loop().time()
        await expirer.walk()
        took_s = asyncio.get_running_loop().time() - before
        assert (expirer.ended[Expiry.DELETED], expirer.progress.left) == (300, 300)
        assert expirer.progress.waiting == 600
        assert took_s >= 599 / EXPIRED_PER_S, "no faster than it may"
        assert expirer.progress.walked_us == world.cluster.read_us()(), (
            "when it was through, not when it began"
        )
        await expirer.walk()
        assert (expirer.ended[Expiry.DELETED], expirer.progress.left) == (600, 0)
        await asyncio.sleep(1)  # the majority may have been the other two
        await expirer.walk()
        assert (expirer.progress.waiting, expirer.progress.late_us) == (0, 0)
        assert await names(store) == []

    play(scenario)


def test_a_container_whose_owners_are_silent_holds_up_no_other() -> None:
    class Silent:
        """Waits in vain for one container, and knows how long."""

        deleted_s = 0.0

        async def expire(self, table: bytes, path: bytes, version: Version, timeout_s: float) -> Expiry:
            if b"\0silent\0" not in path:
                self.deleted_s = asyncio.get_running_loop().time()
                return Expiry.DELETED
            await asyncio.sleep(timeout_s)
            return Expiry.LATER

    async def scenario() -> None:
        time = asyncio.get_running_loop().time
        store = MemoryStore("device", Layout(7, {b"o\0": 10}), now_us)
        quorums = Silent()
        for name in (*(b"silent\0%03d" % number for number in range(300)), b"well\0z"):
            entry = a_put(1, delete_at=STARTED_US + 9)
            await store.offer(Offered(Key(b"o\0", b"acc\0" + name), entry, Offer.COPY, b"body"))
        expirer = Expirer(store, quorums, lambda table, hashed: 0, lambda: STARTED_US + SECOND_US, per_s=1e6)
        began = time()
        await expirer.walk()
        assert quorums.deleted_s - began <= 20, "two of one container are waited for, however many it has"
        assert expirer.progress.left == 300

    run_in_virtual_time(scenario())


def test_with_a_majority_away_what_is_due_waits_and_is_told() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        each = expirers(world, await world.proxy("device"))
        await create(store)
        await put_due(store, b"a", 5)
        await asyncio.sleep(60)
        for name in ("device-1", "device-2"):
            await world.cluster.network.crash(name)
        await each[0].walk()
        assert each[0].ended[Expiry.LATER] == each[0].progress.left == 1
        assert each[0].progress.late_us > 50 * SECOND_US
        for name in ("device-1", "device-2"):
            world.cluster.network.restart(name)
        await each[0].walk()
        assert each[0].ended[Expiry.DELETED] == 1
        assert each[0].progress.left == 0

    play(scenario)


def test_it_makes_way_while_calls_wait_and_comes_to_its_end_all_the_same() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        quorums = await world.proxy("device")
        await create(store)
        for number in range(40):
            await put_due(store, b"%03d" % number, 5)
        await asyncio.sleep(60)
        expirer = Expirer(
            world.cluster.devices[0].store,
            quorums.expiring,
            lambda table, hashed: 0,
            world.cluster.read_us(),
            per_s=100,
            read_lag_s=lambda: 1.0,
        )
        began = asyncio.get_running_loop().time()
        await expirer.walk()
        assert expirer.ended[Expiry.DELETED] == 40
        assert asyncio.get_running_loop().time() - began > 1, "slower than the 0.4 s of its rate"

    play(scenario)
