"""How an owner that does not vote comes to vote, and rings that change under load, in virtual time."""

import asyncio
from random import Random
from uuid import UUID

import pytest

from proxy.store.errors import OutcomeUnknown, Unavailable
from storage_node.errors import StorageError
from storage_node.sharing import shares_of
from storage_node.store import Offered
from swiftlike.node_calls import Standing, Trusted
from swiftlike.timestamps import Offer
from tests.engine.conftest import stand
from tests.simulation.healing_cluster import (
    CONTAINER,
    HealingCluster,
    ballot,
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
from tests.simulation.store_cluster import TABLES, create, get, names
from tests.simulation.store_cluster import put as store_put


def test_a_disk_that_was_replaced_takes_everything_and_votes_again() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, 2)
        await world.replace_disks(2)
        assert not world.devices[2].votes()
        await world.walk(2)
        assert world.devices[2].votes()
        assert world.agree(0, 1, 2)
        register = world.devices[2].store.read(key("o5"))
        assert register is not None
        assert register.register.since_us is None, "of what it took, its memory starts there"

    play_healing(scenario)


def test_nobody_catches_up_from_fewer_voters_than_a_majority_of_the_others() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1)
        await hold(world.devices[1], "only at the second", put(900))
        await stand(world.devices[2].store, b"o\0", 0, Standing())
        await stand(world.devices[1].store, b"o\0", 0, Standing())
        await world.walk(2)
        assert not world.devices[2].votes(), "one voter of two others is too few"
        assert held(world.devices[2], "o5")[0] == put(5), "what it takes meanwhile is taken"
        await stand(world.devices[1].store, b"o\0", 0, Standing(votes=True))
        async with down(world, 1):
            await world.walk(2)
            assert not world.devices[2].votes()
        await world.walk(2)
        assert world.devices[2].votes()
        assert held(world.devices[2], "only at the second")[0] == put(900)

    play_healing(scenario)


def test_promises_are_settled_debts_handed_over_and_floors_taken_before_the_vote() -> None:
    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        for device in (first, second):
            await hold(device, "promised", put(10))
            await hold(device, "owing", put(20), owing=True)
            seen = device.store.standing(b"o\0", 0)
            await device.store.set_standing(b"o\0", 0, seen._replace(floor_us=7), seen=seen)
        await first.store.prepare(key("promised"), ballot(5_000))
        await hold(third, "owing", put(20))
        await stand(third.store, b"o\0", 0, Standing())
        await world.walk(2)
        assert third.store.standing(b"o\0", 0) == Standing(votes=True, floor_us=7)
        entry, _ = held(third, "promised")
        assert entry is not None
        assert entry.ballot > ballot(5_000), "carried through above the promise"
        assert [each.owes for each in third.store.versions_of(b"o\0", [key("owing").path])] == [True]

    play_healing(scenario)


def test_what_all_voters_have_forgotten_is_forgotten_and_nothing_else() -> None:
    floor_us = ballot(100).micros

    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        await fill(world, 0, 1, objects=50)
        await fill(world, 2, objects=50)
        await hold(third, "forgotten", delete(60))
        await hold(third, "young", put(500))
        await hold_rows(third, {b"forgotten": row(60, tombstone=True), b"young": row(500)})
        for table in (b"o\0", b"c\0"):
            for device in (first, second):
                await stand(device.store, table, 0, Standing(votes=True, floor_us=floor_us))
            await stand(third.store, table, 0, Standing())
        await world.walk(2)
        assert third.votes()
        assert held(third, "forgotten")[0] is None
        assert held(third, "young")[0] == put(500)
        assert first.replicator is not None
        await first.replicator.heed_hints()
        await second.replicator.heed_hints()  # type: ignore[union-attr]
        await world.walk(0, 1, 2)
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_what_is_forgotten_is_forgotten_under_a_promise_too_and_the_promise_stays() -> None:
    floor_us = ballot(100).micros

    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        await hold(third, "deleted", put(60))
        await third.store.prepare(key("deleted"), ballot(500))
        for device in (first, second):
            await stand(device.store, b"o\0", 0, Standing(votes=True, floor_us=floor_us))
        await stand(third.store, b"o\0", 0, Standing())
        await world.walk(2)
        assert third.votes()
        found = third.store.read(key("deleted"))
        assert found is not None
        assert (found.register.entry, found.register.promised) == (None, ballot(500))
        assert found.register.since_us is None, "what it has lost it cannot tell"
        await hold(third, "deleted", put(400))
        assert held(third, "deleted")[0] is None, "the promise binds"
        await world.walk(0, 1, 2)
        assert world.agree(0, 1, 2), "and the others were not brought what all had forgotten"
        assert held(first, "deleted")[0] is None

    play_healing(scenario)


def test_what_lies_below_the_floor_comes_only_from_a_voter_to_who_does_not_vote() -> None:
    floor_us = ballot(100).micros

    async def scenario(world: HealingCluster) -> None:
        first, second, third = world.devices
        await fill(world, 0, 1, objects=50)
        for device in (first, second):
            await stand(device.store, b"o\0", 0, Standing(votes=True, floor_us=floor_us))
        await stand(third.store, b"o\0", 0, Standing(floor_us=floor_us))
        await world.walk(2)
        assert third.votes()
        assert held(third, "o5")[0] == put(5), "it is below the floor, and voters hold it"
        await hold(third, "late", put(60))
        assert held(third, "late")[0] is None, "a voter takes nothing old that it lacks"

    play_healing(scenario)


# --- an operator's word -------------------------------------------------------------------------------------------


async def replace_two(world: HealingCluster) -> None:
    """Lose two of three owners for good: empty disks take their places, and only the first owner remembers anything."""
    await world.replace_disks(1, 2)


async def trust(world: HealingCluster, number: int) -> list[Trusted]:
    """Have a device vote on an operator's word, as the tool does."""
    replicator = world.devices[number].replicator
    assert replicator is not None
    return [await replicator.trust(table, 0) for table in TABLES]


def test_two_new_disks_of_three_both_told_to_vote_too_early_lose_nothing_that_the_third_holds() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        await create(store)
        for at in range(20):
            await store_put(store, b"o%02d" % at)
        await replace_two(world)
        await world.walk(1, 2)
        assert not world.devices[1].votes()
        assert not world.devices[2].votes(), "nobody votes by itself: a majority is gone"
        await trust(world, 1)
        await trust(world, 2)
        assert world.devices[1].votes()
        assert world.devices[2].votes()
        async with down(world, 0):
            assert await get(store, b"o07") == b"body", (
                "the two new ones do not outvote what the old one held"
            )
            assert len(await names(store)) == 20
        await world.walk(0, 1, 2)
        assert world.agree(0, 1, 2)

    play_healing(scenario)


def test_one_that_is_told_to_vote_is_enough_for_the_other_to_catch_up_by_itself() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, 2, objects=50)
        await replace_two(world)
        assert await trust(world, 1) == [Trusted(voters=1, silent=0)] * len(TABLES)
        await world.walk(2)
        assert world.devices[2].votes()
        assert world.agree(0, 1, 2)
        assert await trust(world, 1) == [Trusted(voters=2, silent=0)] * len(TABLES), "it votes already"

    play_healing(scenario)


def test_who_votes_on_an_operators_word_has_the_promises_debts_and_floors_of_who_is_left() -> None:
    async def scenario(world: HealingCluster) -> None:
        first = world.devices[0]
        await fill(world, 0, objects=5)
        await hold(first, "promised", put(10))
        await hold(first, "owing", put(20), owing=True)
        await first.store.prepare(key("promised"), ballot(5_000))
        await first.store.prepare(key("nothing yet"), ballot(6_000))
        await first.store.prepare(CONTAINER, ballot(7_000), closing=True)
        await stand(first.store, b"o\0", 0, Standing(votes=True, floor_us=7, refusing_us=9))
        await replace_two(world)
        await trust(world, 1)
        new = world.devices[1].store
        assert new.standing(b"o\0", 0) == Standing(votes=True, floor_us=7, refusing_us=9)
        for at, promised, closing in (
            (key("promised"), ballot(5_000), False),
            (key("nothing yet"), ballot(6_000), False),
            (CONTAINER, ballot(7_000), True),
        ):
            held = new.read(at)
            assert held is not None
            assert (held.register.promised, held.register.closing) == (promised, closing)
        refused = await new.offer(Offered(key("promised"), put(4_000), Offer.PASSING, b"body"))
        assert not refused.accepted, "it refuses what the other one does"
        assert [each.owes for each in new.versions_of(b"o\0", [key("owing").path])] == [True]

    play_healing(scenario)


def test_who_is_left_and_does_not_hand_over_everything_is_not_outvoted() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, 2, objects=5)
        await replace_two(world)
        new = world.devices[1]
        assert new.pause is not None
        await new.pause.set(world.cluster.read_us()() + 3_600_000_000)
        with pytest.raises(StorageError, match="did not hand over everything"):
            await trust(world, 1)
        assert not new.store.standing(TABLES[-1], 0).votes
        await new.pause.set(0)
        await trust(world, 1)
        assert held(new, "o3") == (put(3), True)

    play_healing(scenario)


def test_who_is_left_and_has_an_older_ring_is_not_taken_for_one_that_is_lost() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, 2, objects=5)
        older = world.cluster.ring
        await replace_two(world)
        newer, world.devices[0].shelf.current = world.cluster.ring, older
        with pytest.raises(StorageError, match="is there and does not say whether it votes"):
            await trust(world, 1)
        assert not world.devices[1].store.standing(b"o\0", 0).votes
        world.devices[0].shelf.current = newer
        await trust(world, 1)
        assert held(world.devices[1], "o3") == (put(3), True)

    play_healing(scenario)


def test_where_nobody_is_left_who_votes_the_word_is_taken_for_what_all_who_answer_hold() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 1, objects=5)
        for device in world.devices:
            for table in TABLES:
                await stand(device.store, table, 0, Standing())
        async with down(world, 0):
            assert await trust(world, 2) == [Trusted(voters=0, silent=1)] * len(TABLES)
        assert held(world.devices[2], "o3") == (put(3), True)
        assert world.devices[2].votes()

    play_healing(scenario)


# --- moves --------------------------------------------------------------------------------------------------------


def test_a_joining_owner_catches_up_and_says_so_and_the_one_that_left_gives_back() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        await create(store)
        for at in range(20):
            await store_put(store, b"o%02d" % at)
        await world.adopt((0, 1, 3), before=(0, 1, 2))
        joining = world.devices[3]
        assert joining.replicator is not None
        before = joining.replicator.caught_up(b"o\0")
        assert (before.owned, before.moving) == (1, 1)
        await world.wait(joining.votes, 20)
        found = joining.replicator.caught_up(b"o\0")
        assert (found.epoch, found.votes, found.moved, found.waiting) == (2, 1, 1, ())
        await world.adopt((0, 1, 3))
        await world.wait(lambda: not world.devices[2].store.held_partitions(b"o\0", ()), 60)
        await world.wait(lambda: world.agree(0, 1, 3), 60)
        assert not world.devices[2].store.standing(b"o\0", 0).votes
        async with down(world, 0):
            assert len(await names(store)) == 20
            assert await get(store, b"o07") == b"body"

    play_healing(scenario, others=1, by_itself=True)


def test_an_owner_that_comes_back_after_others_owned_its_partition_is_new() -> None:
    async def scenario(world: HealingCluster) -> None:
        store = await world.proxy()
        await create(store)
        async with down(world, 2):
            await world.adopt((0, 1, 3), before=(0, 1, 2))
            await world.wait(world.devices[3].votes, 30)
            await world.adopt((0, 1, 3))
            await store_put(store, b"o", b"meanwhile")
            await world.adopt((1, 2, 3), before=(0, 1, 3))
        # Whatever it stood as, it votes only once it has caught up.
        await world.wait(lambda: held(world.devices[2], "o")[0] is not None or world.devices[2].votes(), 30)
        await world.wait(world.devices[2].votes, 30)
        await world.adopt((1, 2, 3))
        async with down(world, 1):
            assert await get(store, b"o") == b"meanwhile"

    play_healing(scenario, others=1, by_itself=True)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("undo", [False, True], ids=["settled", "undone in the middle"])
def test_reads_and_writes_never_miss_while_a_ring_changes_under_load(seed: int, undo: bool) -> None:
    async def scenario(world: HealingCluster) -> None:
        random = Random(seed)
        store, other = await world.proxy(), await world.proxy("other", 0.02)
        await create(store)
        stored: dict[bytes, bytes] = {}
        failed: list[str] = []
        stop = asyncio.Event()

        async def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                name = b"o%02d" % random.randrange(20)
                body = b"%d" % number
                try:
                    await store_put(store, name, body)
                    stored[name] = body
                except Unavailable:
                    continue
                except OutcomeUnknown:
                    stored.pop(name, None)
                await asyncio.sleep(random.expovariate(1 / 0.05))

        async def read() -> None:
            while not stop.is_set():
                await asyncio.sleep(random.expovariate(1 / 0.05))
                if not stored:
                    continue
                name, body = random.choice(list(stored.items()))
                try:
                    found = await get(other, name)
                except Unavailable:
                    continue  # devices were under different epochs for longer than a reader tries; it asks again
                # It may have been replaced meanwhile, but never by anything older.
                if int(found) < int(body):
                    failed.append(f"{name!r}: {found!r} after {body!r}")

        async with asyncio.TaskGroup() as load:
            load.create_task(write())
            load.create_task(read())
            await asyncio.sleep(1)
            await world.adopt((0, 3, 4), before=(0, 1, 2), within_s=1)
            if undo:
                await asyncio.sleep(random.random())
                await world.adopt((0, 1, 2), within_s=1)
                owners = (0, 1, 2)
            else:
                await world.wait(lambda: all(world.devices[number].votes() for number in (3, 4)), 60)
                await world.adopt((0, 3, 4), within_s=1)
                owners = (0, 3, 4)
            await asyncio.sleep(2)
            # An owner that left is gone for good.
            gone = next(number for number in range(5) if number not in owners)
            await world.cluster.network.crash(world.devices[gone].name)
            await asyncio.sleep(2)
            stop.set()
        assert not failed
        await world.wait(lambda: world.agree(*owners), 120)
        for name, body in stored.items():
            assert await get(other, name) == body
        assert set(await names(store)) >= set(stored)

    play_healing(scenario, others=2, seed=seed, by_itself=True)


def test_what_a_share_of_a_ring_is() -> None:
    async def scenario(world: HealingCluster) -> None:
        await world.adopt((0, 1, 3), before=(0, 1, 2))
        ring = world.cluster.ring
        joining, leaving, staying = (shares_of(ring, world.devices[number].uuid) for number in (3, 2, 0))
        assert joining.newcoming == joining.moving == {0}
        assert not joining.staying
        assert leaving.staying == {0}
        assert not leaving.newcoming | leaving.moving
        assert set(staying.peers) == {1, 2, 3}
        assert not shares_of(ring, UUID(int=77)).owned

    play_healing(scenario, others=1)


def test_an_offer_of_another_epoch_is_no_part_of_a_catch_up() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, objects=30)
        await stand(world.devices[2].store, b"o\0", 0, Standing())
        older = world.cluster.ring
        await world.adopt((0, 1, 2))
        world.devices[2].shelf.current = older
        await world.walk(2)
        assert not world.devices[2].votes()

    play_healing(scenario)


def test_what_the_owners_have_forgotten_goes_from_who_is_none_of_them_and_nothing_younger() -> None:
    floor_us = ballot(100).micros

    async def scenario(world: HealingCluster) -> None:
        stranger = world.devices[3]
        await hold(stranger, "forgotten", put(60), owing=True)
        await hold(stranger, "young", put(500))
        await hold_rows(stranger, {b"forgotten": row(60)})

        async def lift_floors(*numbers: int) -> None:
            for table in (b"o\0", b"c\0"):
                for number in numbers:
                    votes = Standing(votes=True, floor_us=floor_us)
                    await stand(world.devices[number].store, table, 0, votes)

        await lift_floors(0, 1)
        await world.walk(3)
        assert held(stranger, "forgotten")[0] is not None, "one owner might yet take it"
        await lift_floors(2)
        async with down(world, 1):
            await world.walk(3)
            assert held(stranger, "forgotten")[0] is not None, "one owner is not heard, and might hold it"
        await world.walk(3)
        assert held(stranger, "forgotten")[0] is None
        assert stranger.store.partition_digest(b"r\0", 0).entries == 0
        for device in world.devices[:3]:
            assert device.replicator is not None
            await device.replicator.heed_hints()
        assert held(world.devices[0], "young") == (put(500), True)
        assert held(world.devices[0], "forgotten")[0] is None

    play_healing(scenario, others=1)


def test_who_is_asked_how_far_it_is_before_it_looked_at_a_ring_tells_of_no_vote_that_the_ring_takes() -> None:
    async def scenario(world: HealingCluster) -> None:
        await fill(world, 0, 1, 2, objects=20)
        away = world.devices[2]
        assert away.replicator is not None
        await world.walk(2)
        assert away.replicator.caught_up(b"o\0").votes == 1
        # It misses the two epochs in which others own the partition, and what they take then.
        for owners, before in (((0, 1, 3), (0, 1, 2)), ((0, 1, 3), ()), ((0, 1, 2), (0, 1, 3))):
            await world.adopt(owners, before)
        for device in world.devices[:2]:
            await hold(device, "meanwhile", put(900))
        told = away.replicator.caught_up(b"o\0")
        assert (told.owned, told.votes, told.moving, told.moved) == (1, 0, 1, 0)
        async with down(world, 0), down(world, 1):
            await world.walk(2)
            assert not away.votes(), "it kept its votes, and has missed what others took"
        await world.walk(2)
        assert held(away, "meanwhile") == (put(900), True)
        assert away.votes()
        told = away.replicator.caught_up(b"o\0")
        assert (told.votes, told.moved) == (1, 1)

    play_healing(scenario, others=1)
