"""Large bodies on their way to the owners: what one slow, dead, full or newer owner does to an upload, and what stays behind."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.cluster.decisions import Outcome
from proxy.cluster.register import Registers, Written
from proxy.cluster.uploads import StreamedUpload, TooFewOwners
from storage_node.errors import InsufficientStorage
from storage_node.memory import MemoryStaged
from swiftlike.entries import Entry
from swiftlike.limits import RpcLimits
from swiftlike.rpc.transport import Body
from swiftlike.timestamps import ZERO_BALLOT, Ballot
from tests.simulation.quorum_cluster import KEY, TABLE, Cluster, next_ring, ring_fields
from tests.simulation.test_quorum_client import STORED, object_of, play, soon, versions

CHUNK = 256 * 1024
BODY = bytes(range(256)) * (2 * RpcLimits().stream_window_bytes // 256)
"""Never inline, and more than an owner that takes nothing lets be sent: a window, and the runs that it has in hand."""


@pytest.fixture(autouse=True)
def staged(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[MemoryStaged]]:
    """All bodies that were staged on any device of a test; none may keep a byte when it is over."""
    begun: list[MemoryStaged] = []
    plain = MemoryStaged.__init__

    def begin(one: MemoryStaged) -> None:
        plain(one)
        begun.append(one)

    monkeypatch.setattr(MemoryStaged, "__init__", begin)
    yield begun
    assert [one.size for one in begun] == [0] * len(begun)


async def send(upload: StreamedUpload, body: bytes = BODY) -> None:
    for at in range(0, len(body), CHUNK):
        await upload.send(body[at : at + CHUNK])


async def upload_and_write(registers: Registers, body: bytes = BODY) -> Written:
    entry = object_of(registers, body)
    async with registers.open_upload(KEY, entry.body_id, len(body)) as upload:
        await send(upload, body)
        return await registers.write(KEY, entry, upload, deadline=soon())


async def read_back(registers: Registers) -> bytes | None:
    read = await registers.read(KEY, deadline=soon())
    assert read.is_known
    if read.entry is None or read.entry.tombstone:
        return None
    chunks = registers.bodies.stream(read.placement, read.entry, read.holders, 0, read.entry.size, soon())
    return b"".join([bytes(chunk) async for chunk in chunks])


# --- the whole way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK, len(BODY)])
def test_what_was_streamed_is_held_by_every_owner_and_read_back(size: int) -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        assert (await upload_and_write(registers, BODY[:size])).outcome is Outcome.DONE
        await asyncio.sleep(1.0)
        assert versions(cluster) == [0, 1, 2]
        assert await read_back(registers) == BODY[:size]

    play(scenario)


def test_the_ballot_of_an_upload_is_taken_at_its_commit() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload)
            other = await registers.write(KEY, object_of(registers, b"small"), b"small", deadline=soon())
            await asyncio.sleep(1.0)
            written = await registers.write(KEY, entry, upload, deadline=soon())
        assert (other.outcome, written.outcome, written.replaced_live) == (Outcome.DONE, Outcome.DONE, True)
        assert await read_back(registers) == BODY

    play(scenario)


def test_a_client_that_is_silent_for_minutes_between_two_pieces_loses_no_owner() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await upload.send(BODY[:CHUNK])
            await asyncio.sleep(200.0)
            await send(upload, BODY[CHUNK:])
            assert (await registers.write(KEY, entry, upload, deadline=soon())).outcome is Outcome.DONE
        await asyncio.sleep(1.0)
        assert versions(cluster) == [0, 1, 2]

    play(scenario)


# --- commits that are refused -----------------------------------------------------------------------------------


def test_a_promise_in_the_way_costs_a_second_round_and_not_a_second_upload(
    staged: list[MemoryStaged],
) -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        for device in cluster.devices:
            await device.store.prepare(STORED, Ballot.of(cluster.read_us(5.0)(), 99))
        assert (await upload_and_write(registers)).outcome is Outcome.DONE
        await asyncio.sleep(1.0)
        assert versions(cluster) == [0, 1, 2]
        assert await read_back(registers) == BODY

    play(scenario)
    assert len(staged) == 3


def test_an_upload_may_be_written_under_a_condition() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> list[Outcome]:
        entry = object_of(registers, BODY)

        def if_absent(newest: Entry | None, ballot: Ballot) -> Entry | None:
            return entry if newest is None else None

        outcomes = []
        for _ in range(2):
            async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
                await send(upload)
                written = await registers.write_if(KEY, if_absent, upload, deadline=soon())
            outcomes.append(written.outcome)
        assert await read_back(registers) == BODY
        await asyncio.sleep(1.0)
        return outcomes

    assert play(scenario) == [Outcome.DONE, Outcome.REFUSED]


def test_of_many_that_upload_one_object_under_if_absent_at_once_one_succeeds() -> None:
    async def create(registers: Registers, body: bytes) -> Outcome:
        entry = object_of(registers, body)
        async with registers.open_upload(KEY, entry.body_id, len(body)) as upload:
            await send(upload, body)
            written = await registers.write_if(
                KEY, lambda newest, ballot: entry if newest is None else None, upload, deadline=soon()
            )
            return written.outcome

    async def scenario(cluster: Cluster, registers: Registers) -> list[Outcome]:
        proxies = [registers] + [await cluster.proxy(f"proxy-{n}", skew_s=n) for n in range(1, 4)]
        bodies = [bytes([number]) * len(BODY) for number in range(4)]
        outcomes = await asyncio.gather(*map(create, proxies, bodies))
        assert await read_back(registers) in [
            body for body, outcome in zip(bodies, outcomes, strict=True) if outcome is Outcome.DONE
        ]
        await asyncio.sleep(1.0)
        return outcomes

    outcomes = play(scenario)
    assert outcomes.count(Outcome.DONE) == 1
    assert set(outcomes) <= {Outcome.DONE, Outcome.REFUSED, Outcome.CONFLICT}


# --- owners that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True], ids=["dead", "silent"])
def test_an_owner_that_fails_in_the_middle_is_dropped_and_a_handoff_gets_its_copy(silent: bool) -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload, BODY[: 2 * CHUNK])
            await cluster.network.crash("device-1", silent=silent)
            await send(upload, BODY[2 * CHUNK :])
            assert (await registers.write(KEY, entry, upload, deadline=soon())).outcome is Outcome.DONE
        await asyncio.sleep(60.0)
        assert versions(cluster) == [0, 2, 3]
        assert await read_back(registers) == BODY

    play(scenario, others=1)


def test_an_owner_that_was_away_for_a_part_of_the_body_is_given_all_of_it_after_the_write() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        await cluster.network.crash("device-1")
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload)
            cluster.network.restart("device-1")
            assert (await registers.write(KEY, entry, upload, deadline=soon())).outcome is Outcome.DONE
        await asyncio.sleep(10.0)
        assert versions(cluster) == [0, 1, 2]

    play(scenario, others=1)


def test_an_owner_whose_disk_stalls_is_dropped_after_a_while_and_the_others_go_on() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        stalled = asyncio.Event()

        class Stalled(MemoryStaged):
            async def write(self, *chunks: Body) -> None:
                await stalled.wait()

        cluster.devices[1].store.stage = lambda body_id: Stalled()  # type: ignore[method-assign]
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload)
            took_s = loop.time() - began
            assert (await registers.write(KEY, entry, upload, deadline=soon())).outcome is Outcome.DONE
        assert registers.patience.stall_s <= took_s <= registers.patience.stall_s + 1
        stalled.set()
        del cluster.devices[1].store.stage
        await asyncio.sleep(10.0)
        assert versions(cluster) == [0, 1, 2]

    play(scenario)


def test_an_upload_that_too_few_owners_take_ends_and_leaves_nothing() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload, BODY[:CHUNK])
            await cluster.network.crash("device-1")
            await cluster.network.crash("device-2")
            with pytest.raises(TooFewOwners, match="down, full or too slow") as few:
                await send(upload, BODY[CHUNK:])
        assert not few.value.is_full
        with pytest.raises(TooFewOwners):
            async with registers.open_upload(KEY, entry.body_id, len(BODY)):
                pytest.fail("nothing may be sent")
        await asyncio.sleep(60.0)
        assert versions(cluster, whole=False) == []

    play(scenario)


def test_owners_without_space_refuse_an_upload_before_any_of_it_is_sent() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        def full(body_id: Any) -> MemoryStaged:
            raise InsufficientStorage("only the reserve of this device would be left")

        entry = object_of(registers, BODY)
        cluster.devices[0].store.stage = full  # type: ignore[method-assign]
        async with registers.open_upload(KEY, entry.body_id, len(BODY)):
            pass  # one of three
        cluster.devices[1].store.stage = full  # type: ignore[method-assign]
        with pytest.raises(TooFewOwners, match="only their reserve of space left") as few:
            async with registers.open_upload(KEY, entry.body_id, len(BODY)):
                pytest.fail("nothing may be sent")
        assert few.value.is_full

    play(scenario)


def test_an_upload_that_is_left_or_whose_client_dies_leaves_nothing() -> None:
    async def begin(registers: Registers) -> None:
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload, BODY[: 5 * CHUNK])
            await asyncio.sleep(1000.0)

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await begin(registers)
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload)
        await asyncio.sleep(1.0)
        assert versions(cluster, whole=False) == []

    play(scenario)


def test_a_commit_that_goes_on_when_its_upload_is_left_is_not_cut_short() -> None:
    """The third owner is behind; the write is done without it, and it accepts all the same."""

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        store = cluster.devices[2].store
        plain = store.offer

        async def later(offered: Any) -> Any:
            await asyncio.sleep(5.0)
            return await plain(offered)

        store.offer = later  # type: ignore[method-assign]
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert (await upload_and_write(registers)).outcome is Outcome.DONE
        assert loop.time() - began < 4.0
        await asyncio.sleep(10.0)
        assert versions(cluster) == [0, 1, 2]

    play(scenario)


# --- epochs -----------------------------------------------------------------------------------------------------


def test_an_upload_outlasts_the_ring_that_placed_it_and_is_written_by_the_newer_one() -> None:
    async def scenario(cluster: Cluster, registers: Registers) -> None:
        moving = next_ring(cluster.ring, ring_fields((2, 3, 4), 5, moving={0: (0, 1, 2)}))
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload)
            for shelf in cluster.shelves:
                shelf.current = moving
            assert (await registers.write(KEY, entry, upload, deadline=soon())).outcome is Outcome.DONE
        await asyncio.sleep(10.0)
        assert versions(cluster) == [0, 1, 2, 3, 4]
        for device in (0, 1):
            standing = cluster.devices[device].store.standing(TABLE, 0)
            assert standing.votes
        assert await read_back(registers) == BODY

    play(scenario, others=2)


def test_a_body_that_nobody_wrote_is_not_found_by_an_entry_of_another_upload() -> None:
    """A tombstone written meanwhile stays the newest, and the upload that was given up changes nothing."""

    async def scenario(cluster: Cluster, registers: Registers) -> None:
        entry = object_of(registers, BODY)
        async with registers.open_upload(KEY, entry.body_id, len(BODY)) as upload:
            await send(upload)
            tombstone = Entry(ZERO_BALLOT, registers.new_write_id(), 0, tombstone=True)
            await registers.write(KEY, tombstone, deadline=soon())
        await asyncio.sleep(1.0)
        assert await read_back(registers) is None

    play(scenario)
