"""What devices do so that all owners hold the same, in virtual time: what is compared, taken, told and left."""

import asyncio
from random import Random
from typing import Any

import pytest

from storage_node.replicator import Replicator
from storage_node.store import Offered
from storage_node.taking import Rates, Taker
from swiftlike.limits import RPC_BODY_BYTES_MAX
from swiftlike.node_calls import CONTAINERS, Method, Standing
from swiftlike.timestamps import Ballot, Offer
from tests.engine.conftest import stand
from tests.simulation.healing_cluster import (
    CONTAINER,
    HealingCluster,
    ballot,
    container,
    delete,
    down,
    fill,
    held,
    hold,
    hold_rows,
    key,
    play_healing,
    put,
    row,
)
from tests.simulation.quorum_cluster import STARTED_US
from tests.simulation.store_cluster import create, get, names
from tests.simulation.store_cluster import put as store_put


def test_devices_that_agree_compare_everything_in_one_message_each() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, 2, objects=50, rows=200)
        for device in world.devices:
            device.counts.clear()
        await world.walk(0)
        assert [dict(device.counts) for device in world.devices] == [
            {},
            {(Method.COMPARE, "ok"): 1},
            {(Method.COMPARE, "ok"): 1},
        ]

    play_healing(scenario)


def test_what_a_device_missed_it_takes_with_bodies_and_debts_and_nothing_else() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, _ = world.devices
        await fill(world, 0, 1, 2, objects=300, rows=0)
        for device in (first, world.devices[2]):
            await hold(device, "o7", delete(1007))
            await hold(device, "new", put(1000, b"fresh"), b"fresh", owing=True)
        await world.walk(1)
        assert world.agree(0, 1, 2)
        assert held(second, "new") == (put(1000, b"fresh"), True)
        assert held(second, "o7")[0] == delete(1007)
        assert second.replicator is not None
        assert second.replicator.taker.counts["taken"] == 2
        assert [each.owes for each in second.store.versions_of(b"o\0", [key("new").path])] == [True]

    play_healing(scenario)


def test_of_two_that_differ_the_one_that_holds_less_compares_and_the_other_only_says_so() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        for device in (first, third):
            await hold(device, "o1", put(1))
            await hold(device, "o2", put(2))
            await hold_rows(device, {b"1": row(1), b"2": row(2)})
        await hold(second, "o1", put(9))
        await hold_rows(second, {b"1": row(9)})
        second.counts.clear()
        assert first.replicator is not None
        await first.replicator.walk()
        assert {method for method, _ in second.counts} == {
            Method.COMPARE,
            Method.PARTITION_DIGEST,
            Method.LISTINGS,
            Method.HINT,
        }, "no version, no row and no copy was asked for"
        assert second.replicator is not None
        await second.replicator.heed_hints()
        await first.replicator.heed_hints()
        assert held(first, "o1")[0] == put(9), "and what is newer there has come, too"
        await world.walk(2)
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_who_holds_more_compares_where_the_other_one_is_paused() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        for device in (first, third):
            await hold(device, "o1", put(1))
            await hold(device, "o2", put(2))
        await hold(second, "o1", put(9))
        assert second.pause is not None
        await second.pause.set(world.cluster.read_us()() + 86_400_000_000)
        await world.walk(0)
        assert held(first, "o1")[0] == put(9)

    play_healing(scenario)


def test_a_device_that_holds_more_tells_the_other_to_come_and_take() -> None:
    async def scenario(world: HealingCluster) -> None:
        await hold(world.devices[0], "a", put(1))
        await hold(world.devices[1], "b", put(2))
        await world.walk(0)
        assert held(world.devices[0], "b") == (put(2), True)
        assert world.devices[1].replicator is not None
        await world.devices[1].replicator.heed_hints()
        assert held(world.devices[1], "a") == (put(1), True)
        await world.devices[2].replicator.heed_hints()  # type: ignore[union-attr]
        assert held(world.devices[2], "a") == (put(1), True)

    play_healing(scenario)


def test_a_large_body_is_streamed_and_a_body_that_is_here_is_not_sent() -> None:
    large = bytes(range(256)) * 8192
    assert len(large) > RPC_BODY_BYTES_MAX

    async def scenario(world: HealingCluster) -> None:
        first, second, _ = world.devices
        await hold(first, "large", put(1, large), large)
        kept = put(2, b"kept")
        await hold(second, "kept", kept, b"kept")
        described = kept._replace(ballot=ballot(50), write_id=put(50).write_id)
        await hold(first, "kept", kept, b"kept")
        await first.store.offer(Offered(key("kept"), described, Offer.COPY))
        await world.walk(1)
        assert held(second, "large") == (put(1, large), True)
        assert held(second, "kept") == (described, True)
        opened = await second.store.open_object(key("large"))
        assert opened is not None
        assert bytes(await opened[1].read(0, len(large))) == large

    play_healing(scenario)


def test_no_body_is_let_go_of_for_an_entry_whose_body_does_not_come() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        await hold(second, "o", put(1))
        await hold(first, "o", put(1))
        await hold(first, "o", put(9, b"lost!"), None)
        await world.walk(1)
        assert held(second, "o") == (put(1), True), "the newer one may be lost for ever, and unchosen"
        await hold(third, "o", put(9, b"lost!"), b"lost!")
        await world.walk(1)
        assert held(second, "o") == (put(9, b"lost!"), True)

    play_healing(scenario)


@pytest.mark.parametrize("rows", [10, 9_000])
def test_rows_that_differ_are_taken_both_ways_and_only_those(rows: int) -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, _ = world.devices
        common = {b"%05d" % at: row(at) for at in range(rows)}
        await hold_rows(first, common)
        await hold_rows(second, common)
        await hold_rows(world.devices[2], common)
        gone = row(20_000, tombstone=True)
        await hold_rows(first, {b"00003": gone, b"zz": row(20_001)})
        await hold_rows(second, {b"00004x": row(20_002)})
        second.counts.clear()
        await world.walk(0)
        await second.replicator.heed_hints()  # type: ignore[union-attr]
        await world.devices[2].replicator.heed_hints()  # type: ignore[union-attr]
        assert world.agree(0, 1)
        assert second.replicator is not None
        assert second.replicator.taker.counts["rows"] == 2
        await world.walk(2)
        assert world.agree(0, 1, 2)
        asked = second.counts[Method.LIST_ROWS, "ok"]
        assert asked <= 4, "spans of a range are cut before rows are sent"

    play_healing(scenario)


def test_a_promise_in_the_way_of_a_copy_is_settled() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        for device in (first, third):
            await hold(device, "o", put(10))
        await second.store.prepare(key("o"), ballot(500))
        await world.walk(1)
        assert second.replicator is not None
        assert second.replicator.taker.counts["settled"] >= 1
        entry, whole = held(second, "o")
        assert entry is not None
        assert (entry.write_id, whole) == (put(10).write_id, True)
        assert entry.ballot > ballot(500)
        await world.walk(0, 1, 2)
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_a_tombstone_that_one_owner_could_not_forget_for_a_promise_is_the_same_at_all_again() -> None:
    async def scenario(world: HealingCluster) -> None:
        await hold(world.devices[2], "o", delete(10))
        await world.devices[2].store.prepare(key("o"), ballot(500))
        floor_us = STARTED_US + 100
        for device in world.devices:
            await stand(device.store, b"o\0", 0, Standing(True, floor_us, floor_us))
            await device.store.reclaim(b"o\0", 0, 10)
        assert held(world.devices[2], "o")[0] == delete(10)
        await world.walk(0, 1, 2)
        await world.walk(0, 1, 2)
        assert world.agree(0, 1, 2)
        assert held(world.devices[0], "o")[0] is not None

    play_healing(scenario)


def test_a_container_that_is_gone_here_takes_no_rows_and_is_gone_there_after_a_pass() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        for device in world.devices:
            await hold_rows(device, {b"a": row(1)})
        tombstone = container()._replace(
            ballot=Ballot.of(STARTED_US + 5, 1), write_id=put(5).write_id, tombstone=True
        )
        for device in (first, third):
            await device.store.offer(Offered(CONTAINER, tombstone, Offer.COPY))
        await hold_rows(second, {b"late": row(4)})
        await world.walk(0, 1)
        assert world.agree(0, 1, 2)
        assert first.store.partition_digest(b"r\0", 0).entries == 0

    play_healing(scenario)


def test_rows_of_a_container_that_was_deleted_since_go_from_a_device_that_is_no_owner() -> None:
    async def scenario(world: HealingCluster) -> None:
        *owners, stranger = world.devices
        await hold_rows(stranger, {b"a": row(1)})
        tombstone = container()._replace(
            ballot=Ballot.of(STARTED_US + 5, 1), write_id=put(5).write_id, tombstone=True
        )
        await owners[0].store.offer(Offered(CONTAINER, tombstone, Offer.COPY))
        await world.walk(3)
        assert stranger.store.partition_digest(b"r\0", 0).entries == 1, "one owner is not enough"
        await owners[1].store.offer(Offered(CONTAINER, tombstone, Offer.COPY))
        await world.walk(3)
        assert stranger.store.partition_digest(b"r\0", 0).entries == 0
        assert stranger.store.held_partitions(b"c\0", ()) == []

    play_healing(scenario, others=1)


def test_a_device_that_was_down_is_repaired_when_it_answers_again_without_a_read() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        await create(store)
        async with down(world, 2):
            for at in range(20):
                await store_put(store, b"o%d" % at)
        began = asyncio.get_running_loop().time()
        await world.wait(lambda: world.agree(0, 1, 2), 10)
        assert asyncio.get_running_loop().time() - began < 10, "not only at the next pass"
        assert len(await names(store)) == 20

    play_healing(scenario, by_itself=True)


def test_a_hint_that_waits_for_a_silent_device_is_followed_when_it_answers() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, _, third = world.devices
        assert first.replicator is not None
        async with down(world, 2):
            await hold(first, "o", put(1))
            first.replicator.hint(b"o\0", 0, 2)
            await first.replicator.heed_hints()
            assert held(third, "o")[0] is None
        await first.replicator.heed_hints()
        assert third.replicator is not None
        await third.replicator.heed_hints()
        assert held(third, "o") == (put(1), True)

    play_healing(scenario)


def test_writes_that_an_owner_missed_leave_one_hint_and_it_is_repaired_without_a_pass() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        world.registers["proxy"].hints.is_on = True
        await create(store)
        await asyncio.sleep(1)
        third = world.devices[2]
        world.cluster.network.cut(["proxy"], [third.name])
        for at in range(10):
            await store_put(store, b"o%d" % at)
        await asyncio.sleep(5)
        objects_missed = third.store.partition_digest(b"o\0", 0).entries
        world.cluster.network.mend()
        heard = [device.counts[Method.HINT, "ok"] for device in world.devices]
        assert objects_missed < 10
        assert 1 <= sum(heard) <= 4, "one for each partition of a table, not for each write"
        for device in (*world.devices, *world.devices):
            assert device.replicator is not None
            await device.replicator.heed_hints()
        assert third.store.partition_digest(b"o\0", 0).entries == 10

    play_healing(scenario)


def test_a_read_that_finds_an_owner_behind_leaves_a_hint_for_its_partition() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        await create(store)
        for at in range(5):
            await store_put(store, b"o%d" % at)
        await asyncio.sleep(1)
        first = world.devices[0]
        assert await first.store.drop(b"o\0", 0, 10) == 5
        world.registers["proxy"].hints.is_on = True
        for _ in range(4):  # a read asks two of three
            assert await get(store, b"o1") == b"body"
        await asyncio.sleep(1)
        assert sum(device.counts[Method.HINT, "ok"] for device in world.devices) == 1
        for device in (*world.devices, *world.devices):
            assert device.replicator is not None
            await device.replicator.heed_hints()
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_a_ring_that_changes_during_a_pass_is_seen_to_before_the_rest_of_that_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("storage_node.replicator.PARTITIONS_AT_ONCE", 1)

    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 2, objects=3)
        second = world.devices[1]
        replicator = second.replicator
        assert replicator is not None
        heal, healed = replicator._heal, list[tuple[bytes, int]]()

        async def heal_and_hear_of_a_ring(place: tuple[bytes, int], *rest: Any, **options: Any) -> None:
            await heal(place, *rest, **options)
            healed.append(place)
            replicator.look_at_rings()

        monkeypatch.setattr(replicator, "_heal", heal_and_hear_of_a_ring)
        await world.walk(1)
        assert (len(healed), replicator.last_pass_us) == (1, 0), "objects and a container differ"
        await world.walk(1)
        assert len(set(healed)) == 2
        await world.walk(1)
        assert replicator.last_pass_us > 0
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_what_is_hinted_at_does_not_wait_for_another_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 2, objects=3)
        replicator = world.devices[1].replicator
        assert replicator is not None
        heal, is_over = replicator._heal, asyncio.Event()

        async def heal_slowly(place: tuple[bytes, int], *rest: Any, **options: Any) -> None:
            if place[0] == b"o\0":
                await is_over.wait()
            await heal(place, *rest, **options)

        monkeypatch.setattr(replicator, "_heal", heal_slowly)
        for table in (b"o\0", CONTAINERS):
            replicator.hint(table, 0, None)
        heeding = asyncio.ensure_future(replicator.heed_hints())
        await asyncio.sleep(5)
        assert world.devices[1].store.read(CONTAINER) is not None
        is_over.set()
        await heeding
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_a_pass_that_does_not_find_all_well_is_soon_followed_by_another_and_ever_later_by_further_ones() -> (
    None
):
    async def scenario(world: HealingCluster) -> None:
        first, second, _ = world.devices
        made = second.replicator
        assert made is not None
        transport, settling = made._transport, made.taker._settling
        random = Random(7)
        replicator = Replicator(
            second.store, second.uuid, second.shelf, transport, settling, random, every_s=30.0, again_s=2.0
        )
        await replicator.walk()
        assert replicator._next_rest_s() == 30.0
        await hold(first, "o", put(1))
        rests = []
        async with down(world, 2):  # who is silent is not well, whatever else is healed
            for _ in range(6):
                await replicator.walk()
                rests.append(replicator._next_rest_s())
        assert rests == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        await replicator.walk()  # it answers again, and lacks the object
        assert replicator._next_rest_s() == 30.0
        await world.walk(2)
        await replicator.walk()
        assert replicator._next_rest_s() == 30.0
        await hold(first, "another", put(2))
        await replicator.walk()
        assert replicator._next_rest_s() == 2.0, "all was well between"

    play_healing(scenario)


def test_once_a_silent_device_answers_again_the_next_pass_tells_so_at_once() -> None:
    async def scenario(world: HealingCluster) -> None:
        first = world.devices[0]
        replicator = first.replicator
        assert replicator is not None
        async with down(world, 2):
            await replicator.walk()
            replicator._is_resting = True
            await replicator.heed_hints()
            assert not replicator._awake.is_set()
        await replicator.heed_hints()
        assert replicator._awake.is_set()

    play_healing(scenario)


def test_hints_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage_node.replicator.HINTS_MAX", 2)

    async def scenario(world: HealingCluster) -> None:
        replicator = world.devices[0].replicator
        assert replicator is not None
        for number in range(5):
            replicator.hint(b"o\0", number, 1)
        figures = {figure.name: figure.value for figure in replicator.figures()}
        assert (figures["hints_waiting"], figures["hints_dropped"]) == (2, 3)

    play_healing(scenario)


# --- handoffs -----------------------------------------------------------------------------------------------------


def test_what_stood_in_for_an_owner_goes_back_and_is_let_go_of() -> None:
    async def scenario(world: HealingCluster) -> None:
        handoff = world.devices[3]
        await hold(handoff, "o", put(1))
        await hold_rows(handoff, {b"a": row(1)})
        await world.walk(3)
        assert held(handoff, "o") == (put(1), True), "nobody else has it yet"
        for device in world.devices[:3]:
            assert device.replicator is not None
            await device.replicator.heed_hints()
        await world.walk(3)
        assert world.agree(0, 1, 2)
        assert held(world.devices[0], "o") == (put(1), True)
        assert handoff.store.held_partitions(b"o\0", ()) == []
        assert handoff.store.held_partitions(CONTAINERS, ()) == []

    play_healing(scenario, others=1)


def test_a_handoff_keeps_what_owners_lack_the_body_of_and_what_it_owes() -> None:
    async def scenario(world: HealingCluster) -> None:
        handoff = world.devices[3]
        await hold(handoff, "body", put(1))
        await hold(handoff, "debt", put(2), owing=True)
        for device in world.devices[:3]:
            await hold(device, "body", put(1), None)
            await hold(device, "debt", put(2))
        await world.walk(3)
        assert held(handoff, "body") == (put(1), True)
        assert held(handoff, "debt") == (put(2), True)
        for device in world.devices[:2]:
            assert device.replicator is not None
            await device.replicator.heed_hints()
            assert held(device, "body") == (put(1), True), "the handoff's body came back"
        await handoff.store.pay([(key("debt"), put(2).version)])
        await world.walk(3)
        assert held(handoff, "body")[0] is None
        assert held(handoff, "debt")[0] is None

    play_healing(scenario, others=1)


@pytest.mark.parametrize("size", [4, RPC_BODY_BYTES_MAX + 1])
def test_a_body_that_only_a_handoff_has_comes_to_owners_that_hold_its_write_under_a_later_ballot(
    size: int,
) -> None:
    body = b"b" * size

    async def scenario(world: HealingCluster) -> None:
        handoff, owners = world.devices[3], world.devices[:3]
        carried = put(1, body)._replace(ballot=ballot(9))
        await hold(handoff, "o", put(1, body), body)
        for device in owners:
            await hold(device, "o", carried, None)
        await world.walk(3)
        assert held(handoff, "o") == (put(1, body), True), "it is the only one"
        for device in owners:
            assert device.replicator is not None
            await device.replicator.heed_hints()
            assert held(device, "o") == (carried, True)
        await world.walk(3)
        assert held(handoff, "o")[0] is None

    play_healing(scenario, others=1)


def test_a_handoff_lets_go_of_what_all_owners_have_promised_never_to_take_and_of_nothing_less() -> None:
    async def scenario(world: HealingCluster) -> None:
        *owners, handoff = world.devices
        for name in ("all", "some"):
            await hold(handoff, name, put(10), owing=True)
        for device in owners:
            await device.store.prepare(key("all"), ballot(500))
        for device in owners[:2]:
            await device.store.prepare(key("some"), ballot(500))
        await world.walk(3)
        assert held(handoff, "all")[0] is None
        assert held(handoff, "some")[0] == put(10), "the third may take it, and have it chosen"

    play_healing(scenario, others=1)


def test_an_entry_that_was_never_chosen_and_its_debt_do_not_stay_with_a_device_that_is_no_owner() -> None:
    async def scenario(world: HealingCluster) -> None:
        await create(await world.proxy())
        handoff = world.devices[3]
        for device in world.devices[:3]:
            await device.store.prepare(
                key("o"), ballot(500)
            )  # by somebody who read then that nothing is there
        await hold(handoff, "o", put(600), owing=True)
        await world.wait(lambda: held(handoff, "o")[0] is None, 120)

    play_healing(scenario, others=1, by_itself=True)


def test_what_a_handoff_has_is_read_when_its_owners_come_back() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        await create(store)
        async with down(world, 0):
            await store_put(store, b"o", b"hello")
            await asyncio.sleep(1)
        await world.wait(lambda: world.agree(0, 1, 2), 60)
        await world.wait(
            lambda: all(not device.store.held_partitions(b"o\0", ()) for device in world.devices[3:]), 120
        )
        assert await get(store, b"o") == b"hello"

    play_healing(scenario, others=2, by_itself=True)


def test_a_device_takes_no_faster_than_it_was_told() -> None:
    async def scenario(world: HealingCluster) -> None:
        second = world.devices[1]
        await fill(world, 0, 2, objects=100, rows=0)
        replicator = second.replicator
        assert replicator is not None
        replicator.taker = Taker(second.store, second.shelf, None, rates=Rates(items_per_s=2.0))  # type: ignore[misc]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await world.walk(1)
        # The first page of each range goes at once; all behind it waits for its turn.
        assert loop.time() - began_s > 20
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_a_device_makes_way_while_calls_wait_at_the_one_that_it_takes_from() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second = world.devices[:2]
        await fill(world, 0, 2, objects=100, rows=0)
        assert first.replicator is not None
        assert second.replicator is not None
        first.replicator._read_lag_s = lambda: 1.0  # type: ignore[misc]
        taker = Taker(second.store, second.shelf, None, rates=Rates(items_per_s=80.0))
        second.replicator.taker = taker  # type: ignore[misc]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await world.walk(1)
        assert taker.pace.per_s < 80.0, "and yet it comes to its end"
        assert loop.time() - began_s > 100 / 80
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_partitions_are_caught_up_with_no_faster_than_as_so_many_entries() -> None:
    async def scenario(world: HealingCluster) -> None:
        second = world.devices[1]
        await fill(world, 0, 2, objects=3, rows=3)
        await world.replace_disks(1)
        assert second.replicator is not None
        rates = Rates(items_per_s=10.0, partition_items=100.0)
        second.replicator.taker = Taker(second.store, second.shelf, None, rates=rates)  # type: ignore[misc]
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await world.walk(1)
        assert loop.time() - began_s > 10, "that of objects, and that of the container with its rows"
        assert second.votes()
        assert world.agree(0, 1, 2)

    play_healing(scenario)
