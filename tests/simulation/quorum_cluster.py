"""A cluster in one process and in virtual time: real storage services over stores in memory, and real quorum clients.

Beneath them the RPC is the real one too; only its sockets are simulated. On top of what TCP does, `LossyTransport` loses
calls and answers, and delivers calls long after their caller gave up.
"""

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from random import Random
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from proxy.cluster.placement import Key
from proxy.cluster.register import Registers
from proxy.cluster.rounds import Patience
from ring.device import Device, DeviceId
from ring.file import RingFields
from ring.ring import Ring
from storage_node.keys import Key as StoredKey
from storage_node.keys import Layout
from storage_node.memory import MemoryStore
from storage_node.service import DeviceService
from storage_node.store import Offered
from swiftlike.node_calls import Standing, objects
from swiftlike.rpc.simulated import SimulatedHost, SimulatedNetwork
from swiftlike.rpc.transport import (
    EMPTY,
    Address,
    Body,
    Header,
    Outcome,
    Reply,
    Stream,
    TcpAddress,
    Told,
    Transport,
)
from swiftlike.timestamps import Clock, Offer
from tests.engine.conftest import stand
from tests.unit.ring.rings import SEED, fields, ring_of, successor_of

SECRET = b"the secret of the simulated cluster"
TABLE = objects(0)
KEY = Key(TABLE, b"account\0container\0object")
STARTED_US: Final = 1_800_000_000_000_000
"""What clocks read when virtual time begins."""

STEP_S: Final = 0.01
"""What a message takes on average; the other times of a simulation are multiples of it."""
LATE_S: Final = 2.0
"""By how much a call that is delivered twice is late the second time, on average."""

PATIENCE: Final = Patience(
    round_s=30 * STEP_S,
    hedge_s=2 * STEP_S,
    back_off_s=STEP_S,
    stall_s=10 * STEP_S,
    open_s=30 * STEP_S,
    join_s=5 * STEP_S,
    keep_alive_s=20 * STEP_S,
    commit_s=30 * STEP_S,
    copy_s=60 * STEP_S,
)


class RingShelf:
    """The rings of one process; all tables are placed by one."""

    def __init__(self, ring: Ring) -> None:
        self.current = ring
        self.looked_for_newer = 0

    def ring(self, table: bytes) -> Ring:
        """The ring that a proxy places by."""
        return self.current

    def epoch(self, table: bytes) -> int | None:
        """The epoch that a device knows."""
        return self.current.epoch

    def look_for_newer(self, table: bytes) -> None:
        """Counted, for the test to look at."""
        self.looked_for_newer += 1


class SimulatedDevice:
    """A device whose store outlives its process."""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        self.name = f"device-{number}"
        self.shelf = cluster.new_shelf()
        self.store = MemoryStore(self.name, cluster.layout, cluster.read_us())
        self.counts: Counter[tuple[str, str]] = Counter()
        """What its process was called for since it booted, and how that ended."""

    async def boot(self, host: SimulatedHost) -> None:
        """What its process does."""
        async with (
            DeviceService(self.store, self.store.layout, self.shelf) as device,
            host.server(device.service, SECRET) as server,
        ):
            self.counts = device.counts
            await server.listen(TcpAddress(host.name, 6200))
            await asyncio.Event().wait()


class Cluster:
    """Devices and proxies around one ring of one partition."""

    def __init__(
        self,
        network: SimulatedNetwork,
        stack: AsyncExitStack,
        owners: int,
        others: int = 0,
        tables: Sequence[bytes] = (TABLE,),
        device: "Callable[[Cluster, int], SimulatedDevice] | None" = None,
    ) -> None:
        self.network = network
        self.random = network.random
        self.layout = Layout(SEED, dict.fromkeys(tables, 0))
        self.ring = ring_of(ring_fields(range(owners), owners + others))
        self.shelves: list[RingShelf] = []
        make = device or SimulatedDevice
        self.devices = [make(self, number) for number in range(owners + others)]
        self.owners = tuple(range(owners))
        """The devices that own the partition, before a move."""
        self._stack = stack
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Start all devices; the owners vote, since the ring never had others."""
        for number, device in enumerate(self.devices):
            for table in self.layout.part_powers if number in self.owners else ():
                await stand(device.store, table, 0, Standing(votes=True))
            self.network.host(device.name, device.boot)

    async def proxy(
        self,
        name: str,
        skew_s: float = 0.0,
        way: "WayOut | None" = None,
        patience: Patience = PATIENCE,
    ) -> Registers:
        """Start a proxy with a clock of its own."""
        client = await self._stack.enter_async_context(self.network.host(name).client(SECRET))
        transport = await self._stack.enter_async_context(LossyTransport(client, self.random, way))
        clock = Clock(self.read_us(skew_s), self.random.getrandbits(64))
        registers = Registers(transport, self.new_shelf(), clock, Random(self.random.random()), patience)
        return await self._stack.enter_async_context(registers)

    def read_us(self, skew_s: float = 0.0) -> Callable[[], int]:
        """A host's clock."""
        return lambda: STARTED_US + int((self._loop.time() + skew_s) * 1e6)

    def new_shelf(self) -> RingShelf:
        """The rings of one more process."""
        shelf = RingShelf(self.ring)
        self.shelves.append(shelf)
        return shelf

    async def adopt(self, ring: Ring, within_s: float) -> None:
        """Give a ring to all processes, to each at a moment of its own."""
        self.ring = ring
        for shelf in self.random.sample(self.shelves, len(self.shelves)):
            await asyncio.sleep(self.random.random() * within_s / len(self.shelves))
            shelf.current = ring

    async def copy(
        self, source: int, target: int, *, with_body: bool = True, from_voter: bool = False, key: Key = KEY
    ) -> None:
        """Copy what one device holds to another, as a replicator does: a late accept, and only within one epoch."""
        if self.devices[source].shelf.current.epoch != self.devices[target].shelf.current.epoch:
            return
        stored = StoredKey(key.table, key.path)
        held = self.devices[source].store.read(stored)
        if held is None or held.register.entry is None:
            return
        body = None
        opened = await self.devices[source].store.open_object(stored)
        if opened is not None and with_body:
            body = await opened[1].read(0, opened[1].size)
        offered = Offered(stored, held.register.entry, Offer.COPY, body, from_voter=from_voter)
        await self.devices[target].store.offer(offered)


class WayOut:
    """What befalls the calls that leave a process; whoever lets things go wrong changes it."""

    def __init__(self, loss_chance: float = 0.0) -> None:
        self.loss_chance = loss_chance
        """Of each call, and of each answer."""
        self.repeat_chance = 0.0
        """That a call arrives a second time, later."""
        self.bad_links: Mapping[Address, float] = {}
        """Peers to which more is lost than to others."""
        self.held_until = 0.0
        """What would arrive before then arrives then, whether its caller still waits or not."""

    def loss_to(self, peer: Address) -> float:
        """The chance that a call to this peer is lost, or its answer."""
        return max(self.loss_chance, self.bad_links.get(peer, 0.0))


class LossyTransport:
    """A Transport whose calls and answers may be lost, or arrive late; also long after the caller's deadline."""

    def __init__(self, inner: Transport, random: Random, way: WayOut | None = None) -> None:
        self._inner = inner
        self._random = random
        self._way = way or WayOut()
        self._under_way = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Begin to own what is under way."""
        await self._under_way.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let everything arrive."""
        await self._under_way.__aexit__(kind, error, traceback)

    def now(self) -> float:
        """See `transport.Transport.now`."""
        return self._inner.now()

    async def call(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> Reply:
        """See `transport.Transport.call`. A caller that dies takes back nothing that it sent."""
        work = self._under_way.create_task(self._travel(peer, method, header, body))
        done, _ = await asyncio.wait((work,), timeout=deadline - self.now())
        reply = work.result() if done else None
        if reply is None:
            await asyncio.sleep(deadline - self.now())
            return Reply(Outcome.UNKNOWN, code="timeout", reason="lost on the way there or back")
        return reply

    def ask(
        self, peer: Address, method: str, header: Header = EMPTY, body: Body = b"", *, deadline: float
    ) -> asyncio.Future[Reply]:
        """See `transport.Transport.ask`."""
        return self._under_way.create_task(self.call(peer, method, header, body, deadline=deadline))

    def tell(
        self, peer: Address, method: str, header: Header, hear: Callable[[Reply], object], *, deadline: float
    ) -> Told:
        """See `transport.Transport.tell`."""
        call = self.ask(peer, method, header, deadline=deadline)
        call.add_done_callback(lambda done: done.cancelled() or hear(done.result()))
        return call

    async def _travel(self, peer: Address, method: str, header: Header, body: Body) -> Reply | None:
        if self._random.random() < self._way.loss_to(peer):
            return None
        repeats = self._way.repeat_chance
        if repeats and self._random.random() < repeats:
            self._under_way.create_task(self._arrive_late(peer, method, header, bytes(body)))
        await asyncio.sleep(self._delay_s() * (8 if self._random.random() < 0.1 else 1))
        if (held_s := self._way.held_until - self.now()) > 0:
            await asyncio.sleep(held_s + self._delay_s())
        reply = await self._inner.call(peer, method, header, body, deadline=self.now() + 30 * STEP_S)
        if self._random.random() < self._way.loss_to(peer):
            return None
        await asyncio.sleep(self._delay_s())
        return reply

    async def _arrive_late(self, peer: Address, method: str, header: Header, body: Body) -> None:
        """Be delivered a second time; nobody waits for the answer."""
        await asyncio.sleep(self._random.expovariate(1 / LATE_S))
        await self._inner.call(peer, method, header, body, deadline=self.now() + 30 * STEP_S)

    def _delay_s(self) -> float:
        return self._random.expovariate(1 / STEP_S)

    def open_stream(
        self, peer: Address, method: str, header: Header = EMPTY, *, deadline: float
    ) -> AbstractAsyncContextManager[Stream]:
        """See `transport.Transport.open_stream`; streams have the weather of the network only."""
        return self._inner.open_stream(peer, method, header, deadline=deadline)


def ring_fields(
    owners: Sequence[int],
    devices: int,
    *,
    moving: Mapping[int, Sequence[int]] | None = None,
    uuids: Mapping[int, UUID] | None = None,
) -> RingFields:
    """A ring of one partition; `uuids` are of disks that were replaced."""
    bound = {number: UUID(int=number + 1) for number in range(devices)} | dict(uuids or {})
    table = [
        Device(DeviceId(number), 1, number, f"device-{number}", 6200, "sd", 100.0, uuid=bound[number])
        for number in range(devices)
    ]
    return fields(table, [array("I", [owner]) for owner in owners], moving=dict(moving or {}))


def next_ring(ring: Ring, described: RingFields) -> Ring:
    """The next epoch of a ring."""
    return ring_of(successor_of(ring, described))
