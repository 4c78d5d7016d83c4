"""Rows against the delete of their container: whoever was told that a row is listed never sees its container go.

The container of these tests only ever gets rows, so its tombstone and a row that was taken exclude each other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from proxy.cluster.decisions import Outcome
from proxy.cluster.placement import Key, Placement
from proxy.cluster.quorum import Answer
from proxy.cluster.register import Registers, Written
from proxy.cluster.rounds import Patience
from proxy.store import rows
from proxy.store.rows import Rows, Upserted
from ring.device import DeviceId
from storage_node import acceptor
from storage_node.acceptor import Promised, Refused
from storage_node.keys import Key as StoredKey
from storage_node.store import Offered
from swiftlike.entries import Entry
from swiftlike.listed import Listed
from swiftlike.node_calls import CONTAINERS, RowOffer, RowRefused, RowTaken
from swiftlike.node_client import NodeFailed
from swiftlike.rpc.simulated import SimulatedNetwork, Weather
from swiftlike.rpc.virtual_time import run_in_virtual_time
from swiftlike.timestamps import ZERO_BALLOT, Ballot, Offer, Timestamp
from tests.simulation.quorum_cluster import STARTED_US, STEP_S, Cluster, WayOut
from tests.simulation.test_quorum_client import soon

CONTAINER = Key(CONTAINERS, b"account\0container")
STORED = StoredKey(CONTAINERS, CONTAINER.path)
CREATED = Timestamp.of(STARTED_US, 1)


def play(scenario: Callable[[Cluster, Registers], Awaitable[Any]]) -> Any:
    """Run a scenario with one proxy."""

    async def main() -> Any:
        async with SimulatedNetwork(7, Weather()) as network, AsyncExitStack() as stack:
            cluster = Cluster(network, stack, 3, tables=(CONTAINERS,))
            await cluster.start()
            patience = Patience(round_s=2.0, hedge_s=0.5)
            return await scenario(cluster, await cluster.proxy("proxy", patience=patience))

    return run_in_virtual_time(main())


def listed(cluster: Cluster, name: bytes) -> Listed:
    entry = Entry(Ballot.of(cluster.read_us()(), 5, CREATED), Timestamp.of(STARTED_US, 9), 0)  # type: ignore[arg-type]
    return Listed(CONTAINERS, RowOffer(CONTAINER.path, name, entry))


def rows_of(registers: Registers) -> Rows:
    return Rows(registers.nodes, registers._stragglers, registers.patience)


async def create(registers: Registers) -> None:
    entry = Entry(ZERO_BALLOT, registers.new_write_id(), 0, incarnation=CREATED)
    created = await registers.write_if(CONTAINER, lambda newest, ballot: entry, deadline=soon())
    assert created.outcome is Outcome.DONE
    await asyncio.sleep(1.0)


Inspected = Callable[[], None]


async def delete(registers: Registers, then: Inspected = lambda: None) -> Written:
    """Delete the container if those that promised list nothing; `then` happens between that finding and the tombstone."""
    write_id = registers.new_write_id()

    def tombstone(newest: Entry | None, ballot: Ballot) -> Entry | None:
        if newest is None or newest.tombstone:
            return None
        return newest._replace(write_id=write_id, tombstone=True)

    async def is_empty(placement: Placement, promised: Collection[DeviceId]) -> bool:
        found = 0
        for owner in promised:
            client = registers.nodes.client(placement, placement.devices[owner], soon())
            try:
                tally, _ = await client.tally(CONTAINERS, CONTAINER.path, CREATED)
                found += tally.rows
            except NodeFailed:
                return False  # what it lists is not known
        then()
        return found == 0

    return await registers.write_closing(CONTAINER, tombstone, is_empty, deadline=soon())


# --- by hand ----------------------------------------------------------------------------------------------------


def test_an_empty_container_is_deleted_and_takes_no_row_any_more() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await create(registers)
        assert (await delete(registers)).outcome is Outcome.DONE
        assert await rows_of(registers).upsert(listed(cluster, b"late"), deadline=soon()) is Upserted.GONE

    play(scenario)


def test_a_container_with_a_row_is_kept_and_takes_rows_again() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        await create(registers)
        upserting = rows_of(registers)
        assert await upserting.upsert(listed(cluster, b"one"), deadline=soon()) is Upserted.TAKEN
        assert (await delete(registers)).outcome is Outcome.REFUSED
        assert await upserting.upsert(listed(cluster, b"two"), deadline=soon()) is Upserted.TAKEN

    play(scenario)


def test_a_delete_whose_inspection_fails_lets_rows_in_again() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        def fail() -> None:
            raise LookupError("a bug of the caller")

        await create(registers)
        with pytest.raises(LookupError):
            await delete(registers, then=fail)
        await asyncio.sleep(1.0)
        assert await rows_of(registers).upsert(listed(cluster, b"one"), deadline=soon()) is Upserted.TAKEN

    play(scenario)


async def race(cluster: Cluster, registers: Registers, *, with_accept: bool) -> tuple[Upserted, bool]:
    """A tombstone reaches one owner; a settle that dies reaches the others; a row comes; somebody settles.

    Returns what the row was told, and whether the container is gone in the end.
    """
    await create(registers)
    deleter, lister, last = [await cluster.proxy(f"{name}-proxy") for name in ("deleting", "listing", "last")]
    cluster.network.cut(["deleting-proxy"], ["device-2"])

    def dies() -> None:
        cluster.network.cut(["deleting-proxy"], ["device-1"])

    deleting = asyncio.ensure_future(delete(deleter, then=dies))
    held = None
    while held is None or held.register.entry is None or not held.register.entry.tombstone:
        await asyncio.sleep(STEP_S)
        held = cluster.devices[0].store.read(STORED)
    cluster.network.cut(["deleting-proxy"], ["device-0"])
    deleting.cancel()
    with suppress(asyncio.CancelledError):
        await deleting
    settling = Ballot.of(cluster.read_us(2.0)(), 77)
    for device in (1, 2):
        await cluster.devices[device].store.prepare(STORED, settling)
    if with_accept:
        kept = cluster.devices[2].store.read(STORED)
        assert kept is not None
        assert kept.register.entry is not None
        carried = kept.register.entry._replace(ballot=settling)
        await cluster.devices[1].store.offer(Offered(STORED, carried, Offer.PASSING))
    cluster.network.cut(["listing-proxy"], ["device-0"])
    told = await rows_of(lister).upsert(listed(cluster, b"row"), deadline=soon())
    cluster.network.cut(["last-proxy"], ["device-1"])
    settled = await last.settle(CONTAINER, deadline=soon())
    assert settled.outcome is Outcome.REFUSED
    assert settled.entry is not None
    return told, settled.entry.tombstone


@contextmanager
def lifting_by_prepare() -> Iterator[None]:
    """The shortcut: any later prepare lifts a closing promise."""
    plain = acceptor.prepare

    def prepare(*arguments: Any, closing: bool = False, **options: Any) -> Promised | Refused:
        answer = plain(*arguments, closing=closing, **options)
        if isinstance(answer, Refused):
            return answer
        return answer._replace(register=answer.register._replace(closing=closing))

    with patch.object(acceptor, "prepare", prepare):
        yield


@contextmanager
def counting_across_entries() -> Iterator[None]:
    """The shortcut: a row that a majority took is listed, whatever each of them holds of the container."""
    plain = rows._worth

    def worth(answer: RowTaken | RowRefused | None, container: Ballot) -> Answer:
        return plain(answer, answer.container if isinstance(answer, RowTaken) else container)

    with patch.object(rows, "_worth", worth):
        yield


@pytest.mark.parametrize("with_accept", [False, True])
def test_a_row_is_not_listed_by_owners_that_a_settle_half_reached(with_accept: bool) -> None:
    told, is_gone = play(lambda cluster, registers: race(cluster, registers, with_accept=with_accept))
    assert is_gone
    assert told is Upserted.CLOSING


def test_lifting_a_closing_promise_by_a_prepare_would_lose_a_listed_row() -> None:
    with lifting_by_prepare():
        told, is_gone = play(lambda cluster, registers: race(cluster, registers, with_accept=False))
    assert (told, is_gone) == (Upserted.TAKEN, True)


def test_counting_rows_across_entries_of_their_container_would_lose_a_listed_row() -> None:
    with counting_across_entries():
        told, is_gone = play(lambda cluster, registers: race(cluster, registers, with_accept=True))
    assert (told, is_gone) == (Upserted.TAKEN, True)


# --- random schedules -------------------------------------------------------------------------------------------


async def schedule(seed: int) -> tuple[int, bool, bool]:
    """Deleters, writers of rows, settlers and losses at random; how many rows were taken, whether a delete was told done,
    and whether the container is gone in the end.
    """
    async with SimulatedNetwork(seed) as network, AsyncExitStack() as stack:
        cluster = Cluster(network, stack, 3, tables=(CONTAINERS,))
        await cluster.start()
        random, way = network.random, WayOut()
        await create(await cluster.proxy("creator"))
        way.loss_chance = random.choice([0.1, 0.2, 0.35])
        taken: list[bytes] = []
        deleted: list[Written] = []

        async def living(task: Callable[[], Awaitable[Any]], latest_s: float) -> None:
            await asyncio.sleep(random.random() * latest_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(random.choice([None, random.expovariate(1 / (10 * STEP_S))])):
                    await task()

        async def list_rows(registers: Registers, number: int) -> None:
            for attempt in range(3):
                name = b"%d-%d" % (number, attempt)
                told = await rows_of(registers).upsert(listed(cluster, name), deadline=soon())
                if told is Upserted.TAKEN:
                    taken.append(name)
                elif told is Upserted.CLOSING and random.random() < 0.5:
                    await registers.settle(CONTAINER, deadline=soon())

        async def remove(registers: Registers) -> None:
            written = await delete(registers)
            if written.outcome is Outcome.DONE:
                deleted.append(written)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                registers = await cluster.proxy(f"proxy-{number}", way=way)
                if number < 2:
                    group.create_task(living(partial(remove, registers), 8 * STEP_S))
                else:
                    group.create_task(living(partial(list_rows, registers, number), 32 * STEP_S))
        way.loss_chance = 0.0
        last = await cluster.proxy("last")
        settled = await last.settle(CONTAINER, deadline=soon())
        assert settled.entry is not None
        return len(taken), bool(deleted), settled.entry.tombstone


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 300, 50))
def test_a_container_that_lists_a_row_is_never_deleted(first: int) -> None:
    ends = []
    for seed in range(first, first + 50):
        taken, was_deleted, is_gone = run_in_virtual_time(schedule(seed))
        assert not (taken and is_gone), (
            f"schedule({seed}): {taken} rows were listed, and their container is gone"
        )
        assert is_gone or not was_deleted, (
            f"schedule({seed}): a delete was told done, and the container is there"
        )
        ends.append((taken > 0, is_gone))
    assert {(True, False), (False, True)} <= set(ends), "the search would be over empty ground"
