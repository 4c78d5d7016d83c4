"""What clients are promised of accounts, containers and objects, in virtual time over real storage services."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import md5
from typing import Any, cast

import pytest

from proxy.cluster.placement import Key
from proxy.cluster.register import Read, Written
from proxy.store.errors import (
    AccountDeleted,
    ConditionFailed,
    ContainerNotEmpty,
    NoSuchAccount,
    NoSuchContainer,
    NoSuchObject,
    NoSuchPolicy,
    OutcomeUnknown,
    PolicyDiffers,
    Unavailable,
)
from proxy.store.listed_rows import ListedRows
from proxy.store.names import ContainerName
from proxy.store.store import Store
from proxy.store.values import Description, ListedObject, ObjectInfo, Received
from storage_node.keys import Key as StoredKey
from storage_node.keys import Listing
from storage_node.store import RowOffer
from swiftlike.entries import Entry, pack_metadata
from swiftlike.node_calls import ACCOUNTS, CONTAINERS, Method, Page, Query, Standing
from swiftlike.rpc.simulated import Weather
from swiftlike.timestamps import NO_WRITE, Ballot, Timestamp
from tests.engine.conftest import stand
from tests.simulation.quorum_cluster import SimulatedDevice, next_ring, ring_fields
from tests.simulation.store_cluster import (
    CONTAINER,
    PATIENCE,
    POLICIES,
    Sent,
    StoreCluster,
    counted,
    create,
    delete,
    describing,
    get,
    keep,
    named,
    names,
    now_us,
    play,
    put,
    soon,
)

# --- objects ----------------------------------------------------------------------------------------------------


def test_what_was_put_is_read_and_listed_at_once_and_what_was_deleted_is_neither() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        assert await create(store)
        etag = await put(store, b"a", b"one", attributes={"type": "text/plain", "meta:x": "y"})
        assert etag == md5(b"one").hexdigest()
        assert await get(store, b"a") == b"one"
        page = await store.containers.list(CONTAINER, Query(), deadline=soon())
        (row,) = page.items
        assert isinstance(row, ListedObject)
        assert (row.name, row.size, row.etag, row.content_type) == (b"a", 3, etag, "text/plain")
        info, _ = await store.objects.read(named(b"a"), deadline=soon())
        assert (row.modified_us, info.attributes["meta:x"]) == (info.modified_us, "y")
        assert await delete(store, b"a")
        assert not await delete(store, b"a")
        assert await names(store) == []
        with pytest.raises(NoSuchObject):
            await get(store, b"a")

    play(scenario)


def test_an_empty_object_is_an_object() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"")
        assert await get(store, b"a") == b""
        assert await names(store) == [b"a"]

    play(scenario)


def test_debts_are_paid_once_rows_stand() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        for number in range(5):
            await put(store, b"%d" % number)
        await asyncio.sleep(1)
        assert world.debts() == 0

    play(scenario)


def test_nothing_is_done_in_a_container_that_is_not_there() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        for work in (put(store, b"a"), get(store, b"a"), delete(store, b"a"), names(store)):
            with pytest.raises(NoSuchContainer):
                await work

    play(scenario)


def test_a_condition_is_judged_on_what_stands_there() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)

        def absent(current: ObjectInfo | None) -> bool:
            return current is None

        async def put_if_absent(body: bytes) -> None:
            await store.objects.put(named(b"a"), Sent(body), deadline=soon(), condition=absent)

        await put_if_absent(b"one")
        with pytest.raises(ConditionFailed) as refused:
            await put_if_absent(b"two")
        assert refused.value.current is not None
        assert refused.value.current.etag == md5(b"one").hexdigest()
        with pytest.raises(ConditionFailed):
            await store.objects.delete(named(b"a"), deadline=soon(), condition=absent)
        assert await get(store, b"a") == b"one"
        assert await names(store) == [b"a"]

    play(scenario)


def test_of_many_that_swap_one_object_at_once_exactly_one_succeeds() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        etag = await put(store, b"a", b"zero")
        stores = [store, await world.proxy("other", 0.4), await world.proxy("third", -0.4)]

        async def swap(which: Store, body: bytes) -> bool:
            try:
                await which.objects.put(
                    named(b"a"),
                    Sent(body),
                    deadline=soon(),
                    condition=lambda current: current is not None and current.etag == etag,
                )
            except ConditionFailed:
                return False
            return True

        won = await asyncio.gather(*(swap(which, b"%d" % at) for at, which in enumerate(stores)))
        assert sum(won) == 1
        assert await get(store, b"a") == b"%d" % won.index(True)

    play(scenario)


def test_a_write_that_is_done_and_cannot_be_looked_at_is_unknown_and_not_without_effect() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        registers = world.registers["proxy"]
        write, read = registers.write, registers.read

        async def write_and_forget(*args: Any, **options: Any) -> Written:
            return replace(await write(*args, **options), entry=None)

        async def hear_nothing(key: Key, **options: Any) -> Read:
            if key.table in (CONTAINERS, ACCOUNTS):
                return await read(key, **options)
            return Read(registers.nodes.place(key), is_known=False)

        registers.write, registers.read = write_and_forget, hear_nothing  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await put(store, b"key")
        registers.write, registers.read = write, read  # type: ignore[method-assign]
        assert await get(store, b"key") == b"body"

    play(scenario)


def test_describing_an_object_anew_keeps_its_body_and_changes_its_row() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"one", attributes={"type": "a/b"})

        def describe(current: ObjectInfo) -> Description:
            return Description({**current.attributes, "type": "c/d"})

        info = await store.objects.describe(named(b"a"), describe, deadline=soon())
        assert info.content_type == "c/d"
        assert await get(store, b"a") == b"one"
        page = await store.containers.list(CONTAINER, Query(), deadline=soon())
        assert [item.content_type for item in page.items if isinstance(item, ListedObject)] == ["c/d"]
        with pytest.raises(NoSuchObject):
            await store.objects.describe(named(b"b"), describe, deadline=soon())

    play(scenario)


def test_an_object_that_is_due_is_gone_for_everybody() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", delete_at_us=now_us() + 5_000_000)
        assert await names(store) == [b"a"]
        await asyncio.sleep(6)
        assert await names(store) == []
        with pytest.raises(NoSuchObject):
            await get(store, b"a")
        assert not await delete(store, b"a")

    play(scenario)


def test_a_copy_has_the_body_and_the_description_it_is_given() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"one", attributes={"type": "a/b"})

        def describe(source: ObjectInfo, received: Received) -> Description:
            return Description({**source.attributes, "etag": received.md5, "meta:copied": "yes"})

        for target in (b"b", b"a"):
            source, copy = await store.objects.copy(named(b"a"), named(target), describe, deadline=soon())
            assert source.name == named(b"a")
            assert (copy.attributes["meta:copied"], copy.content_type) == ("yes", "a/b")
            assert await get(store, target) == b"one"
        assert await names(store) == [b"a", b"b"]
        with pytest.raises(ConditionFailed):
            await store.objects.copy(
                named(b"a"), named(b"c"), describe, deadline=soon(), source_condition=lambda current: False
            )

    play(scenario)


def test_a_copy_whose_source_is_replaced_while_it_is_read_is_one_of_what_replaced_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        old, new = b"o" * (2 * 1024 * 1024), b"n" * (3 * 1024 * 1024)
        await put(store, b"a", old)
        read, times = store.objects.read, 0

        async def read_and_replace(*arguments: Any, **options: Any) -> Any:
            nonlocal times
            found = await read(*arguments, **options)
            times += 1
            if times == 1:
                await put(store, b"a", new)
                await asyncio.sleep(1)
            return found

        monkeypatch.setattr(store.objects, "read", read_and_replace)

        def describe(source: ObjectInfo, received: Received) -> Description:
            return Description({**source.attributes, "etag": received.md5})

        source, copy = await store.objects.copy(named(b"a"), named(b"b"), describe, deadline=soon())
        assert (source.size, copy.size, times) == (len(new), len(new), 2)
        assert await get(store, b"b") == new

    play(scenario)


# --- containers -------------------------------------------------------------------------------------------------


def test_two_creators_make_one_container() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        stores = [store, await world.proxy("other", 0.3), await world.proxy("third", -0.3)]
        created = await asyncio.gather(*(create(each) for each in stores))
        assert sorted(created) == [False, False, True]
        incarnations = {
            (await each.containers.read(CONTAINER, deadline=soon(), max_age_s=0)).incarnation
            for each in stores
        }
        assert len(incarnations) == 1
        assert await counted(store) == (1, 0, 0)

    play(scenario)


@pytest.mark.parametrize("name", [CONTAINER, ContainerName(b"acc", b"claimed")], ids=["container", "bucket"])
@pytest.mark.parametrize("seed", range(6))
def test_of_many_who_create_a_container_at_once_one_has_created_it_and_all_are_told(
    seed: int, name: ContainerName
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        stores = [store, await world.proxy("another", skew_s=0.5)]
        created = await asyncio.gather(*(create(stores[at % 2], name) for at in range(12)))
        assert created.count(True) == 1
        infos = [await one.containers.read(name, deadline=soon(), max_age_s=0) for one in stores]
        assert infos[0].incarnation == infos[1].incarnation
        # Described as it stands already, it is not written again.
        again, _ = await store.containers.create(name, keep, None, deadline=soon())
        assert again.entry.write_id == infos[0].entry.write_id
        assert await counted(store) == (1, 0, 0)

    play(scenario, seed=seed)


def test_a_container_keeps_its_policy_and_takes_a_new_description() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await store.containers.create(CONTAINER, describing(one="1"), 1, deadline=soon())
        with pytest.raises(PolicyDiffers):
            await create(store, policy=0)
        with pytest.raises(NoSuchPolicy):
            await create(store, policy=7)
        info, was_new = await store.containers.create(CONTAINER, describing(two="2"), None, deadline=soon())
        assert (was_new, info.policy, info.attributes) == (False, 1, {"two": "2"})
        info = await store.containers.describe(
            CONTAINER, lambda before: {**before, "three": "3"}, deadline=soon()
        )
        assert info.attributes == {"two": "2", "three": "3"}
        await put(store, b"a", b"one")
        assert await get(store, b"a") == b"one"
        assert any(device.store.registers(b"o\1", 0, 0, b"", 5) for device in world.cluster.devices)
        assert not any(device.store.registers(b"o\0", 0, 0, b"", 5) for device in world.cluster.devices)

    play(scenario)


def test_a_container_is_deleted_only_when_it_is_empty() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        with pytest.raises(NoSuchContainer):
            await store.containers.delete(CONTAINER, deadline=soon())
        await create(store)
        await put(store, b"a")
        with pytest.raises(ContainerNotEmpty):
            await store.containers.delete(CONTAINER, deadline=soon())
        await put(store, b"b")  # rows are taken again
        for name in (b"a", b"b"):
            await delete(store, name)
        await store.containers.delete(CONTAINER, deadline=soon())
        with pytest.raises(NoSuchContainer):
            await store.containers.read(CONTAINER, deadline=soon())
        assert await counted(store) == (0, 0, 0)
        page = await store.accounts.list(b"acc", Query(), deadline=soon())
        assert page.items == ()

    play(scenario)


def test_a_container_with_nothing_but_due_objects_is_empty() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", delete_at_us=now_us() + 2_000_000)
        await asyncio.sleep(3)
        await store.containers.delete(CONTAINER, deadline=soon())
        assert await create(store)
        assert await names(store) == []

    play(scenario)


def test_a_container_that_is_made_anew_shows_nothing_of_the_one_before_through_any_proxy() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        other = await world.proxy("other", 0.3)
        await create(store)
        await put(store, b"a", b"old")
        assert await get(other, b"a") == b"old"
        await delete(store, b"a")
        await store.containers.delete(CONTAINER, deadline=soon())
        await create(store, policy=1)
        with pytest.raises(NoSuchObject):
            await get(other, b"a")
        await put(store, b"a", b"new")
        # What the other proxy knows of the container is of its former life.
        assert await get(other, b"a") == b"new"
        assert await names(other) == [b"a"]

    play(scenario)


def test_a_put_by_a_proxy_that_knows_the_former_container_lands_in_the_one_of_today() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        other = await world.proxy("other")
        await create(store)
        assert not await delete(other, b"a")
        await store.containers.delete(CONTAINER, deadline=soon())
        await create(store, policy=1)
        await put(other, b"a", b"new")
        assert await get(store, b"a") == b"new"
        assert await names(store) == [b"a"]
        await asyncio.sleep(1)
        assert world.debts() == 0

    play(scenario)


@pytest.mark.parametrize("seed", range(12))
def test_an_object_put_while_its_container_is_deleted_is_listed_there_or_leaves_nothing(seed: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        other = await world.proxy("other", world.cluster.random.uniform(-0.5, 0.5))
        await create(store)
        with pytest.raises(NoSuchObject):
            await get(other, b"a")  # so that it knows the container

        async def put_a() -> bool:
            await asyncio.sleep(world.cluster.random.random() * 0.1)
            try:
                await put(other, b"a", b"one")
            except NoSuchContainer:
                return False
            return True

        async def delete_container() -> bool:
            await asyncio.sleep(world.cluster.random.random() * 0.1)
            try:
                await store.containers.delete(CONTAINER, deadline=soon())
            except ContainerNotEmpty:
                return False
            return True

        was_put, was_deleted = await asyncio.gather(put_a(), delete_container())
        assert was_put is not was_deleted
        if was_put:
            assert await get(store, b"a") == b"one"
            assert await names(store) == [b"a"]
        else:
            assert await create(store)
            assert await names(store) == []
            with pytest.raises(NoSuchObject):
                await get(other, b"a")

    play(scenario, seed=seed)


# --- accounts ---------------------------------------------------------------------------------------------------


def test_an_account_comes_with_its_first_container_and_lists_it_at_once() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        assert (await store.accounts.read(b"acc", deadline=soon())).entry is None
        for name in (b"b", b"a"):
            await create(store, ContainerName(b"acc", name))
        created = (await store.accounts.read(b"acc", deadline=soon())).entry
        assert created is not None
        page = await store.accounts.list(b"acc", Query(), deadline=soon())
        assert [getattr(item, "name", None) for item in page.items] == [b"a", b"b"]
        assert not await store.accounts.write(b"acc", describing(x="y"), deadline=soon())
        described = await store.accounts.read(b"acc", deadline=soon())
        assert described.attributes == {"x": "y"}
        assert described.entry is not None
        assert described.entry.modified == created.modified, "it is still the account that was made then"
        assert await store.accounts.write(b"new", keep, deadline=soon())

    play(scenario)


def test_a_deleted_account_takes_nothing_more() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        with pytest.raises(NoSuchAccount):
            await store.accounts.delete(b"acc", deadline=soon())
        await create(store)
        await put(store, b"o")
        await store.accounts.delete(b"acc", deadline=soon())
        await asyncio.sleep(1.1)  # what was seen of it is believed for a second
        for work in (
            put(store, b"o"),
            put(store, b"new", bytes(2 * 1024 * 1024)),
            store.objects.describe(named(b"o"), lambda info: Description({}), deadline=soon()),
            store.containers.describe(CONTAINER, keep, deadline=soon()),
            store.accounts.read(b"acc", deadline=soon()),
            store.accounts.write(b"acc", keep, deadline=soon()),
            store.accounts.delete(b"acc", deadline=soon()),
            create(store, ContainerName(b"acc", b"other")),
        ):
            with pytest.raises(AccountDeleted):
                await work

    play(scenario)


def test_an_account_knows_what_its_containers_hold_within_a_second() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        other = await world.proxy("other", -0.4)
        await create(store)
        await create(store, ContainerName(b"acc", b"empty"), policy=1)
        await put(store, b"a", b"12345")
        await put(other, b"b", b"123")
        await put(store, b"c", b"1")
        await delete(other, b"c")
        usage = await store.containers.usage(CONTAINER, deadline=soon())
        assert (usage.objects, usage.bytes) == (2, 8)
        await asyncio.sleep(1)
        assert await counted(store) == (2, 2, 8)
        policies = (await store.accounts.usage(b"acc", deadline=soon())).policies
        assert {policy: tuple(shares) for policy, shares in policies.items()} == {0: (1, 2, 8), 1: (1, 0, 0)}
        await asyncio.sleep(10)
        assert await counted(other) == (2, 2, 8)

    play(scenario)


def test_a_count_by_a_proxy_whose_clock_is_behind_is_not_lost() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        ahead = await world.proxy("ahead", 30)
        await create(store)
        await put(ahead, b"a", b"12345")
        await asyncio.sleep(1)
        assert await counted(store) == (1, 1, 5)
        await put(store, b"b", b"123")
        await asyncio.sleep(1)
        assert await counted(store) == (1, 2, 8)

    play(scenario)


def test_a_count_that_finds_too_few_owners_is_made_again_when_they_are_back() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"12345")
        for name in ("device-0", "device-1"):
            await world.cluster.network.crash(name)
        await asyncio.sleep(30)
        assert store.usage.failed > 1
        for name in ("device-0", "device-1"):
            world.cluster.network.restart(name)
        await asyncio.sleep(11)
        assert await counted(store) == (1, 1, 5)

    play(scenario)


def test_a_late_count_never_brings_a_deleted_container_back() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        await delete(store, b"a")
        await store.containers.delete(CONTAINER, deadline=soon())  # while its count is still to be carried
        await asyncio.sleep(10)
        assert await counted(store) == (0, 0, 0)
        await create(store)
        await asyncio.sleep(1)
        assert await counted(store) == (1, 0, 0)

    play(scenario)


# --- devices that are down --------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [0, 1, 2])
def test_with_one_device_down_everything_works_and_it_is_right_when_it_is_back(down: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"before")
        network, name = world.cluster.network, world.cluster.devices[down].name
        await network.crash(name)
        for number in range(5):
            await put(store, b"%d" % number, b"x" * number)
        await delete(store, b"0")
        await delete(store, b"before")
        assert await names(store) == [b"1", b"2", b"3", b"4"]
        await create(store, ContainerName(b"acc", b"second"))
        await asyncio.sleep(1)
        assert await counted(store) == (2, 4, 10)
        network.restart(name)
        await asyncio.sleep(1)
        # The device that was away has none of it; whoever is asked, the page is the same.
        for _ in range(6):
            assert await names(store) == [b"1", b"2", b"3", b"4"]
            usage = await store.containers.usage(CONTAINER, deadline=soon())
            assert (usage.objects, usage.bytes) == (4, 10)
            assert await get(store, b"3") == b"xxx"

    play(scenario)


def test_when_no_two_owners_have_the_same_rows_pages_are_merged_and_counts_reconciled() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a/0")
        network = world.cluster.network
        for number, device in enumerate(world.cluster.devices):
            await network.crash(device.name)
            await put(store, b"a/%d" % number, b"xx")
            await put(store, b"gone/%d" % number)
            network.restart(device.name)
            await asyncio.sleep(1)
            await delete(store, b"gone/%d" % number)
        await put(store, b"zz")
        merged = store.listings.merged
        for _ in range(4):
            assert await names(store) == [b"a/0", b"a/1", b"a/2", b"zz"]
            assert await names(store, Query(delimiter=b"/", reverse=True)) == [b"zz", b"a/"]
            assert await names(store, Query(marker=b"a/1", limit=1)) == [b"a/2"]
            page = await store.containers.list(CONTAINER, Query(names_only=True), deadline=soon())
            assert cast(ListedRows, page.items).names == [b"a/0", b"a/1", b"a/2", b"zz"]
            usage = await store.containers.usage(CONTAINER, deadline=soon())
            assert (usage.objects, usage.bytes) == (4, 10)
        assert store.listings.merged > merged
        # What lies behind the names that differ is the same at all of them.
        by_span = store.listings.proved_by_span
        for _ in range(4):
            assert await names(store, Query(prefix=b"z")) == [b"zz"]
        assert store.listings.proved_by_span > by_span
        for name in await names(store):
            await delete(store, name)
        await store.containers.delete(CONTAINER, deadline=soon())
        assert await counted(store) == (0, 0, 0)

    play(scenario)


def test_names_alone_are_merged_however_many_pages_of_the_owners_that_takes() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        network, wanted = world.cluster.network, [b"kept/%d" % number for number in range(3)]
        for number, device in enumerate(world.cluster.devices):
            await network.crash(device.name)
            await put(store, wanted[number])
            for row in range(4):
                await put(store, b"gone/%d/%d" % (number, row))
            network.restart(device.name)
            await asyncio.sleep(1)
        await asyncio.gather(
            *(delete(store, b"gone/%d/%d" % (number, row)) for number in range(3) for row in range(4))
        )
        merged = store.listings.merged
        for limit in (1, 2, 3, 10):
            page = await store.containers.list(
                CONTAINER, Query(names_only=True, limit=limit), deadline=soon()
            )
            assert cast(ListedRows, page.items).names == wanted[:limit]
        assert store.listings.merged > merged

    play(scenario)


def test_where_all_owners_are_slow_a_read_and_a_listing_ask_no_more_of_them_than_they_need() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        await asyncio.sleep(10)
        hasty = replace(PATIENCE, hedge_s=0.05)
        registers = await world.cluster.proxy("hasty", patience=hasty)
        reader = await world.stack.enter_async_context(Store(registers, POLICIES, world.cluster.random))
        await names(reader)
        world.cluster.network.weather = Weather(latency_s=(0.1, 0.11))
        for _ in range(20):
            await get(reader, b"a")
            await names(reader)
        await asyncio.sleep(10)
        before = _asked(world)
        for _ in range(5):
            await names(reader)
            await get(reader, b"a")
        await asyncio.sleep(10)
        asked = _asked(world) - before
        assert (asked["list_rows"], asked["tally"]) == (5, 5)
        assert asked["get"] < 3 * (5 + 5), "two for each look at the container and for each object, not three"

    play(scenario)


def _asked(world: StoreCluster) -> Counter[str]:
    """Count the calls that devices have answered."""
    read = (Method.GET, Method.LIST_ROWS, Method.TALLY)
    return Counter(
        {
            str(method): sum(device.counts[str(method), "ok"] for device in world.cluster.devices)
            for method in read
        }
    )


def test_an_owner_that_is_silent_while_the_others_differ_does_not_keep_a_page_from_being_merged() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        network = world.cluster.network
        await network.crash("device-1")
        await put(store, b"a")
        # What is still under way to the dead one is given up: a row that finds it back in time would make it equal.
        await asyncio.sleep(PATIENCE.round_s)
        network.restart("device-1")
        await asyncio.sleep(1)
        await network.crash("device-0", silent=True)
        merged = store.listings.merged
        for _ in range(3):
            assert await names(store) == [b"a"]
        assert store.listings.merged == merged + 1, (
            "what it shows is brought to a majority, and proved from then on"
        )

    for seed in range(12):
        play(scenario, seed=seed)


def unacknowledged(name: bytes, incarnation: Timestamp) -> RowOffer:
    """The row of a write whose writer has died, for whoever it has come to."""
    metadata = pack_metadata({"etag": "e", "type": "t"})
    entry = Entry(Ballot.of(now_us(), 1, incarnation), NO_WRITE, now_us(), metadata=metadata)
    return RowOffer(StoredKey(CONTAINERS, CONTAINER.path), name, entry)


def test_what_one_page_has_shown_the_next_one_shows_too_whoever_is_asked() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        await asyncio.sleep(1)
        container = await store.containers.read(CONTAINER, deadline=soon())
        network, (first, second, _third) = world.cluster.network, world.cluster.devices
        # As of a write that nobody was told of: its row has come to one owner.
        await second.store.upsert_rows([unacknowledged(b"b", container.incarnation)])
        await network.crash(first.name, silent=True)
        assert await names(store) == [b"a", b"b"]
        network.restart(first.name)
        await network.crash(second.name, silent=True)
        await asyncio.sleep(1)
        assert await names(store) == [b"a", b"b"]

    for seed in range(5):
        play(scenario, seed=seed)


async def shown_by(store: Store, query: Query) -> list[bytes]:
    page = await store.containers.list(CONTAINER, query, deadline=soon())
    return cast(ListedRows, page.items).names


async def differ_beyond_the_page(world: StoreCluster, incarnation: Timestamp) -> None:
    """Let each owner hold a row that no other does, behind all that is asked for: pages are proved by their span then."""
    for number, device in enumerate(world.cluster.devices):
        await device.store.upsert_rows([unacknowledged(b"z%d" % number, incarnation)])


@pytest.mark.parametrize("query", [Query(limit=2), Query(limit=2, names_only=True)], ids=["rows", "names"])
def test_a_row_that_comes_while_a_page_is_proved_is_not_shown_as_if_it_were(query: Query) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        for name in (b"a", b"c", b"e"):
            await put(store, name)
        await asyncio.sleep(1)
        incarnation = (await store.containers.read(CONTAINER, deadline=soon())).incarnation
        coming = unacknowledged(b"b", incarnation)
        await differ_beyond_the_page(world, incarnation)
        asked, has_come = Counter[str](), list[SimulatedDevice]()

        def spied(device: SimulatedDevice) -> Callable[..., Page]:
            list_rows = device.store.list_rows

            def read(*arguments: Any) -> Page:
                asked[device.name] += 1
                if (
                    asked[device.name] == 2 and not has_come
                ):  # the owner whose page is proved is asked once more
                    has_come.append(device)
                    device.store.upsert_rows([coming])
                return list_rows(*arguments)

            return read

        for device in world.cluster.devices:
            device.store.list_rows = spied(device)  # type: ignore[method-assign]
        shown = await shown_by(store, query)
        if not has_come:
            return
        await world.cluster.network.crash(has_come[0].name, silent=True)
        assert await shown_by(store, query) == shown or b"b" not in shown
        seen.append(shown)

    seen: list[list[bytes]] = []
    for seed in range(12):
        play(scenario, seed=seed)
    assert seen, "some of them are proved by their span"


@pytest.mark.parametrize("names_only", [False, True], ids=["rows", "names"])
@pytest.mark.parametrize("is_there", [False, True], ids=["comes-and-goes", "goes-and-comes"])
def test_a_name_that_comes_and_goes_while_a_page_is_proved_is_shown_as_the_digests_had_it(
    names_only: bool, is_there: bool
) -> None:
    """Of the last of its two changes only the owner whose page is proved has heard, and no client was told of it."""
    query = Query(limit=3, names_only=names_only)

    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        for name in (b"a", b"c", b"d", b"e"):
            await put(store, name)
        await asyncio.sleep(1)
        incarnation = (await store.containers.read(CONTAINER, deadline=soon())).incarnation
        first, *others = world.cluster.devices

        def changed(age: int, tombstone: bool) -> RowOffer:
            offer = unacknowledged(b"b", incarnation)
            ballot = Ballot.of(now_us() + age, 1, incarnation)
            metadata = b"" if tombstone else offer.entry.metadata
            return replace(
                offer, entry=offer.entry._replace(ballot=ballot, tombstone=tombstone, metadata=metadata)
            )

        oldest, acknowledged, coming = (
            changed(1, not is_there),
            changed(2, is_there),
            changed(1_000_000, not is_there),
        )
        await differ_beyond_the_page(world, incarnation)
        await first.store.upsert_rows([oldest])
        for device in others:
            await device.store.upsert_rows([acknowledged])
        list_rows, span_digest, asked = first.store.list_rows, first.store.span_digest, Counter[str]()

        def read(*arguments: Any) -> Page:
            asked["page"] += 1
            if asked["page"] == 2 and asked["digest"]:
                asked["came"] += 1
                first.store.upsert_rows([coming])
            return list_rows(*arguments)

        def digest(*arguments: Any) -> Any:
            asked["digest"] += 1
            if asked["digest"] == 1 and asked["page"] == 1:
                first.store.upsert_rows([acknowledged])
            return span_digest(*arguments)

        first.store.list_rows, first.store.span_digest = read, digest  # type: ignore[assignment,method-assign]
        shown = await shown_by(store, query)
        if not asked["came"]:
            return
        await world.cluster.network.crash(first.name, silent=True)
        seen.append((shown, await shown_by(store, query)))

    seen: list[tuple[list[bytes], list[bytes]]] = []
    for seed in range(12):
        play(scenario, seed=seed)
    assert seen, "some of them are proved by their span"
    assert all(shown == later for shown, later in seen)


def test_what_few_hold_of_a_container_whose_delete_came_to_nothing_is_shown_by_every_later_page_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        await asyncio.sleep(1)
        container = await store.containers.read(CONTAINER, deadline=soon())
        network, (first, second, _third) = world.cluster.network, world.cluster.devices
        await second.store.upsert_rows([unacknowledged(b"b", container.incarnation)])
        for device in world.cluster.devices:
            # Of a proxy that has died before it found the container to have rows.
            register = StoredKey(CONTAINERS, CONTAINER.path)
            await device.store.prepare(register, Ballot.of(now_us(), 1), closing=True)
        await network.crash(first.name, silent=True)
        assert world.debts() == 0
        assert await names(store) == [b"a", b"b"]
        assert world.debts() == 2, "what was carried through may owe its row to the account still"
        network.restart(first.name)
        await network.crash(second.name, silent=True)
        await asyncio.sleep(1)
        assert await names(store) == [b"a", b"b"]

    for seed in range(5):
        play(scenario, seed=seed)


@pytest.mark.parametrize("owners", [(0, 3, 4), (0, 1, 3)], ids=["two-move", "one-moves"])
def test_what_a_page_has_shown_while_its_listing_moved_is_shown_by_the_new_owners_too(
    owners: tuple[int, ...],
) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        cluster = world.cluster
        moving = next_ring(cluster.ring, ring_fields(owners, 5, moving={0: (0, 1, 2)}))
        await cluster.adopt(moving, 0.1)
        await put(store, b"a")
        await asyncio.sleep(1)
        container = await store.containers.read(CONTAINER, deadline=soon(), max_age_s=0)
        # As of a write that nobody was told of: its row has come to two old owners, when the new ones had caught up.
        offer = unacknowledged(b"b", container.incarnation)
        for number in (1, 2):
            await cluster.devices[number].store.upsert_rows([offer])
        assert await names(store) == [b"a", b"b"]
        for number in owners:
            for table in cluster.layout.part_powers:
                await stand(cluster.devices[number].store, table, 0, Standing(votes=True))
        await cluster.adopt(next_ring(moving, ring_fields(owners, 5)), 0.1)
        for _ in range(3):
            assert await names(store) == [b"a", b"b"]

    for seed in range(5):
        play(scenario, seed=seed, others=2)


def test_while_a_partition_moves_rows_need_a_majority_of_the_new_owners_too_and_old_ones_are_listed() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"one")
        cluster = world.cluster
        # Two of the owners to come know nothing yet, and do not vote.
        moving = next_ring(cluster.ring, ring_fields((2, 3, 4), 5, moving={0: (0, 1, 2)}))
        await cluster.adopt(moving, 0.1)
        await put(store, b"b", b"two")
        assert await names(store) == [b"a", b"b"]
        assert await get(store, b"a") == b"one"
        listing = Listing(StoredKey(CONTAINERS, CONTAINER.path), await incarnation_of(store))
        await asyncio.sleep(1)
        assert [device.store.row(listing, b"b") is not None for device in cluster.devices] == [True] * 5
        await create(store, ContainerName(b"acc", b"new"))
        assert (await counted(store))[0] == 2
        for name in ("device-3", "device-4"):
            await cluster.network.crash(name)
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await put(store, b"c")

    async def incarnation_of(store: Store) -> Timestamp:
        return (await store.containers.read(CONTAINER, deadline=soon())).incarnation

    play(scenario, others=2)


def test_markers_and_prefixes_longer_than_any_name_are_answered_like_others() -> None:
    longest, beyond = b"m" * 1024, b"m" * 3000
    stored = [b"a", b"m", longest, b"z"]

    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        for name in stored:
            await put(store, name)
        assert await names(store, query=Query(marker=beyond)) == [b"z"]
        assert await names(store, query=Query(end_marker=beyond)) == [b"a", b"m", longest]
        assert await names(store, query=Query(marker=beyond, reverse=True)) == [longest, b"m", b"a"]
        assert await names(store, query=Query(end_marker=beyond, reverse=True)) == [b"z"]
        assert await names(store, query=Query(prefix=beyond)) == []
        assert await names(store, query=Query(delimiter=beyond)) == stored

    play(scenario)


def test_hidden_names_are_listed_only_to_whoever_asks_for_them() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        for name in (b"\0upload\0part", b"a"):
            await put(store, name)
        assert await names(store) == [b"a"]
        assert await names(store, Query(reverse=True)) == [b"a"]
        assert await names(store, Query(prefix=b"\0upload")) == [b"\0upload\0part"]
        assert await get(store, b"\0upload\0part") == b"body"

    play(scenario)


def test_pages_follow_one_another_and_roll_names_up() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        everything = [b"a/%d" % number for number in range(4)] + [b"b", b"c/1", b"c/2", b"d"]
        await asyncio.gather(*(put(store, name) for name in everything))
        for limit in (1, 2, 3, 100):
            for reverse in (False, True):
                found: list[bytes] = []
                marker = b""
                while True:
                    query = Query(marker=marker, limit=limit, delimiter=b"/", reverse=reverse)
                    page = await store.containers.list(CONTAINER, query, deadline=soon())
                    found += [
                        item.name if isinstance(item, ListedObject) else item.prefix for item in page.items
                    ]
                    assert len(page.items) <= limit
                    if page.more is None:
                        break
                    marker = page.more
                expected = [b"a/", b"b", b"c/", b"d"]
                assert found == (expected[::-1] if reverse else expected)

    play(scenario)


# --- large bodies -----------------------------------------------------------------------------------------------

LARGE = bytes(range(256)) * 4096 * 3
"""Three frames."""


@pytest.mark.parametrize("is_size_known", [True, False])
@pytest.mark.parametrize("policy", [0, 1])
def test_a_large_body_is_streamed_in_and_out(is_size_known: bool, policy: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store, policy=policy)
        etag = await put(store, b"a", LARGE, pieces=50, is_size_known=is_size_known)
        assert etag == md5(LARGE).hexdigest()
        info, body = await store.objects.read(named(b"a"), deadline=soon())
        assert (info.size, body.whole) == (len(LARGE), None)
        assert await get(store, b"a") == LARGE
        assert await names(store) == [b"a"]
        await asyncio.sleep(1)
        assert await counted(store) == (1, 1, len(LARGE))
        assert world.debts() == 0

        def describe(source: ObjectInfo, received: Received) -> Description:
            return Description({**source.attributes, "etag": received.md5})

        await store.objects.copy(named(b"a"), named(b"b"), describe, deadline=soon())
        assert await get(store, b"b") == LARGE

    play(scenario)


def test_a_body_of_unknown_size_that_turns_out_small_is_stored_at_once() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"one two three", pieces=3, is_size_known=False)
        assert await get(store, b"a") == b"one two three"

    play(scenario)


class Spoiled(Sent):
    """A body that its client promised to be another."""

    def finish(self, received: Received) -> Description:
        """Refuse it."""
        raise ValueError("not what was promised")


@pytest.mark.parametrize("size", [10, len(LARGE)])
def test_a_body_that_is_not_what_was_promised_leaves_nothing(size: int) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a", b"before")
        with pytest.raises(ValueError, match="promised"):
            await store.objects.put(named(b"a"), Spoiled(LARGE[:size], pieces=9), deadline=soon())
        assert await get(store, b"a") == b"before"

    play(scenario)


def test_a_large_body_arrives_while_its_container_is_made_anew_and_leaves_nothing() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        other = await world.proxy("other")
        await create(store)
        putting = asyncio.ensure_future(put(other, b"a", LARGE, pieces=20, pause_s=0.5))
        await asyncio.sleep(3)
        await store.containers.delete(CONTAINER, deadline=soon())
        await create(store)
        with pytest.raises(NoSuchContainer):
            await putting
        assert await names(store) == []
        with pytest.raises(NoSuchObject):
            await get(store, b"a")

    play(scenario)


def test_a_condition_holds_for_a_large_body_too() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)

        async def put_if_absent() -> None:
            upload = Sent(LARGE, pieces=9)
            await store.objects.put(
                named(b"a"), upload, deadline=soon(), condition=lambda current: current is None
            )

        await put_if_absent()
        with pytest.raises(ConditionFailed):
            await put_if_absent()
        assert await get(store, b"a") == LARGE

    play(scenario)


def test_a_listing_that_moves_is_not_read_where_most_of_its_new_owners_know_of_a_newer_ring() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        bucket, cluster = await store.containers.read(CONTAINER, deadline=soon(), max_age_s=0), world.cluster
        moving = next_ring(cluster.ring, ring_fields((0, 3, 4), 5, moving={0: (0, 1, 2)}))
        for shelf in cluster.shelves:
            shelf.current = moving
        page = await store.listings.page_of_container(bucket, Query(), deadline=soon())
        assert [row.name for row in page.rows] == [b"a"]
        for newcomer in (3, 4):
            cluster.devices[newcomer].shelf.current = next_ring(moving, ring_fields((0, 3, 4), 5))
        with pytest.raises(Unavailable):
            await store.listings.page_of_container(bucket, Query(), deadline=soon())

    play(scenario, others=2)


def test_an_object_whose_rights_or_tags_change_was_not_modified() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        await put(store, b"a")
        before, _ = await store.objects.read(named(b"a"), deadline=soon())
        await asyncio.sleep(5)

        async def describe(*, is_modified: bool) -> int:
            await store.objects.describe(
                named(b"a"),
                lambda old: Description({**old.attributes, "sys:tags": "a"}, is_modified=is_modified),
                deadline=soon(),
            )
            after, _ = await store.objects.read(named(b"a"), deadline=soon())
            page = await store.containers.list(CONTAINER, Query(), deadline=soon())
            (row,) = page.items
            assert isinstance(row, ListedObject)
            assert (row.modified_us, after.attributes["sys:tags"]) == (after.modified_us, "a")
            return after.modified_us

        assert await describe(is_modified=False) == before.modified_us
        assert await describe(is_modified=True) > before.modified_us

    play(scenario)
