"""Rows and debts on their way: what travels together, what is refused, and what is dropped."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from proxy.cluster.placement import Key
from proxy.cluster.rounds import Stragglers
from proxy.store import debts as debts_module
from proxy.store.debts import Debts
from proxy.store.names import ContainerName
from proxy.store.rows import Rows, Upserted
from proxy.store.store import Store
from storage_node.keys import Key as StoredKey
from swiftlike.entries import Entry, Version
from swiftlike.limits import ROWS_BATCH_MAX
from swiftlike.listed import Listed
from swiftlike.node_calls import CONTAINERS, Code, Method, PackedRow, RowOffer
from swiftlike.node_client import Asked, NodeClient
from swiftlike.rpc.called import answered_at_once
from swiftlike.rpc.transport import failed
from swiftlike.timestamps import NO_WRITE, ZERO_BALLOT, Ballot, Timestamp
from tests.simulation.store_cluster import CONTAINER, StoreCluster, create, names, now_us, play, soon

OTHER = ContainerName(b"acc", b"other")


async def row_for(store: Store, container: ContainerName, name: bytes) -> Listed:
    """A row of a container that is there."""
    info = await store.containers.read(container, deadline=soon())
    entry = Entry(Ballot.of(now_us(), 1, info.incarnation), NO_WRITE, 0)
    return Listed(CONTAINERS, RowOffer(container.path, name, entry))


def with_rows(scenario: Callable[[StoreCluster, Store, Rows], Awaitable[None]]) -> None:
    """Play with a way of its own for rows, once nothing else is under way."""

    async def main(world: StoreCluster, store: Store) -> None:
        await create(store)
        await create(store, OTHER)
        await asyncio.sleep(1)
        registers = world.registers["proxy"]
        async with Stragglers(100) as stragglers:
            await scenario(world, store, Rows(registers.nodes, stragglers, registers.patience))

    play(main)


@pytest.mark.parametrize(("count", "calls"), [(50, 1), (ROWS_BATCH_MAX * 2 + 1, 3)])
def test_rows_that_are_handed_in_together_travel_together(count: int, calls: int) -> None:
    async def scenario(world: StoreCluster, store: Store, rows: Rows) -> None:
        before = [device.counts[str(Method.UPSERT_ROWS), "ok"] for device in world.cluster.devices]
        listed = [await row_for(store, CONTAINER, b"%04d" % number) for number in range(count)]
        ended = await asyncio.gather(*(rows.upsert(one, deadline=soon()) for one in listed))
        assert set(ended) == {Upserted.TAKEN}
        await asyncio.sleep(1)
        after = [device.counts[str(Method.UPSERT_ROWS), "ok"] for device in world.cluster.devices]
        assert [late - early for late, early in zip(after, before, strict=True)] == [calls] * 3
        assert (await names(store))[:3] == [b"0000", b"0001", b"0002"]

    with_rows(scenario)


def test_a_listing_that_takes_no_rows_just_now_does_not_hold_up_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = NodeClient.ask_upsert_rows

    def ask(self: NodeClient, table: bytes, rows: Sequence[PackedRow]) -> Any:
        if any(parent == OTHER.path for parent, _, _ in rows):
            reply = failed(Code.STORAGE_ERROR, "the old rows are being removed")
            return Asked(answered_at_once(asyncio.get_running_loop(), reply), self._read_upserted)
        return plain(self, table, rows)

    async def scenario(world: StoreCluster, store: Store, rows: Rows) -> None:
        listed = [
            await row_for(store, container, name)
            for container, name in ((CONTAINER, b"a"), (OTHER, b"b"), (CONTAINER, b"c"))
        ]
        with monkeypatch.context() as patch:
            patch.setattr(NodeClient, "ask_upsert_rows", ask)
            ended = await asyncio.gather(*(rows.upsert(one, deadline=soon()) for one in listed))
        assert ended == [Upserted.TAKEN, Upserted.UNAVAILABLE, Upserted.TAKEN]
        assert await names(store) == [b"a", b"c"]

    with_rows(scenario)


def test_a_row_of_an_incarnation_that_is_gone_is_refused_and_of_a_closing_one_too() -> None:
    async def scenario(world: StoreCluster, store: Store, rows: Rows) -> None:
        old = await row_for(store, CONTAINER, b"a")
        gone = old.row.entry._replace(ballot=Ballot.of(now_us(), 1, Timestamp.of(1, 1)))
        ended = await rows.upsert(old._replace(row=old.row._replace(entry=gone)), deadline=soon())
        assert ended is Upserted.GONE
        for device in world.cluster.devices[:2]:
            ballot = Ballot(bytes(16) + world.registers["proxy"].clock.issue())
            await device.store.prepare(StoredKey(CONTAINERS, CONTAINER.path), ballot, closing=True)
        assert await rows.upsert(old, deadline=soon()) is Upserted.CLOSING

    with_rows(scenario)


def test_a_row_that_only_one_owner_can_take_is_not_taken() -> None:
    async def scenario(world: StoreCluster, store: Store, rows: Rows) -> None:
        listed = await row_for(store, CONTAINER, b"a")
        for name in ("device-0", "device-1"):
            await world.cluster.network.crash(name)
        ended = await rows.upsert(listed, deadline=asyncio.get_running_loop().time() + 3)
        assert ended is Upserted.UNAVAILABLE

    with_rows(scenario)


def test_a_row_whose_calls_are_dropped_ends_at_once() -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        await create(store)
        listed = await row_for(store, CONTAINER, b"a")
        registers = world.registers["proxy"]
        async with Stragglers(0) as stragglers:
            rows = Rows(registers.nodes, stragglers, registers.patience)
            began = asyncio.get_running_loop().time()
            assert await rows._offer(listed, began + 10) is Upserted.UNAVAILABLE
            assert asyncio.get_running_loop().time() == began
            assert stragglers.dropped == 3

    play(scenario)


def test_debts_above_the_bound_are_left_to_the_updaters_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: StoreCluster, store: Store) -> None:
        monkeypatch.setattr(debts_module, "DEBTS_WAITING_MAX", 2)
        debts = Debts(world.registers["proxy"].nodes)
        for number in range(5):
            debts.pay_later(Key(CONTAINERS, b"acc\0%d" % number, owes=True), Version(NO_WRITE, ZERO_BALLOT))
        assert debts.dropped == 3
        await world.cluster.network.crash("device-0")
        await debts.flush()
        assert debts.failed == 2
        debts.pay_later(Key(CONTAINERS, b"acc\0x", owes=True), Version(NO_WRITE, ZERO_BALLOT))
        assert debts.dropped == 3

    play(scenario)
