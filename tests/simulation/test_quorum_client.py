"""What the quorum client does when one thing goes wrong at a time.

A second of virtual time is what the calls need that nobody waits for any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any

import pytest

from proxy.cluster.bodies import BodyUnavailable
from proxy.cluster.decisions import Judge, Outcome, is_present
from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from proxy.cluster.rounds import Patience
from ring.ring import Ring
from storage_node.errors import InsufficientStorage
from storage_node.keys import Due
from storage_node.keys import Key as StoredKey
from storage_node.store import Offered
from storage_node.tables import Held
from swiftlike.entries import Entry, pack_metadata
from swiftlike.limits import REMEMBERED_MAX, RpcLimits
from swiftlike.node_calls import Acceptance, Standing
from swiftlike.rpc.simulated import SimulatedNetwork, Weather
from swiftlike.rpc.virtual_time import run_in_virtual_time
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Offer, Timestamp
from tests.engine.conftest import stand
from tests.simulation.quorum_cluster import KEY, TABLE, Cluster, next_ring, ring_fields
from tests.simulation.shortcuts import Shortcut, taken

DEADLINE_S = 30.0
STORED = StoredKey(KEY.table, KEY.path)
NAMED = {"name": "value"}

Scenario = Callable[[Cluster, Registers], Awaitable[Any]]


def play(scenario: Scenario, owners: int = 3, others: int = 0) -> Any:
    """Run a scenario with one proxy."""

    async def main() -> Any:
        async with SimulatedNetwork(7, Weather()) as network, AsyncExitStack() as stack:
            cluster = Cluster(network, stack, owners, others)
            await cluster.start()
            return await scenario(
                cluster, await cluster.proxy("proxy", patience=Patience(round_s=2.0, hedge_s=0.5))
            )

    try:
        return run_in_virtual_time(main())
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def soon() -> float:
    return asyncio.get_running_loop().time() + DEADLINE_S


def object_of(registers: Registers, body: bytes) -> Entry:
    write_id = registers.new_write_id()
    return Entry(ZERO_BALLOT, write_id, 0, body_id=write_id, size=len(body))


def tombstone_of(registers: Registers) -> Entry:
    return Entry(ZERO_BALLOT, registers.new_write_id(), 0, tombstone=True)


async def put(registers: Registers, body: bytes, key: Key = KEY) -> Outcome:
    return (await registers.write(key, object_of(registers, body), body, deadline=soon())).outcome


async def read_body(registers: Registers) -> bytes | None:
    read = await registers.read(KEY, deadline=soon())
    assert read.is_known
    return None if read.body is None else bytes(read.body)


async def post(registers: Registers) -> Outcome:
    write_id = registers.new_write_id()

    def condition(newest: Entry | None, ballot: Ballot) -> Entry | None:
        if newest is None or not is_present(newest, ballot.micros):
            return None
        return newest._replace(write_id=write_id, metadata=pack_metadata(NAMED))

    return (await registers.write_if(KEY, condition, deadline=soon())).outcome


def versions(cluster: Cluster, *, whole: bool = True) -> list[int]:
    """The devices that hold the key, with its body."""
    held = [(at, device.store.read(STORED)) for at, device in enumerate(cluster.devices)]
    return [
        at for at, one in held if one is not None and one.register.entry and (one.location.held or not whole)
    ]


# --- writes -----------------------------------------------------------------------------------------------------


def test_what_was_written_is_read_and_what_was_deleted_is_not() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        assert await read_body(registers) is None
        assert await put(registers, b"one") is Outcome.DONE
        assert await read_body(registers) == b"one"
        await registers.write(KEY, tombstone_of(registers), deadline=soon())
        read = await registers.read(KEY, deadline=soon())
        assert read.is_known
        assert read.entry is not None
        assert read.entry.tombstone

    play(scenario)


def test_an_empty_body_is_a_body() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        assert await put(registers, b"") is Outcome.DONE
        assert await read_body(registers) == b""

    play(scenario)


def test_a_write_tells_whether_it_replaced_something_that_was_there() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> list[bool]:
        told = []
        for entry, body in (
            (tombstone_of(registers), None),
            (object_of(registers, b"one"), b"one"),
            (object_of(registers, b"two"), b"two"),
            (tombstone_of(registers), None),
            (tombstone_of(registers), None),
        ):
            written = await registers.write(KEY, entry, body, deadline=soon())
            assert written.outcome is Outcome.DONE
            told.append(written.replaced_live)
        return told

    assert play(scenario) == [False, False, True, True, False]


def test_a_write_is_done_when_one_of_three_owners_is_down() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-1", silent=True)
        assert await put(registers, b"one") is Outcome.DONE
        assert await read_body(registers) == b"one"

    play(scenario)


def test_a_write_with_a_majority_down_is_unknown_and_never_done() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-1", silent=True)
        await cluster.network.crash("device-2", silent=True)
        assert await put(registers, b"one") is Outcome.UNKNOWN
        assert not (await registers.read(KEY, deadline=soon())).is_known

    play(scenario)


def test_a_write_that_never_left_is_a_conflict_and_not_unknown() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        for device in cluster.devices:
            await cluster.network.crash(device.name)
        assert await put(registers, b"one") is Outcome.CONFLICT

    play(scenario)


def test_a_write_ends_by_its_deadline() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> float:
        loop = asyncio.get_running_loop()
        await cluster.network.crash("device-1", silent=True)
        await cluster.network.crash("device-2", silent=True)
        began = loop.time()
        await registers.write(KEY, object_of(registers, b"one"), b"one", deadline=began + 3.0)
        return loop.time() - began

    assert play(scenario) <= 3.0


def test_a_promise_of_a_dead_coordinator_delays_a_write_and_nothing_more() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        assert await put(registers, b"one") is Outcome.DONE
        for device in cluster.devices:
            await device.store.prepare(STORED, Ballot.of(cluster.read_us(5.0)(), 99))
        assert await read_body(registers) == b"one"
        assert await put(registers, b"two") is Outcome.DONE
        assert await read_body(registers) == b"two"

    play(scenario)


def test_a_write_passes_a_ballot_of_a_clock_that_is_four_minutes_ahead_and_none_that_is_further() -> None:
    async def outcome(cluster: Cluster, registers: Registers, ahead_s: float) -> Outcome:
        for device in cluster.devices:
            ballot = Ballot.of(cluster.read_us(ahead_s)(), 99)
            entry = Entry(ballot, registers.new_write_id(), 0, tombstone=True)
            device.store._check_ballot = lambda *_: 0  # type: ignore[method-assign]
            await device.store.offer(Offered(STORED, entry, Offer.COPY))
            del device.store._check_ballot
        return await put(registers, b"one")

    assert play(lambda cluster, registers: outcome(cluster, registers, 240.0)) is Outcome.DONE
    assert play(lambda cluster, registers: outcome(cluster, registers, 400.0)) is Outcome.CONFLICT


def test_a_write_of_a_clock_that_is_behind_waits_for_a_slow_owner_to_say_that_it_refused_it() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        behind = await cluster.proxy("behind", skew_s=-50, patience=Patience(round_s=2.0, hedge_s=0.05))
        assert await put(behind, b"first") is Outcome.DONE
        for number in range(REMEMBERED_MAX + 2):
            assert await put(registers, f"{number}".encode()) is Outcome.DONE
        # Two refuse it, and cannot tell whether they ever took it: all that is newer has crowded out what they remembered.
        cluster.network.cut(["device-2"], ["behind"])
        asyncio.get_running_loop().call_later(0.1, cluster.network.mend)
        assert await put(behind, b"mine") is Outcome.DONE
        assert await read_body(registers) == b"mine"

    play(scenario)


def test_a_write_for_a_container_that_was_made_anew_stops_and_names_the_newer_incarnation() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        now_us = cluster.read_us()()
        older, newer = Timestamp.of(now_us - 10, 1), Timestamp.of(now_us - 5, 1)
        assert await put(registers, b"new", KEY._replace(incarnation=newer)) is Outcome.DONE
        await asyncio.sleep(1.0)
        entry = object_of(registers, b"old")
        written = await registers.write(KEY._replace(incarnation=older), entry, b"old", deadline=soon())
        assert written.outcome is Outcome.CONFLICT
        assert written.above.incarnation == newer
        assert await read_body(registers) == b"new"

    play(scenario)


# --- conditions -------------------------------------------------------------------------------------------------


def test_of_many_that_create_one_object_at_once_one_succeeds() -> None:
    async def create(registers: Registers) -> Outcome:
        entry = object_of(registers, b"mine")

        def if_absent(newest: Entry | None, ballot: Ballot) -> Entry | None:
            return None if is_present(newest, ballot.micros) else entry

        return (await registers.write_if(KEY, if_absent, b"mine", deadline=soon())).outcome

    async def scenario(cluster: Cluster, registers: Registers) -> list[Outcome]:
        proxies = [registers] + [await cluster.proxy(f"proxy-{n}", skew_s=n) for n in range(1, 4)]
        return await asyncio.gather(*map(create, proxies))

    outcomes = play(scenario)
    assert outcomes.count(Outcome.DONE) == 1
    assert set(outcomes) <= {Outcome.DONE, Outcome.REFUSED, Outcome.CONFLICT}


def test_a_refusal_names_what_the_condition_was_judged_on() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, b"one")
        await registers.write(KEY, entry, b"one", deadline=soon())
        refused = await registers.write_if(KEY, lambda newest, ballot: None, deadline=soon())
        assert refused.outcome is Outcome.REFUSED
        assert refused.entry is not None
        assert refused.entry.write_id == entry.write_id

    play(scenario)


def test_a_post_keeps_the_body_and_needs_an_object() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        assert await post(registers) is Outcome.REFUSED
        assert await put(registers, b"one") is Outcome.DONE
        assert await post(registers) is Outcome.DONE
        read = await registers.read(KEY, deadline=soon())
        assert read.entry is not None
        assert (bytes(read.body or b""), read.entry.metadata) == (b"one", pack_metadata(NAMED))

    play(scenario)


def test_settling_leaves_the_newest_entry_at_every_owner_above_the_promise() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-2")
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(1.0)
        cluster.network.restart("device-2")
        promised = Ballot.of(cluster.read_us(5.0)(), 99)
        for device in cluster.devices:
            await device.store.prepare(STORED, promised)
        settled = await registers.settle(KEY, deadline=soon())
        assert settled.entry is not None
        assert settled.entry.ballot > promised
        await asyncio.sleep(1.0)
        assert versions(cluster) == [0, 1, 2]

    play(scenario)


# --- bodies -----------------------------------------------------------------------------------------------------


def test_an_owner_that_lacks_the_body_is_given_it_before_a_post_counts_there() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-2")
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(1.0)
        cluster.network.restart("device-2")
        await cluster.network.crash("device-0")
        assert await post(registers) is Outcome.DONE
        await cluster.network.crash("device-1")
        cluster.network.restart("device-0")
        assert await read_body(registers) == b"one"

    play(scenario)


def test_a_post_does_not_count_where_the_body_cannot_be_had() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-2")
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(1.0)
        cluster.network.restart("device-2")
        await cluster.network.crash("device-1")
        await cluster.copy(0, 2, with_body=False)
        store = cluster.devices[0].store

        async def nothing_open(key: StoredKey, size_max: int) -> tuple[Held | None, None]:
            return store.read(key), None

        store.find = nothing_open  # type: ignore[method-assign]
        store.glance = lambda *_: None  # type: ignore[method-assign]
        assert await post(registers) is Outcome.UNKNOWN

    play(scenario)


def test_a_read_heals_what_it_finds_behind_before_it_answers() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-1")
        await cluster.network.crash("device-2")
        entry = object_of(registers, b"one")._replace(ballot=Ballot.of(cluster.read_us()(), 99))
        await cluster.devices[0].store.offer(Offered(STORED, entry, body=b"one"))
        cluster.network.restart("device-1")
        assert await read_body(registers) == b"one"
        assert versions(cluster) == [0, 1]

    play(scenario)


def test_a_body_is_read_on_from_another_owner_when_one_dies_in_the_middle() -> None:
    body = bytes(range(256)) * 4 * 1024 * 3  # three mebibytes: never inline

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, body)._replace(ballot=Ballot.of(cluster.read_us()(), 99))
        for device in cluster.devices:
            await device.store.offer(Offered(STORED, entry, body=body))
        read = await registers.read(KEY, deadline=soon())
        assert read.body is None
        assert read.entry is not None
        received = bytearray()
        killed: list[str] = []
        chunks = registers.bodies.stream(read.placement, entry, read.holders, 100, entry.size, soon())
        async with aclosing(chunks):
            async for chunk in chunks:
                received += chunk
                if len(killed) < 2 and len(received) > (len(killed) + 1) * 1_000_000:
                    killed.append(f"device-{read.holders[len(killed)]}")
                    await cluster.network.crash(killed[-1])
        assert len(killed) == 2
        assert received == body[100:]

    play(scenario)


def test_a_body_that_nobody_can_give_to_its_end_ends_in_an_error_and_not_short() -> None:
    body = bytes(3 * RpcLimits().stream_window_bytes)  # more than can be on its way when its giver dies

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, body)._replace(ballot=Ballot.of(cluster.read_us()(), 99))
        await cluster.devices[0].store.offer(Offered(STORED, entry, body=body))
        placement = registers.nodes.place(KEY)
        received = 0

        async def read_on() -> None:
            nonlocal received
            everyone = placement.owners.voting
            async for chunk in registers.bodies.stream(placement, entry, everyone, 0, entry.size, soon()):
                received += len(chunk)
                if received > 1_000_000:
                    await cluster.network.crash("device-0")

        with pytest.raises(BodyUnavailable, match="no owner that answers holds body"):
            await read_on()
        assert 1_000_000 < received < len(body)

    play(scenario)


def test_a_large_body_that_an_owner_lacks_is_streamed_to_it() -> None:
    body = bytes(range(256)) * 4 * 1024 * 2

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, body)._replace(ballot=Ballot.of(cluster.read_us()(), 99))
        for device in cluster.devices[:2]:
            await device.store.offer(Offered(STORED, entry, body=body))
        await cluster.network.crash("device-0")
        assert await post(registers) is Outcome.DONE
        assert versions(cluster) == [0, 1, 2]

    play(scenario)


# --- handoffs ---------------------------------------------------------------------------------------------------


def test_a_handoff_takes_the_copy_of_an_owner_that_is_down_and_does_not_count() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await cluster.network.crash("device-0")
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(3.0)
        assert versions(cluster) == [1, 2, 3]
        await cluster.network.crash("device-1")
        assert not (await registers.read(KEY, deadline=soon())).is_known
        assert await put(registers, b"two") is not Outcome.DONE

    play(scenario, others=1)


def test_a_handoff_takes_the_copy_of_an_owner_that_falls_silent_or_is_full() -> None:
    async def full(offered: Offered) -> Acceptance:
        raise InsufficientStorage("only the reserve of this device would be left")

    async def silent(cluster: Cluster, registers: Registers) -> list[int]:
        await cluster.network.crash("device-0", silent=True)
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(10.0)
        return versions(cluster)

    async def filled(cluster: Cluster, registers: Registers) -> list[int]:
        cluster.devices[0].store.offer = full  # type: ignore[method-assign]
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(10.0)
        return versions(cluster)

    assert play(silent, others=2)[:2] == [1, 2]
    assert len(play(silent, others=2)) == 3
    assert len(play(filled, others=2)) == 3


def test_an_entry_that_is_carried_through_owes_as_it_did_before() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        owing = KEY._replace(owes=True)
        await put(registers, b"one", owing)
        settled = await registers.settle(owing, deadline=soon())
        await asyncio.sleep(1.0)
        assert settled.entry is not None
        for device in cluster.devices:
            debts = device.store.due(Due.DEBT, cluster.read_us(1.0)(), 10)
            assert debts == [(STORED, settled.entry.version)]

    play(scenario)


def test_what_a_handoff_takes_owes_nothing() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> list[int]:
        await cluster.network.crash("device-0")
        await put(registers, b"one", KEY._replace(owes=True))
        await asyncio.sleep(3.0)
        now_us = cluster.read_us(1.0)()
        return [at for at, device in enumerate(cluster.devices) if device.store.due(Due.DEBT, now_us, 10)]

    assert play(scenario, others=1) == [1, 2]


# --- epochs -----------------------------------------------------------------------------------------------------


def test_a_proxy_with_an_older_ring_learns_of_the_newer_one_and_writes_under_that() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        newer = next_ring(cluster.ring, ring_fields(range(3), 3))
        for device in cluster.devices:
            device.shelf.current = newer
        shelf = registers.nodes._rings
        assert await put(registers, b"one") is Outcome.CONFLICT
        assert shelf.looked_for_newer > 0  # type: ignore[attr-defined]
        shelf.current = newer  # type: ignore[attr-defined]
        assert await put(registers, b"one") is Outcome.DONE

    play(scenario)


def test_an_owner_that_does_not_vote_takes_writes_and_is_never_part_of_a_majority() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await stand(cluster.devices[2].store, TABLE, 0, Standing(votes=False))
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(1.0)
        assert versions(cluster) == [0, 1, 2]
        await cluster.network.crash("device-1")
        assert await put(registers, b"two") is not Outcome.DONE
        assert not (await registers.read(KEY, deadline=soon())).is_known

    play(scenario)


def test_while_a_partition_moves_a_write_reaches_both_sets_and_a_read_goes_by_the_old_one() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        moving = next_ring(cluster.ring, ring_fields((2, 3, 4), 5, moving={0: (0, 1, 2)}))
        for holder in (*(device.shelf for device in cluster.devices), registers.nodes._rings):
            holder.current = moving  # type: ignore[attr-defined]
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(1.0)
        assert versions(cluster) == [0, 1, 2, 3, 4]
        await cluster.network.crash("device-3")
        assert await read_body(registers) == b"one"
        assert await put(registers, b"two") is Outcome.DONE
        # Without a majority of the new owners nobody can say that the move was not settled meanwhile.
        await cluster.network.crash("device-4")
        assert not (await registers.read(KEY, deadline=soon())).is_known
        assert await put(registers, b"three") is not Outcome.DONE

    play(scenario, others=2)


def test_a_read_of_a_proxy_that_has_not_heard_of_the_settled_ring_is_not_older_than_a_write_under_it() -> (
    None
):
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        ahead = await cluster.proxy("ahead", patience=registers.patience)
        assert await put(registers, b"one") is Outcome.DONE
        await asyncio.sleep(1.0)
        moving = next_ring(cluster.ring, ring_fields((0, 3, 4), 5, moving={0: (0, 1, 2)}))
        for shelf in cluster.shelves:
            shelf.current = moving
        for newcomer in (3, 4):
            await cluster.copy(1, newcomer, from_voter=True)
            await stand(cluster.devices[newcomer].store, TABLE, 0, Standing(votes=True))
        settled = next_ring(moving, ring_fields((0, 3, 4), 5))
        for holder in (cluster.devices[3].shelf, cluster.devices[4].shelf, ahead.nodes._rings):
            holder.current = settled  # type: ignore[attr-defined]  # the others hear of it later
        assert await put(ahead, b"two") is Outcome.DONE
        for _ in range(10):
            read = await registers.read(KEY, deadline=soon())
            assert not read.is_known or read.body == b"two"
        for shelf in cluster.shelves:
            shelf.current = settled
        assert await read_body(registers) == b"two"

    play(scenario, others=2)


def test_what_was_read_while_a_partition_moved_is_read_after_the_settle_too() -> None:
    """Of a write that only old owners took, and whose proxy was told nothing."""

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        writer = await cluster.proxy("writer", patience=Patience(round_s=2.0))
        assert await put(registers, b"old") is Outcome.DONE
        await asyncio.sleep(1.0)
        moving = next_ring(cluster.ring, ring_fields((3, 1, 2), 4, moving={0: (0, 1, 2)}))
        for shelf in cluster.shelves:
            shelf.current = moving
        await cluster.copy(1, 3, from_voter=True)
        await stand(cluster.devices[3].store, TABLE, 0, Standing(votes=True))
        cluster.network.cut(["writer"], ["device-2", "device-3"])
        entry, deadline = object_of(writer, b"new"), asyncio.get_running_loop().time() + 3
        assert (await writer.write(KEY, entry, b"new", deadline=deadline)).outcome is Outcome.UNKNOWN
        seen = {await read_body(registers) for _ in range(10)}
        settled = next_ring(moving, ring_fields((3, 1, 2), 4))
        for shelf in cluster.shelves:
            shelf.current = settled
        await cluster.network.crash("device-1")
        assert b"new" in seen, (
            "10 reads of two among three owners, and one of the pairs is the two that have it"
        )
        assert await read_body(registers) == b"new"

    play(scenario, others=1)


async def swap_across_a_move(cluster: Cluster, registers: Registers) -> tuple[Outcome, Outcome]:
    """Two swaps of one value while the partition moves; the first reaches an old and a joining owner, and then stalls."""

    def swapping(expected: Entry, wanted: Entry, then: Callable[[], None]) -> Judge:
        def condition(newest: Entry | None, ballot: Ballot) -> Entry | None:
            then()
            return wanted if newest is not None and newest.write_id == expected.write_id else None

        return condition

    def adopt(ring: Ring) -> None:
        for shelf in cluster.shelves:
            shelf.current = ring

    other = await cluster.proxy("proxy-other", patience=registers.patience)
    value, mine, others = (object_of(one, b"") for one in (registers, registers, other))
    await registers.write(KEY, value, b"", deadline=soon())
    await asyncio.sleep(1.0)
    moving = next_ring(cluster.ring, ring_fields((0, 3, 4), 5, moving={0: (0, 1, 2)}))
    adopt(moving)
    cut_off = partial(cluster.network.cut, ["proxy"], ["device-1", "device-2", "device-4"])
    stalled = asyncio.ensure_future(
        registers.write_if(KEY, swapping(value, mine, cut_off), b"", deadline=soon())
    )
    await asyncio.sleep(0.5)
    cluster.network.cut(["proxy-other"], ["device-0"])
    second = await other.write_if(KEY, swapping(value, others, lambda: None), b"", deadline=soon())
    for newcomer in (3, 4):
        await cluster.copy(1, newcomer, from_voter=True)
        await stand(cluster.devices[newcomer].store, TABLE, 0, Standing(votes=True))
    adopt(next_ring(moving, ring_fields((0, 3, 4), 5)))
    return (await stalled).outcome, second.outcome


def test_a_write_that_a_joining_owner_accepted_is_not_taken_for_done_once_the_move_has_settled() -> None:
    assert play(swap_across_a_move, others=2) == (Outcome.UNKNOWN, Outcome.DONE)


def test_counting_across_epochs_would_let_two_swaps_of_one_value_succeed() -> None:
    with taken(Shortcut.ACROSS_EPOCHS):
        assert play(swap_across_a_move, others=2) == (Outcome.DONE, Outcome.DONE)
