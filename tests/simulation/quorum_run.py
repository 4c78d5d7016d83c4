"""One seeded run: clients of several proxies on one object, faults all around, and the history of what they were told.

The shape of a run is the register model's: clocks that differ, clients that die in the middle, a replicator that copies
entries about, and in rough runs devices that restart and networks that split. Everything follows from the seed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from proxy.cluster.decisions import Judge, Outcome, is_present
from proxy.cluster.offers import Content
from proxy.cluster.quorum import quorum
from proxy.cluster.register import Registers, Written
from proxy.cluster.uploads import TooFewOwners
from swiftlike.entries import Entry, pack_metadata, unpack_metadata
from swiftlike.node_calls import Standing
from swiftlike.rpc.simulated import SimulatedNetwork
from swiftlike.rpc.virtual_time import run_in_virtual_time
from swiftlike.timestamps import ZERO_BALLOT, Ballot, WriteId
from tests.engine.conftest import stand
from tests.simulation.linearizability import Call, Ended, Kind, Value
from tests.simulation.quorum_cluster import KEY, STEP_S, TABLE, Cluster, WayOut, next_ring, ring_fields

CLIENTS: Final = 4
CALLS_EACH: Final = 5
FAULTS_END_S: Final = 300 * STEP_S
DEADLINE_S: Final = 60.0

_ENDED: Final = {
    Outcome.DONE: Ended.DONE,
    Outcome.REFUSED: Ended.REFUSED,
    Outcome.CONFLICT: Ended.WITHOUT_EFFECT,
    Outcome.UNKNOWN: Ended.UNKNOWN,
}


@dataclass(slots=True)
class Run:
    """What came of a seed."""

    history: list[Call]
    is_readable: bool
    """Whether a read was possible once faults had stopped."""
    trace: str
    """Digest of all that happened on the network."""


def run(seed: int, owners: int = 3, *, moving: bool = False, streaming: bool = False) -> Run:
    """Run a seed; `moving`: while the partition goes to other owners, new ones among them, and settles there.

    `streaming`: half of the bodies are streamed ahead of their writes.
    """
    return run_in_virtual_time(_run(seed, owners, moving, streaming))


async def _run(seed: int, owners: int, moving: bool, streaming: bool) -> Run:
    async with SimulatedNetwork(seed) as network, AsyncExitStack() as stack:
        cluster = Cluster(network, stack, owners, others=2 if moving else 0)
        await cluster.start()
        random = network.random
        way = WayOut(random.choice([0, 0, 0.05, 0.2, 0.35]))
        is_rough = random.random() < 0.25
        history: list[Call] = []
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                skew_s = random.choice([0, 0, 5, 50, 400]) * STEP_S / 10
                registers = await cluster.proxy(f"proxy-{number}", skew_s, way)
                calls = CALLS_EACH + 5 if moving else CALLS_EACH
                group.create_task(Client(cluster, registers, history, streaming).live(calls))
            async with _faults(cluster, is_rough):
                if moving:
                    await _move(cluster)
                await asyncio.sleep(FAULTS_END_S)
        way.loss_chance = 0.0
        last = await cluster.proxy("proxy-last")
        is_readable = await _read_in_the_end(last, history)
        return Run(history, is_readable, network.trace_digest())


class Client:
    """One user of one proxy."""

    def __init__(self, cluster: Cluster, registers: Registers, history: list[Call], streaming: bool) -> None:
        self._streaming = streaming
        self._random = cluster.random
        self._registers = registers
        self._history = history
        self._known: Value | None = None
        self._loop = asyncio.get_running_loop()

    async def live(self, calls: int) -> None:
        """Do a few things one after another; now and then die in the middle, and be born again."""
        await asyncio.sleep(self._random.random() * 3 * STEP_S)
        for _ in range(calls):
            life_s = None
            if self._random.random() < 0.04:
                life_s = self._random.expovariate(1 / (3 * STEP_S))
            with suppress(TimeoutError):
                async with asyncio.timeout(life_s):
                    await self._do_something()
            await asyncio.sleep(self._random.expovariate(1 / (2 * STEP_S)))

    async def _do_something(self) -> None:
        dice, number = self._random.random(), len(self._history) + 1
        if dice < 0.25:
            call = self._begin(Call(Kind.PUT, self._loop.time(), number))
            with suppress(TooFewOwners):
                self._end(call, await self._put(number))
                return
            self._end(call, Written(Outcome.CONFLICT))
        elif dice < 0.35:
            call = self._begin(Call(Kind.DELETE, self._loop.time()))
            self._end(call, await self._delete())
        elif dice < 0.45:
            call = self._begin(Call(Kind.POST, self._loop.time(), number))
            self._end(call, await self._write_if(_posting(self._registers.new_write_id(), number), None))
        elif dice < 0.65:
            call = self._begin(Call(Kind.READ, self._loop.time()))
            known, value = await read_value(self._registers)
            if known:
                self._known = call.found = value
                call.ended, call.outcome = self._loop.time(), Ended.DONE
        else:
            call = self._begin(Call(Kind.SWAP, self._loop.time(), number, self._something_heard_of()))
            write_id = self._registers.new_write_id()
            swap = _swapping(write_id, number, call.expected)
            with suppress(TooFewOwners):
                async with self._on_its_way(write_id, _body(number)) as body:
                    self._end(call, await self._write_if(swap, body))
                return
            self._end(call, Written(Outcome.CONFLICT))

    def _begin(self, call: Call) -> Call:
        self._history.append(call)
        return call

    def _end(self, call: Call, written: Written) -> None:
        call.outcome = _ENDED[written.outcome]
        if call.outcome is not Ended.UNKNOWN:
            call.ended = self._loop.time()

    def _something_heard_of(self) -> Value | None:
        heard = [call for call in self._history[-4:] if call.kind is not Kind.READ]
        if not heard or self._random.random() >= 0.6:
            return self._known
        call = self._random.choice(heard)
        return None if call.kind is Kind.DELETE else Value(call.number, call.number)

    async def _put(self, number: int) -> Written:
        entry = _entry(self._registers.new_write_id(), number)
        async with self._on_its_way(entry.write_id, _body(number)) as body:
            return await self._registers.write(KEY, entry, body, deadline=self._deadline())

    @asynccontextmanager
    async def _on_its_way(self, write_id: WriteId, body: bytes) -> AsyncIterator[Content]:
        """A body that travels with its offer, or one that has been streamed ahead of it."""
        if not self._streaming or self._random.random() < 0.5:
            yield body
            return
        async with self._registers.open_upload(KEY, write_id, len(body)) as upload:
            for at in range(0, len(body), 3):
                await upload.send(body[at : at + 3])
            yield upload

    async def _delete(self) -> Written:
        tombstone = Entry(ZERO_BALLOT, self._registers.new_write_id(), 0, tombstone=True)
        return await self._registers.write(KEY, tombstone, deadline=self._deadline())

    async def _write_if(self, condition: Judge, body: Content) -> Written:
        return await self._registers.write_if(KEY, condition, body, deadline=self._deadline())

    def _deadline(self) -> float:
        return self._loop.time() + DEADLINE_S


async def read_value(registers: Registers) -> tuple[bool, Value | None]:
    """Read the object as a client does, its body included; say whether that was possible, and what it is."""
    loop = asyncio.get_running_loop()
    read = await registers.read(KEY, deadline=loop.time() + DEADLINE_S)
    if not read.is_known:
        return False, None
    if read.entry is None or read.entry.tombstone:
        return True, None
    if read.body is None:
        return False, None  # its holders are down, or it was replaced meanwhile
    value = value_of(read.entry)
    assert value is not None
    assert bytes(read.body) == _body(value.body), "the body of another write"
    return True, value


async def _read_in_the_end(registers: Registers, history: list[Call]) -> bool:
    loop = asyncio.get_running_loop()
    for _ in range(6):
        began = loop.time()
        known, value = await read_value(registers)
        if known:
            history.append(Call(Kind.READ, began, found=value, ended=loop.time(), outcome=Ended.DONE))
            return True
    return False


# --- values -----------------------------------------------------------------------------------------------------


def _body(number: int) -> bytes:
    return b"body %d" % number


def _entry(write_id: WriteId, number: int) -> Entry:
    metadata = pack_metadata({"body": number, "metadata": number})
    return Entry(ZERO_BALLOT, write_id, 0, body_id=write_id, size=len(_body(number)), metadata=metadata)


def value_of(entry: Entry | None) -> Value | None:
    """What a reader sees of an entry."""
    if entry is None or entry.tombstone:
        return None
    metadata = unpack_metadata(entry.metadata)
    body, number = metadata["body"], metadata["metadata"]
    assert isinstance(body, int)
    assert isinstance(number, int)
    return Value(body, number)


def _swapping(write_id: WriteId, number: int, expected: Value | None) -> Judge:
    """If-Match, of body and metadata both."""

    def condition(newest: Entry | None, ballot: Ballot) -> Entry | None:
        return _entry(write_id, number) if value_of(newest) == expected else None

    return condition


def _posting(write_id: WriteId, number: int) -> Judge:
    """Other metadata for the same body."""

    def condition(newest: Entry | None, ballot: Ballot) -> Entry | None:
        value = value_of(newest)
        if newest is None or value is None or not is_present(newest, ballot.micros):
            return None
        metadata = pack_metadata({"body": value.body, "metadata": number})
        return newest._replace(write_id=write_id, metadata=metadata)

    return condition


# --- faults -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _faults(cluster: Cluster, is_rough: bool) -> AsyncIterator[None]:
    """Let faults happen; at the end everything is mended and every device is up."""
    tasks = [asyncio.ensure_future(_replicate(cluster))]
    if is_rough:
        names = [device.name for device in cluster.devices] + [f"proxy-{at}" for at in range(CLIENTS)]
        tasks.append(asyncio.ensure_future(cluster.network.storm(names, 20 * STEP_S, 15 * STEP_S)))
        tasks.append(asyncio.ensure_future(_restart_devices(cluster)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cluster.network.mend()


async def _replicate(cluster: Cluster) -> None:
    """Copy entries about, some of them before their bodies."""
    while True:
        await asyncio.sleep(cluster.random.expovariate(1 / (10 * STEP_S)))
        source, target = cluster.random.sample(range(len(cluster.devices)), 2)
        await cluster.copy(source, target, with_body=cluster.random.random() < 0.7)


async def _restart_devices(cluster: Cluster) -> None:
    while True:
        await asyncio.sleep(cluster.random.expovariate(1 / (40 * STEP_S)))
        name = cluster.random.choice(cluster.devices).name
        await cluster.network.crash(name, silent=cluster.random.random() < 0.5)
        try:
            await asyncio.sleep(cluster.random.expovariate(1 / (10 * STEP_S)))
        finally:
            cluster.network.restart(name)


# --- a move -----------------------------------------------------------------------------------------------------


async def _move(cluster: Cluster) -> None:
    """Let the partition go to other owners: a ring that moves it, catching up, and a ring that settles the move."""
    random, before, devices = cluster.random, cluster.owners, len(cluster.devices)
    after = tuple(sorted(random.sample(range(devices), len(before))))
    newcomers = [number for number in after if number not in before]
    mover = await cluster.proxy("proxy-mover")
    await asyncio.sleep(random.random() * 20 * STEP_S)
    moving = next_ring(cluster.ring, ring_fields(after, devices, moving={0: before} if newcomers else {}))
    await cluster.adopt(moving, 10 * STEP_S)
    for number in newcomers:
        await _catch_up(cluster, mover, before, number)
    await asyncio.sleep(random.random() * 30 * STEP_S)
    await cluster.adopt(next_ring(moving, ring_fields(after, devices)), 10 * STEP_S)


async def _catch_up(cluster: Cluster, mover: Registers, before: Sequence[int], newcomer: int) -> None:
    """Settle what a promise stands above, take every entry from a majority of the owners that vote, and vote."""
    loop = asyncio.get_running_loop()
    settled = False
    while not settled:
        await asyncio.sleep(STEP_S)
        settled = (await mover.settle(KEY, deadline=loop.time() + DEADLINE_S)).outcome is Outcome.REFUSED
    for source in cluster.random.sample(before, quorum(len(before))):
        await cluster.copy(source, newcomer, from_voter=True)
    await stand(cluster.devices[newcomer].store, TABLE, 0, Standing(votes=True))
